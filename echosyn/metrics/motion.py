"""A feature space that sees how the picture moves, and as little as possible of the picture.

Frechet video distances hardly notice broken motion: texture outweighs it (Ge et al. 2024, "On the
content bias in Frechet video distance"). Here frames are blurred until speckle is gone, the mean
frame is taken off, and what is left is divided by the local contrast, which turns a change of
brightness into a displacement. Nothing is learned; a generator was never trained towards it.
"""

import hashlib
import json

import numpy as np

from echosyn.runtime.errors import EchosynError

VERSION = 1  # raise with every change of the formulas: cached features are keyed by the hash
GRID = 28  # blurred frames are GRID x GRID cells, whatever their size: 4 pixels a cell at 112
BLUR = 1.0  # cells, sigma of the blur against speckle
CONTRAST = 2.5  # cells, sigma of the window of the local contrast
CONTRAST_FLOOR = 8.0  # grey levels: below it a region counts as flat, and its noise is not raised
CENTRES = (0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # Hz, bands overlap by half
LAGS = (1, 2, 4, 8)  # frames
SIDE = 2  # bands, amount and smoothness are taken in SIDE x SIDE regions
SLOPES = 3  # the asymmetry of brightening is taken in SLOPES x SLOPES regions
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the change from frame to frame
MODES = 2  # principal components of the movement whose time course is looked at
SLOPE_S = 0.19  # seconds over which a slope is taken: about half an ejection, long past flicker
MODE_S = 0.12  # seconds of lag of a mode's asymmetry
# Mean square that a region without movement is given. Speckle that changes leaves 1e-2 on the
# phantom, rounding to grey levels less than 1e-5.
STILL = 1e-4
# Features enter as (value - offset) / scale: means over patients of the phantom, and standard
# deviations between them, both rounded. Only comparable sizes matter, not that they are exact.
OFFSETS = {
    "amount": -2.9,
    "bands": ((-3.0,), (-1.7,), (-1.1,), (-1.8,), (-2.6,), (-3.2,), (-3.2,)),
    "lags": (-3.1, -2.3, -1.6, -1.8),
    "smoothness": 0.5,
    "changes": (-4.5, -3.9, -3.3, -2.8, -2.2),
    "slopes": 0.0,
    "modes": 0.0,
}
SCALES = {
    "amount": 0.5,
    "bands": 0.5,
    "lags": 0.5,
    "smoothness": 0.2,
    "changes": 0.5,
    "slopes": 0.5,
    "modes": 0.2,
}


class MotionFeatures:
    """Grey clips uint8 (N, `frames`, H, W) at `fps`, 16 pixels or more a side, to float32 (N, D).

    D = 56: per quarter of the picture the amount of movement, the share of each frequency band in
    Hz, and how smooth it is; over the picture the change at several lags in frames and its
    spread over time (a clip that stops has pairs without change); per ninth of the picture whether
    it brightens as fast as it darkens, and the same for the main modes of movement, which turns
    round when time does. Energies enter as logarithms. A clip that does not move has finite
    features, far from those of any that does.

    Distances compare only at the same `frames` and `fps`: both are in `sha256`.
    """

    name = "motion"

    def __init__(self, frames: int = 32, fps: float = 16.0) -> None:
        """Raises EchosynError for clips under 16 frames or a frame rate that is not positive."""
        if frames < 16 or not 0 < fps < float("inf"):
            raise EchosynError(
                f"motion features of {frames} frames at {fps:g} fps: at least 16 frames and a "
                "positive frame rate are needed"
            )
        self.frames, self.fps = frames, fps
        self.clip = f"{frames}f"
        settings = [
            VERSION,
            frames,
            float(fps),
            GRID,
            BLUR,
            CONTRAST,
            CONTRAST_FLOOR,
            CENTRES,
            LAGS,
            SIDE,
        ]
        settings += [SLOPES, QUANTILES, MODES, SLOPE_S, MODE_S, STILL, OFFSETS, SCALES]
        self.sha256 = hashlib.sha256((self.name + json.dumps(settings)).encode()).hexdigest()
        self._bands = _band_filters(frames, fps)
        self._near = _gaussian(GRID, CONTRAST)
        self._quarters = _regions(SIDE)
        self._ninths = _regions(SLOPES)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Raises EchosynError for clips of another type, shape or length."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or not frames.size:
            raise EchosynError(
                f"expected uint8 clips (N, {self.frames}, H, W), got {frames.dtype} {frames.shape}"
            )
        if frames.shape[1] != self.frames or min(frames.shape[2:]) < 16:
            raise EchosynError(
                f"clips of {frames.shape[1]} frames of {frames.shape[2]}x{frames.shape[3]} pixels; "
                f"{self.name} takes {self.frames} frames of 16x16 or more"
            )
        rows, columns = (_pooling(size) for size in frames.shape[2:])
        return np.stack([self._row(rows @ x.astype(np.float32) @ columns.T) for x in frames])

    def _row(self, cells: np.ndarray) -> np.ndarray:
        """Features (D,) of blurred frames (T, GRID, GRID)."""
        moved = self._normalised(cells.astype(np.float64))
        families = {
            "amount": _log(self._quarters @ np.mean(moved**2, 0)),
            "bands": self._band_shares(moved),
            **self._changes(moved),
            "slopes": _skewness(_step(moved @ self._ninths.T, self._lag(SLOPE_S))),
            "modes": _mode_asymmetry(moved, self._lag(MODE_S)),
        }
        row = [((x - OFFSETS[k]) / SCALES[k]).ravel() for k, x in families.items()]
        return np.concatenate(row).astype(np.float32)

    def _lag(self, seconds: float) -> int:
        return min(max(round(seconds * self.fps), 1), self.frames // 2)

    def _normalised(self, cells: np.ndarray) -> np.ndarray:
        """Departure from the mean frame in units of the local contrast, (T, cells)."""
        mean = cells.mean(0)
        near = self._near @ mean @ self._near.T
        variance = self._near @ (mean - near) ** 2 @ self._near.T
        return ((cells - mean) / np.sqrt(variance + CONTRAST_FLOOR**2)).reshape(len(cells), -1)

    def _band_shares(self, moved: np.ndarray) -> np.ndarray:
        """Log share of each band in the movement of each region, (bands, regions)."""
        spectrum = np.einsum("bft,tc->bfc", self._bands, moved)
        energy = np.sum(spectrum**2, 1) @ self._quarters.T
        return _log(energy) - _log(energy.sum(0))

    def _changes(self, moved: np.ndarray) -> dict[str, np.ndarray]:
        steps = _step(moved, 1)
        jerks = _step(steps, 1)
        between = _log(np.mean(steps**2, 1))
        lags = [_log(np.mean(_step(moved, k) ** 2)) for k in LAGS]
        smoothness = [_log(self._quarters @ np.mean(x**2, 0)) for x in (steps, jerks)]
        return {
            "lags": np.array(lags),
            "smoothness": smoothness[1] - smoothness[0],
            "changes": np.quantile(between, QUANTILES),
        }


def _log(energy: np.ndarray | float) -> np.ndarray:
    return np.log(np.asarray(energy) + STILL)


def _skewness(x: np.ndarray) -> np.ndarray:
    """Skewness over time of columns (T, C), pulled to 0 where there is hardly a change."""
    x = x - x.mean(0)
    return np.mean(x**3, 0) / (np.mean(x**2, 0) + STILL) ** 1.5


def _step(x: np.ndarray, lag: int) -> np.ndarray:
    return x[lag:] - x[:-lag]


def _mode_asymmetry(moved: np.ndarray, lag: int) -> np.ndarray:
    """E[c(t)^3 c(t + lag) - c(t) c(t + lag)^3] of the time courses c of the first modes.

    Courses have unit variance. The sign of a mode is arbitrary and the moment, of even order, does
    not depend on it; played backwards, the moment changes sign.
    """
    _, vectors = np.linalg.eigh(moved @ moved.T / moved.shape[1])
    c = vectors[:, ::-1][:, :MODES]
    c = (c[:-2] + 2 * c[1:-1] + c[2:]) / 4  # binomial blur over three frames, against flicker
    c = (c - c.mean(0)) / np.sqrt(c.var(0) + STILL)
    return np.mean(c[:-lag] ** 3 * c[lag:] - c[:-lag] * c[lag:] ** 3, 0)


def _band_filters(frames: int, fps: float) -> np.ndarray:
    """Windowed cosines and sines (bands, 2 F, T): their squared responses sum to band energies.

    A band weighs frequencies by a triangle over log f between the centres of its neighbours.
    Frequencies are four times finer than the clip's length resolves, so that no band is empty;
    those above half the frame rate are silent.
    """
    t = np.arange(frames)
    f = np.arange(1, 2 * frames) / (4 * frames)  # cycles per frame
    window = np.hanning(frames + 2)[1:-1]
    waves = np.exp(-2j * np.pi * f[:, None] * t) * window
    waves -= waves.mean(1, keepdims=True)  # the mean frame is no movement
    centres = np.log2([CENTRES[0] / 2, *CENTRES, CENTRES[-1] * 2])
    filters = []
    for low, centre, high in zip(centres, centres[1:], centres[2:], strict=False):
        weight = np.interp(np.log2(f * fps), [low, centre, high], [0.0, 1.0, 0.0])
        scaled = waves * np.sqrt(weight / np.sum(window**2) / (4 * frames) * 2)[:, None]
        filters.append(np.concatenate([scaled.real, scaled.imag]))
    return np.array(filters)


def _pooling(size: int) -> np.ndarray:
    """(GRID, size) float32: Gaussian blur of BLUR cells and sampling at the cells' centres."""
    cell = size / GRID
    centres = (np.arange(GRID)[:, None] + 0.5) * cell - 0.5
    sigma = max(BLUR * cell, 0.5)  # pixels; half a pixel where cells are smaller than pixels
    weights = np.exp(-0.5 * ((np.arange(size) - centres) / sigma) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _gaussian(size: int, sigma: float) -> np.ndarray:
    """(size, size): a Gaussian window around each position, normalised at the border."""
    i = np.arange(size)
    weights = np.exp(-0.5 * ((i[:, None] - i) / sigma) ** 2)
    return weights / weights.sum(1, keepdims=True)


def _regions(side: int) -> np.ndarray:
    """(side^2, GRID^2): the mean over each of side x side parts of the picture."""
    part = np.arange(GRID) * side // GRID
    of = (part[:, None] * side + part).ravel()
    one_hot = (np.arange(side * side)[:, None] == of).astype(np.float64)
    return one_hot / one_hot.sum(1, keepdims=True)
