"""How strange a video may be: the level that a stated share of real videos reaches."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from echosyn.metrics.interval import Estimate, clopper_pearson
from echosyn.metrics.roc import auc_interval
from echosyn.privacy.filters.calibration import (
    Calibration,
    CalibrationConfig,
    calibrate_maxima,
    weighted_tau,
)
from echosyn.privacy.filters.false_rejection import false_rejection
from echosyn.runtime.errors import EchosynError


@dataclass(frozen=True)
class AnomalyGate:
    """The threshold that VAL sets, and how it does on TEST, which it never saw."""

    calibration: Calibration
    heldout: np.ndarray  # scores of TEST's videos (N,)
    false_alarm: Estimate  # share of those that are refused
    people: int  # behind `heldout`
    raised: float = -np.inf  # a higher threshold, where most candidates are strange

    @property
    def tau(self) -> float:
        """The threshold in force."""
        return max(self.calibration.tau.value, self.raised)

    def at_most(self, candidates: np.ndarray, share: float) -> "AnomalyGate":
        """The gate that refuses no more than a share of the candidates' scores (N,), the
        strangest."""
        ascending = np.sort(candidates.astype(np.float64))
        raised = weighted_tau(ascending, np.ones((1, len(ascending))), share)[0]
        refused = (ascending >= raised).mean()
        return dataclasses.replace(self, raised=raised if refused <= share else np.inf)

    def numbers(self, candidates: np.ndarray, released: np.ndarray, seed: int) -> dict[str, float]:
        """Flat metrics of scores (N,) of the candidates and of what is released in their place.

        `anomaly/strange` is the share of candidates at or above the threshold that VAL set, and
        `anomaly/refused` that above the one in force; the AUROCs say how well the score tells
        candidates, and what is released, from real TEST videos (0.5: not at all).
        """
        tau = self.calibration.tau
        strange, refused = (float((candidates >= t).mean()) for t in (tau.value, self.tau))
        in_force = {"anomaly/tau_in_force": self.tau} if np.isfinite(self.tau) else {}
        return {
            **tau.flat("anomaly/tau"),
            **in_force,
            "anomaly/false_alarm_asked": self.calibration.false_rejection,
            **self.false_alarm.flat("anomaly/false_alarm"),
            **clopper_pearson(strange, len(candidates)).flat("anomaly/strange"),
            "anomaly/refused": refused,
            **auc_interval(candidates, self.heldout, seed).flat("anomaly/candidates_auroc"),
            **auc_interval(released, self.heldout, seed).flat("anomaly/released_auroc"),
            "anomaly/calibration_people": self.calibration.people,
            "anomaly/heldout_people": self.people,
        }


def require_people(people: int, rate: float) -> None:
    """Raises EchosynError: too few of VAL for a threshold at that rate."""
    needed = int(np.ceil(1 / rate - 1e-9))
    if people < needed:
        raise EchosynError(
            f"{people} VAL people with videos that are long enough, and refusing {rate:g} of real "
            f"videos as strange takes {needed} to calibrate: set `anomaly_rate` in "
            f"conf/<scale>/filter_videos.yaml to {np.ceil(1000 / max(people, 2)) / 1000:g} or "
            "more, or hold out more people in VAL"
        )


def calibrate_gate(
    calibration: np.ndarray,
    calibration_people: np.ndarray,
    heldout: np.ndarray,
    heldout_people: np.ndarray,
    rate: float,
    cfg: CalibrationConfig,
    seed: int,
) -> AnomalyGate:
    """Set the threshold at which `rate` of the scores of VAL's videos, (N,), are refused.

    Args:
        heldout: scores of TEST's, which check it.
        cfg: says how often people are resampled.

    Raises:
        EchosynError: too few people in VAL.
    """
    require_people(len(np.unique(calibration_people)), rate)
    cfg = dataclasses.replace(cfg, false_rejection=rate)
    found = calibrate_maxima(calibration, calibration_people, len(calibration), cfg, seed)
    alarm = false_rejection(heldout, heldout_people, found.tau)
    return AnomalyGate(found, heldout, alarm, len(np.unique(heldout_people)))
