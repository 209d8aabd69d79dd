"""Image statistics proper to ultrasound: the radial spectrum and the speckle.

Speckle is the interference of echoes from scatterers too close to be resolved. Where it is fully
developed the envelope is Rayleigh distributed, so that mean / standard deviation, its local SNR, is
sqrt(pi / (4 - pi)) = 1.91 at any brightness (Burckhardt 1978, "Speckle in ultrasound B-mode
scans"). Its size is that of the resolution cell, along the beam (axial) and across it (lateral),
read off the autocorrelation (Wagner et al. 1983, "Statistics of speckle in ultrasound B-scans").

What is stored in a video is log-compressed: there speckle is additive, with a standard deviation of
5.57 dB whatever the mean, that is 5.57 x 255 / (dynamic range in dB) grey levels. `snr` of such a
video therefore depends on gain and dynamic range and is no 1.91; it compares between sets of one
origin. A decoder that smooths speckle away raises it.

Statistics are of one video each, a row of `STATISTICS`; sets of rows are then compared.
"""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from scipy.stats import wasserstein_distance

from echosyn.data.spaced import evenly_spaced
from echosyn.metrics.interval import Estimate, blocks_of, jackknife_interval
from echosyn.runtime.errors import EchosynError

SPECKLE = ("snr", "axial_px", "lateral_px", "temporal", "high_share")
BINS = 32  # of the spectrum, 1/64 cycles per pixel wide, 0 to 0.5
STATISTICS = (*SPECKLE, *(f"spectrum_{i:02d}" for i in range(BINS)))
PAIRS = 8  # pairs of neighbouring frames looked at, evenly spread over the video
HIGH = 0.25  # cycles per pixel from which a frequency is high: detail under 4 pixels
SIGMA = 4.0  # pixels, of the blur that leaves speckle when subtracted
WINDOW = 9  # pixels, side of the windows of the local SNR
REACH = 8  # pixels, greatest autocorrelation length
DARK = 8  # grey levels; what never exceeds it lies outside the sector
ROUNDING = 1 / 12  # variance of rounding to grey levels: the noise that any video has


def image_statistics(frames: np.ndarray) -> np.ndarray:
    """One video uint8 (T, H, W) as a row float64 (37,), columns `STATISTICS`.

    - `snr`: median over windows of 9x9 pixels within bright tissue of mean / standard deviation.
      Grains that are not small against the window raise it: by 4 % where a Gaussian point spread
      has a sigma of 1 pixel.
    - `axial_px`, `lateral_px`: distance down and across the picture at which the autocorrelation
      of the speckle falls to one half, 0 to 8 pixels. Down is along the beam in the middle of a
      sector only. Speckle is what a Gaussian blur of 4 pixels within bright tissue leaves, so that
      wide grains come out narrower than they are.
    - `temporal`: correlation of the speckle of neighbouring frames, at the video's frame rate: 1
      where texture is frozen (and in a constant video), 0 where it is drawn afresh.
    - `high_share`: share of the power above 0.25 cycles per pixel, 0 to 1.
    - `spectrum_00` ... `spectrum_31`: power in dB re one grey level squared, averaged over rings of
      1/64 cycles per pixel (white noise of standard deviation s: 20 log10 s in each). A constant
      video has the noise of rounding, -10.8 dB.

    The sector is the convex hull of what exceeds 8 grey levels at some time, less two pixels. Where
    there is nothing to measure (an all-black video) snr, lengths and share are 0. At most 16 frames
    are read, 8 evenly spread neighbouring pairs, whatever the length.

    Raises:
        EchosynError: not uint8, fewer than two frames, frames below 16 pixels a side.
    """
    if (
        frames.dtype != np.uint8
        or frames.ndim != 3
        or len(frames) < 2
        or min(frames.shape[1:]) < 16
    ):
        raise EchosynError(
            "expected a uint8 video (T, H, W) of two frames or more of 16x16 pixels or more, got "
            f"{frames.dtype} {frames.shape}"
        )
    starts = np.unique(evenly_spaced(len(frames) - 1, PAIRS))
    pairs = np.stack([frames[starts], frames[starts + 1]], 1)
    sector = _sector(pairs.max((0, 1)))
    snr, lengths, temporal = [], [], []
    for pair in pairs:
        tissue = _bright(_smooth(pair[0], sector), sector)
        snr += _window_snr(pair[0], tissue)
        tissue = _eroded(tissue, 3)  # its border is half blood
        speckle = [x - _smooth(x, tissue) for x in pair]
        lengths.append([_correlation_length(speckle[0], tissue, axis) for axis in (0, 1)])
        temporal.append(_correlation(speckle[0][tissue], speckle[1][tissue]))
    power = _power(pairs[:, 0], sector)
    spectrum, high = _radial(power)
    axial, lateral = np.mean(lengths, 0)
    speckle_row = [np.median(snr) if snr else 0.0, axial, lateral, np.mean(temporal), high]
    return np.concatenate([speckle_row, spectrum])


def set_means(rows: np.ndarray) -> dict[str, Estimate]:
    """Mean over the videos of a set, rows (N, 37), of each speckle statistic, with its interval.

    Keys `us/snr_mean`, `us/axial_px_mean` and so on.
    """
    rows = _checked("rows", rows)
    parts = blocks_of(np.arange(len(rows)), 20)
    return {
        f"us/{name}_mean": _interval(parts, np.mean, rows[:, i]) for i, name in enumerate(SPECKLE)
    }


def compare_statistics(real: np.ndarray, fake: np.ndarray, blocks: int = 20) -> dict[str, Estimate]:
    """Distances between two sets of videos, rows (N, 37) each, with 95 % intervals.

    - `us/snr`, `us/axial_px`, `us/lateral_px`, `us/temporal`, `us/high_share`: 1-d Wasserstein
      distance of the videos' values in standard deviations of the real set; NaN where the real
      videos are all equal and the others are not.
    - `us/spectrum_db`: root mean square difference of the mean spectra over the 32 rings, dB.

    All are 0 for equal sets and positive for two samples of one population, less so the more
    videos: read them beside those of two real sets of the same N, which is why both sides must
    have it. Intervals leave out a block of videos of both sets at a time; they cover sampling
    error, not that bias.

    Raises:
        EchosynError: rows of another width, not finite, fewer than two, or another number a side.
    """
    real, fake = _checked("real rows", real), _checked("fake rows", fake)
    if len(real) != len(fake):
        raise EchosynError(
            f"{len(real)} real and {len(fake)} fake videos: these distances depend on the number "
            "of videos; compare the same number a side"
        )
    parts = blocks_of(np.arange(len(real)), blocks)
    distances = {}
    for i, name in enumerate(SPECKLE):
        shift = partial(_shift, scale=float(real[:, i].std()))
        distances[f"us/{name}"] = _interval(parts, shift, real[:, i], fake[:, i])
    spectra = real[:, len(SPECKLE) :] - fake[:, len(SPECKLE) :]
    distances["us/spectrum_db"] = _interval(
        parts, lambda some: np.sqrt(np.mean(some.mean(0) ** 2)), spectra
    )
    return distances


def _shift(real: np.ndarray, fake: np.ndarray, scale: float) -> float:
    moved = float(wasserstein_distance(real, fake))
    if scale < 1e-12:
        return 0.0 if moved < 1e-12 else float("nan")
    return moved / scale


def _interval(parts: np.ndarray, statistic: Callable[..., float], *sides: np.ndarray) -> Estimate:
    """Of a statistic of `sides`, leaving out a part of each at a time."""
    left = [statistic(*(s[parts != i] for s in sides)) for i in range(int(parts.max()) + 1)]
    return jackknife_interval(float(statistic(*sides)), np.array(left))


def _checked(name: str, rows: np.ndarray) -> np.ndarray:
    x = np.asarray(rows, np.float64)
    if x.ndim != 2 or x.shape[1] != len(STATISTICS) or len(x) < 2:
        raise EchosynError(
            f"{name}: expected a row of {len(STATISTICS)} statistics for each of two videos or "
            f"more, got shape {x.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(x).all(1))
    if len(bad):
        column = STATISTICS[int(np.flatnonzero(~np.isfinite(x[bad[0]]))[0])]
        raise EchosynError(f"{name}: {column} of video {bad[0]} is not finite")
    return x


def _sector(brightest: np.ndarray) -> np.ndarray:
    """Convex hull of what is not dark, specks left out: blood that stays dark is inside.

    Two pixels short of its edge, which is ragged and far steeper than speckle.
    """
    seen = cv2.morphologyEx(
        (brightest > DARK).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)
    )
    if not seen.any():
        return seen > 0
    filled = cv2.fillConvexPoly(seen, cv2.convexHull(cv2.findNonZero(seen)), 1)
    return _eroded(filled, 5)


def _eroded(part: np.ndarray, side: int) -> np.ndarray:
    return cv2.erode(part.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


def _smooth(frame: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Gaussian blur over a part of the frame alone, so that what borders on it leaves no trace."""
    inside = part.astype(np.float32)
    blurred, weight = (cv2.GaussianBlur(x, (0, 0), SIGMA) for x in (frame * inside, inside))
    return blurred / np.maximum(weight, 1e-3)


def _bright(smooth: np.ndarray, sector: np.ndarray) -> np.ndarray:
    """Tissue: at least half as bright as the brightest tenth of the sector begins; blood is not."""
    if not sector.any():
        return sector
    return sector & (smooth >= 0.5 * np.quantile(smooth[sector], 0.9))


def _window_snr(frame: np.ndarray, tissue: np.ndarray) -> list[float]:
    """Mean / standard deviation of the windows that lie within tissue."""
    rows, columns = (n // WINDOW for n in frame.shape)

    def tiles(x: np.ndarray) -> np.ndarray:
        x = x[: rows * WINDOW, : columns * WINDOW].reshape(rows, WINDOW, columns, WINDOW)
        return x.swapaxes(1, 2).reshape(rows * columns, WINDOW * WINDOW)

    inside = tiles(tissue).all(1)
    x = tiles(frame)[inside].astype(np.float64)
    return list(x.mean(1) / np.sqrt(x.var(1) + ROUNDING))


def _correlation_length(speckle: np.ndarray, tissue: np.ndarray, axis: int) -> float:
    """Distance along an axis at which the autocorrelation over tissue falls to one half."""
    r = np.where(tissue, speckle, 0).astype(np.float64)
    if axis:
        r, tissue = r.T, tissue.T
    count = max(int(tissue.sum()), 1)
    variance = np.sum(r * r) / count
    if variance <= ROUNDING:
        return 0.0
    before = 1.0
    for lag in range(1, REACH + 1):
        pairs = int(np.sum(tissue[lag:] & tissue[:-lag]))
        now = np.sum(r[lag:] * r[:-lag]) / (max(pairs, 1) * variance)
        if now <= 0.5:
            return lag - 1 + (before - 0.5) / (before - now)
        before = now
    return float(REACH)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or np.array_equal(a, b):
        return 1.0
    a, b = (x.astype(np.float64) - x.mean(dtype=np.float64) for x in (a, b))
    scale = np.sqrt(np.sum(a * a) * np.sum(b * b))
    # One side without texture has nothing in common with the other.
    return float(np.sum(a * b) / scale) if scale > ROUNDING * len(a) else 0.0


def _power(frames: np.ndarray, sector: np.ndarray) -> np.ndarray:
    """Mean power spectrum (n, n // 2 + 1) of the sector of frames, its edge faded out."""
    n = max(128, *frames.shape[1:])  # so that no ring is empty
    if not sector.any():
        return np.full((n, n // 2 + 1), ROUNDING)
    window = _window(sector)
    x = frames.astype(np.float32)
    mean = np.sum(x * window, (1, 2), keepdims=True) / np.sum(window)
    spectrum = np.fft.rfft2((x - mean) * window, (n, n))
    return np.mean(np.abs(spectrum) ** 2, 0) / np.sum(window**2) + ROUNDING


def _window(sector: np.ndarray) -> np.ndarray:
    """Hann window over the sector's bounding box, faded out towards its edge."""
    ys, xs = np.flatnonzero(sector.any(1)), np.flatnonzero(sector.any(0))
    box = np.zeros(sector.shape, np.float32)
    height, width = ys[-1] - ys[0] + 1, xs[-1] - xs[0] + 1
    hann = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    box[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] = hann
    padded = cv2.copyMakeBorder(sector.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return box * np.minimum(inside / 8, 1)


def _radial(power: np.ndarray) -> tuple[np.ndarray, float]:
    """Ring means in dB, and the share of the power from HIGH on."""
    n = len(power)
    radius = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n))
    ring = np.minimum((radius * 2 * BINS).astype(int), BINS)  # the last holds the corners
    # Columns of a half spectrum stand for two, but for the first and, where n is even, the last.
    weight = np.full(power.shape, 2.0)
    weight[:, 0] = 1
    weight[:, -1] = 2 - (n % 2 == 0)
    weight[0, 0] = 0  # the mean was taken off
    sums = np.bincount(ring.ravel(), (power * weight).ravel(), BINS + 1)
    counts = np.bincount(ring.ravel(), weight.ravel(), BINS + 1)
    signal = (power - ROUNDING) * weight
    total = signal.sum()
    share = signal[radius >= HIGH].sum() / total if total > ROUNDING else 0.0
    return 10 * np.log10(sums[:BINS] / counts[:BINS]), float(share)
