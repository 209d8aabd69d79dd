"""Speckle of one size and grain at all depths."""

import numpy as np

from echosyn.models.sharpening import no_gain
from echosyn.models.speckle import BANDS, KNOTS, REACH, Speckle


def plain_speckle(size=12.0, axial=1.0, lateral=1.6, still=0.15, memory=0.25):
    near = np.arange(-REACH, REACH + 1)
    grain = np.exp(-(near[:, None] ** 2) / (4 * axial**2) - near**2 / (4 * lateral**2))
    sizes = np.full(len(KNOTS), size, np.float32)
    bands = np.stack([grain.astype(np.float32)] * BANDS)
    return Speckle(sizes, bands, still, memory, no_gain())
