"""How much of the training set the generator learned (Dombrowski et al. 2024, arXiv 2411.04956).

The learned fraction is the number of distinct training videos that are the nearest neighbour of
some query, over all training videos. It grows with the number of queries, so that a synthetic and
a real set compare only at the same number: `at` gives the expectation over all subsets of that
size, exactly, instead of one random subset.
"""

import numpy as np
from scipy.special import gammaln

from echosyn.errors import EchosynError
from echosyn.metrics.interval import Estimate
from echosyn.privacy.similarity import max_similarity


def nearest_videos(
    queries: np.ndarray, gallery: np.ndarray, gallery_videos: np.ndarray
) -> np.ndarray:
    """The training video (N,) nearest to each query; unit embeddings (N, D) and (M, D)."""
    _, indices = max_similarity(queries, gallery)
    return np.asarray(gallery_videos)[indices]


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
    _, counts = np.unique(nearest, return_counts=True)
    n = int(counts.sum())
    at = n if at is None else at
    if n == 0 or not 1 <= at <= n:
        raise EchosynError(f"coverage at {at} queries, of {n} that exist")
    if len(counts) > videos:
        raise EchosynError(f"{len(counts)} distinct videos retrieved from a gallery of {videos}")
    value = _expected_distinct(counts, n, at) / videos
    p = _frequencies(counts, n, videos)
    rng = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for i in range(resamples):
        drawn[i] = np.count_nonzero(rng.multinomial(at, p)) / videos
    error = 1.959964 * float(drawn.std())
    return Estimate(value, max(value - error, 0.0), min(value + error, 1.0))


def _expected_distinct(counts: np.ndarray, n: int, at: int) -> float:
    """Sum over videos of 1 - C(n - x, at) / C(n, at)."""
    rest = n - counts
    absent = np.zeros(len(counts))
    some = rest >= at
    absent[some] = np.exp(
        gammaln(rest[some] + 1)
        - gammaln(rest[some] - at + 1)
        - gammaln(n + 1)
        + gammaln(n - at + 1)
    )
    return float(np.sum(1 - absent))


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
