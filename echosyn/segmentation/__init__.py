"""The left ventricle's contour: a model of it, tracings of synthetic videos, and volumes."""
