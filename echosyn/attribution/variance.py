"""How much of the variance of an outcome each factor of a full factorial explains.

First-order and total Sobol indices (Saltelli et al. 2010, eqs. 4 and 5) of an outcome of many
numbers, by the trace of its covariance (Lamboni et al. 2011; Gamboa et al. 2014), over the levels
of the design. Hearts are drawn, so they are what intervals leave out.
"""

import numpy as np

from echosyn.metrics.interval import Estimate, jackknife_interval

TINY = 1e-12  # of the whole variance, below which nothing varies


def variance_shares(y: np.ndarray, names: list[str]) -> dict[str, tuple[Estimate, Estimate]]:
    """First-order and total share of each factor, with 95 % jackknife intervals over hearts.

    The first-order share of a factor is without what would come of its interaction with the few
    hearts there are: SS_k - SS_{k x heart} / (hearts - 1), so that a factor that only matters in
    different ways for different hearts, or not at all, has an expected share of 0. The total share
    holds its interactions too. Bootstrap draws, where hearts repeat, would take interactions for
    effects of their own.

    Args:
        y: (hearts, *levels, D), a full factorial of three hearts or more.
        names: of the factors, the heart's first.

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

    def shares(some: np.ndarray) -> np.ndarray:
        """Of some hearts, (1 + factors, 2)."""
        n = len(some)

        def form(matrix: np.ndarray) -> float:
            return float(matrix[np.ix_(some, some)].sum()) / n

        def own(matrix: np.ndarray) -> float:
            return float(matrix.diagonal()[some].sum())

        total = own(whole) - form(grand)
        if total <= TINY * max(float(whole.trace()), TINY):
            return np.full((1 + len(shape), 2), np.nan)
        rows = [(own(grand) - form(grand), own(whole) - form(whole))]
        for matrix, apart in zip(crossed, within, strict=True):
            interaction = own(matrix) - form(matrix)
            rows.append((form(matrix) - interaction / (n - 1), float(apart[some].sum())))
        return np.array(rows) / total

    every = np.arange(hearts)
    values = shares(every)
    without = np.stack([shares(np.delete(every, i)) for i in every])
    return {
        name: (
            jackknife_interval(values[k, 0], without[:, k, 0]),
            jackknife_interval(values[k, 1], without[:, k, 1]),
        )
        for k, name in enumerate(names)
    }
