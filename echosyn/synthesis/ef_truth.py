"""The EF of finished videos, measured, and what follows: relabel, or animate again.

A video that was asked for an EF of 30 need not show one. The regressors that learned from real
videos measure it; `relabel` takes their word for the label, `reject` tries other noises until the
video shows what was asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.data.filelist import (
    ASKED,
    EF_ASKED,
    EF_KIND,
    EF_MEASURED,
    EF_TRUTH,
    MEASURED,
    asked_ef,
)
from echosyn.data.frames import FrameSet
from echosyn.data.video import resample_indices
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.metrics.ef import requested_vs_measured
from echosyn.metrics.ef_meter import CLIPS, predict_clips
from echosyn.models.ef_regressor import load_seeds
from echosyn.runtime.device import pick_device
from echosyn.runtime.files import write_text

TRUTH = "truth.csv"


class EfMeter:
    """Measures one finished video at a time, so that no other changes the last bits of its EF.

    Args:
        folder: of an arm of EF regressors; the mean over its seeds counts.

    Raises:
        EchosynError: the folder holds no regressor.
    """

    def __init__(self, folder: Path, precision: str = "auto") -> None:
        self.nets = [net.to(pick_device()) for net in load_seeds(folder)]
        self.precision = precision

    def __call__(self, frames: np.ndarray, fps: float) -> float:
        """EF in percent, 0-100 rounded to 0.01, of uint8 frames (T, H, W) before JPEG."""
        of_seeds = []
        for net in self.nets:
            seen = frames[resample_indices(len(frames), fps, net.fps)]
            one = pd.DataFrame({"FileName": [""]})
            video = FrameSet(seen, one, np.array([0]), np.array([len(seen)]), net.fps)
            clips = predict_clips(
                net, [(video, 0)], net.frames, CLIPS, show=False, precision=self.precision
            )
            of_seeds.append(clips[0].mean())
        return float(np.round(np.clip(np.mean(of_seeds), 0, 100), 2))


@dataclass(frozen=True)
class Take:
    """One attempt at a video."""

    frames: np.ndarray  # uint8 (T, H, W)
    measured: float  # percent
    off: float  # percent points from what was asked for


class ShardTruth:
    """Measures the videos of one shard as they are made, and keeps what was measured.

    Args:
        names, asked: FileName and EF, in percent, of every row of the plan.
        fps: of the videos.
    """

    def __init__(
        self,
        meter: EfMeter,
        cfg: SampleVideosConfig,
        names: Sequence[str],
        asked: Sequence[float],
        fps: float,
    ) -> None:
        self.meter, self.cfg, self.fps = meter, cfg, fps
        self.names, self.asked = list(names), list(asked)
        self.best: dict[int, Take] = {}
        self.found: list[dict[str, object]] = []

    def settle(self, row: int, frames: np.ndarray, attempt: int) -> np.ndarray | None:
        """The frames of the video to keep for a row, or None when it is to be tried once more.

        Args:
            frames: uint8 (T, H, W) of attempt number `attempt`, from 0.
        """
        cfg, asked = self.cfg, float(self.asked[row])
        measured = self.meter(frames, self.fps)
        take = Take(frames, measured, abs(measured - asked))
        best = min(self.best.pop(row, take), take, key=lambda t: t.off)  # the earlier one if equal
        last = cfg.ef_truth == "relabel" or attempt + 1 == cfg.ef_attempts
        if not last and best.off > cfg.ef_tolerance:
            self.best[row] = best
            return None
        kind = ASKED if cfg.ef_truth == "reject" else MEASURED
        truth = {
            "EF": asked if kind == ASKED else best.measured,
            EF_ASKED: asked,
            EF_MEASURED: best.measured,
            EF_KIND: kind,
        }
        self.found.append({"FileName": self.names[row], **truth, "Attempts": attempt + 1})
        return best.frames

    def write(self, folder: Path) -> None:
        table = pd.DataFrame(self.found).sort_values("FileName")
        write_text(folder / TRUTH, table.to_csv(index=False, lineterminator="\n"))


def read_truth(shards: Sequence[Path]) -> pd.DataFrame | None:
    """What the shards' ShardTruth wrote, a row per video; None when nothing was measured."""
    files = [path for shard in shards if (path := shard / TRUTH).is_file()]
    if not files:
        return None
    return pd.concat([pd.read_csv(f, dtype={"FileName": str}) for f in files], ignore_index=True)


def with_truth(table: pd.DataFrame, found: pd.DataFrame | None) -> pd.DataFrame:
    """FileList rows with EF, its kind and what was measured; unchanged without `found`."""
    if found is None:
        return table
    of = found.set_index("FileName")
    columns = ("EF", *EF_TRUTH, EF_KIND)
    return table.assign(**{c: table["FileName"].map(of[c]) for c in columns})


def without_truth(table: pd.DataFrame) -> pd.DataFrame:
    """FileList rows as they were before anything was measured."""
    return as_asked(table, asked_ef(table))


def as_asked(table: pd.DataFrame, ef: pd.Series | np.ndarray) -> pd.DataFrame:
    """FileList rows of videos asked for these EFs, percent, NaN for none; nothing is measured."""
    kinds = np.where(pd.notna(ef), ASKED, "")
    return table.assign(**{"EF": ef, EF_ASKED: ef, EF_MEASURED: np.nan, EF_KIND: kinds})


def truth_numbers(found: pd.DataFrame | None, tolerance: float, seed: int) -> dict[str, float]:
    """How near the videos come to what was asked for, and at how many attempts; none measured,
    none returned. What the videos cannot say (a correlation of one) is left out.

    The regressors that decided also measure here: another one would find the videos less near.
    """
    if found is None:
        return {}
    asked = asked_ef(found).to_numpy(np.float64)
    measured = found[EF_MEASURED].to_numpy(np.float64)
    off = np.abs(measured - asked)
    numbers = {
        "sample_videos/ef_within_tolerance": float((off <= tolerance).mean()),
        "sample_videos/ef_mae": float(off.mean()),
        "sample_videos/attempts": float(found["Attempts"].mean()),
    }
    scores = requested_vs_measured(asked, measured, seed, resamples=1000)
    for name in ("r", "slope"):
        numbers |= scores[name].flat(f"sample_videos/ef_{name}")
    return {k: v for k, v in numbers.items() if np.isfinite(v)}
