"""Echosyn: from a private echocardiogram dataset to a synthetic one that may be shared."""

__version__ = "0.1.0"
