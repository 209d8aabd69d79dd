"""The network that finds the left ventricle in a frame."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.models.small_unet import SmallUnet, group_norm
from echosyn.models.store import load_model, save_model


class Segmenter(SmallUnet):
    """Logits of the left ventricle, pixel by pixel: (B, 1, H, W) in -1 .. 1 to (B, 1, H, W).

    It works at a quarter of the frame's resolution and below, where speckle is gone, and answers at
    half of it.

    Args:
        width: channels of the first of three levels, a multiple of GROUP.
        areas: least and greatest area of the ventricle that TRAIN's tracings have, pixels squared.
        ml: millilitres of a cubic pixel; None where that is not known.
    """

    def __init__(self, width: int, areas: tuple[float, float], ml: float | None = None) -> None:
        super().__init__(16, width, group_norm)
        self.width, self.areas, self.ml = width, areas, ml

    def forward(self, x: Tensor) -> Tensor:
        half = super().forward(F.pixel_unshuffle(x, 4))
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
