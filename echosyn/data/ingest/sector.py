"""Where the ultrasound sector lies in a cine whose frame also shows text, scales and colour bars.

What the machine burns in stands still or lies apart; the tissue moves. The sector is the convex
hull of the largest region that changes over time, its border refined by a fan: two straight edges
that meet above the tissue, and an arc. The fan cuts off what touches the sector and moves without
belonging to it, such as a running ECG trace.
"""

import cv2
import numpy as np
from scipy.optimize import minimize

FAN_AGREEMENT = 0.8  # overlap (IoU) of hull and fan from which the sector counts as a fan
LEAST_AREA = 0.02  # of the frame; anything smaller that moves is a clock, a trace or noise


def find_sector(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray | None:
    """The sector in maps of how bright each pixel is and how much it varies over time.

    Args:
        mean: float (H, W), mean over time of the grey value, 0-255.
        deviation: float (H, W), its standard deviation over time.

    Returns:
        bool (H, W), True inside the sector; None when nothing large enough moves.
    """
    region = _largest(_moving(deviation))
    if region is None:
        return None
    hull = _hull(region)
    fan = _fit_fan(hull)
    mask = hull & fan if _overlap(hull, fan) >= FAN_AGREEMENT else hull
    kept = (mask & ~_marks_at_border(mask, mean, deviation)).astype(np.uint8)
    return _largest(cv2.morphologyEx(kept, cv2.MORPH_OPEN, _disc(7)))


def _moving(deviation: np.ndarray) -> np.ndarray:
    """Pixels that vary more than re-compression noise, without specks and thin lines."""
    strong = np.percentile(deviation, 99)
    moving = (deviation > max(0.5, 0.02 * strong)).astype(np.uint8)
    side = max(3, round(min(deviation.shape) / 80) | 1)
    closed = cv2.morphologyEx(moving, cv2.MORPH_CLOSE, _disc(side))
    return cv2.morphologyEx(closed, cv2.MORPH_OPEN, _disc(2 * side + 1))


def _marks_at_border(mask: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Small marks, brighter than what is around them, that hardly vary, with a margin, where the
    mask's border runs over them: ticks of a scale at a corner, the probe's orientation mark.

    Near the probe tissue hardly varies either, so there only what stands quite still is a mark.
    """
    rows = np.flatnonzero(mask.any(1))
    side = rows[-1] - rows[0] + 1
    below_probe = np.arange(len(mask))[:, None] > rows[0] + 0.3 * side
    still = deviation < np.where(below_probe, 0.1, 0.02) * mean
    core = cv2.erode(np.pad(mask, 1).astype(np.uint8), _disc(2 * round(0.05 * side) + 1))[
        1:-1, 1:-1
    ]
    around = cv2.medianBlur(np.rint(mean).astype(np.uint8), 2 * round(0.04 * side) + 1)
    stands_out = mean > 24 + 2.0 * around
    marks = (stands_out & still & (core == 0)).astype(np.uint8)
    return cv2.dilate(marks, _disc(max(3, 2 * round(0.015 * side) + 1))).astype(bool)


def _disc(side: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _largest(mask: np.ndarray) -> np.ndarray | None:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    if stats[largest, cv2.CC_STAT_AREA] < LEAST_AREA * mask.size:
        return None
    return labels == largest


def _hull(region: np.ndarray) -> np.ndarray:
    points = np.argwhere(region)[:, ::-1].astype(np.int32)  # (N, 2), x y
    filled = np.zeros(region.shape, np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled.astype(bool)


def _fan(shape: tuple[int, int], p: np.ndarray) -> np.ndarray:
    """Fan with its apex at (x, y), edges at angles (from straight down), and a radius."""
    apex_x, apex_y, left, right, radius = p
    y, x = np.indices(shape, np.float32)
    dx, dy = x - apex_x, y - apex_y
    angle = np.arctan2(dx, dy)
    return (angle >= left) & (angle <= right) & (dx * dx + dy * dy <= radius * radius)


def _fit_fan(hull: np.ndarray) -> np.ndarray:
    """The fan that describes the hull best, searched at a reduced size."""
    scale = max(1.0, max(hull.shape) / 160)
    size = (round(hull.shape[1] / scale), round(hull.shape[0] / scale))
    small = cv2.resize(hull.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    ys, xs = np.nonzero(small)
    top, bottom, width = ys.min(), ys.max(), np.ptp(xs)
    height = bottom - top + 1
    half = np.arctan2(width / 2, 0.75 * height)
    middle = xs[ys <= top + 0.05 * height].mean()
    start = np.array([middle, top, -half, half, height])
    steps = np.array([0.1 * width, -0.1 * height, 0.15, 0.15, 0.1 * height])
    simplex = np.vstack([start, start + np.diag(steps)])
    best = minimize(
        lambda p: _misfit(small, _fan(small.shape, p)),
        start,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "maxfev": 600, "xatol": 0.01, "fatol": 1e-5},
    ).x
    best[[0, 1, 4]] *= scale
    return _fan(hull.shape, best)


def _misfit(hull: np.ndarray, fan: np.ndarray) -> float:
    """Tissue left out weighs three times as much as darkness let in: sectors have dark corners
    that never vary, so the hull is smaller than the sector."""
    return float(3 * (hull & ~fan).sum() + (fan & ~hull).sum()) / hull.sum()


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def square_around(mask: np.ndarray) -> tuple[slice, slice, tuple[tuple[int, int], ...]]:
    """The smallest square that holds a mask, centred on it.

    Returns:
        row and column slices inside the frame, and the padding ((top, bottom), (left, right)) that
        makes what they cut out a square.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    cuts, pads = [], []
    for inside, length in ((rows, mask.shape[0]), (columns, mask.shape[1])):
        start = int(inside[0] + inside[-1] + 1 - side) // 2
        low, high = max(start, 0), min(start + side, length)
        cuts.append(slice(low, high))
        pads.append((int(low - start), int(start + side - high)))
    return cuts[0], cuts[1], tuple(pads)
