"""The left ventricle's contour: a model of it, tracings of synthetic videos, and volumes."""

RESAMPLES = 1000  # bootstrap draws behind an interval
