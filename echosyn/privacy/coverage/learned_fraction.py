"""How much of the training set the generator learned (Dombrowski et al. 2024, arXiv 2411.04956).

The learned fraction is the number of distinct training videos that are the nearest neighbour of
some query, over all training videos. It grows with the number of queries, so that a synthetic and
a real set compare only at the same number: `at` gives the expectation over all subsets of that
size, exactly, instead of one random subset.
"""

from collections.abc import Sequence

import numpy as np

from echosyn.metrics.bands import Band, ef_bands
from echosyn.metrics.interval import Estimate
from echosyn.privacy.coverage.irs import (
    TAIL,
    Z,
    abundances,
    adjusted,
    chao1,
    expected_distinct,
    irs_infinity,
    matched,
    uniform_expectation,
)
from echosyn.privacy.detectors.similarity import max_similarity
from echosyn.runtime.errors import EchosynError

CELLS = 16_000_000  # similarities held at once: 64 MB


def nearest_videos(
    queries: np.ndarray, gallery: np.ndarray, gallery_videos: np.ndarray
) -> np.ndarray:
    """The training video (N,) nearest to each query; unit embeddings (N, D) and (M, D)."""
    _, indices = max_similarity(queries, gallery)
    return np.asarray(gallery_videos)[indices]


def nearest_to_videos(
    queries: np.ndarray,
    query_videos: np.ndarray,
    gallery: np.ndarray,
    gallery_videos: np.ndarray,
    by: str = "mean",
) -> np.ndarray:
    """The training video nearest to each query video, (Q,) in sorted order of their names.

    Args:
        queries: (N, D) unit embeddings of the query videos' frames, of videos `query_videos` (N,).
        gallery: (M, D) of the training videos' frames, of videos `gallery_videos` (M,).
        by: "mean", each query frame's most similar frame of a training video, averaged over the
            query's frames: what the whole video shows. "max", the most similar pair of frames: one
            copied frame decides. With one frame a video both are `nearest_videos`.

    Memory grows with N + M, not with their product; the first of equals is named.

    Raises:
        EchosynError: an empty side.
    """
    if by not in ("mean", "max"):
        raise ValueError(f"by {by!r} is neither mean nor max")
    if len(queries) == 0 or len(gallery) == 0:
        raise EchosynError(f"{len(queries)} query and {len(gallery)} gallery frames; need both")
    rows, _, starts = _grouped(queries, query_videos)
    others, names, columns = _grouped(gallery, gallery_videos)
    reduce = np.add.reduceat if by == "mean" else np.maximum.reduceat
    ends = np.append(starts[1:], len(rows))
    nearest = np.empty(len(starts), np.int64)
    first = 0
    while first < len(starts):
        fits = np.searchsorted(ends, starts[first] + CELLS // len(others), side="right")
        last = max(first + 1, int(fits))
        block = rows[starts[first] : ends[last - 1]] @ others.T
        best = np.maximum.reduceat(block, columns, axis=1)
        # The sum over a query's frames ranks training videos as their mean does.
        scores = reduce(best, starts[first:last] - starts[first], axis=0)
        nearest[first:last] = scores.argmax(1)
        first = last
    return names[nearest]


def learned_fraction(
    nearest: np.ndarray,
    videos: int,
    seed: int,
    at: int | None = None,
    resamples: int = 1000,
) -> Estimate:
    """Distinct nearest videos over `videos`, at `at` queries (default: all), with a 95 % interval.

    Args:
        nearest: (N,) the nearest training video of each query.
        videos: distinct videos in the gallery.
        at: size of the subsets, at most N (rarefaction, Hurlbert 1971, equation for E[S_n]).

    The interval is the bootstrap of Chao et al. 2014 (Ecological Monographs 84, p. 45): draws of
    `at` queries from frequencies that leave room for videos not yet seen. Plain resampling would
    repeat queries and always find fewer videos.

    Raises:
        EchosynError: no queries, `at` outside 1..N, more distinct videos than `videos`.
    """
    counts = abundances(nearest, videos)
    n = int(counts.sum())
    return _fraction(counts, n, matched(n, at), videos, seed, resamples)


def band_fractions(
    nearest: np.ndarray,
    ef: np.ndarray,
    seed: int,
    at: int | None = None,
    bands: Sequence[Band] | None = None,
    resamples: int = 1000,
) -> dict[str, Estimate]:
    """The learned fraction of the training videos of each EF band, by all queries.

    Args:
        nearest: (N,) the nearest training video of each query, a row of `ef`.
        ef: (V,) EF of the training videos in percent; NaN is in no band.
        at: size of the subsets of all N queries, wherever they lie.
        bands: `ef_bands()` when not given; a band without training videos is left out.

    A band that no query reached has the upper end of Clopper and Pearson: its share of the queries
    may still be as large as 1 - 0.025^(1/N).

    Raises:
        EchosynError: no queries, `at` outside 1..N, a nearest video that `ef` has no row for.
    """
    nearest, ef = np.asarray(nearest), np.asarray(ef, float)
    at = matched(len(nearest), at)
    if nearest.min() < 0 or nearest.max() >= len(ef):
        raise EchosynError(f"nearest video {nearest.max()} of {len(ef)} training videos")
    found = {}
    for band in bands or ef_bands():
        inside = band.holds(ef)
        videos = int(inside.sum())
        if videos:
            counts = abundances(nearest[inside[nearest]], videos)
            found[band.name] = _fraction(counts, len(nearest), at, videos, seed, resamples)
    return found


def coverage_numbers(
    synthetic: np.ndarray,
    real: np.ndarray,
    videos: int,
    seed: int,
    ef: np.ndarray | None = None,
    bands: Sequence[Band] | None = None,
    prefix: str = "coverage",
) -> dict[str, float]:
    """All coverage numbers of one kind of query, at as many queries as both sides have.

    Args:
        synthetic: (N,) the training video nearest to each synthetic heart or video, rows from 0.
        real: (M,) the same of real held-out ones, one a patient: what full coverage looks like.
        videos: training videos in the gallery.
        ef: (videos,) their EF in percent; None leaves the bands out.
        prefix: "coverage" for hearts, "coverage/videos" for videos.

    Returns:
        flat numbers with `_lo` and `_hi`: learned_fraction, irs_inf and chao1, each also `_real`;
        irs_adjusted; learned_fraction_uniform; queries; per band learned_fraction, its `_real` and
        the band's training videos; bands_absent, bands that no synthetic query reached.
    """
    at = min(len(synthetic), len(real))
    numbers: dict[str, float] = {f"{prefix}/queries": at}
    irs = {}
    for end, nearest in (("", synthetic), ("_real", real)):
        irs[end] = irs_infinity(nearest, videos, at)
        numbers |= learned_fraction(nearest, videos, seed, at).flat(
            f"{prefix}/learned_fraction{end}"
        )
        numbers |= irs[end].flat(f"{prefix}/irs_inf{end}")
        numbers |= chao1(nearest, videos, at).flat(f"{prefix}/chao1{end}")
    numbers |= adjusted(irs[""], irs["_real"]).flat(f"{prefix}/irs_adjusted")
    numbers[f"{prefix}/learned_fraction_uniform"] = uniform_expectation(videos, at)
    if ef is None or not np.isfinite(ef).any():
        return numbers
    bands = tuple(bands or ef_bands())
    for end, nearest in (("", synthetic), ("_real", real)):
        for name, value in band_fractions(nearest, ef, seed, at, bands).items():
            numbers |= value.flat(f"{prefix}/{name}/learned_fraction{end}")
    reached = {b.name: b.holds(np.asarray(ef)[synthetic]).any() for b in bands}
    sizes = {b.name: int(b.holds(np.asarray(ef)).sum()) for b in bands}
    numbers |= {f"{prefix}/{name}/videos": size for name, size in sizes.items() if size}
    absent = sum(size > 0 and not reached[name] for name, size in sizes.items())
    return {**numbers, f"{prefix}/bands_absent": absent}


def _grouped(rows: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by name, the distinct names, and where each begins."""
    order = np.argsort(names, kind="stable")
    found, starts = np.unique(np.asarray(names)[order], return_index=True)
    return rows[order], found, starts


def _fraction(
    counts: np.ndarray, n: int, at: int, videos: int, seed: int, resamples: int
) -> Estimate:
    """Of `videos` that `counts` of the n queries retrieved; the other queries went elsewhere."""
    here = int(counts.sum())
    if here == 0:
        return Estimate(0.0, 0.0, min(at * (1 - TAIL ** (1 / n)) / videos, 1.0))
    value = expected_distinct(counts, n, at) / videos
    p = np.append(_frequencies(counts, here, videos) * (here / n), (n - here) / n)
    p /= p.sum()
    rng = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for i in range(resamples):
        drawn[i] = np.count_nonzero(rng.multinomial(at, p)[:-1]) / videos
    error = Z * float(drawn.std())
    return Estimate(value, max(value - error, 0.0), min(value + error, 1.0))


def _frequencies(counts: np.ndarray, n: int, videos: int) -> np.ndarray:
    """Probabilities of the seen videos, shrunk, and of the unseen ones (Chao et al. 2014)."""
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    unseen = (n - 1) / n * (once**2 / (2 * twice) if twice else once * (once - 1) / 2)
    unseen = min(int(np.ceil(unseen)), videos - len(counts))
    p = counts / n
    if unseen == 0 or once == 0:
        return p
    # Good-Turing: the probability that the next query finds an unseen video; in a closed gallery
    # the unseen are no likelier than the rest.
    missing = min(once / n, unseen / (unseen + len(counts)))
    weight = p * (1 - p) ** n
    if weight.sum() == 0:
        return p
    shrunk = p * (1 - missing / weight.sum() * (1 - p) ** n)
    shrunk = np.maximum(shrunk, 0)
    both = np.concatenate([shrunk, np.full(unseen, missing / unseen)])
    return both / both.sum()
