"""Frames through the VAE: latents to keep, reconstructions to look at and to train on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from echosyn.config import PRECISIONS, setting
from echosyn.data.filelist import write_filelist
from echosyn.data.frames import FrameSet
from echosyn.data.latents import pack, write_index, write_shard
from echosyn.data.video import write_video
from echosyn.device import autocast, pick_device
from echosyn.files import atomic_dir, write_text
from echosyn.metrics.image import psnr_db, ssim
from echosyn.models.vae import Vae
from echosyn.shards import gather


@dataclass(frozen=True)
class EncodeConfig:
    """Section `encode`."""

    fps: float = setting(16.0, lo=1.0, hi=120.0, help="frame rate of the latents, so of all models")
    batch: int = setting(64, lo=1, help="frames per forward pass")
    shard: int = setting(32, lo=1, help="videos per latent shard, the unit of resume")
    precision: str = setting("auto", choices=PRECISIONS)


class VideoCodec:
    """A trained VAE on the device, in the wanted precision."""

    def __init__(self, vae: Vae, batch: int = 64, precision: str = "auto") -> None:
        self.device = pick_device()
        self.vae = vae.to(self.device).eval()
        self.batch, self.precision = batch, precision

    def _blocks(self, n: int) -> list[slice]:
        return [slice(i, i + self.batch) for i in range(0, n, self.batch)]

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """uint8 (T, H, W) to unit-scale posterior mean and log-variance, float32 (T, 4, h, w)."""
        source = torch.from_numpy(np.array(frames, order="C"))
        _, std = self.vae.statistics(torch.zeros(1, device=self.device))
        means, logvars = [], []
        with autocast(self.device, self.precision):
            for block in self._blocks(len(source)):
                mean, logvar = self.vae.encode(source[block].to(self.device))
                means.append(self.vae.normalise(mean).cpu())
                logvars.append((logvar - 2 * std.log()).cpu())
        return torch.cat(means), torch.cat(logvars)

    @torch.inference_mode()
    def decode(self, z: Tensor) -> np.ndarray:
        """Unit-scale latents (T, 4, h, w) to uint8 frames (T, 8 h, 8 w)."""
        with autocast(self.device, self.precision):
            raw = self.vae.denormalise(z.to(self.device))
            frames = [self.vae.decode(raw[block]).cpu() for block in self._blocks(len(raw))]
        return torch.cat(frames).numpy()


def encode_shard(codec: VideoCodec, frames: FrameSet, rows: range, folder: Path) -> None:
    """Latents, reconstructed videos and their quality for some videos, as files in `folder`."""
    latents, quality = {}, []
    for v in rows:
        name, original = frames.table["FileName"][v], frames.video(v)
        mean, logvar = codec.encode(original)
        latents[name] = pack(mean, logvar)
        # From the stored float16, since that is what everything downstream sees.
        decoded = codec.decode(latents[name][:, : mean.shape[1]].float())
        write_video(folder / f"{name}.avi", decoded, frames.fps)
        quality.append(
            {
                "FileName": name,
                "psnr_db": psnr_db(original, decoded),
                "ssim": ssim(original, decoded),
                "Shard": f"latents-{rows.start:06d}.safetensors",
            }
        )
    write_shard(folder / f"latents-{rows.start:06d}.safetensors", latents)
    write_text(folder / "quality.csv", pd.DataFrame(quality).to_csv(index=False))


def finish_encoding(
    shards: list[Path], frames: FrameSet, latents: Path, reconstructions: Path
) -> dict[str, float]:
    """Assemble shards into the two output folders; returns PSNR and SSIM over TEST, or over all.

    A dataset without a TEST video (a guest's few clips) is measured whole.
    """
    quality = pd.concat([pd.read_csv(s / "quality.csv") for s in shards], ignore_index=True)
    table = frames.table.assign(
        NumberOfFrames=frames.lengths,
        FPS=frames.fps,
        FrameHeight=frames.data.shape[1],
        FrameWidth=frames.data.shape[2],
    )
    with atomic_dir(latents) as tmp:
        gather(shards, "*.safetensors", tmp)
        write_index(tmp, table.merge(quality[["FileName", "Shard"]], on="FileName"))
    with atomic_dir(reconstructions) as tmp:
        gather(shards, "*.avi", tmp / "Videos")
        write_filelist(tmp / "FileList.csv", table)
    test = (table["Split"] == "TEST").to_numpy()
    kept = quality[test] if test.any() else quality
    return {
        "vae/psnr_db": float(kept["psnr_db"].mean()),
        "vae/ssim": float(kept["ssim"].mean()),
        "vae/frames": int(frames.lengths.sum()),
    }
