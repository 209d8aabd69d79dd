"""A mask of the left ventricle as EchoNet traces it: the long axis, then chords across it."""

import cv2
import numpy as np

CHORDS = 20
MIN_PIXELS = 50  # a smaller ventricle has no axis to speak of


def trace(ventricle: np.ndarray, atrium: np.ndarray) -> np.ndarray | None:
    """The lines of a left ventricle in an apical view, apex up.

    The base of the long axis is the middle of the border with the atrium, or where there is none,
    the lower end of the ventricle's principal axis. The apex is the point farthest from it.

    Args:
        ventricle: bool (H, W). atrium: bool (H, W), may be empty.

    Returns:
        (1 + CHORDS, 4) X1, Y1, X2, Y2 in pixels, pixel (0, 0) reaching from 0 to 1: the axis from
        apex to base, then chords across it from apex to base. None for a mask too small.
    """
    rows, columns = np.nonzero(ventricle)
    if len(rows) < MIN_PIXELS:
        return None
    points = np.stack([columns, rows], 1) + 0.5  # (N, 2)
    base = _base(ventricle, atrium, points)
    distance = np.linalg.norm(points - base, axis=1)
    apex = points[distance > distance.max() - 1].mean(
        0
    )  # a pixel's width: a flat tip has no corner
    length = float(np.linalg.norm(base - apex))
    along = (base - apex) / length
    across = np.array([-along[1], along[0]])
    depth, side = (points - apex) @ along, (points - apex) @ across
    slab = np.clip((depth / length * CHORDS).astype(int), 0, CHORDS - 1)
    lines = [np.concatenate([apex, base])]
    ends = (0.0, 0.0)
    for i in range(CHORDS):
        within = side[slab == i]
        if len(within):
            ends = (within.min() - 0.5, within.max() + 0.5)  # to the edges of the pixels
        middle = apex + (i + 0.5) / CHORDS * length * along
        lines.append(np.concatenate([middle + ends[0] * across, middle + ends[1] * across]))
    return np.stack(lines)


def _base(ventricle: np.ndarray, atrium: np.ndarray, points: np.ndarray) -> np.ndarray:
    near = cv2.dilate(atrium.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    rows, columns = np.nonzero(ventricle & near)
    if len(rows):
        return np.array([columns.mean(), rows.mean()]) + 0.5
    centre = points.mean(0)
    _, _, axes = np.linalg.svd(points - centre, full_matrices=False)
    axis = axes[0] if axes[0][1] > 0 else -axes[0]
    return centre + axis * ((points - centre) @ axis).max()
