"""R(2+1)D video network (Tran et al. 2018, arXiv 1711.11248), the EF regressor.

Names of weights and the arithmetic are those of torchvision's `r2plus1d_18`, so its Kinetics
weights and EchoNet-Dynamic's load unchanged; widths and depths are settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from echosyn.runtime.config import build, setting


@dataclass(frozen=True)
class R2Plus1dConfig:
    """Sizes; the defaults are r2plus1d_18 with one output."""

    widths: tuple[int, ...] = setting((64, 128, 256, 512), lo=1, help="channels of each level")
    blocks: tuple[int, ...] = setting((2, 2, 2, 2), lo=1, help="residual blocks of each level")
    stem_width: int = setting(45, lo=1, help="channels between the stem's two convolutions")
    stem_stride: int = setting(2, lo=1, hi=8, help="spatial stride of the stem")
    in_channels: int = setting(3, lo=1, hi=16)
    outputs: int = setting(1, lo=1)
    output_bias: float = setting(0.0, help="initial bias of the output, such as the mean EF")

    def check(self) -> str | None:
        if len(self.widths) != len(self.blocks):
            return f"{len(self.widths)} widths and {len(self.blocks)} blocks; give one per level"
        return None


SMALL = R2Plus1dConfig(
    widths=(8, 16, 32, 64), blocks=(1, 1, 1, 1), stem_width=12, stem_stride=4, in_channels=1
)


FEW = 4  # frames, or pixels along a side


class _Conv(nn.Conv3d):
    """A convolution, on a CPU in full precision where few frames or pixels come out.

    oneDNN 3.12's bf16 weight gradient is wrong there: it reads memory that nobody wrote at a depth
    of 2, and writes beside its output at a side of 1 (docs/results/arithmetic.md). There is little
    to compute in so small an output.
    """

    def forward(self, x: Tensor) -> Tensor:
        sides = [-(-n // s) for n, s in zip(x.shape[2:], self.stride, strict=True)]
        if x.device.type != "cpu" or min(sides) > FEW:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def _conv2plus1d(inputs: int, middle: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 in space, then 3 in time, with a ReLU between: one 3x3x3 convolution split in two."""
    return nn.Sequential(
        _Conv(inputs, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        _Conv(middle, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
    )


class _Block(nn.Module):
    """Two split convolutions around a residual; the first may halve time and space."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        # As many weights as one full 3x3x3 convolution has (section 3.5 of the paper).
        middle = inputs * outputs * 27 // (inputs * 9 + 3 * outputs)
        self.conv1 = nn.Sequential(
            _conv2plus1d(inputs, middle, outputs, stride),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(_conv2plus1d(outputs, middle, outputs), nn.BatchNorm3d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                _Conv(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + skip)


class R2Plus1d(nn.Module):
    """Clips (B, C, T, H, W), float, normalised, to outputs (B, outputs)."""

    def __init__(self, cfg: R2Plus1dConfig = R2Plus1dConfig()) -> None:
        super().__init__()
        self.config = cfg
        s = cfg.stem_stride
        self.stem = nn.Sequential(
            _Conv(cfg.in_channels, cfg.stem_width, (1, 7, 7), (1, s, s), (0, 3, 3), bias=False),
            nn.BatchNorm3d(cfg.stem_width),
            nn.ReLU(inplace=True),
            _Conv(cfg.stem_width, cfg.widths[0], (3, 1, 1), 1, (1, 0, 0), bias=False),
            nn.BatchNorm3d(cfg.widths[0]),
            nn.ReLU(inplace=True),
        )
        inputs = cfg.widths[0]
        self.levels = len(cfg.widths)
        for i, (width, depth) in enumerate(zip(cfg.widths, cfg.blocks, strict=True)):
            strides = [1 if i == 0 else 2] + [1] * (depth - 1)
            blocks = []
            for stride in strides:
                blocks.append(_Block(inputs, width, stride))
                inputs = width
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, cfg.outputs)
        for m in self.modules():
            if isinstance(m, nn.Conv3d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, 0.0, 0.01)
        nn.init.constant_(self.fc.bias, cfg.output_bias)

    @classmethod
    def from_config(cls, values: dict[str, Any]) -> "R2Plus1d":
        """From a mapping such as config.json holds; EchosynError names what is wrong in it."""
        return cls(build(R2Plus1dConfig, values, "R(2+1)D config"))

    def features(self, x: Tensor) -> Tensor:
        """Pooled activations before the output layer: (B, C, T, H, W) -> (B, widths[-1])."""
        x = self.stem(x)
        for i in range(self.levels):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return x.mean(dim=(2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


def normalise_clips(
    frames: np.ndarray | Tensor, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Grey clips uint8 (B, T, H, W) to float32 (B, C, T, H, W), C = len(mean).

    `mean` and `std` are grey levels (0-255) per channel over the training videos; grey is repeated
    to every channel before it is normalised, as EchoNet-Dynamic does.
    """
    x = torch.as_tensor(frames).float().unsqueeze(1)  # (B, 1, T, H, W)
    shape = (1, len(mean), 1, 1, 1)
    mu = torch.tensor(mean, dtype=torch.float32, device=x.device).view(shape)
    sd = torch.tensor(std, dtype=torch.float32, device=x.device).view(shape)
    return (x - mu) / sd
