"""The scan sector: a polar grid of scan lines, and its conversion to the square frame."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from echosyn.data.phantom.anatomy import REFERENCE_SIZE

CONE_X, CONE_Y = 60.0, 5.0
DEPTH = 106.0
HALF_ANGLE = np.pi / 4
SAMPLES, LINES = 107, 112  # depths one reference pixel apart, scan lines across 90 degrees


@dataclass(frozen=True)
class Sector:
    """Grids that every frame of a given size shares, float32."""

    x: np.ndarray  # (SAMPLES, LINES), reference pixels
    y: np.ndarray
    depth: np.ndarray  # (SAMPLES, 1), reference pixels
    steer: np.ndarray  # (1, LINES), -1 to 1 across the sector
    column: np.ndarray  # (size, size), where each frame pixel lies on the grid
    row: np.ndarray

    def scan_convert(self, polar: np.ndarray) -> np.ndarray:
        """A polar image float32 (SAMPLES, LINES) as a frame (size, size), 0 outside the sector."""
        return cv2.remap(polar, self.column, self.row, cv2.INTER_LINEAR, borderValue=0)

    @property
    def inside(self) -> np.ndarray:
        """Boolean (size, size): frame pixels within the sector."""
        return (
            (self.column >= 0)
            & (self.column <= LINES - 1)
            & (self.row >= 0)
            & (self.row <= SAMPLES - 1)
        )


@lru_cache(maxsize=4)
def sector(size: int) -> Sector:
    """The sector for frames of `size` x `size` pixels."""
    depth = np.arange(SAMPLES, dtype=np.float64)[:, None]
    steer = np.linspace(-1, 1, LINES)[None]
    angle = steer * HALF_ANGLE
    centre = (np.arange(size) + 0.5) * (REFERENCE_SIZE / size) - 0.5
    column, row = to_polar(centre[None, :], centre[:, None])
    grids = (
        CONE_X + depth * np.sin(angle),
        CONE_Y + depth * np.cos(angle),
        depth,
        steer,
        column,
        row,
    )
    return Sector(*(np.ascontiguousarray(g, dtype=np.float32) for g in grids))


def to_polar(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column (scan line) and row (depth sample) of points in reference pixels."""
    x, y = x - CONE_X, y - CONE_Y
    column = (np.arctan2(x, y) / HALF_ANGLE + 1) / 2 * (LINES - 1)
    return column, np.hypot(x, y) * (SAMPLES - 1) / DEPTH


def to_frame(points: np.ndarray, size: int) -> np.ndarray:
    """Reference pixels to pixels of a frame of `size`: pixel centres lie at whole numbers."""
    return (points + 0.5) * (size / REFERENCE_SIZE) - 0.5
