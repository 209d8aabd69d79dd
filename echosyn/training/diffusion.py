"""LIDM and LVDM as tasks of the loop: latents of TRAIN, VAL for validation."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.config import setting
from echosyn.data.latents import LatentSet
from echosyn.diffusion.condition import CONDITION_DIM, drop_condition, ef_condition
from echosyn.diffusion.objectives import make_objective, time_samples
from echosyn.diffusion.settings import OBJECTIVES
from echosyn.models.denoisers import ImageDenoiser, UnetConfig, VideoDenoiser
from echosyn.training.loop import LoopConfig

# The mean is easier to learn; samples keep the VAE's whole posterior in the target.
POSTERIORS = ("mean", "sample")


@dataclass(frozen=True)
class TrainLidmConfig:
    """Section `train_lidm`."""

    model: UnetConfig
    loop: LoopConfig
    objective: str = setting("flow", choices=OBJECTIVES)
    times: str = setting("uniform", choices=("uniform", "logit_normal"))
    time_shift: float = setting(0.0, lo=-3.0, hi=3.0, help="mean of logit_normal; above 0: noisier")
    posterior: str = setting("mean", choices=POSTERIORS, help="what of a latent is learned")
    validation_items: int = setting(64, lo=1, help="VAL hearts for the validation loss")


@dataclass(frozen=True)
class TrainLvdmConfig:
    """Section `train_lvdm`."""

    model: UnetConfig
    loop: LoopConfig
    window: int = setting(16, lo=2, help="frames of a clip; at the latents' rate, a beat or more")
    condition_dim: int = setting(CONDITION_DIM, choices=(1, CONDITION_DIM), help="1: as published")
    objective: str = setting("flow", choices=OBJECTIVES)
    times: str = setting("uniform", choices=("uniform", "logit_normal"))
    time_shift: float = setting(0.0, lo=-3.0, hi=3.0, help="mean of logit_normal; above 0: noisier")
    drop_ef: float = setting(0.1, lo=0.0, hi=1.0, help="share of clips that train without their EF")
    noise_offset: float = setting(0.0, lo=0.0, help="sd of noise shared over a channel of a clip")
    posterior: str = setting("mean", choices=POSTERIORS, help="what of a latent is learned")
    validation_items: int = setting(32, lo=1, help="VAL clips for the validation loss")


class _Pool:
    """Several latent sets as one list of videos."""

    def __init__(self, sets: list[LatentSet]) -> None:
        self.sets = sets
        self.where = [(s, i) for s in sets for i in range(len(s))]

    def __len__(self) -> int:
        return len(self.where)


def _torch_generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def _latents(
    latents: LatentSet, posterior: str, run: tuple[int, int, int], generator: torch.Generator
) -> Tensor:
    """Frames start..stop of video i, run = (i, start, stop), as the config wants them."""
    return latents.mean(*run) if posterior == "mean" else latents.draw(*run, generator)


def _validation_batch(pool: _Pool, cfg: Any, draw: Callable) -> dict[str, Tensor] | None:
    """Items on which the loss means the same whatever `cfg` trains on: all times, the EF given."""
    if len(pool) == 0:
        return None
    plain = {"times": "uniform", "posterior": "mean", "drop_ef": 0.0, "noise_offset": 0.0}
    known = {k: v for k, v in plain.items() if hasattr(cfg, k)}
    chosen = np.resize(np.arange(len(pool)), cfg.validation_items)
    return draw(dataclasses.replace(cfg, **known), pool, chosen, np.random.default_rng(0))


class LidmTask:
    """Single frames of latents; see echosyn.training.loop.Task."""

    def __init__(self, cfg: TrainLidmConfig, train: LatentSet, val: LatentSet) -> None:
        self.cfg = cfg
        self.objective = make_objective(cfg.objective)
        self.pool = _Pool([train])
        self.val = _validation_batch(_Pool([val]), cfg, self._draw)

    @property
    def size(self) -> int:
        return len(self.pool)

    def build(self) -> nn.Module:
        return ImageDenoiser.create(self.cfg.model)

    @staticmethod
    def _draw(
        cfg: TrainLidmConfig, pool: _Pool, indices: np.ndarray, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        generator = _torch_generator(rng)
        frames = []
        for i in indices:
            latents, v = pool.where[i]
            f = int(rng.integers(latents.lengths[v]))
            frames.append(_latents(latents, cfg.posterior, (v, f, f + 1), generator)[0])
        x = torch.stack(frames)  # (B, 4, h, w)
        noise = torch.randn(x.shape, generator=generator)
        return {
            "x": x,
            "noise": noise,
            "u": time_samples(len(x), cfg.times, generator, cfg.time_shift),
        }

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        return self._draw(self.cfg, self.pool, indices, rng)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        noisy, target, t = self.objective.noisy(batch["x"], batch["noise"], batch["u"])
        return F.mse_loss(model(noisy, t).float(), target), {}

    def validate(self, model: nn.Module) -> dict[str, float]:
        return _validate(self, model)


class LvdmTask:
    """Latent clips with a heart of the same video and its EF; see echosyn.training.loop.Task.

    The heart is any frame of the video, not its first: sampled hearts are any phase of the beat.
    """

    def __init__(self, cfg: TrainLvdmConfig, train: list[LatentSet], val: list[LatentSet]) -> None:
        self.cfg = cfg
        self.objective = make_objective(cfg.objective)
        self.pool = _Pool(train)
        self.val = _validation_batch(_Pool(val), cfg, self._draw)

    @property
    def size(self) -> int:
        return len(self.pool)

    def build(self) -> nn.Module:
        return VideoDenoiser.create(self.cfg.model, self.cfg.window, self.cfg.condition_dim)

    @staticmethod
    def _draw(
        cfg: TrainLvdmConfig, pool: _Pool, indices: np.ndarray, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        generator = _torch_generator(rng)
        window = cfg.window
        clips, hearts, efs = [], [], []
        for i in indices:
            latents, v = pool.where[i]
            length = int(latents.lengths[v])
            start = int(rng.integers(max(length - window, 0) + 1))
            run = (v, start, min(start + window, length))
            clip = _latents(latents, cfg.posterior, run, generator)
            if len(clip) < window:  # a short video holds its last frame
                clip = torch.cat([clip, clip[-1:].expand(window - len(clip), -1, -1, -1)])
            clips.append(clip)
            f = int(rng.integers(length))
            hearts.append(latents.mean(v, f, f + 1)[0])
            efs.append(float(latents.ef[v]))
        x = torch.stack(clips)  # (B, T, 4, h, w)
        noise = torch.randn(x.shape, generator=generator)
        if cfg.noise_offset:
            shared = torch.randn(len(x), 1, x.shape[2], 1, 1, generator=generator)
            noise = noise + cfg.noise_offset * shared
        condition = ef_condition(torch.tensor(efs), cfg.condition_dim)
        return {
            "x": x,
            "noise": noise,
            "u": time_samples(len(x), cfg.times, generator, cfg.time_shift),
            "heart": torch.stack(hearts),  # (B, 4, h, w)
            "condition": drop_condition(condition, cfg.drop_ef, generator),
        }

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        return self._draw(self.cfg, self.pool, indices, rng)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        noisy, target, t = self.objective.noisy(batch["x"], batch["noise"], batch["u"])
        output = model(noisy, t, batch["heart"], batch["condition"])
        return F.mse_loss(output.float(), target), {}

    def validate(self, model: nn.Module) -> dict[str, float]:
        return _validate(self, model)


def _validate(task: LidmTask | LvdmTask, model: nn.Module, block: int = 16) -> dict[str, float]:
    """Loss on fixed VAL items with fixed noise and times; nothing when VAL is empty."""
    if task.val is None:
        return {"loss": float("nan")}
    device = next(model.parameters()).device
    n = len(task.val["x"])
    total = 0.0
    for i in range(0, n, block):
        part = {k: v[i : i + block].to(device) for k, v in task.val.items()}
        total += float(task.loss(model, part)[0]) * len(part["x"])
    return {"loss": total / n}
