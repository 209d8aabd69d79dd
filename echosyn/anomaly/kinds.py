"""Anomalies made of real clips, each kind looking different, to learn from and to validate on.

After "Many tasks make light work" (Baugh et al. 2023, arXiv 2307.00899): a network that learns some
kinds and is selected by others finds what it never saw. The label of a pixel is how much it was
changed, saturating (their equation of a flipped Gaussian), whatever the kind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

VISIBLE = 8.0  # grey levels, the scale on which a change is seen: 0.39 at it, 0.86 at twice of it
LIT = 10.0  # grey levels, of the blurred mean frame: within the sector, and not in its dark
BLUR = 0.75  # pixels, sigma: changes of speckle alone are no anomaly
LEAST_BLENDED = 3  # pixels, of what OpenCV blends
TRIPLE = 3  # frames blended at once: OpenCV blends the channels of a colour picture one by one


@dataclass(frozen=True)
class Source:
    """What an anomaly is made of: `video` float32 (T, H, W) of 0 to 255, of which the clip is
    `window` frames from `start`; and a clip of another patient, (window, H, W)."""

    video: np.ndarray
    start: int
    window: int
    other: np.ndarray

    @property
    def clip(self) -> np.ndarray:
        return self.video[self.start : self.start + self.window]

    def played(self, speed: float, start: float) -> np.ndarray:
        """`window` frames from the time `start`, at `speed`, with mixtures between frames; time
        turns round at the ends of the video."""
        last = len(self.video) - 1
        t = np.abs(start + speed * np.arange(self.window))
        t = last - np.abs(last - t % max(2 * last, 1))
        before = np.floor(t).astype(int)
        after = np.minimum(before + 1, last)
        part = (t - before).astype(np.float32)[:, None, None]
        return self.video[before] * (1 - part) + self.video[after] * part


def label(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How much each pixel of a clip was changed, float32 (H, W) in 0 .. 1."""
    change = np.stack([cv2.GaussianBlur(f, (0, 0), BLUR) for f in after - before])
    return 1 - np.exp(-(np.abs(change).mean(0) ** 2) / np.float32(2 * VISIBLE**2))


def _lit(clip: np.ndarray) -> np.ndarray:
    """Pixels where there is something to see, bool (H, W); everywhere in a black clip."""
    mean = cv2.GaussianBlur(clip.mean(0), (0, 0), 1.5)
    return mean > min(LIT, float(np.median(mean)))


def _place(where: np.ndarray, rng: Generator) -> tuple[int, int]:
    """A pixel (y, x) of those that are true in (H, W)."""
    at = np.argwhere(where)
    y, x = at[rng.integers(len(at))] if len(at) else np.array(where.shape) // 2
    return int(y), int(x)


def _blob(shape: tuple[int, ...], at: tuple[int, int], size: tuple[float, float],
          rng: Generator) -> np.ndarray:  # fmt: skip
    """A wobbly ellipse around `at`, bool (H, W): half-axes drawn from `size`, in shares of the
    frame's side, any direction."""
    h, w = shape
    y, x = np.mgrid[:h, :w] - np.array(at, float).reshape(2, 1, 1)
    a, b = rng.uniform(*size, 2) * min(h, w)
    turn = rng.uniform(0, np.pi)
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    angle = np.arctan2(v / b, u / a)
    edge = 1 + sum(
        rng.uniform(-0.12, 0.12) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4)
    )
    return np.hypot(u / a, v / b) < edge


def _soft(mask: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma)


def _moved(clip: np.ndarray, dy: float, dx: float) -> np.ndarray:
    """Every frame moved, what is beyond its edges repeated."""
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    h, w = clip.shape[1:]
    return np.stack([cv2.warpAffine(f, move, (w, h), borderMode=cv2.BORDER_REPLICATE)
                     for f in clip])  # fmt: skip


def patch(source: Source, rng: Generator) -> np.ndarray:
    """Part of another patient's heart, from elsewhere, blended in by its gradients (Perez et al.
    2003)."""
    clip = source.clip
    mask = _blob(clip.shape[1:], _place(_lit(clip), rng), (0.08, 0.2), rng)
    mask[[0, 1, -2, -1]] = mask[:, [0, 1, -2, -1]] = False
    left, top, wide, high = cv2.boundingRect(mask.astype(np.uint8))
    if min(wide, high) < LEAST_BLENDED:  # at an edge of the frame
        return clip.copy()
    dy, dx = rng.uniform(-0.25, 0.25, 2) * clip.shape[1]
    foreign = _moved(source.other, dy, dx)
    centre = (left + wide // 2, top + high // 2)
    inside = mask.astype(np.uint8) * 255
    blended = np.empty_like(clip)
    for first in range(0, len(clip), TRIPLE):
        rows = np.minimum(np.arange(first, first + TRIPLE), len(clip) - 1)
        old, new = (np.moveaxis(c[rows].clip(0, 255), 0, -1).astype(np.uint8)
                    for c in (clip, foreign))  # fmt: skip
        mixed = cv2.seamlessClone(new, old, inside, centre, cv2.NORMAL_CLONE)
        blended[rows] = np.moveaxis(mixed, -1, 0)
    return np.where(mask, blended, clip)


def intensity(source: Source, rng: Generator) -> np.ndarray:
    """A region brighter or darker than it was."""
    clip = source.clip
    mask = _blob(clip.shape[1:], _place(_lit(clip), rng), (0.06, 0.2), rng)
    ramp = _soft(mask, rng.uniform(0.5, 2.0))
    if rng.random() < 0.5:
        return clip * (1 - rng.uniform(0.5, 0.95) * ramp)
    texture = 0.4 + 0.6 * clip / max(float(clip.max()), 1.0)
    return clip + rng.uniform(40, 120) * ramp * texture


def deformation(source: Source, rng: Generator) -> np.ndarray:
    """A region drawn towards a point or pushed away from it."""
    clip = source.clip
    h, w = clip.shape[1:]
    cy, cx = _place(_lit(clip), rng)
    reach = rng.uniform(0.14, 0.3) * min(h, w)
    power = np.exp(rng.choice([-1, 1]) * rng.uniform(0.45, 0.95))
    y, x = np.mgrid[:h, :w].astype(np.float32)
    r = np.hypot(y - cy, x - cx)
    scale = np.where(r < reach, (np.maximum(r, 1e-3) / reach) ** (power - 1), 1)
    across, down = ((c + (z - c) * scale).astype(np.float32) for c, z in ((cx, x), (cy, y)))
    return np.stack([cv2.remap(f, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                     for f in clip])  # fmt: skip


def wall(source: Source, rng: Generator) -> np.ndarray:
    """A piece of wall gone: what is bright in a region as dark as the darkest beside it."""
    clip = source.clip
    mean = cv2.GaussianBlur(clip.mean(0), (0, 0), 1.0)
    bright = mean > np.quantile(mean, 0.8)
    mask = _blob(clip.shape[1:], _place(bright, rng), (0.07, 0.18), rng)
    near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    dark = float(np.quantile(mean[near], 0.05)) if near.any() else 0.0
    gone = np.minimum(dark / np.maximum(mean, 1.0), 1.0)  # keeps speckle, as blood has it
    ramp = _soft(mask, 0.8)
    return clip * (1 - ramp + ramp * gone)


def leaflet(source: Source, rng: Generator) -> np.ndarray:
    """A thin bright structure twice."""
    clip = source.clip
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    smooth = [cv2.GaussianBlur(f, (0, 0), 0.5) for f in clip]
    thin = np.stack([f - cv2.morphologyEx(f, cv2.MORPH_OPEN, around) for f in smooth])
    mean = thin.mean(0)
    mask = _blob(mean.shape, _place(mean >= np.quantile(mean, 0.97), rng), (0.08, 0.16), rng)
    angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.1) * min(mean.shape)
    second = thin * _soft(mask, 0.5) * rng.uniform(1.0, 1.6)
    return clip + _moved(second, far * np.sin(angle), far * np.cos(angle))


def out_of_step(source: Source, rng: Generator) -> np.ndarray:
    """A region in which the heart is at another moment of its beat."""
    clip = source.clip
    mask = _blob(clip.shape[1:], _place(_lit(clip), rng), (0.12, 0.3), rng)
    shift = rng.choice([-1, 1]) * rng.uniform(0.2, 0.5) * source.window
    ramp = _soft(mask, 1.0)
    return clip * (1 - ramp) + source.played(1.0, source.start + shift) * ramp


def pace(source: Source, rng: Generator) -> np.ndarray:
    """The whole clip too slow or too fast."""
    slow = rng.random() < 0.5
    return source.played(rng.uniform(0.2, 0.45) if slow else rng.uniform(2.2, 3.5), source.start)


def reversed_time(source: Source, rng: Generator) -> np.ndarray:
    """Time runs backwards."""
    return source.clip[::-1].copy()


def frozen(source: Source, rng: Generator) -> np.ndarray:
    """The picture stands still from a moment of the first half on."""
    clip = source.clip
    at = int(rng.integers(0, len(clip) // 2 + 1))
    return clip[np.minimum(np.arange(len(clip)), at)]


# By the names of the setting `held_out`.
KINDS: dict[str, Callable[[Source, Generator], np.ndarray]] = {
    "patch": patch,
    "intensity": intensity,
    "deformation": deformation,
    "wall": wall,
    "leaflet": leaflet,
    "out_of_step": out_of_step,
    "pace": pace,
    "reversed": reversed_time,
    "frozen": frozen,
}


def make(kinds: Sequence[str], source: Source, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """A clip with an anomaly of each of `kinds`, one upon the other, float32 (window, h, w) of 0 to
    255, and `label` of them all."""
    after = source
    for kind in kinds:
        clip = np.clip(KINDS[kind](after, rng), 0, 255).astype(np.float32)
        after = Source(clip, 0, source.window, source.other)
    return after.clip, label(source.clip, after.clip)
