"""The VAE as a task of the loop: frames of TRAIN, VAL for validation."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from echosyn.data.frames import FrameSet
from echosyn.data.spaced import evenly_spaced
from echosyn.models.discriminator import AdversarialVae
from echosyn.models.vae import LATENT_CHANNELS, Vae, VaeConfig, vae_loss
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.training.loop import LoopConfig
from echosyn.training.perceptual import Lpips, RandomFeatures

PERCEPTUAL = ("none", "features")
BLOCK = 64  # validation frames per pass
ACTIVE = 0.01  # variance of a unit's mean from which it is active (Burda 2016, section 4)


@dataclass(frozen=True)
class AdversarialConfig:
    """A discriminator beside the VAE; see echosyn.models.discriminator."""

    weight: float = setting(
        0.0, lo=0.0, help="its gradient in that of the other terms; 0: no discriminator"
    )
    start: int = setting(0, lo=0, help="optimizer steps before it counts")
    width: int = setting(32, lo=8, help="channels of its first level")

    def check(self) -> str | None:
        return f"width {self.width} is not a multiple of 8" if self.width % 8 else None


@dataclass(frozen=True)
class TrainVaeConfig:
    """Section `train_vae`."""

    model: VaeConfig
    loop: LoopConfig
    fps: float = setting(16.0, lo=1.0, hi=120.0, help="frame rate at which videos are read")
    kl_weight: float = setting(1e-6, lo=0.0)
    adversarial: AdversarialConfig = setting(AdversarialConfig())
    perceptual: str = setting(
        "none", help="none, features, or a file: torchvision's VGG16, for LPIPS"
    )
    perceptual_weight: float = setting(0.1, lo=0.0)
    validation_frames: int = setting(64, lo=1)
    standardise_frames: int = setting(512, lo=2, help="TRAIN frames that set the latents' scale")
    weights: str = setting("none", help="none, or a folder of published weights, used as they are")

    @property
    def files(self) -> list[Path]:
        """What it reads beside videos."""
        return [] if self.perceptual in PERCEPTUAL else [Path(self.perceptual)]

    def check(self) -> str | None:
        if self.adversarial.weight and self.loop.select == "best":
            return (
                "select 'best' would keep weights from before the discriminator, which raises the "
                "validation loss on purpose; with adversarial.weight, use select: last"
            )
        return None


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

    def build(self) -> Vae | AdversarialVae:
        vae, adversarial = Vae.create(self.cfg.model), self.cfg.adversarial
        if not adversarial.weight:
            return vae
        passes = adversarial.start * self.cfg.loop.accumulate
        return AdversarialVae(vae, adversarial.width, adversarial.weight, passes)

    @cached_property
    def perceptual(self) -> nn.Module | None:
        """Made where it is used, and no part of the model: a task may be sent to other processes,
        and checkpoints hold what learns."""
        kind = self.cfg.perceptual
        if kind == "none":
            return None
        return RandomFeatures() if kind == "features" else Lpips(kind)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        frames = []
        for i in indices:
            frame_set, v = self.sets[self.owner[i]], self.local[i]
            frames.append(frame_set.video(v)[rng.integers(frame_set.lengths[v])])
        side = self.cfg.model.latent_size
        noise = rng.standard_normal((len(indices), LATENT_CHANNELS, side, side), np.float32)
        return {"frames": torch.from_numpy(np.stack(frames)), "noise": torch.from_numpy(noise)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        x = vae_of(model).to_input(batch["frames"])
        output, mean, logvar, *losses = model(x, batch["noise"])
        loss, parts = self._vae_loss(vae_of(model), x, output, mean, logvar)
        for name, term in zip(("generator", "discriminator"), losses, strict=False):
            loss, parts[name] = loss + term, term
        return loss, parts

    def _vae_loss(
        self, vae: Vae, x: Tensor, output: Tensor, mean: Tensor, logvar: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = vae_loss(x, output, mean, logvar, self.cfg.kl_weight)
        if self.perceptual is not None:
            distance = self.perceptual.to(x.device)
            parts["perceptual"] = distance(vae.to_grey(x), vae.to_grey(output))
            loss = loss + self.cfg.perceptual_weight * parts["perceptual"]
        return loss, parts

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Of the VAE alone: the losses, PSNR of uint8 frames, and `posterior_statistics`."""
        vae, posteriors = vae_of(model), []
        numbers: dict[str, float] = {}
        for i in range(0, len(self.val), BLOCK):
            frames = torch.from_numpy(self.val[i : i + BLOCK]).to(next(vae.parameters()).device)
            x = vae.to_input(frames)
            mean, logvar = vae.posterior(x)
            output = vae.net.decode(mean).sample
            loss, parts = self._vae_loss(vae, x, output, mean, logvar)
            parts["loss"] = loss
            parts["error"] = (vae.to_frames(output).float() - frames.float()).square().mean()
            for k, v in parts.items():
                numbers[k] = numbers.get(k, 0.0) + float(v) * len(frames) / len(self.val)
            posteriors.append((mean, logvar))
        numbers["psnr_db"] = 10 * math.log10(255**2 / numbers.pop("error"))
        means, logvars = (torch.cat(some) for some in zip(*posteriors, strict=True))
        return numbers | posterior_statistics(means, logvars)


def vae_of(model: nn.Module) -> Vae:
    """The VAE in what the loop trains: alone or beside a discriminator, in a group or not."""
    inner: Any = getattr(model, "module", model)
    return inner.vae if isinstance(inner, AdversarialVae) else inner


def posterior_statistics(mean: Tensor, logvar: Tensor) -> dict[str, float]:
    """What the posteriors (N, C, h, w) of N frames carry.

    posterior_sd: mean sd, in units of the sd of the channel's means over frames and positions, so
    as the gate of latents has it. active_units: share of the C h w numbers of a latent whose mean
    varies over the frames by more than 0.01 (Burda 2016, section 4). kl_per_unit: nats of
    KL(q || N(0, I)) per number of a latent.
    """
    spread = mean.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar)
    return {
        "posterior_sd": float((torch.exp(0.5 * logvar) / spread).mean()),
        "active_units": float((mean.var(dim=0) > ACTIVE).float().mean()),
        "kl_per_unit": float(kl.mean()),
    }


def evenly_spaced_frames(sets: list[FrameSet], n: int) -> np.ndarray:
    """About n frames spread over all videos of the sets, uint8 (n, H, W).

    Raises:
        EchosynError: there is no video.
    """
    pairs = [(s, v) for s in sets for v in range(len(s))]
    if not pairs:
        raise EchosynError(
            "no dataset of role train has a VAL video, and VAL stops and selects: give splits"
        )
    chosen = [pairs[i] for i in evenly_spaced(len(pairs), min(n, len(pairs)))]
    per_video = -(-n // len(chosen))
    frames = [s.video(v)[evenly_spaced(int(s.lengths[v]), per_video)] for s, v in chosen]
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
