"""Is a synthetic frame a training frame, moved, mirrored, brightened, blurred or noised?

Pictures of one view are alike in what is coarse; speckle is a patient's own. Frames are therefore
reduced, band-passed, and compared by normalised cross-correlation at every small translation
(Padfield 2012, "Masked object registration in the Fourier domain": means and variances are those
of the overlap of the two sectors). All pairs would be too many, so each frame names one candidate
first: the training frame with the nearest log-amplitude spectrum, which neither a translation nor
a mirror image changes, and of which the mean of each ring is taken off, which is all that gain,
blur and noise change much. `ncc` is thus the highest over the translations of one candidate, not
over the gallery; the gallery's own copies of a frame come first among candidates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from echosyn.data.frames import FrameSet
from echosyn.data.spaced import evenly_spaced
from echosyn.privacy.detectors.similarity import max_similarity, unit_rows
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.progress import bar

FINE, COARSE = 1.0, 3.0  # sigmas of the band-pass in pixels of the reduced frame
LOWEST, HIGHEST = 0.04, 0.30  # cycles per reduced pixel that the spectrum is read at
DARK = 8  # grey levels; what never exceeds it lies outside the sector
FLAT = 0.05  # grey levels squared, or share of the variance: less texture than this is none
SAMPLE = 4096  # gallery frames that the sector and the basis of descriptors are found from
BATCH = 256  # frames or pairs in work at once: 60 MB


@dataclass(frozen=True)
class CopyConfig:
    """The copy detector in pixel space."""

    side: int = setting(56, lo=32, hi=256, help="pixels a side that frames are reduced to")
    reach: float = setting(0.14, lo=0.0, hi=0.3, help="largest shift found, share of the side")
    descriptor: int = setting(128, lo=8, hi=1024, help="numbers per frame that name candidates")


@dataclass(frozen=True)
class Matches:
    """The best match of each frame, or of each video after `per_video`. All (N,).

    A frame is its training frame, first mirrored where `mirrored`, then moved by `down` and
    `right` pixels of the frame. `row` counts gallery frames, `frame` those that were looked at.
    """

    ncc: np.ndarray  # float32 -1..1; 0 where there is no texture to compare
    row: np.ndarray
    frame: np.ndarray
    down: np.ndarray
    right: np.ndarray
    mirrored: np.ndarray

    def per_video(self, videos: np.ndarray) -> "Matches":
        """The frame with the highest ncc of each video (the first, on ties), by video number."""
        best = first_best(self.ncc, videos)
        return replace(self, **{name: value[best] for name, value in vars(self).items()})


def first_best(scores: np.ndarray, videos: np.ndarray) -> np.ndarray:
    """Position of the highest score of each video, in order of video number; first on ties."""
    order = np.lexsort((-np.asarray(scores, np.float64), videos))
    _, first = np.unique(np.asarray(videos)[order], return_index=True)
    return order[first]


def frame_rows(frames: FrameSet, count: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `frames.data` and the video of each: all, or `count` evenly spread per video.

    The very frames that `LatentSet.frames` takes.
    """
    rows = []
    for start, length in zip(frames.starts, frames.lengths, strict=True):
        n = int(length)
        rows.append(start + (evenly_spaced(n, count) if count else np.arange(n)))
    videos = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return np.concatenate(rows).astype(np.int64), videos


class CopyDetector:
    """Compares frames with a gallery of training frames.

    Args:
        data: uint8 (F, H, W), possibly memory-mapped; frames are read when they are needed.
        rows: (G,) the rows of `data` that make the gallery.
        progress: what to call the progress bar; "": none.
        kept: what `state` gave for these very frames and settings, which saves the work.

    Holds `descriptor` float32 numbers per gallery frame (512 bytes), and BATCH frames in work.

    Raises:
        EchosynError: not uint8 frames, an empty gallery, or nothing but dark frames.
    """

    def __init__(
        self,
        data: np.ndarray,
        rows: np.ndarray,
        cfg: CopyConfig,
        progress: str = "",
        kept: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        _check(data)
        if len(rows) == 0:
            raise EchosynError("the copy detector got no training frames to compare with")
        self.cfg, self.data, self.rows = cfg, data, np.asarray(rows, np.int64)
        self.height, self.width = data.shape[1:]
        self.reach = round(cfg.reach * cfg.side)
        self.size = next_fast_len(cfg.side + self.reach, real=True)
        sample = self.rows[evenly_spaced(len(rows), min(len(rows), SAMPLE))]
        self.sector = kept["sector"] if kept else _sector(data, sample, cfg.side)
        if not self.sector.any():
            raise EchosynError(
                f"{len(sample)} training frames show nothing brighter than {DARK} of 255; are "
                "these the videos?"
            )
        self.window = _window(self.sector)
        self.ring = _rings(self.size)
        if kept:
            self.mean, self.basis = torch.from_numpy(kept["mean"]), torch.from_numpy(kept["basis"])
            self.gallery = kept["descriptors"]
        else:
            self.mean, self.basis = self._fit(sample)
            self.gallery = self._describe(lambda part: data[self.rows[part]], len(rows), progress)

    def state(self) -> dict[str, np.ndarray]:
        """What took time to find, as arrays; see `kept`."""
        return {
            "sector": self.sector,
            "mean": self.mean.numpy(),
            "basis": self.basis.numpy(),
            "descriptors": self.gallery,
        }

    def __call__(self, frames: np.ndarray, progress: str = "") -> Matches:
        """The best match of each of `frames`, uint8 (N, H, W) of the gallery's size."""
        _check(frames)
        if frames.shape[1:] != self.data.shape[1:]:
            raise EchosynError(
                f"frames of {frames.shape[1:]} pixels, training frames of {self.data.shape[1:]}"
            )
        described = self._describe(lambda part: frames[part], len(frames), "")
        _, row = max_similarity(described, self.gallery, progress=progress)
        parts = []
        for start in range(0, len(frames), BATCH):
            part = slice(start, start + BATCH)
            train = self._reduce(self.data[self.rows[row[part]]])
            parts.append(self._correlate(self._reduce(frames[part]), train))
        ncc, down, right, mirrored = (np.concatenate(x) for x in zip(*parts, strict=True))
        side = self.cfg.side
        return Matches(
            ncc,
            row,
            np.arange(len(frames)),
            down * (self.height / side),
            right * (self.width / side),
            mirrored,
        )

    def _reduce(self, frames: np.ndarray) -> np.ndarray:
        """Band-passed reduced frames float32 (N, side, side).

        The band-pass knows no sector, so that it moves with the picture.
        """
        side = self.cfg.side
        out = np.empty((len(frames), side, side), np.float32)
        for i, frame in enumerate(frames):
            x = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
            out[i] = cv2.GaussianBlur(x, (0, 0), FINE) - cv2.GaussianBlur(x, (0, 0), COARSE)
        return out

    def _spectra(self, frames: np.ndarray) -> Tensor:
        """Log amplitudes less the mean of their ring, float32 (N, coefficients)."""
        x = torch.from_numpy(self._reduce(frames) * self.window)
        power = torch.fft.rfft2(x, s=(self.size, self.size)).abs()
        # A mirror image swaps the amplitudes at u and -u.
        power = power + power[:, (-torch.arange(self.size)) % self.size]
        power = power[:, : self.size // 2 + 1]
        kept = self.ring >= 0
        floor = 1e-3 * power.mean((1, 2), keepdim=True) + 1e-6
        logs, ring = torch.log(power + floor)[:, kept], self.ring[kept]
        count = torch.bincount(ring)
        sums = torch.zeros(len(logs), len(count)).index_add_(1, ring, logs)
        return logs - (sums / count)[:, ring]

    def _fit(self, sample: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean (C,) and the first principal directions (C, descriptor) of the sample's spectra."""
        parts = [
            self._spectra(self.data[sample[i : i + BATCH]]) for i in range(0, len(sample), BATCH)
        ]
        x = torch.cat(parts).double()
        mean = x.mean(0)
        _, vectors = torch.linalg.eigh((x - mean).T @ (x - mean))
        return mean.float(), vectors.flip(1)[:, : self.cfg.descriptor].float().contiguous()

    def _describe(
        self, take: Callable[[slice], np.ndarray], count: int, progress: str
    ) -> np.ndarray:
        out = np.empty((count, self.basis.shape[1]), np.float32)
        with bar(count, progress, "frame", show=bool(progress)) as shown:
            for start in range(0, count, BATCH):
                part = slice(start, min(start + BATCH, count))
                rows = (self._spectra(take(part)) - self.mean) @ self.basis
                out[part] = unit_rows(rows.numpy(), "cosine")
                shown.update(part.stop - part.start)
        return out

    def _correlate(
        self, frames: np.ndarray, train: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Highest NCC of pairs, its shift in reduced pixels (down, right), and if mirrored."""
        sector = torch.from_numpy(self.sector)
        b = torch.from_numpy(train)
        found = []
        for a, mask in ((frames, sector), (frames[:, :, ::-1].copy(), sector.flip(1))):
            ncc = masked_ncc(torch.from_numpy(a), mask, b, sector, self.reach, self.size)
            found.append(ncc.flatten(1).max(1))
        values = torch.stack([f.values for f in found])
        ncc, side = values.max(0)
        at = torch.stack([f.indices for f in found])[side, torch.arange(len(side))].numpy()
        span = 2 * self.reach + 1
        # A match of frame(x) with train(x + s) means that the copy was moved by -s.
        down, right = self.reach - at // span, self.reach - at % span
        mirrored = side.numpy() == 1
        # Of a mirrored frame brought back: moving it right moved its mirror image left.
        return ncc.numpy(), down, np.where(mirrored, -right, right), mirrored


def masked_ncc(
    a: Tensor, mask_a: Tensor, b: Tensor, mask_b: Tensor, reach: int, size: int
) -> Tensor:
    """Pearson correlation of a(x) with b(x + s) over mask_a(x) and mask_b(x + s).

    Args:
        a, b: (N, h, w) float32; masks (h, w) of 0 and 1.
        reach: largest |s| along either axis; size: of the transforms, at least h + reach.

    Returns:
        (N, 2 reach + 1, 2 reach + 1) from s = (-reach, -reach) on; 0 where either has no texture.
    """

    def forward(x: Tensor) -> Tensor:
        return torch.fft.rfft2(x, s=(size, size))

    def shifted(x: Tensor) -> Tensor:
        steps = torch.arange(-reach, reach + 1) % size
        return torch.fft.irfft2(x, s=(size, size))[..., steps, :][..., steps]

    a, b = _standard(a, mask_a), _standard(b, mask_b)
    fa, fb, fm, fn = forward(a), forward(b), forward(mask_a.float()), forward(mask_b.float())
    count = shifted(fm.conj() * fn).clamp(min=1)
    sum_a, sum_b = shifted(fa.conj() * fn), shifted(fm.conj() * fb)
    var_a = shifted(forward(a * a).conj() * fn) / count - (sum_a / count) ** 2
    var_b = shifted(fm.conj() * forward(b * b)) / count - (sum_b / count) ** 2
    covariance = shifted(fa.conj() * fb) / count - sum_a * sum_b / count**2
    textured = (var_a > FLAT) & (var_b > FLAT)
    ncc = covariance / (var_a * var_b).clamp(min=FLAT**2).sqrt()
    return torch.where(textured, ncc, 0.0).clamp(-1, 1)


def _standard(x: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 within the mask, 0 outside it and where there is no texture."""
    inside = mask.float()
    count = inside.sum().clamp(min=1)
    x = (x - (x * inside).sum((-2, -1), keepdim=True) / count) * inside
    variance = (x * x).sum((-2, -1), keepdim=True) / count
    return torch.where(variance > FLAT, x / variance.clamp(min=FLAT).sqrt(), 0.0)


def _check(frames: np.ndarray) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 3 or min(frames.shape[1:]) < 32:
        raise EchosynError(
            "expected uint8 frames (N, H, W) of 32x32 pixels or more, got "
            f"{frames.dtype} {frames.shape}"
        )


def _sector(data: np.ndarray, rows: np.ndarray, side: int) -> np.ndarray:
    """Convex hull of what is bright in some frame, two reduced pixels short of its edge."""
    brightest = np.zeros(data.shape[1:], np.uint8)
    for start in range(0, len(rows), BATCH):
        np.maximum(brightest, data[rows[start : start + BATCH]].max(0), out=brightest)
    reduced = cv2.resize(brightest, (side, side), interpolation=cv2.INTER_AREA)
    seen = (reduced > DARK).astype(np.uint8)
    if not seen.any():
        return seen > 0
    filled = cv2.fillConvexPoly(seen, cv2.convexHull(cv2.findNonZero(seen)), 1)
    padded = cv2.copyMakeBorder(filled, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=0)
    return cv2.erode(padded, np.ones((5, 5), np.uint8))[2:-2, 2:-2] > 0


def _window(sector: np.ndarray) -> np.ndarray:
    """1 within the sector, fading to 0 over the five pixels before its edge, float32."""
    padded = np.pad(sector.astype(np.uint8), 1)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.minimum(inside / 5, 1).astype(np.float32)


def _rings(size: int) -> Tensor:
    """The ring of each coefficient (size // 2 + 1, size // 2 + 1), 1/64 cycles wide; -1: unread."""
    radius = np.hypot(*np.meshgrid(*[np.arange(size // 2 + 1) / size] * 2, indexing="ij"))
    ring = np.floor((radius - LOWEST) * 64).astype(np.int64)
    return torch.from_numpy(np.where((radius >= LOWEST) & (radius < HIGHEST), ring, -1))
