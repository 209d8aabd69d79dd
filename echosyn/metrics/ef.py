"""How well EF is predicted, and how faithfully the requested EF is generated.

EF in percent. Intervals are 95 % percentile bootstraps over videos, as in EchoNet-Dynamic.
"""

from itertools import chain

import numpy as np

from echosyn.metrics.interval import (
    Estimate,
    bootstrap_sums,
    percentile_interval,
    resample_counts,
)
from echosyn.metrics.roc import Roc
from echosyn.runtime.errors import EchosynError

RESAMPLES = 10_000
CUTOFFS = (35, 40, 45, 50)  # percent, as in EchoNet-Dynamic


def ef_scores(
    true: np.ndarray, predicted: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """`r2` (coefficient of determination), `mae` and `rmse` of predictions (N,) of EF (N,).

    Of several regressors, predictions (S, N): the mean of their scores, with an interval that
    resamples both the videos and the regressors. R2 is NaN where every true EF is the same.

    Raises:
        EchosynError: no values, different lengths, a value that is not finite.
    """
    t, p = _checked(true, predicted)
    c, e = t - t.mean(), p - t  # centred: sums of squares without cancellation
    each = np.stack([e**2, np.abs(e)], -1).transpose(1, 0, 2).reshape(len(t), -1)  # (N, S * 2)
    terms = np.concatenate([np.stack([np.ones_like(t), c, c**2], 1), each], 1)

    def scores(s: np.ndarray) -> np.ndarray:
        n, sum_c, sum_c2 = (s[..., i, None] for i in range(3))
        errors = s[..., 3:].reshape(*s.shape[:-1], len(p), 2)
        r2 = 1 - _ratio(errors[..., 0], sum_c2 - sum_c**2 / n)
        return np.stack([r2, errors[..., 1] / n, np.sqrt(errors[..., 0] / n)], -1)  # (..., S, 3)

    values, drawn = bootstrap_sums(terms, scores, resamples, seed)
    weights = seed_weights(len(p), resamples, seed)
    mixed = np.einsum("rs,rsk->rk", weights, drawn)
    return _estimates(("r2", "mae", "rmse"), values.mean(0), mixed)


def seed_weights(seeds: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of `seeds` regressors is in each bootstrap draw, as shares (R, S)."""
    rng = np.random.default_rng([seed, seeds])
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds


def cutoff_auc(
    true: np.ndarray, predicted: np.ndarray, seed: int, resamples: int = 1000
) -> dict[int, Estimate]:
    """AUC of telling EF below 35, 40, 45 and 50 % by the predicted EF, (N,) or (S, N).

    Of several regressors the mean, its interval as of `ef_scores`. A cut-off with no video on one
    side is left out.
    """
    t, p = _checked(true, predicted)
    weights = seed_weights(len(p), resamples, seed)
    found = {}
    for cutoff in CUTOFFS:
        below = t < cutoff
        if below.all() or not below.any():
            continue
        rocs = [Roc(-row[below], -row[~below]) for row in p]
        sides = [
            chain.from_iterable(resample_counts(int(side.sum()), resamples, int(s)))
            for side, s in zip(
                (below, ~below),
                np.random.SeedSequence([seed, cutoff]).generate_state(2),
                strict=True,
            )
        ]
        drawn = [
            sum(w * roc.auc(a, b) for w, roc in zip(row, rocs, strict=True) if w)
            for row, a, b in zip(weights, *sides, strict=True)
        ]
        value = float(np.mean([roc.auc() for roc in rocs]))
        found[cutoff] = Estimate(value, *percentile_interval(np.array(drawn)))
    return found


def _checked(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True EF (N,) and predictions (S, N), each row checked against it."""
    rows = [_paired(true, row, "true EF", "predicted EF") for row in np.atleast_2d(predicted)]
    return rows[0][0], np.stack([p for _, p in rows])


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
