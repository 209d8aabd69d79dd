"""What could identify a patient: calibration, the filter, audits, and coverage."""

from echosyn.privacy.audit import membership_auc, nearest_per_person
from echosyn.privacy.calibration import (
    Calibration,
    CalibrationConfig,
    accepted,
    calibrate_maxima,
    calibrate_reference,
)
from echosyn.privacy.coverage import learned_fraction, nearest_videos
from echosyn.privacy.similarity import max_similarity, unit_rows
from echosyn.privacy.verification import verification_scores

__all__ = [
    "Calibration",
    "CalibrationConfig",
    "accepted",
    "calibrate_maxima",
    "calibrate_reference",
    "learned_fraction",
    "max_similarity",
    "membership_auc",
    "nearest_per_person",
    "nearest_videos",
    "unit_rows",
    "verification_scores",
]
