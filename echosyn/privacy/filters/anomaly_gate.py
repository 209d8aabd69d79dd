"""How strange a video may be: the level that a stated share of real videos reaches."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from echosyn.metrics.interval import Estimate, clopper_pearson
from echosyn.metrics.roc import auc_interval
from echosyn.privacy.filters.calibration import (
    Calibration,
    CalibrationConfig,
    accepted,
    calibrate_maxima,
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

    @property
    def tau(self) -> float:
        return self.calibration.tau.value

    def numbers(self, candidates: np.ndarray, released: np.ndarray, seed: int) -> dict[str, float]:
        """Flat metrics of scores (N,) of the candidates and of what is released in their place.

        `anomaly/refused` is the share of candidates that are too strange; the AUROCs say how well
        the score tells them, and what is released, from real TEST videos (0.5: not at all).
        """
        share = float((~accepted(candidates, self.tau)).mean())
        return {
            **self.calibration.tau.flat("anomaly/tau"),
            "anomaly/false_alarm_asked": self.calibration.false_rejection,
            **self.false_alarm.flat("anomaly/false_alarm"),
            **clopper_pearson(share, len(candidates)).flat("anomaly/refused"),
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
