"""The network that finds the left ventricle in a frame: a small U-Net (Ronneberger et al. 2015)."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.models.store import load_model, save_model

GROUP = 8  # channels to a group of GroupNorm


class Segmenter(nn.Module):
    """Logits of the left ventricle, pixel by pixel: (B, 1, H, W) in -1 .. 1 to (B, 1, H, W).

    It works at a quarter of the frame's resolution and below, where speckle is gone, and answers at
    half of it.

    Args:
        width: channels of the first of three levels, a multiple of GROUP.
        areas: least and greatest area of the ventricle that TRAIN's tracings have, pixels squared.
        ml: millilitres of a cubic pixel; None where that is not known.
    """

    def __init__(self, width: int, areas: tuple[float, float], ml: float | None = None) -> None:
        super().__init__()
        self.width, self.areas, self.ml = width, areas, ml
        levels = (width, 2 * width, 3 * width)
        self.enter = nn.Sequential(_layer(16, width), _layer(width, width))
        self.down = nn.ModuleList(
            nn.Sequential(_layer(a, b, stride=2), _layer(b, b)) for a, b in pairwise(levels)
        )
        self.up = nn.ModuleList(_layer(a + b, b) for a, b in pairwise(levels[::-1]))
        self.leave = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(F.pixel_unshuffle(x, 4))
        passed = []
        for down in self.down:
            passed.append(x)
            x = down(x)
        for up in self.up:
            x = up(torch.cat([F.interpolate(x, scale_factor=2.0), passed.pop()], dim=1))
        half = F.pixel_shuffle(self.leave(x), 2)
        return F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)

    def save(self, folder: Path | str) -> None:
        save_model(folder, self, {"width": self.width, "areas": list(self.areas), "ml": self.ml})

    @classmethod
    def load(cls, folder: Path | str) -> "Segmenter":
        """Raises EchosynError: the folder does not hold a whole one."""
        return load_model(folder, lambda f: cls(f["width"], tuple(f["areas"]), f["ml"]))


def as_input(frames: np.ndarray) -> Tensor:
    """Frames (N, H, W) of 0 to 255 as the network sees them, float32 (N, 1, H, W) in -1 .. 1."""
    return torch.from_numpy(np.asarray(frames, np.float32) / 127.5 - 1)[:, None]


@torch.no_grad()
def probabilities(model: nn.Module, frames: np.ndarray, batch: int = 32) -> np.ndarray:
    """Of the ventricle, float32 (N, H, W), in frames uint8 (N, H, W)."""
    device = next(model.parameters()).device
    parts = torch.split(as_input(frames), batch)
    return np.concatenate(
        [model(p.to(device)).float().sigmoid()[:, 0].cpu().numpy() for p in parts]
    )


def _layer(a: int, b: int, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(a, b, 3, stride=stride, padding=1)
    return nn.Sequential(conv, nn.GroupNorm(b // GROUP, b), nn.SiLU())
