"""How the EF that a video shows follows the EF that was asked for, heart by heart."""

import math
from itertools import permutations

import numpy as np
from scipy.stats import rankdata

from echosyn.attribution.agreement import mean_estimate
from echosyn.metrics.interval import Estimate

FOLLOWS, IGNORES = 0.5, 0.1  # points of EF shown per point asked for, of the verdict


def response_curves(shown: np.ndarray) -> np.ndarray:
    """Curves (hearts, curves, levels) whose noise changes from level to level.

    Where the noise is held, the smallest trace of EF in the weights would order a curve perfectly;
    where it is not, EF must outweigh what the noise does.

    Args:
        shown: EF of the videos, percent, (hearts, levels, others..., noises).
    """
    hearts, levels, noises = shown.shape[0], shown.shape[1], shown.shape[-1]
    flat = shown.reshape(hearts, levels, -1, noises)
    turned = [np.roll(flat[:, e], -e, axis=-1) for e in range(levels)]
    return np.stack(turned, axis=-1).reshape(hearts, -1, levels)


def response_numbers(
    asked: np.ndarray, shown: np.ndarray, resamples: int, seed: int
) -> dict[str, float]:
    """Of the curves of `response_curves`, means over hearts with 95 % bootstrap intervals:

    - `monotone`: share of curves that rise at every level; `monotone_chance`: of levels in an order
      of chance, 1 / levels!;
    - `spearman`: rank correlation of asked and shown, and `spearman_chance`: where EF makes a
      difference too small to matter beside the noise, which curves share at some of their levels;
    - `slope`: points shown per point asked for;
    - `shown`: share of videos whose EF could be measured. A curve with one that could not be is not
      monotone, and has no correlation.

    Args:
        asked: percent (levels,), ascending. shown: as of `response_curves`, NaN where not measured.
    """
    curves = response_curves(shown)
    whole = np.isfinite(curves).all(axis=-1)
    rising = (np.diff(curves, axis=-1) > 0).all(axis=-1)
    spearman = _spearman(curves)
    slope = curves @ (asked - asked.mean()) / np.square(asked - asked.mean()).sum()
    numbers: dict[str, float] = {"monotone_chance": 1 / math.factorial(len(asked))}
    numbers["spearman_chance"] = _chance(len(asked), shown.shape[-1])
    for name, each in (("monotone", rising), ("spearman", spearman), ("slope", slope)):
        known = np.where(whole, each, 0.0 if name == "monotone" else np.nan)
        numbers |= mean_estimate(_mean(known), resamples, seed).flat(name)
    return numbers | {"shown": float(np.isfinite(shown).mean())}


def verdict(slope: Estimate) -> str:
    """What the slope of the response says of a model: follows EF, follows it weakly or ignores it,
    or that this cannot be told from so few hearts."""
    if not np.isfinite(slope.value):
        return "no EF could be measured in its videos"
    if slope.lo >= FOLLOWS:
        return "follows EF"
    if slope.hi < IGNORES:
        return "ignores EF"
    if slope.lo > IGNORES:
        return "follows EF weakly"
    return "not told apart from ignoring EF: more hearts or seeds are needed"


def _spearman(curves: np.ndarray) -> np.ndarray:
    """Rank correlation of curves (..., levels) with the order of levels, NaN for a flat one."""
    ranks, order = rankdata(curves, axis=-1), np.arange(curves.shape[-1])
    centred, rising = ranks - ranks.mean(axis=-1, keepdims=True), order - order.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return centred @ rising / (np.linalg.norm(centred, axis=-1) * np.linalg.norm(rising))


def _chance(levels: int, noises: int) -> float:
    """Mean over all orders of the noises, each of which orders its levels perfectly."""
    order = np.arange(levels)
    places = np.array(list(permutations(range(noises))))[:, order % noises]
    return float(_spearman(places * levels + order).mean())


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over curves of (hearts, curves), NaN left out; NaN for a heart without any."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
