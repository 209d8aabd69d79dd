"""A number with its interval, and the resampling behind it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

CELLS = 4_000_000  # counts held at once: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A measured value with the ends of its interval; NaN where it is undefined."""

    value: float
    lo: float
    hi: float

    def flat(self, name: str) -> dict[str, float]:
        """`{name, name_lo, name_hi}` without those that are not finite, which were not measured."""
        entries = {name: self.value, f"{name}_lo": self.lo, f"{name}_hi": self.hi}
        return {k: float(v) for k, v in entries.items() if np.isfinite(v)}


def resample_counts(
    n: int, resamples: int, seed: int, width: int | None = None
) -> Iterator[np.ndarray]:
    """Bootstrap draws of n items as counts: chunks (R, n) float64 whose rows sum to n.

    Statistics made of sums become one matrix product per chunk. `width` is the number of columns
    that the caller will hold per draw, n when not given; it sizes the chunks, on which the draws
    do not depend.
    """
    rng = np.random.default_rng(seed)
    chunk = max(1, CELLS // max(n, width or n))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(0, n, (rows, n))
        drawn += np.arange(rows)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Central interval of resampled values, leaving out those that are undefined (NaN)."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    lo, hi = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(lo), float(hi)


def bootstrap_sums(
    terms: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of sums, with their bootstrap distribution.

    Args:
        terms: (N, K) what each item adds to each of K sums.
        statistic: maps sums (..., K) to statistics (..., S).

    Returns:
        values (S,) on the items themselves and (resamples, S) on the resampled items.
    """
    terms = np.asarray(terms, np.float64)
    drawn = [statistic(c @ terms) for c in resample_counts(len(terms), resamples, seed)]
    return statistic(terms.sum(0)), np.concatenate(drawn)


def jackknife_interval(value: float, leave_out: np.ndarray, z: float = 1.959964) -> Estimate:
    """Normal interval around `value` from delete-one-block replicates (Tukey 1958).

    Distances between samples grow when items repeat, so that bootstrap resamples lie above the
    value itself; leaving blocks out repeats nothing.
    """
    k = len(leave_out)
    error = float(np.sqrt((k - 1) / k * np.sum((leave_out - np.mean(leave_out)) ** 2)))
    return Estimate(float(value), float(value - z * error), float(value + z * error))


def blocks_of(groups: np.ndarray, blocks: int) -> np.ndarray:
    """Spread the distinct `groups` (N,) over at most `blocks` blocks of near-equal count.

    Returns block numbers (N,) from 0; items of a group (frames of a video) stay together. Groups
    are dealt in order of first appearance.
    """
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first, kind="stable")] = np.arange(len(first))
    return order[inverse] % min(blocks, len(first))


def clopper_pearson(share: float, n: float, level: float = 0.95) -> Estimate:
    """Exact binomial interval of a share of n trials; n need not be whole."""
    hits, tail = share * n, (1 - level) / 2
    lo = stats.beta.ppf(tail, hits, n - hits + 1) if share > 0 else 0.0
    hi = stats.beta.ppf(1 - tail, hits + 1, n - hits) if share < 1 else 1.0
    return Estimate(float(share), float(lo), float(hi))


def wilson(share: float, n: float, level: float = 0.95) -> Estimate:
    """Wilson's score interval of a share of n trials; n need not be whole."""
    z = stats.norm.ppf((1 + level) / 2)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Estimate(float(share), float(max(centre - half, 0.0)), float(min(centre + half, 1.0)))
