"""The VAE as a task of the loop: frames of TRAIN, VAL for validation."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from echosyn.config import setting
from echosyn.data.frames import FrameSet
from echosyn.models.vae import LATENT_SIZE, Vae, VaeConfig, vae_loss
from echosyn.training.loop import LoopConfig


@dataclass(frozen=True)
class TrainVaeConfig:
    """Section `train_vae`."""

    model: VaeConfig
    loop: LoopConfig
    fps: float = setting(16.0, lo=1.0, hi=120.0, help="frame rate at which videos are read")
    kl_weight: float = setting(1e-6, lo=0.0)
    validation_frames: int = setting(64, lo=1)
    standardise_frames: int = setting(512, lo=2, help="TRAIN frames that set the latents' scale")


class VaeTask:
    """Random single frames; see echosyn.training.loop.Task."""

    def __init__(self, cfg: TrainVaeConfig, train: list[FrameSet], val: list[FrameSet]) -> None:
        self.cfg = cfg
        self.sets = train
        self.owner = np.concatenate([np.full(len(s), k) for k, s in enumerate(train)])
        self.local = np.concatenate([np.arange(len(s)) for s in train])
        self.val = evenly_spaced_frames(val, cfg.validation_frames)

    @property
    def size(self) -> int:
        return len(self.owner)

    def build(self) -> nn.Module:
        return Vae.create(self.cfg.model)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        frames = []
        for i in indices:
            frame_set, v = self.sets[self.owner[i]], self.local[i]
            frames.append(frame_set.video(v)[rng.integers(frame_set.lengths[v])])
        noise = rng.standard_normal((len(indices), 4, LATENT_SIZE, LATENT_SIZE), np.float32)
        return {"frames": torch.from_numpy(np.stack(frames)), "noise": torch.from_numpy(noise)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        plain = getattr(model, "module", model)
        x = plain.to_input(batch["frames"])
        return vae_loss(x, *model(x, batch["noise"]), self.cfg.kl_weight)

    def validate(self, model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        x = model.to_input(torch.from_numpy(self.val).to(device))
        output, mean, logvar = model(
            x, torch.zeros(len(x), 4, LATENT_SIZE, LATENT_SIZE, device=device)
        )
        loss, parts = vae_loss(x, output, mean, logvar, self.cfg.kl_weight)
        decoded = model.to_frames(output).float()
        error = (decoded - torch.from_numpy(self.val).to(device).float()).square().mean()
        psnr = 10 * torch.log10(255**2 / error)
        return {
            "loss": float(loss),
            "psnr_db": float(psnr),
            **{k: float(v) for k, v in parts.items()},
        }


def evenly_spaced_frames(sets: list[FrameSet], n: int) -> np.ndarray:
    """About n frames spread over all videos of the sets, uint8 (n, H, W)."""
    pairs = [(s, v) for s in sets for v in range(len(s))]
    chosen = [
        pairs[i] for i in np.linspace(0, len(pairs) - 1, min(n, len(pairs))).round().astype(int)
    ]
    per_video = -(-n // len(chosen))
    frames = [
        s.video(v)[np.linspace(0, s.lengths[v] - 1, per_video).round().astype(int)]
        for s, v in chosen
    ]
    return np.concatenate(frames)[:n]


@torch.inference_mode()
def standardise(vae: Vae, frames: np.ndarray, batch: int = 64) -> None:
    """Set the VAE's per-channel latent mean and sd from training frames, uint8 (N, H, W)."""
    device = next(vae.parameters()).device
    means = []
    for i in range(0, len(frames), batch):
        mean, _ = vae.encode(torch.from_numpy(frames[i : i + batch]).to(device))
        means.append(mean.cpu())
    z = torch.cat(means)  # (N, 4, h, w)
    vae.standardise_by(z.mean(dim=(0, 2, 3)), z.std(dim=(0, 2, 3)).clamp_min(1e-6))
