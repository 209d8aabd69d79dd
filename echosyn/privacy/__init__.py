"""What could identify a patient: calibration, the filter, audits, and coverage."""

from echosyn.privacy.audit import membership_auc, nearest_per_person, planted_recall
from echosyn.privacy.calibration import (
    Calibration,
    CalibrationConfig,
    accepted,
    calibrate_reference,
    calibrate_symmetric,
)
from echosyn.privacy.coverage import learned_fraction, nearest_videos
from echosyn.privacy.similarity import max_similarity, unit_rows
from echosyn.privacy.verification import verification_scores

__all__ = [
    "Calibration",
    "CalibrationConfig",
    "accepted",
    "calibrate_reference",
    "calibrate_symmetric",
    "learned_fraction",
    "max_similarity",
    "membership_auc",
    "nearest_per_person",
    "nearest_videos",
    "planted_recall",
    "unit_rows",
    "verification_scores",
]
