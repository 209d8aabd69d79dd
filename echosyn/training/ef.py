"""The EF regressor: R(2+1)D on clips, trained by the one loop, tested clip by clip."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from echosyn.data.filelist import EF_CENTRE, EF_SCALE
from echosyn.data.frames import FrameSet
from echosyn.metrics.ef_meter import CLIPS, measure_ef, predict_clips
from echosyn.models.ef_regressor import EfRegressor, start_from
from echosyn.models.r2plus1d import R2Plus1d, R2Plus1dConfig
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.training.arms import PROTOCOLS
from echosyn.training.loop import LoopConfig


@dataclass(frozen=True)
class TrainEfConfig:
    """Section `train_ef`."""

    model: R2Plus1dConfig
    loop: LoopConfig
    fps: float = setting(16.0, lo=1.0, hi=120.0, help="frame rate of clips")
    frames: int = setting(16, lo=4, help="frames per clip")
    pad: int = setting(6, lo=0, hi=32, help="pixels of random shift, as EchoNet's pad and crop")
    gain: float = setting(0.15, lo=0.0, hi=0.9, help="largest relative change of brightness")
    speckle: float = setting(
        0.0, lo=0.0, hi=2.0, help="largest sd of multiplicative noise per pixel and frame"
    )
    output_scale: float = setting(
        EF_SCALE, lo=1e-3, help="EF percent per unit of the network's output"
    )
    test_clips: int = setting(
        CLIPS, lo=0, help="clips per video whose mean is the prediction, 0: all"
    )
    seeds: int = setting(1, lo=1, hi=100, help="regressors trained, alike but for their seed")
    real_share: float = setting(
        0.5,
        lo=0.0,
        hi=0.95,
        help="least share of real videos in training on real and synthetic ones, fewer are "
        "repeated; 0: each video counts once",
    )
    protocol: str = setting(
        "strict",
        choices=PROTOCOLS,
        help="strict: an arm selects on its own VAL; reference: every arm on real VAL",
    )
    init: str = setting(
        "none", help="none, or a file of weights to start from, such as torchvision's Kinetics"
    )


class EfTask:
    """Random clips with a random shift, gain and speckle; see echosyn.training.loop.Task.

    Args:
        train, val: sets of videos; val may be empty.
        start: folder of the regressor to start from, weights, normalisation and all.
    """

    def __init__(
        self,
        cfg: TrainEfConfig,
        train: list[FrameSet],
        val: list[FrameSet],
        start: Path | None = None,
    ) -> None:
        self.cfg, self.start = cfg, start
        self.train = [(s, v) for s in train for v in range(len(s))]
        self.val = [(s, v) for s in val for v in range(len(s))]
        sample = np.stack([s.video(v)[0] for s, v in self.train]) if self.train else np.zeros(1)
        self.mean, self.std = float(sample.mean()), float(sample.std()) or 1.0
        efs = [float(s.ef[v]) for s, v in self.train]
        self.centre = float(np.mean(efs)) if efs else EF_CENTRE

    @property
    def size(self) -> int:
        return len(self.train)

    def build(self) -> EfRegressor:
        cfg = self.cfg
        if self.start is not None:
            return self._continued(EfRegressor.load(self.start), self.start)
        net = R2Plus1d(dataclasses.replace(cfg.model, output_bias=self.centre))
        if cfg.init != "none":
            start_from(net, cfg.init)
        return EfRegressor(net, self.mean, self.std, cfg.output_scale, cfg.frames, cfg.fps)

    def _continued(self, model: EfRegressor, folder: Path) -> EfRegressor:
        wanted = dataclasses.replace(self.cfg.model, output_bias=model.net.config.output_bias)
        if (model.net.config, model.frames, model.fps) != (wanted, self.cfg.frames, self.cfg.fps):
            raise EchosynError(
                f"{folder}: another model, clip length or frame rate than conf/<scale>/train_ef."
                "yaml has; train both at the same scale"
            )
        return model.train()

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        clips, efs = [], []
        for i in indices:
            frames, v = self.train[i]
            clips.append(training_clip(frames, v, self.cfg, rng))
            efs.append(frames.ef[v])
        return {"clips": torch.from_numpy(np.stack(clips)), "ef": torch.tensor(np.array(efs))}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        error = (model(batch["clips"]).float() - batch["ef"]) / self.cfg.output_scale
        return error.square().mean(), {"mae": error.abs().mean() * self.cfg.output_scale}

    def validate(self, model: nn.Module) -> dict[str, float]:
        if not self.val:
            return {"loss": float("nan")}
        predicted = np.array(
            [p.mean() for p in predict_clips(model, self.val, self.cfg.frames, 1, show=False)]
        )
        error = predicted - np.array([s.ef[v] for s, v in self.val])
        return {"loss": float((error**2).mean()), "mae": float(np.abs(error).mean())}


class ClipSettings(Protocol):
    """How clips are cut and disturbed in training."""

    @property
    def frames(self) -> int: ...
    @property
    def pad(self) -> int: ...
    @property
    def gain(self) -> float: ...
    @property
    def speckle(self) -> float: ...


def training_clip(
    videos: FrameSet, i: int, cfg: ClipSettings, rng: np.random.Generator
) -> np.ndarray:
    """A random clip of video i with a random shift, gain and speckle, uint8 (frames, H, W)."""
    start = int(rng.integers(max(int(videos.lengths[i]) - cfg.frames, 0) + 1))
    clip = shifted(videos.clip(i, start, cfg.frames), rng.integers(-cfg.pad, cfg.pad + 1, 2))
    gain = 1 + cfg.gain * rng.uniform(-1, 1)
    sd = cfg.speckle * rng.random() if cfg.speckle else 0.0
    return speckled(brightened(clip, gain), sd, rng)


def brightened(clip: np.ndarray, gain: float) -> np.ndarray:
    """A uint8 clip times `gain`, cut at 255."""
    return np.clip(np.arange(256) * gain, 0, 255).astype(np.uint8)[clip]


def speckled(clip: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply each pixel of each frame (T, H, W) by 1 + sd noise; uint8.

    Decoded latents have no speckle. A regressor that has only seen them takes the flicker of real
    speckle for motion, so for a high EF, unless it met flicker in training.
    """
    if not sd:
        return clip
    noisy = clip * (1 + sd * rng.standard_normal(clip.shape, np.float32))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def shifted(clip: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Move a clip (T, H, W) by whole pixels, zeros coming in."""
    out = np.zeros_like(clip)
    h, w = clip.shape[1:]
    dy, dx = int(by[0]), int(by[1])
    ys, xs = slice(max(dy, 0), h + min(dy, 0)), slice(max(dx, 0), w + min(dx, 0))
    yf, xf = slice(max(-dy, 0), h + min(-dy, 0)), slice(max(-dx, 0), w + min(-dx, 0))
    out[:, ys, xs] = clip[:, yf, xf]
    return out


def relabelled(frames: FrameSet, teacher: Path, cfg: TrainEfConfig) -> FrameSet:
    """The same videos labelled with the EF that a trained arm measures in them, within 0-100."""
    measured = measure_ef(teacher, frames, cfg.test_clips, cfg.loop.precision)
    return dataclasses.replace(frames, table=frames.table.assign(EF=np.clip(measured, 0, 100)))
