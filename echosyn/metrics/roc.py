"""How well a score separates positives from negatives."""

from itertools import chain

import numpy as np

from echosyn.metrics.interval import Estimate, percentile_interval, resample_counts
from echosyn.runtime.errors import EchosynError


class Roc:
    """The ROC curve of positive (P,) and negative (N,) scores, ties counted half, weights allowed.

    Raises:
        EchosynError: a side is empty or holds a score that is not finite.
    """

    def __init__(self, positive: np.ndarray, negative: np.ndarray) -> None:
        sides = {"positive": np.asarray(positive), "negative": np.asarray(negative)}
        for name, side in sides.items():
            if side.size == 0 or not np.isfinite(side).all():
                raise EchosynError(f"{name} scores: expected finite numbers, found {side[:3]}")
        values, codes = np.unique(np.concatenate(list(sides.values())), return_inverse=True)
        self.levels = len(values)
        self.positive, self.negative = np.split(codes, [len(sides["positive"])])

    def _mass(
        self, positive: np.ndarray | None, negative: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Share of positives and of negatives at each distinct score, lowest first."""
        p = np.bincount(self.positive, positive, self.levels)
        n = np.bincount(self.negative, negative, self.levels)
        with np.errstate(invalid="ignore"):
            return p / p.sum(), n / n.sum()

    def auc(self, positive: np.ndarray | None = None, negative: np.ndarray | None = None) -> float:
        """P(positive > negative) + P(equal) / 2, with optional weights (P,) and (N,)."""
        p, n = self._mass(positive, negative)
        return float(p @ (np.cumsum(n) - n / 2))

    def eer(self, positive: np.ndarray | None = None, negative: np.ndarray | None = None) -> float:
        """Where the share of positives refused equals that of negatives accepted (0.5: chance).

        Interpolated linearly between the thresholds on either side.
        """
        p, n = self._mass(positive, negative)
        if not (np.isfinite(p).all() and np.isfinite(n).all()):
            return float("nan")
        refused = np.concatenate([[0.0], np.cumsum(p)])
        accepted = np.concatenate([[1.0], 1 - np.cumsum(n)])
        gap = refused - accepted  # from -1 to 1, never falling
        i = int(np.argmax(gap >= 0))
        part = -gap[i - 1] / (gap[i] - gap[i - 1])
        return float(refused[i - 1] + part * (refused[i] - refused[i - 1]))


def auc_interval(
    positive: np.ndarray, negative: np.ndarray, seed: int, resamples: int = 2000
) -> Estimate:
    """AUC with a 95 % percentile interval that resamples the positives and the negatives."""
    roc = Roc(positive, negative)
    seeds = np.random.SeedSequence(seed).generate_state(2)
    sides = [
        chain.from_iterable(resample_counts(len(side), resamples, int(s)))
        for side, s in zip((roc.positive, roc.negative), seeds, strict=True)
    ]
    drawn = np.array([roc.auc(p, n) for p, n in zip(*sides, strict=True)])
    return Estimate(roc.auc(), *percentile_interval(drawn))
