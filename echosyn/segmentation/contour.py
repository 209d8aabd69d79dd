"""The contour of the left ventricle: EchoNet's lines, masks, and the volume by the method of discs.

Points are (x, y) in pixels of the frame, whose centres lie at whole numbers. Lines are float64
(1 + CHORDS, 4), X1, Y1, X2, Y2: the long axis from apex to base, then chords across it from apex to
base, as VolumeTracings.csv of EchoNet-Dynamic has them.
"""

import cv2
import numpy as np

CHORDS = 20
LEVELS = (np.arange(CHORDS) + 0.5) / CHORDS  # of the long axis, where chords are cut
FINE = 8  # parts of a pixel's side to which contours are found and filled


def outline(lines: np.ndarray) -> np.ndarray:
    """The contour (N, 2) around lines (1 + C, 4): pointed at the apex, flat at the base."""
    apex, along, across, length = _frame(*lines[0].reshape(2, 2))
    ends = lines[1:].reshape(-1, 2, 2) - apex
    depth, side = (ends @ along).mean(axis=1), np.sort(ends @ across, axis=1)
    order = np.argsort(depth, kind="stable")
    depth, side = depth[order], side[order]
    depth, side = np.append(depth, max(length, depth[-1])), np.vstack([side, side[-1]])
    u = np.concatenate([[0.0], depth, depth[::-1]])
    v = np.concatenate([[0.0], side[:, 0], side[::-1, 1]])
    return apex + np.outer(u, along) + np.outer(v, across)


def chords(contour: np.ndarray) -> np.ndarray:
    """The lines (1 + CHORDS, 4) of a contour (N, 2), apex up.

    The base is where the principal axis of what the contour holds leaves it below; the apex is the
    point farthest from there.
    """
    moments = cv2.moments(contour.astype(np.float32))
    centre = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    tilt = 0.5 * np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"])
    down = np.array([np.cos(tilt), np.sin(tilt)]) * (1 if np.sin(tilt) > 0 else -1)
    _, reach = _spans(
        (contour - centre) @ [-down[1], down[0]], (contour - centre) @ down, np.zeros(1)
    )
    base = centre + reach[0] * down
    apex = contour[np.argmax(np.linalg.norm(contour - base, axis=1))]
    apex, along, across, length = _frame(apex, base)
    sides = _spans((contour - apex) @ along, (contour - apex) @ across, LEVELS * length)
    middle = apex + np.outer(LEVELS * length, along)
    ends = [middle + np.outer(side, across) for side in sides]
    return np.vstack([np.concatenate([apex, base]), np.hstack(ends)])


def disc_volume(lines: np.ndarray) -> float:
    """Volume by the single-plane method of discs, pixels cubed, of lines (1 + C, 4):
    pi / 4 * sum(d^2) * L / C (Lang et al., J Am Soc Echocardiogr 2015)."""
    lengths = np.hypot(lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1])
    return float(np.pi / 4 * np.square(lengths[1:]).mean() * lengths[0])


def filled(contour: np.ndarray, size: int) -> np.ndarray:
    """The mask of a contour (N, 2) in a frame of `size`: bool (size, size), True where more than
    half of a pixel lies inside."""
    canvas = np.zeros((FINE * size, FINE * size), np.uint8)
    points = np.rint(((contour + 0.5) * FINE - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(canvas, [points], 255, shift=4)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA) > 127


def largest_contour(probability: np.ndarray) -> np.ndarray | None:
    """The contour (N, 2) of the largest component above one half, without its holes.

    Args:
        probability: of the ventricle, float32 (H, W).

    Returns:
        None where nothing is above one half.
    """
    h, w = probability.shape
    fine = cv2.resize(probability, (FINE * w, FINE * h), interpolation=cv2.INTER_LINEAR)
    mask = (fine > 0.5).astype(np.uint8)
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not found:
        return None
    contour = max(found, key=cv2.contourArea)[:, 0].astype(np.float64)
    return (contour + 0.5) / FINE - 0.5 if len(contour) > 2 else None


def area(contour: np.ndarray) -> float:
    """Of a contour (N, 2), pixels squared."""
    return float(cv2.contourArea(contour.astype(np.float32)))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Twice what two masks share over what they hold together; 1 for two empty ones."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0


def _frame(apex: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Apex, unit vectors along the axis and across it, and the axis' length."""
    length = float(np.hypot(*(base - apex)))
    along = (base - apex) / length
    return apex, along, np.array([along[1], -along[0]]), length


def _spans(u: np.ndarray, v: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest v where a closed line through (u, v), each (N,), crosses levels of u, each
    (L,)."""
    u1, v1 = np.roll(u, -1), np.roll(v, -1)
    levels = np.asarray(levels)[:, None]
    crosses = (u <= levels) != (u1 <= levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = v + (levels - u) / (u1 - u) * (v1 - v)
    return np.where(crosses, at, np.inf).min(axis=1), np.where(crosses, at, -np.inf).max(axis=1)
