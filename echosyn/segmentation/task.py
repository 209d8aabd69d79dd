"""Training and testing the segmenter on the traced frames of real videos."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.beat.tracings import CHORDS as LINES
from echosyn.beat.tracings import read_tracings
from echosyn.data.filelist import TRACINGS, read_filelist, video_path
from echosyn.data.spaced import evenly_spaced
from echosyn.data.video import map_videos, read_video
from echosyn.metrics.interval import Estimate, percentile_interval, resample_counts
from echosyn.models.segmenter import Segmenter, as_input, probabilities
from echosyn.models.small_unet import GROUP
from echosyn.runtime.config import setting
from echosyn.segmentation import RESAMPLES
from echosyn.segmentation.contour import chords, dice, disc_volume, filled, outline
from echosyn.training.loop import LoopConfig

LEAST_TRACED = 8  # TRAIN videos; fewer teach nothing
# A training frame is turned (degrees), zoomed, shifted (pixels) and changed in contrast and gain.
TURN, ZOOM, SHIFT, GAMMA, GAIN = 10.0, 0.15, 8.0, 0.35, 0.2
PATCH = 16  # pixels' side of the patches that are shuffled where no heart shall be
SAME_SIZE = 0.02  # relative spread of a cubic pixel's millilitres, below which all videos have one


@dataclass(frozen=True)
class SegmentationConfig:
    """Section `train_segmentation`."""

    loop: LoopConfig
    width: int = setting(16, lo=8, help="channels of the first of three levels")
    no_heart: float = setting(
        0.1, lo=0.0, hi=0.5, help="share of training frames in shuffled patches, to find nothing in"
    )

    def check(self) -> str | None:
        return None if self.width % GROUP == 0 else f"width {self.width} is no multiple of {GROUP}"


@dataclass(frozen=True, eq=False)
class TracedFrames:
    """Traced frames uint8 (N, H, W), their masks bool (N, H, W), whether they are end-diastole, the
    larger ones, bool (N,), and their videos' names (N,)."""

    frames: np.ndarray
    masks: np.ndarray
    diastole: np.ndarray
    names: np.ndarray

    @property
    def videos(self) -> int:
        return len(np.unique(self.names))

    @property
    def areas(self) -> np.ndarray:
        """Pixels squared, int64 (N,)."""
        return self.masks.sum(axis=(1, 2))


def traced_frames(data: Path, split: str, most: int | None = None) -> TracedFrames:
    """Of the videos of a split of the dataset folder `data` that its VolumeTracings.csv traces; of
    at most `most` of them, spread evenly.

    A traced frame beyond the video's end, or one whose contour holds no pixel, is left out.
    """
    traced = read_tracings(data / TRACINGS)
    table = read_filelist(data / "FileList.csv", "none")
    names = [n for n in table["FileName"][table["Split"] == split] if n in traced]
    if most is not None and names:
        names = [names[i] for i in np.unique(evenly_spaced(len(names), most))]

    def read(name: str) -> list[tuple[np.ndarray, np.ndarray, str]]:
        frames, _ = read_video(video_path(data, name))
        found = []
        for number, rows in traced[name].items():
            contour = outline(rows) if rows.shape[1] == len(LINES) else rows
            if 0 <= number < len(frames) and (mask := filled(contour, frames.shape[1])).any():
                found.append((frames[number], mask, name))
        return found

    read_in = [row for rows in map_videos(read, names, f"traced {split}") for row in rows]
    if not read_in:
        none = np.zeros((0, 1, 1))
        return TracedFrames(none.astype(np.uint8), none > 0, np.zeros(0, bool), np.zeros(0, str))
    frames, masks, of = (np.array(column) for column in zip(*read_in, strict=True))
    area = masks.sum(axis=(1, 2))
    largest = {name: area[of == name].max() for name in np.unique(of)}
    return TracedFrames(frames, masks, area == [largest[name] for name in of], of)


def cubic_pixel(data: Path) -> float | None:
    """Millilitres of a cubic pixel, where TRAIN's volumes and its tracings agree on one.

    None where they do not, because videos have pixels of several sizes, or no volume is known.
    """
    table = read_filelist(data / "FileList.csv", "none")
    known = table[(table["Split"] == "TRAIN") & (table["EDV"] > 0)]
    edv = dict(zip(known["FileName"], known["EDV"], strict=True))
    ratios = []
    for name, found in read_tracings(data / TRACINGS).items():
        if name in edv:
            lines = (r if r.shape[1] == len(LINES) else chords(r) for r in found.values())
            ratios.append(edv[name] / max(map(disc_volume, lines)))
    if len(ratios) < LEAST_TRACED:
        return None
    low, middle, high = np.quantile(ratios, [0.05, 0.5, 0.95])
    return float(middle) if high - low < SAME_SIZE * middle else None


class SegmentationTask:
    """Traced frames of TRAIN, selected on VAL; see echosyn.training.loop.Task."""

    def __init__(
        self,
        cfg: SegmentationConfig,
        train: TracedFrames,
        val: TracedFrames,
        ml: float | None = None,
    ) -> None:
        self.cfg, self.train, self.val, self.ml = cfg, train, val, ml

    @property
    def size(self) -> int:
        return len(self.train.frames)

    def build(self) -> Segmenter:
        areas = self.train.areas
        return Segmenter(self.cfg.width, (float(areas.min()), float(areas.max())), self.ml)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        frames, masks = [], []
        for i in indices:
            frame, mask = changed(self.train.frames[i], self.train.masks[i], rng)
            if rng.random() < self.cfg.no_heart:
                frame, mask = shuffled(frame, rng), np.zeros_like(mask)
            frames.append(frame)
            masks.append(mask)
        return {
            "x": as_input(np.stack(frames)),
            "target": torch.from_numpy(np.stack(masks)).float()[:, None],
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy and soft Dice loss (Milletari et al. 2016), smoothed by one pixel."""
        logits, target = model(batch["x"]).float(), batch["target"]
        found = logits.sigmoid()
        both = (found * target).sum((1, 2, 3))
        overlap = (2 * both + 1) / (found.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 1)
        return F.binary_cross_entropy_with_logits(logits, target) + 1 - overlap.mean(), {}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """One less the mean Dice on VAL's traced frames, which is the loss, and that Dice."""
        mean = float(dices(model, self.val).mean())
        return {"loss": 1 - mean, "dice": mean}


def changed(
    frame: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A frame (H, W) and its mask, moved alike; then the frame's contrast and gain, in 0 .. 255."""
    h, w = frame.shape
    move = cv2.getRotationMatrix2D(
        ((w - 1) / 2, (h - 1) / 2), rng.uniform(-TURN, TURN), 1 + rng.uniform(-ZOOM, ZOOM)
    )
    move[:, 2] = move[:, 2] + rng.uniform(-SHIFT, SHIFT, 2)
    moved = cv2.warpAffine(frame, move, (w, h)).astype(np.float32) / 255
    where = cv2.warpAffine(mask.astype(np.uint8) * 255, move, (w, h)) > 127
    gamma, gain = np.exp(rng.uniform(-GAMMA, GAMMA)), 1 + rng.uniform(-GAIN, GAIN)
    return np.minimum(255 * gain * moved**gamma, 255), where


def shuffled(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The patches of a frame (H, W) in another order, on black where they do not fill it: the
    texture of an echocardiogram, and no heart."""
    h, w = (side // PATCH for side in frame.shape)
    cut = frame[: h * PATCH, : w * PATCH].reshape(h, PATCH, w, PATCH).swapaxes(1, 2)
    mixed = rng.permutation(cut.reshape(h * w, PATCH, PATCH)).reshape(h, w, PATCH, PATCH)
    out = np.zeros_like(frame)
    out[: h * PATCH, : w * PATCH] = mixed.swapaxes(1, 2).reshape(h * PATCH, w * PATCH)
    return out


def dices(model: nn.Module, traced: TracedFrames) -> np.ndarray:
    """Dice of every traced frame, float64 (N,)."""
    found = probabilities(model, traced.frames) > 0.5
    return np.array([dice(a, b) for a, b in zip(found, traced.masks, strict=True)])


def dice_numbers(each: np.ndarray, traced: TracedFrames, seed: int) -> dict[str, float]:
    """`segmentation/dice`, `dice_ed` and `dice_es`: means over frames, with intervals that resample
    videos; and `segmentation/test_videos`."""
    _, video = np.unique(traced.names, return_inverse=True)
    numbers: dict[str, float] = {"segmentation/test_videos": traced.videos}
    kinds = {"dice": np.ones(len(each), bool), "dice_ed": traced.diastole}
    for name, rows in (kinds | {"dice_es": ~traced.diastole}).items():
        sums = np.bincount(video[rows], each[rows], traced.videos)
        counts = np.bincount(video[rows], minlength=traced.videos)
        drawn = np.concatenate(
            [(c @ sums) / (c @ counts) for c in resample_counts(traced.videos, RESAMPLES, seed)]
        )
        mean = float(each[rows].mean())
        numbers |= Estimate(mean, *percentile_interval(drawn)).flat(f"segmentation/{name}")
    return numbers
