"""The EF regressor: R(2+1)D on clips, EF in percent."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from echosyn.models.r2plus1d import R2Plus1d, normalise_clips
from echosyn.models.store import fill, load_model, read_weights, save_model
from echosyn.runtime.errors import EchosynError


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
        features, head = self.net.features(self.inputs(clips)), self.net.fc
        # Half precision knows EF to a quarter of a point at best: the head computes in full.
        with torch.autocast(features.device.type, enabled=False):
            deviation = functional.linear(features.float(), head.weight)[:, 0]
        # The bias is in percent already; only the slope is scaled.
        return deviation * self.scale + head.bias[0]

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


def start_from(net: R2Plus1d, path: Path | str) -> None:
    """Fill a network by key with torchvision's or EchoNet-Dynamic's weights, or another one's.

    An output layer of another size (Kinetics has 400 classes) is left as it is.

    Raises:
        EchosynError: the file is missing, damaged or of another architecture.
    """
    weights = read_weights(path)
    own = {k: v for k, v in net.state_dict().items() if k.startswith("fc.")}
    if any(weights.get(k) is None or weights[k].shape != v.shape for k, v in own.items()):
        weights |= own
    fill(net, weights, path)


def load_seeds(folder: Path | str) -> list[EfRegressor]:
    """The regressors of an arm, one per seed.

    Raises:
        EchosynError: the folder holds none, or one that cannot be read.
    """
    found = sorted(Path(folder).glob("seed*"), key=lambda p: int(p.name.removeprefix("seed")))
    if not found:
        raise EchosynError(
            f"{folder}: no regressor seed0, seed1, ...; run the stage that trains it"
        )
    return [EfRegressor.load(f) for f in found]
