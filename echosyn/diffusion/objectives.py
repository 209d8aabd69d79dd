"""What a denoiser learns to predict, and the diffusers scheduler that samples from it.

Rectified flow (Liu 2023, eq. 1; Lipman 2023) moves on straight lines between noise and data and is
the default; v-prediction DDPM (Salimans & Ho 2022, sec. 4; linear betas) is the reference's.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)
from torch import Tensor

from echosyn.diffusion.settings import OBJECTIVES, SAMPLERS
from echosyn.runtime.errors import EchosynError

TRAIN_STEPS = 1000  # the time embedding's range
MIN_SNR_GAMMA = 5.0


class Objective(Protocol):
    name: str

    def noisy(self, x: Tensor, noise: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy input, target and the network's time.

        Args:
            x: clean latents (B, ...) of unit scale; noise: standard normal of the same shape;
            u: uniform in [0, 1), (B,).
        """

    def weight(self, t: Tensor) -> Tensor | None:
        """Of each sample's loss at the network's times t (B,), (B,); None: all count the same."""

    def scheduler(self, sampler: str, steps: int) -> Any:
        """A fresh scheduler with its timesteps set."""

    def save(self, folder: Path) -> None: ...


def _broadcast(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


class Flow:
    """x_t = (1 - t) x + t noise; the network predicts dx_t/dt = noise - x; time is 1000 t."""

    name = "flow"

    def noisy(self, x: Tensor, noise: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = _broadcast(u, x)
        return (1 - t) * x + t * noise, noise - x, u * TRAIN_STEPS

    def weight(self, t: Tensor) -> Tensor | None:
        return None

    def scheduler(self, sampler: str, steps: int) -> Any:
        _check_sampler(self.name, sampler)
        # Equal steps: both default grids spend the last one on t = 0.001 -> 0.
        if sampler == "heun":
            scheduler = FlowMatchHeunDiscreteScheduler(num_train_timesteps=TRAIN_STEPS)
            scheduler.sigma_min = 1 / steps
            scheduler.set_timesteps(steps)
        else:
            scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_STEPS)
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps).tolist())
        return scheduler

    def save(self, folder: Path) -> None:
        FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_STEPS).save_pretrained(
            folder / "scheduler"
        )


class DdpmV:
    """v = alpha_t noise - sigma_t x on a linear beta schedule 1e-4 .. 0.02 of 1000 steps."""

    name = "ddpm_v"
    settings = {
        "num_train_timesteps": TRAIN_STEPS,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "prediction_type": "v_prediction",
    }

    def __init__(self, weighting: str = "none") -> None:
        self._train = DDPMScheduler(**self.settings)
        self.weighting = weighting

    def noisy(self, x: Tensor, noise: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = (u * TRAIN_STEPS).long().clamp(max=TRAIN_STEPS - 1)
        return self._train.add_noise(x, noise, t), self._train.get_velocity(x, noise, t), t

    def weight(self, t: Tensor) -> Tensor | None:
        """Min-SNR-5 for a velocity (Hang et al. 2023, sec. 3.4): min(SNR, 5) / (SNR + 1)."""
        if self.weighting == "none":
            return None
        alpha_bar = self._train.alphas_cumprod.to(t.device)[t.long()]
        snr = alpha_bar / (1 - alpha_bar)
        return snr.clamp(max=MIN_SNR_GAMMA) / (snr + 1)

    def scheduler(self, sampler: str, steps: int) -> Any:
        _check_sampler(self.name, sampler)
        if sampler == "dpmpp":
            scheduler = DPMSolverMultistepScheduler(**self.settings)
        else:
            scheduler = DDPMScheduler(**self.settings, clip_sample=True, clip_sample_range=4.0)
        scheduler.set_timesteps(steps)
        return scheduler

    def save(self, folder: Path) -> None:
        self._train.save_pretrained(folder / "scheduler")


def _check_sampler(objective: str, sampler: str) -> None:
    if sampler not in SAMPLERS[objective]:
        raise EchosynError(
            f"sampler '{sampler}' does not fit a model trained with objective '{objective}'; "
            f"use one of {', '.join(SAMPLERS[objective])}"
        )


def make_objective(name: str, weighting: str = "none") -> Objective:
    if name not in OBJECTIVES:
        raise EchosynError(f"objective {name!r} is not one of {', '.join(OBJECTIVES)}")
    return Flow() if name == "flow" else DdpmV(weighting)


def load_objective(folder: Path | str) -> Objective:
    """The objective a model was trained with, read from its scheduler folder.

    A published folder without one is the reference's: v-prediction DDPM.

    Raises:
        EchosynError: the scheduler's config is damaged.
    """
    config = Path(folder) / "scheduler" / "scheduler_config.json"
    if not config.is_file():
        return DdpmV()
    import json

    try:
        name = json.loads(config.read_text())["_class_name"]
        return Flow() if name.startswith("Flow") else DdpmV()
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise EchosynError(
            f"{config} is not a scheduler's config ({e!r}): train or download the model again"
        ) from None


def time_samples(
    n: int, distribution: str, generator: torch.Generator, shift: float = 0.0
) -> Tensor:
    """Training times u in (0, 1), 1 being pure noise, (n,).

    "uniform", or "logit_normal" with mean `shift` (Esser et al. 2024, sec. 3.1): a shift above 0
    spends more of the training on noisy inputs, where a video's overall motion is decided.
    """
    if distribution == "uniform":
        return torch.rand(n, generator=generator)
    return torch.sigmoid(torch.randn(n, generator=generator) + shift)
