"""Masks of the left ventricle that no label made: from what a video model answers to EF.

EF moves the wall of one chamber. Where the same heart with the same noise gets brighter as EF rises,
wall has come where blood was: this says which chamber is the left ventricle. In each frame the
chamber is the dark basin around that place, up to half of its wall's brightness.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import binary_fill_holes, watershed_ift

RISE = 0.35  # of the 98 % quantile of how much pixels brighten, from which they count
BLACK = 15  # grey levels; what never exceeds it lies outside of the sector
LEAST = 15.0  # grey levels that pixels must brighten by for there to be anything to see
SEED, BEYOND, WALL = 3, 5, 6  # pixels: radius of the seed; beyond the place; how far a wall is
HALF = 0.5  # of the way from the cavity's brightness to its wall's, where the cavity ends
SPECKS = 3  # pixels across of what is opened away
PLAUSIBLE = (0.4, 1.8)  # of the median area, what a mask may have


@dataclass(frozen=True, eq=False)
class Place:
    """Of one heart, bool (H, W) each: where EF acts, a seed within the chamber, and the sector."""

    hull: np.ndarray
    seed: np.ndarray
    sector: np.ndarray


def find_place(videos: np.ndarray) -> Place | None:
    """The chamber whose wall EF moves, None where nothing is moved.

    Args:
        videos: uint8 (E, T, H, W), the same heart and noise at rising EFs.
    """
    frames = videos.astype(np.float32)
    rise = cv2.GaussianBlur((frames[-1] - frames[0]).max(axis=0).clip(min=0), (0, 0), 1.0)
    level = float(np.quantile(rise, 0.98))
    if level < LEAST:
        return None
    band = _largest(rise > RISE * level)
    y, x = (np.average(at, weights=rise[band]) for at in np.nonzero(band))
    rows, columns = np.indices(band.shape)
    seed = (rows - y) ** 2 + (columns - x) ** 2 <= SEED**2
    sector = binary_fill_holes(frames.max(axis=(0, 1)) > BLACK)
    return Place(_hull(band), seed, sector)


def cavity(frame: np.ndarray, place: Place) -> np.ndarray:
    """The chamber in a frame (H, W) without speckle, bool (H, W).

    The watershed (image foresting transform, Falcao et al. 2004) between the seed and what lies
    beyond the place keeps it from other chambers; half of the wall's brightness ends it; it is
    opened, and convex.
    """
    grey = np.asarray(frame, np.float32)
    near = cv2.dilate((place.hull & place.sector).astype(np.uint8), _disk(BEYOND)) > 0
    markers = np.where(near & place.sector, 0, 2).astype(np.int16)
    markers[place.seed] = 1
    basin = watershed_ift(grey.clip(0, 255).astype(np.uint8), markers) == 1
    blood = float(np.median(grey[place.seed]))
    wall = cv2.dilate(grey, _disk(WALL))
    dark = basin & (grey < blood + HALF * (wall - blood)) | place.seed
    opened = cv2.morphologyEx(dark.astype(np.uint8), cv2.MORPH_OPEN, _disk(SPECKS // 2))
    return _hull(_largest(opened > 0))


def plausible(masks: np.ndarray) -> np.ndarray:
    """Which of masks (N, H, W) have an area that is not far from the median, bool (N,)."""
    areas = masks.sum(axis=(1, 2))
    low, high = (share * np.median(areas) for share in PLAUSIBLE)
    return (areas >= low) & (areas <= high)


def _disk(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _largest(mask: np.ndarray) -> np.ndarray:
    """Its largest component; itself where it is empty."""
    count, labels, facts, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=4
    )
    return labels == 1 + facts[1:, cv2.CC_STAT_AREA].argmax() if count > 1 else mask


def _hull(mask: np.ndarray) -> np.ndarray:
    """The smallest convex mask around one that is not empty."""
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    out = np.zeros(mask.shape, np.uint8)
    if len(points):
        cv2.fillConvexPoly(out, cv2.convexHull(points), 1)
    return out > 0
