"""How much of the variance of an outcome each factor of a full factorial explains.

First-order and total Sobol indices (Saltelli et al. 2010, eqs. 4 and 5) of an outcome of many
numbers, by the trace of its covariance (Lamboni et al. 2011; Gamboa et al. 2014), over the levels
of the design. Hearts are drawn, so they are what intervals resample.
"""

import numpy as np

from echosyn.metrics.interval import Estimate, percentile_interval, resample_counts

TINY = 1e-12  # of the whole variance, below which nothing varies


def variance_shares(
    y: np.ndarray, names: list[str], resamples: int, seed: int
) -> dict[str, tuple[Estimate, Estimate]]:
    """First-order and total share of each factor, with 95 % bootstrap intervals over hearts.

    The first-order share of a factor is without what would come of its interaction with the few
    hearts there are: SS_k - SS_{k x heart} / (hearts - 1), so that a factor that only matters in
    different ways for different hearts, or not at all, has an expected share of 0. The total share
    holds its interactions too.

    Args:
        y: (hearts, *levels, D), a full factorial. names: of the factors, the heart's first.

    Returns:
        NaN for all where nothing varies.
    """
    hearts, shape = len(y), y.shape[1:-1]
    y = y.astype(np.float64) - y.mean(dtype=np.float64, axis=tuple(range(y.ndim - 1)))
    cells = int(np.prod(shape))
    flat = y.reshape(hearts, -1)
    whole = flat @ flat.T  # of two hearts, over all cells
    mean = y.reshape(hearts, cells, -1).mean(axis=1)
    grand = mean @ mean.T * cells
    crossed, within = [], []
    for axis, levels in enumerate(shape, start=1):
        others = tuple(a for a in range(1, y.ndim - 1) if a != axis)
        effect = (y.mean(axis=others) - mean[:, None]).reshape(hearts, -1)
        crossed.append(effect @ effect.T * (cells / levels))
        apart = np.square(y - y.mean(axis=axis, keepdims=True))
        within.append(apart.reshape(hearts, -1).sum(axis=1))

    def shares(counts: np.ndarray) -> np.ndarray:
        """(R, 1 + factors, 2) of draws (R, hearts)."""

        def form(matrix: np.ndarray) -> np.ndarray:
            return np.einsum("ri,ij,rj->r", counts, matrix, counts) / hearts

        total = counts @ whole.diagonal() - form(grand)
        rows = []
        main = counts @ grand.diagonal() - form(grand)
        rows.append((main, counts @ whole.diagonal() - form(whole)))
        for matrix, apart in zip(crossed, within, strict=True):
            found = form(matrix)
            interaction = counts @ matrix.diagonal() - found
            rows.append((found - interaction / (hearts - 1), counts @ apart))
        with np.errstate(invalid="ignore", divide="ignore"):
            made = np.array(rows) / total
        made[:, :, total <= TINY * max(whole.trace(), TINY)] = np.nan
        return made.transpose(2, 0, 1)

    values = shares(np.ones((1, hearts)))[0]
    drawn = np.concatenate([shares(c) for c in resample_counts(hearts, resamples, seed)])
    estimates = [
        [Estimate(float(values[k, j]), *percentile_interval(drawn[:, k, j])) for j in range(2)]
        for k in range(len(names))
    ]
    return {name: (first, total) for name, (first, total) in zip(names, estimates, strict=True)}
