"""Objectives, conditions, guidance and samplers."""
