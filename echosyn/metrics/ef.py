"""How well EF is predicted, and how faithfully the requested EF is generated.

EF in percent. Intervals are 95 % percentile bootstraps over videos, as in EchoNet-Dynamic.
"""

import numpy as np

from echosyn.errors import EchosynError
from echosyn.metrics.interval import Estimate, bootstrap_sums, percentile_interval

RESAMPLES = 10_000


def ef_scores(
    true: np.ndarray, predicted: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """`r2` (coefficient of determination), `mae` and `rmse` of predictions (N,) of EF (N,).

    R2 is NaN where every true EF is the same.

    Raises:
        EchosynError: no values, different lengths, a value that is not finite.
    """
    t, p = _paired(true, predicted, "true EF", "predicted EF")
    c, e = t - t.mean(), p - t  # centred: sums of squares without cancellation
    terms = np.stack([np.ones_like(t), c, c**2, e**2, np.abs(e)], 1)

    def scores(s: np.ndarray) -> np.ndarray:
        n, sum_c, sum_c2, sum_e2, sum_abs = np.moveaxis(s, -1, 0)
        r2 = 1 - _ratio(sum_e2, sum_c2 - sum_c**2 / n)
        return np.stack([r2, sum_abs / n, np.sqrt(sum_e2 / n)], -1)

    return _estimates(("r2", "mae", "rmse"), *bootstrap_sums(terms, scores, resamples, seed))


def requested_vs_measured(
    requested: np.ndarray, measured: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Whether generated videos have the EF that was asked for.

    Returns:
        `r` (Pearson), `r2` (of the measured EF as a prediction of the requested one, which a bias
        or a wrong slope lowers), `slope` (least squares, measured on requested; 1 is faithful).
    """
    x, y = _paired(requested, measured, "requested EF", "measured EF")
    e, x, y = y - x, x - x.mean(), y - y.mean()
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y, e * e], 1)

    def scores(s: np.ndarray) -> np.ndarray:
        n, sx, sy, sxx, syy, sxy, see = np.moveaxis(s, -1, 0)
        vx, vy, vxy = sxx - sx**2 / n, syy - sy**2 / n, sxy - sx * sy / n
        r = _ratio(vxy, np.sqrt(np.maximum(vx * vy, 0)))
        return np.stack([r, 1 - _ratio(see, vx), _ratio(vxy, vx)], -1)

    return _estimates(("r", "r2", "slope"), *bootstrap_sums(terms, scores, resamples, seed))


def _paired(
    x: np.ndarray, y: np.ndarray, x_name: str, y_name: str
) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) == 0:
        raise EchosynError(f"{x_name} {x.shape} and {y_name} {y.shape}: expected (N,) both, N > 0")
    for name, values in ((x_name, x), (y_name, y)):
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise EchosynError(f"{name}: {values[bad[0]]} at position {bad[0]} is not finite")
    return x, y


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is zero but for rounding."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b > 1e-9, a / b, np.nan)


def _estimates(
    names: tuple[str, ...], values: np.ndarray, drawn: np.ndarray
) -> dict[str, Estimate]:
    return {
        name: Estimate(float(values[i]), *percentile_interval(drawn[:, i]))
        for i, name in enumerate(names)
    }
