"""The EF regressor: R(2+1)D on clips, trained by the one loop, tested clip by clip."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from echosyn.config import setting
from echosyn.data.frames import FrameSet
from echosyn.device import autocast
from echosyn.errors import EchosynError
from echosyn.models.r2plus1d import R2Plus1d, R2Plus1dConfig, normalise_clips
from echosyn.models.store import load_model, save_model
from echosyn.progress import bar
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
    output_scale: float = setting(12.0, lo=1e-3, help="EF percent per unit of the network's output")
    test_clips: int = setting(4, lo=1, help="clips per video whose mean is the prediction")


ARMS = ("real", "reconstructed", "synthetic", "synthetic_relabelled", "real_plus_synthetic")


def arm_folders(dataset: str, arm: str) -> list[Path]:
    """The dataset folders whose TRAIN and VAL an arm learns from, relative to the project.

    Raises:
        EchosynError: an unknown arm.
    """
    real, synthetic = Path("data/train") / dataset, Path("samples") / dataset
    folders = {
        "real": [real],
        "reconstructed": [Path("reconstructions/train") / dataset],
        "synthetic": [synthetic],
        "synthetic_relabelled": [synthetic],
        "real_plus_synthetic": [real, synthetic],
    }
    if arm not in folders:
        raise EchosynError(f"arm {arm!r} is not one of {', '.join(ARMS)}")
    return folders[arm]


class EfRegressor(nn.Module):
    """Clips uint8 (B, T, H, W) to EF in percent (B,)."""

    def __init__(
        self, net: R2Plus1d, mean: float, std: float, scale: float, frames: int, fps: float
    ) -> None:
        super().__init__()
        self.net = net
        self.mean, self.std, self.scale = float(mean), float(std), float(scale)
        self.frames, self.fps = frames, fps

    def inputs(self, clips: Tensor) -> Tensor:
        c = self.net.config.in_channels
        return normalise_clips(clips, [self.mean] * c, [self.std] * c)

    def forward(self, clips: Tensor) -> Tensor:
        bias = self.net.fc.bias
        # The bias is in percent already; only the slope is scaled.
        return (self.net(self.inputs(clips))[:, 0] - bias[0]) * self.scale + bias[0]

    def save(self, folder: Path | str) -> None:
        config = {
            "model": dataclasses.asdict(self.net.config),
            "mean": self.mean,
            "std": self.std,
            "scale": self.scale,
            "frames": self.frames,
            "fps": self.fps,
        }
        save_model(folder, self, config)

    @classmethod
    def load(cls, folder: Path | str) -> "EfRegressor":
        """Raises EchosynError when the folder holds no regressor."""
        return load_model(folder, _from_config).eval()


def _from_config(config: dict) -> EfRegressor:
    facts = {k: config[k] for k in ("mean", "std", "scale", "frames", "fps")}
    return EfRegressor(R2Plus1d.from_config(config["model"]), **facts)


class EfTask:
    """Random clips with a random shift, gain and speckle; see echosyn.training.loop.Task."""

    def __init__(self, cfg: TrainEfConfig, train: list[FrameSet], val: list[FrameSet]) -> None:
        self.cfg = cfg
        self.train = [(s, v) for s in train for v in range(len(s))]
        self.val = [(s, v) for s in val for v in range(len(s))]
        sample = np.stack([s.video(v)[0] for s, v in self.train]) if self.train else np.zeros(1)
        self.mean, self.std = float(sample.mean()), float(sample.std()) or 1.0
        efs = [float(s.ef[v]) for s, v in self.train]
        self.centre = float(np.mean(efs)) if efs else 55.0

    @property
    def size(self) -> int:
        return len(self.train)

    def build(self) -> nn.Module:
        net = R2Plus1d(dataclasses.replace(self.cfg.model, output_bias=self.centre))
        cfg = self.cfg
        return EfRegressor(net, self.mean, self.std, cfg.output_scale, cfg.frames, cfg.fps)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        cfg = self.cfg
        clips, efs = [], []
        for i in indices:
            frames, v = self.train[i]
            start = int(rng.integers(max(int(frames.lengths[v]) - cfg.frames, 0) + 1))
            clip = _shift(frames.clip(v, start, cfg.frames), rng.integers(-cfg.pad, cfg.pad + 1, 2))
            gain = 1 + cfg.gain * rng.uniform(-1, 1)
            sd = cfg.speckle * rng.random() if cfg.speckle else 0.0
            clips.append(_speckled(clip * gain, sd, rng))
            efs.append(frames.ef[v])
        return {"clips": torch.from_numpy(np.stack(clips)), "ef": torch.tensor(np.array(efs))}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        error = (model(batch["clips"]).float() - batch["ef"]) / self.cfg.output_scale
        return error.square().mean(), {"mae": error.abs().mean() * self.cfg.output_scale}

    def validate(self, model: nn.Module) -> dict[str, float]:
        if not self.val:
            return {"loss": float("nan")}
        predicted = predict_clips(model, self.val, self.cfg.frames, 1, show=False)
        error = predicted - np.array([s.ef[v] for s, v in self.val])
        return {"loss": float((error**2).mean()), "mae": float(np.abs(error).mean())}


def _speckled(clip: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply each pixel of each frame (T, H, W) by 1 + sd noise; uint8.

    Decoded latents have no speckle. A regressor that has only seen them takes the flicker of real
    speckle for motion, so for a high EF, unless it met flicker in training.
    """
    if sd:
        clip = clip * (1 + sd * rng.standard_normal(clip.shape, np.float32))
    return np.clip(clip, 0, 255).astype(np.uint8)


def _shift(clip: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Move a clip (T, H, W) by whole pixels, zeros coming in."""
    out = np.zeros_like(clip)
    h, w = clip.shape[1:]
    dy, dx = int(by[0]), int(by[1])
    ys, xs = slice(max(dy, 0), h + min(dy, 0)), slice(max(dx, 0), w + min(dx, 0))
    yf, xf = slice(max(-dy, 0), h + min(-dy, 0)), slice(max(-dx, 0), w + min(-dx, 0))
    out[:, ys, xs] = clip[:, yf, xf]
    return out


def clip_starts(length: int, frames: int, clips: int) -> np.ndarray:
    """Starts of up to `clips` clips spread evenly over a video, without repeats."""
    return np.unique(np.linspace(0, max(length - frames, 0), clips).round().astype(int))


@torch.inference_mode()
def predict_clips(
    model: nn.Module,
    videos: list[tuple[FrameSet, int]],
    frames: int,
    clips: int,
    batch: int = 16,
    show: bool = True,
) -> np.ndarray:
    """Mean prediction over evenly spaced clips of each video, EF in percent (V,)."""
    jobs = [
        (k, s, v, int(start))
        for k, (s, v) in enumerate(videos)
        for start in clip_starts(int(s.lengths[v]), frames, clips)
    ]
    device = next(model.parameters()).device
    total, count = np.zeros(len(videos)), np.zeros(len(videos))
    with bar(len(jobs), "EF", "clip") if show else _silent() as progress:
        for i in range(0, len(jobs), batch):
            part = jobs[i : i + batch]
            x = torch.from_numpy(np.stack([s.clip(v, start, frames) for _, s, v, start in part]))
            owners = [k for k, *_ in part]
            np.add.at(total, owners, model(x.to(device)).float().cpu().numpy())
            np.add.at(count, owners, 1)
            progress.update(len(part))
    return total / count


def relabel(frames: FrameSet, model: EfRegressor, cfg: TrainEfConfig) -> FrameSet:
    """The same videos labelled with the EF that `model` measures in them."""
    measured = predict_ef(model, frames, cfg.test_clips, cfg.loop.precision)
    return dataclasses.replace(frames, table=frames.table.assign(EF=np.clip(measured, 0, 100)))


def predict_ef(
    model: EfRegressor, frames: FrameSet, clips: int, precision: str = "auto"
) -> np.ndarray:
    """EF of every video of a set, in percent (V,)."""
    with autocast(next(model.parameters()).device, precision):
        videos = [(frames, v) for v in range(len(frames))]
        return predict_clips(model, videos, model.frames, clips)


def _silent() -> object:
    from tqdm import tqdm

    return tqdm(disable=True)
