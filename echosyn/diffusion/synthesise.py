"""A synthetic dataset from accepted hearts: which heart gets which EF and split, then videos."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from echosyn.data.filelist import read_filelist, write_filelist
from echosyn.data.latents import LatentSet
from echosyn.data.reconstruct import VideoCodec
from echosyn.data.video import write_video
from echosyn.diffusion.ef_draw import draw_ef
from echosyn.diffusion.generate import VideoSampler, synthetic_name
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.errors import EchosynError
from echosyn.files import atomic_dir
from echosyn.models.vae import FRAME_SIZE
from echosyn.privacy.filter import AcceptedHearts
from echosyn.shards import gather


@dataclass(frozen=True)
class SamplePlan:
    """One row per video to make: the sample index of its heart, and the row of the FileList."""

    hearts: AcceptedHearts
    indices: np.ndarray
    table: pd.DataFrame

    def numbers(self) -> dict[str, float]:
        return {
            "sample_videos/videos": len(self.table),
            "sample_videos/frames": int(self.table["NumberOfFrames"].sum()),
            "sample_videos/ef_mean": float(self.table["EF"].mean()),
            "sample_videos/ef_sd": float(self.table["EF"].std(ddof=0)),
        }


def plan_samples(
    dataset: str, cfg: SampleVideosConfig, hearts: AcceptedHearts, real: LatentSet, seed: int
) -> SamplePlan:
    """Take the first accepted hearts in sample order and give each an EF and a split.

    Raises:
        EchosynError: fewer accepted hearts than videos wanted, with the numbers.
    """
    wanted = sum(cfg.counts.values())
    if len(hearts) < wanted:
        counts = ", ".join(f"{k} {v}" for k, v in cfg.counts.items())
        raise EchosynError(
            f"{hearts.path}: {len(hearts)} accepted hearts, but {wanted} videos are wanted "
            f"({counts}): run privacy_filter again, which draws more"
        )
    chosen = hearts.indices[:wanted]
    table = synthetic_table(
        [synthetic_name(dataset, seed, int(i)) for i in chosen],
        draw_ef(cfg.ef, real.ef, wanted, seed),
        [name for name, n in cfg.counts.items() for _ in range(n)],
        cfg.frames,
        float(real.table["FPS"].iloc[0]),
    )
    return SamplePlan(hearts, chosen, table)


def synthetic_table(
    names: list[str], ef: np.ndarray, splits: list[str], frames: int, fps: float
) -> pd.DataFrame:
    """FileList of videos to make: EF in percent; volumes are unknown."""
    return pd.DataFrame(
        {
            "FileName": names,
            "EF": ef,
            "ESV": np.nan,
            "EDV": np.nan,
            "FrameHeight": FRAME_SIZE,
            "FrameWidth": FRAME_SIZE,
            "FPS": fps,
            "NumberOfFrames": frames,
            "Split": splits,
        }
    )


def sample_shard(
    sampler: VideoSampler,
    codec: VideoCodec,
    plan: SamplePlan,
    rows: range,
    folder: Path,
    seed: int,
) -> None:
    """Sample and decode the videos of these rows into `folder`."""
    for start in range(rows.start, rows.stop, sampler.cfg.batch):
        part = slice(start, min(start + sampler.cfg.batch, rows.stop))
        ef = torch.tensor(plan.table["EF"].to_numpy(np.float32)[part])
        indices = plan.indices[part].tolist()
        latents = sampler.animate(plan.hearts.take(indices), ef, indices, seed)
        for name, z in zip(plan.table["FileName"].iloc[part], latents, strict=True):
            write_video(folder / f"{name}.avi", codec.decode(z), float(plan.table["FPS"].iloc[0]))


def finish_samples(shards: list[Path], plan: SamplePlan, out: Path) -> None:
    """Assemble samples/<dataset>: Videos/ and FileList.csv."""
    with atomic_dir(out) as tmp:
        gather(shards, "*.avi", tmp / "Videos")
        write_filelist(tmp / "FileList.csv", plan.table)


def released_hearts(hearts: AcceptedHearts, samples: Path) -> Tensor:
    """The hearts (N, 4, h, w) that a sample folder's videos show, in its order.

    Raises:
        EchosynError: a video of a heart that the filter did not accept.
    """
    names = read_filelist(samples / "FileList.csv")["FileName"]
    return hearts.take(np.array([int(name.rsplit("_", 1)[1]) for name in names]))
