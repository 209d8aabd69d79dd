"""What could identify a patient: calibration, the filter, audits, and coverage."""
