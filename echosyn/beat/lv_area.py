"""The area of the left ventricle in latent frames, learned from the traced frames of TRAIN.

Two frames of a video are traced, so the network has few frames to learn from; a beat needs no exact
area, only when it is largest.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.beat.curve import circular_mean, fit_beats
from echosyn.beat.tracings import traced_areas
from echosyn.data.latents import LatentSet
from echosyn.models.store import CONFIG, load_model, save_model
from echosyn.models.vae import LATENT_CHANNELS
from echosyn.runtime.config import setting
from echosyn.training.loop import LoopConfig

LEAST_TRACED = 8  # TRAIN videos; fewer teach nothing
LEAST_ANCHOR = 0.5  # resultant length, below which end-diastole is anywhere in the beat
GROUP = 8  # channels to a group of GroupNorm


@dataclass(frozen=True)
class BeatsConfig:
    """Section `beats`."""

    loop: LoopConfig
    width: int = setting(32, lo=8, help="channels of the first of three layers")
    noise: float = setting(0.1, lo=0.0, help="sd of noise on training frames, of unit latents")

    def check(self) -> str | None:
        return None if self.width % GROUP == 0 else f"width {self.width} is no multiple of {GROUP}"


class LvArea(nn.Module):
    """The root of the area, standardised, from latent frames: (B, 4, h, w) -> (B,)."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        channels = (LATENT_CHANNELS, width, 2 * width, 3 * width)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(channels)):
            conv = nn.Conv2d(a, b, 3, padding=1, stride=2 if i else 1)
            layers += [conv, nn.GroupNorm(b // GROUP, b), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        side = (size + 3) // 4  # halved twice, each time rounded up
        self.out = nn.Linear(channels[-1] * side * side, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.features(x).flatten(1))[:, 0]


@dataclass(frozen=True, eq=False)
class Traced:
    """Traced latent frames (N, 4, h, w), the root of their areas in pixels (N,), their videos'
    rows (N,), the frames' numbers (N,), and whether they are end-diastole, the largest (N,)."""

    frames: Tensor
    root: np.ndarray
    video: np.ndarray
    number: np.ndarray
    diastole: np.ndarray

    @property
    def videos(self) -> int:
        return len(np.unique(self.video))


def traced_frames(latents: LatentSet, data: Path) -> Traced:
    """Of the videos of `latents` that VolumeTracings.csv of the dataset folder `data` has.

    A traced frame of the file is the latent frame that is nearest in time; one beyond the end of
    the latents is left out.
    """
    areas = traced_areas(data / "VolumeTracings.csv")
    source = pd.read_csv(data / "FileList.csv", dtype={"FileName": str}).set_index("FileName")
    rows = []
    for v, name in enumerate(latents.table["FileName"]):
        if name not in areas or name not in source.index:
            continue
        scale = float(latents.table["FPS"][v]) / float(source["FPS"][name])
        largest = max(areas[name].values())
        for frame, area in areas[name].items():
            nearest = round(frame * scale)
            if nearest < latents.lengths[v] and area > 0:
                rows.append((v, nearest, np.sqrt(area), area == largest))
    if not rows:
        size = latents.frame_size
        empty = torch.zeros(0, LATENT_CHANNELS, size, size)
        none = np.zeros(0, int)
        return Traced(empty, np.zeros(0), none, none, np.zeros(0, bool))
    video, number, root, diastole = map(np.array, zip(*rows, strict=True))
    frames = torch.stack([latents.mean(v, k, k + 1)[0] for v, k in zip(video, number, strict=True)])
    return Traced(frames, root, video, number, diastole)


class LvAreaTask:
    """Traced frames of TRAIN; see echosyn.training.loop.Task."""

    def __init__(self, cfg: BeatsConfig, train: Traced, val: Traced) -> None:
        self.cfg, self.train, self.val = cfg, train, val
        self.mean, self.sd = float(train.root.mean()), float(max(train.root.std(), 1e-6))

    @property
    def size(self) -> int:
        return len(self.train.frames)

    def build(self) -> LvArea:
        return LvArea(self.cfg.width, self.train.frames.shape[-1])

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        x = self.train.frames[indices]
        noise = rng.standard_normal(x.shape, np.float32)
        target = (self.train.root[indices] - self.mean) / self.sd
        return {
            "x": x + self.cfg.noise * torch.from_numpy(noise),
            "target": torch.from_numpy(target).float(),
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return F.mse_loss(model(batch["x"]).float(), batch["target"]), {}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Loss on VAL's traced frames, the share of the variance that is not explained."""
        device = next(model.parameters()).device
        target = torch.from_numpy((self.val.root - self.mean) / self.sd).float()
        return {"loss": float(F.mse_loss(model(self.val.frames.to(device)).float().cpu(), target))}


@torch.no_grad()
def area_curve(model: nn.Module, frames: Tensor) -> np.ndarray:
    """What `model` makes of a video's latents (T, 4, h, w): float64 (T,)."""
    device = next(model.parameters()).device
    return model(frames.to(device)).double().cpu().numpy()


def area_curves(model: nn.Module, latents: LatentSet) -> list[np.ndarray]:
    """`area_curve` of every video."""
    return [area_curve(model, latents.mean(v)) for v in range(len(latents))]


def save_area(folder: Path, model: LvArea, width: int, size: int) -> None:
    """Write a network of `width` for latents (4, size, size), which `load_area` reads."""
    save_model(folder, model, {"width": width, "size": size})


def load_area(folder: Path) -> LvArea | None:
    """The network that the stage beats left in `folder`; None where a dataset had no tracings.

    Raises:
        EchosynError: a damaged or a half one.
    """
    if not (folder / CONFIG).is_file():
        return None
    return load_model(folder, lambda facts: LvArea(facts["width"], facts["size"]))


def beat_table(
    latents: LatentSet, curves: list[np.ndarray], train: Traced
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Rate and phase of every video from its curve, and how far they are to be trusted.

    The sinusoid of a curve is largest some share of a beat away from end-diastole; how far, TRAIN's
    traced end-diastolic frames say (circular mean).

    Args:
        latents: all videos, of one frame rate. train: TRAIN's traced frames.

    Returns:
        a table with the columns of beats.csv, and flat metrics: `sure`, the share of videos with a
        beat; `anchor`, the resultant length of TRAIN's end-diastolic frames in phase (1: they
        agree); `rate_median`, beats a minute.
    """
    fps = float(latents.table["FPS"].iloc[0])
    beats, rows = fit_beats(curves, fps), np.flatnonzero(latents.table["Split"] == "TRAIN")
    video, number = rows[train.video[train.diastole]], train.number[train.diastole]
    sure = beats.sure[video]
    video, number = video[sure], number[sure]
    at = beats.phase[video] + beats.rate[video] / 60 * number / fps
    offset, anchor = circular_mean(at)
    if anchor < LEAST_ANCHOR:
        print(f"{latents.folder}: traced end-diastole has no place in the beat: left without one")
        return without_beats(latents), {"beats/sure": 0.0, "beats/anchor": anchor}
    table = pd.DataFrame(
        {
            "FileName": latents.table["FileName"],
            "HeartRate": beats.rate,
            "Phase": (beats.phase - offset) % 1,
            "Share": beats.share,
        }
    )
    numbers = {"beats/sure": float(beats.sure.mean()), "beats/anchor": anchor}
    if beats.sure.any():
        numbers["beats/rate_median"] = float(np.nanmedian(beats.rate))
    return table, numbers


def without_beats(latents: LatentSet) -> pd.DataFrame:
    """beats.csv of a dataset without tracings."""
    names = latents.table["FileName"]
    return pd.DataFrame({"FileName": names, "HeartRate": np.nan, "Phase": np.nan, "Share": np.nan})
