"""Positions spread evenly over a range, wherever a few of many videos or frames are looked at."""

import numpy as np


def evenly_spaced(n: int, k: int) -> np.ndarray:
    """k positions of n, ends included, ascending, int64 (k,). Some repeat if k > n."""
    return np.linspace(0, n - 1, k).round().astype(np.int64)
