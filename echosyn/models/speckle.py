"""Speckle: what a VAE takes from pictures, learned as statistics and painted on what it decodes.

A decoder trained on squared error returns the mean of all speckle that a latent allows: smooth
tissue. What it takes off is close to a Gaussian texture: its size depends on the brightness, its
grain on the depth, and it follows the frame before only in part. These three are read off TRAIN's
frames and their reconstructions. What is then missing is detail that the decoder blurs, which
sharpening restores. A painted frame is the decoded one, sharpened, plus a fresh draw.

A network trained on smooth videos reads the flicker of real speckle as motion
(docs/results/speckle.md).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import fft

from echosyn.models.sharpening import RINGS, closer_gain, no_gain, ring_power, sharpened
from echosyn.runtime.errors import EchosynError

FILE = "speckle.safetensors"
SMOOTH = 1.5  # pixels, sd of the blur whose value is called brightness here
# Brightness at whose levels the size is known; fine where a picture is dark.
KNOTS = np.array([0, 1, 2, 4, 6, 8, 12, 16, 24, 32, *range(48, 257, 16)], np.float32)
LIT = 12.0  # brightness from which tissue is bright enough to read its grain
DARK = 1.0  # a pixel that is never brighter lies outside the sector and stays as it is
REACH = 8  # pixels to which the grain correlates
BANDS = 3  # of depth
LEAST = 500  # pixels of a brightness from which its size is read
FAR = 8  # frames; what is alike over more stands still
EVERY = 4  # of so many frames one is read for the gain
ROUNDS = 2  # of the gain; painting is not linear, since grey levels end at 0 and 255


class UnlearnedError(EchosynError):
    """The videos have nothing that speckle can be learned from."""


@dataclass(frozen=True, eq=False)
class Speckle:
    """Statistics of what reconstructions lack.

    size: grey levels, sd at each of KNOTS (K,). grain: correlation of neighbours at each depth,
    from the transducer down, (BANDS, 2 REACH + 1, 2 REACH + 1). still: share of the power that does
    not change over time. memory: correlation of the rest with the frame before. gain: of each ring
    of frequencies of the decoded frame (RINGS,); see `sharpening`.
    """

    size: np.ndarray
    grain: np.ndarray
    still: float
    memory: float
    gain: np.ndarray

    @classmethod
    def learn(cls, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> "Speckle":
        """From real videos and their reconstructions, uint8 (T, side, side) each; those of FAR
        frames or fewer are left out.

        Raises:
            UnlearnedError: no video is long enough, or no tissue bright enough.
        """
        sums = _Sums()
        for real, rebuilt in pairs:
            if len(real) > FAR:
                sums.add_size(real, rebuilt)
        size = sums.sizes()
        for real, rebuilt in sums.kept:
            sums.add_grain(real, rebuilt, size)
        grain, near, far = sums.correlations()
        still = float(np.clip(far, 0, 0.99))
        memory = float(np.clip((near - still) / (1 - still), 0, 0.99))
        return cls(size, grain, still, memory, no_gain())._sharper(sums.kept)

    def _sharper(self, pairs: list[tuple[np.ndarray, np.ndarray]]) -> "Speckle":
        """These statistics, with the gain that gives painted frames the power of real ones."""
        few = [(real[::EVERY], rebuilt[::EVERY]) for real, rebuilt in pairs]
        real = sum((ring_power(f) for f, _ in few), np.zeros(RINGS))
        decoded = sum((ring_power(f) for _, f in few), np.zeros(RINGS))
        found = self
        for _ in range(ROUNDS):
            drawn = (found.paint(f, np.random.default_rng(i)) for i, (_, f) in enumerate(few))
            painted = sum(map(ring_power, drawn), np.zeros(RINGS))
            found = replace(found, gain=closer_gain(found.gain, real, painted, decoded))
        return found

    @classmethod
    def none(cls) -> "Speckle":
        """Of no size: what is painted with it stays as it is."""
        side = 2 * REACH + 1
        grain = np.zeros((BANDS, side, side), np.float32)
        grain[:, REACH, REACH] = 1
        return cls(np.zeros(len(KNOTS), np.float32), grain, 0.0, 0.0, no_gain())

    def paint(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Decoded frames uint8 (T, side, side) with speckle of their own, uint8."""
        light = _brightness(frames)
        inside = light.max(axis=0) > DARK
        texture = self.texture(len(frames), frames.shape[-1], rng)
        painted = sharpened(frames, self.gain) + _at(self.size, light) * texture
        return np.where(inside, np.clip(np.rint(painted), 0, 255), frames).astype(np.uint8)

    def texture(self, n: int, side: int, rng: np.random.Generator) -> np.ndarray:
        """Gaussian texture of unit sd, float32 (n, side, side)."""
        fresh = self._fields(n + 1, side, rng)
        still, moving = fresh[0], fresh[1:]
        for t in range(1, n):
            moving[t] *= np.sqrt(1 - self.memory**2)
            moving[t] += self.memory * moving[t - 1]
        return np.sqrt(self.still) * still + np.sqrt(1 - self.still) * moving

    def _fields(self, n: int, side: int, rng: np.random.Generator) -> np.ndarray:
        noise = rng.standard_normal((n, BANDS, side, side), dtype=np.float32)
        waves = fft.rfft2(noise) * _amplitudes(self.grain, side)
        fields = fft.irfft2(waves, s=(side, side))  # (n, BANDS, H, W)
        return np.einsum("nbhw,bh->nhw", fields, np.sqrt(_weights(side)))

    def numbers(self) -> dict[str, float]:
        """Flat metrics: size in grey levels at brightness 64, correlation with the next pixel down
        and beside in the middle band, over time, and the greatest gain of a frequency."""
        middle = self.grain[BANDS // 2]
        return {
            "speckle/size_at_64": float(self.size[list(KNOTS).index(64)]),
            "speckle/grain_axial": float(middle[REACH + 1, REACH]),
            "speckle/grain_lateral": float(middle[REACH, REACH + 1]),
            "speckle/still": self.still,
            "speckle/memory": self.memory,
            "speckle/greatest_gain": float(self.gain.max()),
        }

    def save(self, folder: Path) -> None:
        """folder/speckle.safetensors; the same statistics give the same bytes."""
        tensors = {
            "size": self.size.astype(np.float32),
            "grain": self.grain.astype(np.float32),
            "time": np.array([self.still, self.memory], np.float32),
            "gain": self.gain.astype(np.float32),
        }
        save_file(tensors, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "Speckle":
        """Raises EchosynError where it is missing, or not what `save` writes."""
        path = Path(folder) / FILE
        if not path.is_file():
            raise EchosynError(
                f"{path} does not exist: run the stage speckle, or set speckle: false in "
                "sample_videos"
            )
        try:
            found = load_file(path)
            side = 2 * REACH + 1
            shapes = {
                "size": (len(KNOTS),),
                "grain": (BANDS, side, side),
                "time": (2,),
                "gain": (RINGS,),
            }
            if {k: v.shape for k, v in found.items()} != shapes:
                raise ValueError("other tensors are in it")
        except (SafetensorError, ValueError, OSError) as e:
            raise EchosynError(f"{path}: not what the stage speckle writes ({e})") from None
        still, memory = map(float, found["time"])
        return cls(found["size"], found["grain"], still, memory, found["gain"])


class _Sums:
    """What is added up over videos, in float64."""

    def __init__(self) -> None:
        self.counts = np.zeros((len(KNOTS), 511))  # of every lack, -255 to 255, by brightness
        self.kept: list[tuple[np.ndarray, np.ndarray]] = []
        self.power, self.there = np.zeros((2, 1, 1, 1))
        self.time = np.zeros((2, 2))  # products and norms, of neighbours and of far frames

    def add_size(self, real: np.ndarray, rebuilt: np.ndarray) -> None:
        light = _brightness(rebuilt)
        lack = real.astype(np.int64) - rebuilt + 255
        nearest = np.searchsorted((KNOTS[1:] + KNOTS[:-1]) / 2, light.ravel())
        cells = np.bincount(nearest * 511 + lack.ravel(), minlength=self.counts.size)
        self.counts += cells.reshape(self.counts.shape)
        self.kept.append((real, rebuilt))

    def sizes(self) -> np.ndarray:
        """Half of what lies between the quantiles at 16 and 84 %, which is the sd of a Gaussian; a
        few edges that the VAE moves would count much in a mean square."""
        known = self.counts.sum(axis=1) >= LEAST
        if not known.any():
            raise UnlearnedError(
                f"no TRAIN video has more than {FAR} frames, from which speckle is learned"
            )
        ends = np.arange(-255.5, 256)  # of the cells
        sizes = []
        for counts in self.counts[known]:
            below = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
            low, high = np.interp((0.1587, 0.8413), below, ends)
            sizes.append((high - low) / 2)
        return np.interp(KNOTS, KNOTS[known], sizes).astype(np.float32)

    def add_grain(self, real: np.ndarray, rebuilt: np.ndarray, size: np.ndarray) -> None:
        light = _brightness(rebuilt)
        lit = light > LIT
        unit = (real.astype(np.float32) - rebuilt) / np.maximum(_at(size, light), 1) * lit
        for kind, lag in enumerate((1, FAR)):
            a, b = unit[lag:], unit[:-lag]
            self.time[0, kind] += float((a * b).sum(dtype=np.float64))
            both = (a**2).sum(dtype=np.float64) * (b**2).sum(dtype=np.float64)
            self.time[1, kind] += float(np.sqrt(both))
        some = slice(None, None, FAR)
        side = real.shape[-1]
        depth = np.arange(side)[:, None] * BANDS // side
        parts = (depth == np.arange(BANDS)[:, None, None]).astype(np.float32)  # (BANDS, H, 1)
        self.power = self.power + _power(unit[some], parts)
        self.there = self.there + _power(lit[some].astype(np.float32), parts)

    def correlations(self) -> tuple[np.ndarray, float, float]:
        """Of neighbours in space by depth, in time, and of far frames."""
        near = np.arange(-REACH, REACH + 1)
        fade = np.exp(-0.5 * (near[:, None] ** 2 + near**2) / REACH**2)
        grain: list[np.ndarray | None] = []
        for power, there in zip(self.power, self.there, strict=True):
            pairs = fft.irfft2(there)
            if pairs[0, 0] < LEAST:
                grain.append(None)
                continue
            found = fft.irfft2(power) / np.maximum(pairs, 1)
            grain.append(fade * found[np.ix_(near, near)] / found[0, 0])
        known = [g for g in grain if g is not None]
        if not known:
            raise UnlearnedError(
                f"no pixel of TRAIN's videos is brighter than {LIT:g}, where speckle is learned"
            )
        mean = np.mean(known, axis=0)
        whole = np.stack([mean if g is None else g for g in grain])
        return whole.astype(np.float32), *(self.time[0] / np.maximum(self.time[1], 1e-9))


def _power(x: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Of the waves of x (T, H, W) within each part (P, H, 1), summed over time, padded to twice the
    side: (P, 2 H, W + 1)."""
    side = x.shape[-1]
    waves = (fft.rfft2(x * part, s=(2 * side, 2 * side)) for part in parts)
    return np.stack([(np.abs(w) ** 2).sum(axis=0, dtype=np.float64) for w in waves])


def _brightness(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 (T, H, W), blurred, float32."""
    return np.stack([cv2.GaussianBlur(f.astype(np.float32), (0, 0), SMOOTH) for f in frames])


def _at(size: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Sizes at brightnesses, float32 of the shape of `light`."""
    table = np.interp(np.arange(0, 256, 0.25), KNOTS, size).astype(np.float32)
    return table[np.clip(light * 4, 0, len(table) - 1).astype(np.int32)]


def _amplitudes(grain: np.ndarray, side: int) -> np.ndarray:
    """Of the waves (BANDS, H, W // 2 + 1) that white noise has after filtering by the grain."""
    near = np.arange(-REACH, REACH + 1) % side
    wrapped = np.zeros((BANDS, side, side), np.float32)
    wrapped[:, near[:, None], near] = grain
    power = np.maximum(fft.rfft2(wrapped).real, 0)
    # Cutting negative powers off adds to the variance, which is to stay 1.
    variance = fft.irfft2(power, s=(side, side))[:, :1, :1]
    return np.sqrt(power / variance).astype(np.float32)


def _weights(side: int) -> np.ndarray:
    """Share of each band of depth in each row, float32 (BANDS, H); those of a row add to 1."""
    centres = (np.arange(BANDS) + 0.5) * side / BANDS - 0.5
    rows = np.arange(side)
    return np.stack([np.interp(rows, centres, one) for one in np.eye(BANDS)]).astype(np.float32)
