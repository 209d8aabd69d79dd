"""How much of the training set a generator would show if it were asked for ever.

Counts of distinct training videos grow with the number of queries. Two extrapolations, both from
how often each training video was retrieved:

- IRS, the image retrieval score (Dombrowski et al. 2024, arXiv 2411.16171): if the generator draws
  evenly from K training videos, the number of distinct ones among n queries follows the occupancy
  distribution; K is its maximum-likelihood estimate.
- Chao1 (Chao 1984; bias-corrected): a lower bound whatever the probabilities, from the videos that
  were retrieved once and twice.

Both are too low when some videos are retrieved rarely, IRS the more so. Only at the same number of
queries do two sets compare.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import gammaln, lambertw

from echosyn.metrics.interval import Estimate
from echosyn.runtime.errors import EchosynError

Z = 1.959964  # of a 95 % normal interval
TAIL = 0.025  # left out on either side of a 95 % interval


def abundances(nearest: np.ndarray, videos: int) -> np.ndarray:
    """How often each retrieved training video was retrieved: int (K,), in order of their names.

    Args:
        nearest: (N,) the nearest training video of each query.
        videos: distinct videos in the gallery.

    Raises:
        EchosynError: more distinct videos than the gallery holds.
    """
    _, counts = np.unique(nearest, return_counts=True)
    if len(counts) > videos:
        raise EchosynError(f"{len(counts)} distinct videos retrieved from a gallery of {videos}")
    return counts


def matched(n: int, at: int | None) -> int:
    """`at`, or all n queries; refuses a number of queries that cannot be drawn from n."""
    at = n if at is None else at
    if n == 0 or not 1 <= at <= n:
        raise EchosynError(f"coverage at {at} queries, of {n} that exist")
    return at


def rarefied(counts: np.ndarray, n: int, at: int, times: int) -> float:
    """Expected videos retrieved exactly `times` times among `at` of n queries (Hurlbert 1971).

    Args:
        counts: how often each retrieved video was retrieved; they may sum to less than n.
    """
    rest = at - times
    possible = (counts >= times) & (n - counts >= rest) & (rest >= 0)
    x = counts[possible]
    log = _log_choose(x, times) + _log_choose(n - x, rest) - _log_choose(n, at)
    return float(np.exp(log).sum())


def expected_distinct(counts: np.ndarray, n: int, at: int) -> float:
    """Expected distinct videos among `at` of n queries, over all subsets of that size."""
    return len(counts) - rarefied(counts, n, at, 0)


def uniform_expectation(videos: int, at: int) -> float:
    """Share of `videos` that `at` queries retrieve on average when all are equally likely."""
    return float(-np.expm1(at * np.log1p(-1 / videos))) if videos > 1 else 1.0


def irs_infinity(nearest: np.ndarray, videos: int, at: int | None = None) -> Estimate:
    """Share of the training videos that endless queries would retrieve, with a 95 % interval.

    The interval inverts the two tails of the occupancy distribution, as the paper does, and holds
    only as far as its model of K equally likely videos. Where nearly every query finds another
    video the data cannot tell large K apart: the estimate is then the whole gallery, and the
    lower end says how little is known.

    Args:
        nearest: (N,) the nearest training video of each query.
        videos: distinct videos in the gallery, the largest K.
        at: size of the subsets of queries (default: all); their expected distinct count is used.

    Raises:
        EchosynError: no queries, `at` outside 1..N, more distinct videos than `videos`.
    """
    counts = abundances(nearest, videos)
    n = int(counts.sum())
    at = matched(n, at)
    distinct = expected_distinct(counts, n, at)
    sizes = np.arange(max(1, int(np.ceil(distinct - 1e-9))), videos + 1)
    # The Stirling number in the occupancy distribution does not depend on K.
    likelihood = gammaln(sizes + 1) - gammaln(sizes - distinct + 1) - at * np.log(sizes)
    best = int(sizes[likelihood.argmax()])
    seen = max(1, round(distinct))
    stirling = _log_stirling(at, min(at, videos))

    def at_least(size: int) -> bool:
        return float(_occupancy(size, at, stirling)[seen - 1 :].sum()) >= TAIL

    def above(size: int) -> bool:
        return float(_occupancy(size, at, stirling)[:seen].sum()) < TAIL

    lo = min(_first(at_least, seen, videos), best)
    hi = max(_first(above, seen, videos + 1) - 1, best)
    return Estimate(best / videos, lo / videos, hi / videos)


def chao1(nearest: np.ndarray, videos: int, at: int | None = None) -> Estimate:
    """A lower bound of the share of training videos that could be retrieved, with its interval.

    Bias-corrected Chao1 with the log-normal 95 % interval of Chao 1987, from the expected numbers
    of videos retrieved once and twice in subsets of `at` queries; never above the gallery. The
    arguments and errors are those of `irs_infinity`.
    """
    counts = abundances(nearest, videos)
    n = int(counts.sum())
    at = matched(n, at)
    distinct = expected_distinct(counts, n, at)
    once, twice = rarefied(counts, n, at, 1), rarefied(counts, n, at, 2)
    share = (at - 1) / at
    unseen = share * max(once * (once - 1), 0.0) / (2 * (twice + 1))
    if unseen > 0:
        variance = (
            unseen
            + share**2 * once * (2 * once - 1) ** 2 / (4 * (twice + 1) ** 2)
            + share**2 * once**2 * twice * (once - 1) ** 2 / (4 * (twice + 1) ** 4)
        )
        factor = float(np.exp(Z * np.sqrt(np.log1p(variance / unseen**2))))
        ends = distinct + unseen / factor, distinct + unseen * factor
    else:
        # No video was found just once: what is left is the chance of missing an average one.
        missed = np.exp(-at / distinct)
        centre, error = distinct / (1 - missed), Z * np.sqrt(distinct * missed) / (1 - missed)
        ends = max(distinct, centre - error), centre + error
    value, lo, hi = (min(float(x) / videos, 1.0) for x in (distinct + unseen, *ends))
    return Estimate(value, min(lo, value), max(hi, value))


def adjusted(synthetic: Estimate, real: Estimate) -> Estimate:
    """IRS of synthetic queries over that of real ones, at the same number of queries.

    Near 1 the generator reaches what fresh real patients reach with the same encoder; the encoder's
    own limits cancel. The interval combines the two on the log scale (MOVER, Zou and Donner 2008).
    """
    lower = np.hypot(np.log(synthetic.value / synthetic.lo), np.log(real.hi / real.value))
    upper = np.hypot(np.log(synthetic.hi / synthetic.value), np.log(real.value / real.lo))
    ratio = synthetic.value / real.value
    return Estimate(ratio, float(ratio * np.exp(-lower)), float(ratio * np.exp(upper)))


def _log_choose(n: np.ndarray | int, k: int) -> np.ndarray:
    return gammaln(np.add(n, 1)) - gammaln(k + 1) - gammaln(np.subtract(n, k) + 1)


def _log_stirling(n: int, largest: int) -> np.ndarray:
    """Log of the Stirling numbers of the second kind S(n, k), k from 1 to `largest` <= n.

    Temme 1993's approximation, uniform in k; exact tables would need n x k numbers.
    """
    k = np.arange(1, largest + 1, dtype=float)
    logs = np.zeros(largest)  # S(n, 1) = S(n, n) = 1
    inner = (k > 1) & (k < n)
    k = k[inner]
    v = n / k
    g = -lambertw(-v * np.exp(-v)).real
    logs[inner] = (
        0.5 * np.log((v - 1) / (v * (1 - g)))
        + (n - k) * np.log((v - 1) / (v - g))
        + n * np.log(k)
        - k * np.log(n)
        + k * (1 - g)
        + gammaln(n + 1)
        - gammaln(k + 1)
        - gammaln(n - k + 1)
    )
    return logs


def _occupancy(size: int, n: int, stirling: np.ndarray) -> np.ndarray:
    """P(j distinct among n even draws from `size` videos), j from 1 to len(stirling)."""
    j = np.arange(1, len(stirling) + 1)
    possible = j <= size
    log = np.full(len(j), -np.inf)
    log[possible] = (
        stirling[possible] + gammaln(size + 1) - gammaln(size - j[possible] + 1) - n * np.log(size)
    )
    p = np.exp(log - log.max())
    return p / p.sum()


def _first(holds: Callable[[int], bool], lo: int, hi: int) -> int:
    """The smallest size from `lo` below `hi` from which on it holds, else `hi` (bisection)."""
    while lo < hi:
        middle = (lo + hi) // 2
        if holds(middle):
            hi = middle
        else:
            lo = middle + 1
    return lo
