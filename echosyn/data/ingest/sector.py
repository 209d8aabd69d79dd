"""Where the ultrasound sector lies in a cine whose frame also shows text, scales and colour bars.

What the machine burns in stands still or lies apart; the tissue moves. The sector is the convex
hull of the largest region that changes over time, its border refined by a fan: two straight edges
that meet above the tissue, and an arc. The fan cuts off what touches the sector and moves without
belonging to it, such as a running ECG trace. What stands still on moving tissue is cut out with
the space between its letters, since a hole in the shape of a letter could be read too.

Not found: text within the sector that changes from frame to frame all over, or is darker than the
tissue.
"""

import cv2
import numpy as np
from scipy.optimize import minimize

from echosyn.data.ingest.fit import SquareFit
from echosyn.runtime.errors import EchosynError

FAN_AGREEMENT = 0.8  # overlap (IoU) of hull and fan from which the sector counts as a fan
LEAST_FRAMES = 8  # over fewer, tissue stands still by chance
LEAST_STROKE = 6  # pixels; fewer that stand still are chance
LEAST_AREA = 0.02  # of the frame; anything smaller that moves is a clock, a trace or noise


class Motion:
    """How bright each pixel is over time and how much it varies, from one frame after the other."""

    def __init__(self) -> None:
        self._count = 0
        self._total = self._squares = np.zeros(())

    def add(self, frame: np.ndarray) -> None:
        """Take in a frame uint8 (H, W)."""
        if self._count == 0:
            self._total, self._squares = np.zeros((2, *frame.shape))
        cv2.accumulate(frame, self._total)
        cv2.accumulateSquare(frame, self._squares)
        self._count += 1

    def sector(self, box: np.ndarray | None = None) -> np.ndarray:
        """Bool (H, W), True in the sector. `box`, bool (H, W), is where it may lie; None: anywhere.

        Raises:
            EchosynError: there is none, or too few frames to tell tissue from what stands still.
        """
        if self._count < LEAST_FRAMES:
            raise EchosynError(
                f"{self._count} frames are too few to find the sector; {LEAST_FRAMES} are needed"
            )
        mean = self._total / self._count
        deviation = np.sqrt(np.maximum(self._squares / self._count - mean * mean, 0))
        mask = find_sector(mean, deviation if box is None else deviation * box)
        if mask is not None and box is not None:
            mask &= box
        if mask is None or not mask.any():
            raise EchosynError("no ultrasound sector: nothing large moves in the cine")
        return mask


class Crop:
    """Cuts a sector, bool (H, W), out of frames: its smallest square, 112x112, all else black."""

    def __init__(self, mask: np.ndarray) -> None:
        self._rows, self._columns, self._pad = square_around(mask)
        self._mask = mask[self._rows, self._columns]
        side = self._mask.shape[0] + sum(self._pad[0])
        self._fit = SquareFit(side, side)

    def apply(self, frame: np.ndarray) -> np.ndarray:
        """A frame uint8 (H, W) to (112, 112)."""
        cut = np.where(self._mask, frame[self._rows, self._columns], 0)
        return self._fit.frame(np.pad(cut, self._pad))


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
    marks = _marks_at_border(mask, mean, deviation) | _burned_in(mask, mean, deviation)
    kept = (mask & ~marks).astype(np.uint8)
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


def _burned_in(mask: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Text within the mask: what varies much less than the pixels around it or, where those are
    dark, is much brighter. Strokes are grouped to words, and each word is filled to its convex hull
    with a margin of half its height. A word holds some pixels that stand quite still; compression
    and moving tissue beside them let the others vary a little.
    """
    rows = np.flatnonzero(mask.any(1))
    side = rows[-1] - rows[0] + 1
    window = 2 * max(2, round(0.04 * side)) + 1
    around = cv2.medianBlur(_bytes(mean), window)
    varies = cv2.medianBlur(_bytes(4 * deviation), window) / 4
    stands_out = (deviation < 0.5 * varies) | (mean > 24 + 1.5 * around)
    strokes = mask & stands_out & (mean > 24) & (deviation < np.maximum(8, 0.1 * mean))
    between_letters = np.ones((3, 2 * max(1, round(0.015 * side)) + 1))
    words = cv2.morphologyEx(strokes.astype(np.uint8), cv2.MORPH_CLOSE, between_letters)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(words)
    # Near the probe tissue hardly varies, and so neither does what compression adds to text.
    near = np.arange(len(mask))[:, None] < rows[0] + 0.15 * side
    quite = deviation < np.where(near, 0.02, 0.06) * mean
    still = np.bincount(labels[strokes & quite], minlength=count)
    found: np.ndarray = np.zeros(mask.shape, np.uint8)
    for word in range(1, count):
        if still[word] < LEAST_STROKE:
            continue
        left, top, width, height = boxes[word, :4]
        margin = max(2, round(0.5 * min(width, height)))
        part = (
            slice(max(top - margin, 0), top + height + margin),
            slice(max(left - margin, 0), left + width + margin),
        )
        hull = _hull(labels[part] == word).astype(np.uint8)
        found[part] |= cv2.dilate(hull, _disc(2 * margin + 1))
    return found.astype(bool)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(np.minimum(values, 255)).astype(np.uint8)


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
