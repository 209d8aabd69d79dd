"""A trained VAE on videos: frames to latents and back, in blocks, in a precision known right."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from echosyn.arithmetic.trust import Probe, trusted
from echosyn.models.vae import FRAME_SIZE, Vae
from echosyn.runtime.config import PRECISIONS, setting
from echosyn.runtime.device import autocast, pick_device

# Frames through the VAE at once: a GPU wants many, the caches of a CPU hold few.
BLOCK, BLOCK_CPU = 64, 8


@dataclass(frozen=True)
class EncodeConfig:
    """Section `encode`."""

    fps: float = setting(16.0, lo=1.0, hi=120.0, help="frame rate of the latents, so of all models")
    batch: int = setting(0, lo=0, help="frames per forward pass; 0: 8 on a CPU, else 64")
    shard: int = setting(32, lo=1, help="videos per latent shard, the unit of resume")
    precision: str = setting("auto", choices=PRECISIONS)


class VideoCodec:
    """A trained VAE on the device, in the wanted precision; `batch` as in EncodeConfig."""

    def __init__(self, vae: Vae, batch: int = 0, precision: str = "auto") -> None:
        self.device = pick_device()
        self.vae = vae.to(self.device).eval()
        self.batch = batch or (BLOCK_CPU if self.device.type == "cpu" else BLOCK)
        self.precision = trusted(precision, self.device, self.probe(), "VAE")
        # Several threads may use it at once, each for a video: of use where it has no GPU to feed.
        self.shared = self.device.type == "cpu"

    def probe(self) -> Probe:
        """A block of frames to latents and back, for a check of the arithmetic."""
        frames = torch.randint(0, 256, (self.batch, FRAME_SIZE, FRAME_SIZE), dtype=torch.uint8)
        return Probe("frames to latents and back", there_and_back, (self.vae, frames))

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
        """Unit-scale latents (T, 4, h, w) to uint8 frames (T, 8 h, 8 w), or 4 h and 4 w."""
        with autocast(self.device, self.precision):
            raw = self.vae.denormalise(z.to(self.device))
            frames = [self.vae.decode(raw[block]).cpu() for block in self._blocks(len(raw))]
        return torch.cat(frames).numpy()


def there_and_back(vae: Vae, frames: Tensor) -> Tensor:
    """Frames uint8 (N, H, W) through the posterior's mean."""
    with torch.inference_mode():
        return vae.decode(vae.encode(frames)[0])
