"""Masks of the left ventricle that no label made: from what a video model answers to EF.

EF moves the walls of one chamber. Where the same heart with the same noise gets brighter as EF
rises, wall has come where blood was: what these places surround is the left ventricle. In a frame
without speckle its contour is the closed path around there that has the steepest rise from dark to
bright and crosses no wall.
"""

import cv2
import numpy as np

LEAST = 15.0  # grey levels that pixels must brighten by for there to be anything to see
TOP = 0.98  # quantile of how much pixels brighten that stands for the most of it
AROUND, SMOOTH = 10.0, 2.0  # pixels: sd of what is looked for around a place, and at it
SEED = 3  # pixels' radius of the place whose brightness is that of blood
EDGE = 1.2  # pixels: sd of the smoothing before the gradient
ANGLES, REACH, STEP = 72, 50.0, 0.5  # rays, and pixels along them
NEAREST = 5.0  # pixels from the seed, below which there is no contour
JUMP = 6  # steps of radius from one ray to the next
CROSSED = 0.25  # weight of the brightest place on the way, against the gradient's per pixel
WALL = 0.9  # quantile of brightness along the rays that stands for wall
PLAUSIBLE = (0.4, 1.8)  # of the median area, what a mask may have


def find_seed(videos: np.ndarray) -> tuple[int, int] | None:
    """Row and column of a place within the chamber whose walls EF moves: walls that move lie around
    it, and it is dark in every frame. None where EF moves nothing.

    Args:
        videos: uint8 (E, T, H, W), the same heart and noise at rising EFs.
    """
    frames = videos.astype(np.float32)
    rise = cv2.GaussianBlur((frames[-1] - frames[0]).max(axis=0).clip(min=0), (0, 0), 1.0)
    most = float(np.quantile(rise, TOP))
    if most < LEAST:
        return None
    around = cv2.GaussianBlur(rise.clip(max=most), (0, 0), AROUND)
    bright = cv2.GaussianBlur(frames.max(axis=(0, 1)), (0, 0), SMOOTH)
    place = np.argmax(around / around.max() - bright / most)
    row, column = np.unravel_index(place, rise.shape)
    return int(row), int(column)


def cavity(frame: np.ndarray, seed: tuple[int, int]) -> np.ndarray:
    """The chamber around `seed` (row, column) in a frame (H, W) without speckle, bool (H, W).

    Rays from the seed; dynamic programming finds the closed path of least cost over them, the
    gradient's and that of brightness already passed, both in shares of the wall's brightness. The
    mask is its convex hull, which muscles and leaflets do not dent.
    """
    smooth = cv2.GaussianBlur(np.asarray(frame, np.float32), (0, 0), EDGE)
    angles = np.arange(ANGLES) * 2 * np.pi / ANGLES
    radii = np.arange(0, REACH, STEP)
    x = seed[1] + np.outer(np.cos(angles), radii)
    y = seed[0] + np.outer(np.sin(angles), radii)
    rays = cv2.remap(smooth, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    blood = float(np.median(rays[:, radii <= SEED]))
    wall = max(float(np.quantile(rays, WALL)) - blood, 1.0)
    share = ((rays - blood) / wall).clip(0, 1.5)
    passed = np.maximum.accumulate(share, axis=1)
    passed = np.pad(passed, ((0, 0), (4, 0)), mode="edge")[:, : len(radii)]  # of two pixels before
    cost = CROSSED * passed - np.gradient(share, axis=1) / STEP
    cost[:, radii < NEAREST] = np.inf
    at = radii[_closed_path(cost, JUMP)]
    points = np.stack([seed[1] + np.cos(angles) * at, seed[0] + np.sin(angles) * at], axis=1)
    mask = np.zeros(smooth.shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
    inside = np.argwhere(mask)[:, ::-1].astype(np.int32)
    return cv2.fillConvexPoly(mask, cv2.convexHull(inside), 1) > 0


def _closed_path(cost: np.ndarray, jump: int) -> np.ndarray:
    """The path of least cost over the rows of `cost` (N, R), a column each, int64 (N,), of which
    neighbours differ by `jump` at most. Rows go round: the middle of three rounds closes."""
    rounds = np.concatenate([cost] * 3)
    best, came = rounds[0], np.empty(rounds.shape, np.int64)
    columns = np.arange(cost.shape[1])
    for i, row in enumerate(rounds[1:], start=1):
        wide = np.pad(best, jump, constant_values=np.inf)
        options = np.stack([wide[k : k + len(best)] for k in range(2 * jump + 1)])
        which = options.argmin(axis=0)
        came[i], best = columns + which - jump, options.min(axis=0) + row
    path = np.empty(len(rounds), np.int64)
    path[-1] = best.argmin()
    for i in range(len(rounds) - 1, 0, -1):
        path[i - 1] = came[i, path[i]]
    return path[len(cost) : 2 * len(cost)]


def plausible(masks: np.ndarray) -> np.ndarray:
    """Which of masks (N, H, W) have an area that is not far from the median, bool (N,)."""
    areas = masks.sum(axis=(1, 2))
    low, high = (share * np.median(areas) for share in PLAUSIBLE)
    return (areas >= low) & (areas <= high)
