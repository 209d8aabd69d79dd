"""How well the re-identification encoder verifies people it was not trained on."""

from collections.abc import Callable

import numpy as np

from echosyn.metrics.interval import Estimate, percentile_interval, resample_counts
from echosyn.metrics.roc import Roc
from echosyn.runtime.errors import EchosynError

FALSE_MATCHES = 0.001
RECALL = "recall_at_0p1pct"
# Rule of three (ISO/IEC 19795-1): with fewer pairs of people, not one false match among them would
# show a rate of 0.1 %. Frames of the same two people are alike and count once. 3,000 pairs are 78
# people; to place the threshold within 30 % takes ten times as many, 246 people.
LEAST_PAIRS = round(3 / FALSE_MATCHES)


def verification_scores(
    embeddings: np.ndarray,
    people: np.ndarray,
    seed: int,
    max_pairs: int = 100_000,
    resamples: int = 200,
    probes: np.ndarray | None = None,
) -> dict[str, Estimate]:
    """How well pairs of one person are distinguished from pairs of two, on unseen people.

    Args:
        embeddings: (N, D) unit embeddings, several frames per person.
        people: (N,) the person (or, where unknown, the video) of each.
        max_pairs: each kind is sampled down to this many pairs, from `seed`, when it has more.
        probes: (N, D) embeddings of the same frames after something was done to them; the first
            frame of every pair is then taken from here.

    Returns:
        `auc`, `eer`, and `recall_at_0p1pct`: the share of pairs of one person that score above a
        threshold which at most 0.1 % of the pairs of two people do. The last is left out, as not
        measured, with fewer than 3,000 different pairs of people (78 people). The intervals
        resample people: a pair weighs as often as both of its people were drawn.

    Raises:
        EchosynError: fewer than two people, or nobody with two frames.
    """
    names, person = np.unique(people, return_inverse=True)
    rng = np.random.default_rng(seed)
    same = _same_pairs(person, max_pairs, rng)
    if len(names) < 2 or len(same) == 0:
        raise EchosynError(
            f"verification needs two people or more, one with two frames; got {len(names)} people "
            f"and {len(same)} pairs of one person"
        )
    different = _different_pairs(person, max_pairs, rng)
    firsts = embeddings if probes is None else probes
    scores = [
        np.einsum("pd,pd->p", firsts[p[:, 0]], embeddings[p[:, 1]]) for p in (same, different)
    ]
    roc = Roc(scores[0], scores[1])
    measures: dict[str, Callable[..., float]] = {"auc": roc.auc, "eer": roc.eer}
    if len(np.unique(np.sort(person[different], 1), axis=0)) >= LEAST_PAIRS:
        measures[RECALL] = Threshold(scores[0], scores[1], FALSE_MATCHES).recall
    drawn = []
    for chunk in resample_counts(len(names), resamples, seed):
        for counts in chunk:
            weights = counts[person[same[:, 0]]], counts[person[different]].prod(1)
            if all(w.any() for w in weights):
                drawn.append([measure(*weights) for measure in measures.values()])
    table = np.array(drawn, np.float64).reshape(-1, len(measures))
    return {
        name: Estimate(measure(), *percentile_interval(column))
        for (name, measure), column in zip(measures.items(), table.T, strict=True)
    }


class Threshold:
    """Recall of `same` (P,) scores where at most `rate` of the `different` (N,) ones match.

    A pair matches above, not at, the lowest different score that leaves the others' share within
    the rate. Weights count pairs several times, and move that score.
    """

    def __init__(self, same: np.ndarray, different: np.ndarray, rate: float) -> None:
        self.same, self.rate = same, rate
        self.order = np.argsort(-different, kind="stable")
        self.highest_first = different[self.order]
        # Equal scores match together: what lies above the first of them lies above them all.
        self.first = np.searchsorted(-self.highest_first, -self.highest_first)

    def score(self, different: np.ndarray | None = None) -> float:
        """The different score above which pairs match, with optional weights (N,)."""
        weight = np.ones(len(self.order)) if different is None else different[self.order]
        above = np.concatenate([[0.0], np.cumsum(weight)])[self.first]
        within = above <= self.rate * weight.sum() * (1 + 1e-12)
        return float(self.highest_first[np.flatnonzero(within)[-1]])

    def recall(self, same: np.ndarray | None = None, different: np.ndarray | None = None) -> float:
        """Share of same pairs that match, 0-1, with optional weights (P,) and (N,)."""
        return float(np.average(self.same > self.score(different), weights=same))


def _same_pairs(person: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """All pairs (P, 2) of rows of one person, or `limit` of them."""
    order = np.argsort(person, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(person[order])) + 1)
    pairs = [np.stack(np.triu_indices(len(g), 1), 1) for g in groups]
    found = np.concatenate([g[p] for g, p in zip(groups, pairs, strict=True)])
    if len(found) > limit:
        found = found[np.sort(rng.choice(len(found), limit, replace=False))]
    return found


def _different_pairs(person: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """All pairs (P, 2) of rows of two people, or `limit` drawn evenly."""
    n = len(person)
    order = np.argsort(person, kind="stable")
    sizes = np.unique(person, return_counts=True)[1]
    if n * (n - 1) // 2 - int((sizes * (sizes - 1) // 2).sum()) <= 2 * limit:
        # Of each person's rows with all rows of the people after it.
        ends = np.cumsum(sizes)
        parts = [
            np.stack(np.meshgrid(order[end - size : end], order[end:], indexing="ij"), -1)
            for size, end in zip(sizes, ends, strict=True)
        ]
        pairs = np.sort(np.concatenate([part.reshape(-1, 2) for part in parts]), 1)
        pairs = pairs[np.lexsort(pairs.T[::-1])]
        if len(pairs) > limit:
            pairs = pairs[np.sort(rng.choice(len(pairs), limit, replace=False))]
        return pairs
    found = np.empty((0, 2), np.int64)
    while len(found) < limit:
        drawn = np.sort(rng.integers(0, n, (limit, 2)), 1)
        drawn = drawn[person[drawn[:, 0]] != person[drawn[:, 1]]]
        found = np.unique(np.concatenate([found, drawn]), axis=0)
    return found[np.sort(rng.choice(len(found), limit, replace=False))]
