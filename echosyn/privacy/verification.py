"""How well the re-identification encoder verifies people it was not trained on."""

import numpy as np

from echosyn.errors import EchosynError
from echosyn.metrics.interval import Estimate, percentile_interval, resample_counts
from echosyn.metrics.roc import Roc


def verification_scores(
    embeddings: np.ndarray,
    people: np.ndarray,
    seed: int,
    max_pairs: int = 100_000,
    resamples: int = 200,
) -> dict[str, Estimate]:
    """`auc` and `eer` of telling pairs of one person from pairs of two, on unseen people.

    Args:
        embeddings: (N, D) unit embeddings, several frames per person.
        people: (N,) the person (or, where unknown, the video) of each.
        max_pairs: each kind is sampled down to this many pairs, from `seed`, when it has more.

    The interval resamples people: a pair weighs as often as both of its people were drawn.

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
    scores = [
        np.einsum("pd,pd->p", embeddings[p[:, 0]], embeddings[p[:, 1]]) for p in (same, different)
    ]
    roc = Roc(scores[0], scores[1])
    drawn = []
    for chunk in resample_counts(len(names), resamples, seed):
        for counts in chunk:
            weights = counts[person[same[:, 0]]], counts[person[different]].prod(1)
            if all(w.any() for w in weights):
                drawn.append((roc.auc(*weights), roc.eer(*weights)))
    table = np.array(drawn, np.float64).reshape(-1, 2)
    return {
        "auc": Estimate(roc.auc(), *percentile_interval(table[:, 0])),
        "eer": Estimate(roc.eer(), *percentile_interval(table[:, 1])),
    }


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
    if n * (n - 1) // 2 <= 2 * limit:
        pairs = np.stack(np.triu_indices(n, 1), 1)
        pairs = pairs[person[pairs[:, 0]] != person[pairs[:, 1]]]
        if len(pairs) > limit:
            pairs = pairs[np.sort(rng.choice(len(pairs), limit, replace=False))]
        return pairs
    found = np.empty((0, 2), np.int64)
    while len(found) < limit:
        drawn = np.sort(rng.integers(0, n, (limit, 2)), 1)
        drawn = drawn[person[drawn[:, 0]] != person[drawn[:, 1]]]
        found = np.unique(np.concatenate([found, drawn]), axis=0)
    return found[np.sort(rng.choice(len(found), limit, replace=False))]
