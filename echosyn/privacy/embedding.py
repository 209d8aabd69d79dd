"""Hearts as unit embeddings, made the same way wherever similarities are compared."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from echosyn.data.latents import LatentSet
from echosyn.device import pick_device
from echosyn.models.reid import build_reid
from echosyn.models.store import load_model
from echosyn.privacy.similarity import unit_rows


class HeartEncoder:
    """A trained re-identification encoder: latents (N, 4, h, w) to unit rows float32 (N, D)."""

    def __init__(self, model: torch.nn.Module, batch: int = 256) -> None:
        self.device = pick_device()
        self.model = model.to(self.device).eval()
        self.batch = batch

    @classmethod
    def load(cls, folder: Path | str) -> "HeartEncoder":
        """Raises EchosynError when the folder holds no encoder."""
        return cls(load_model(folder, build_reid))

    @torch.inference_mode()
    def __call__(self, latents: Tensor) -> np.ndarray:
        parts = [self.model.embed(part.to(self.device)).cpu() for part in latents.split(self.batch)]
        return unit_rows(torch.cat(parts).float().numpy(), self.model.similarity)


def people_of(latents: LatentSet) -> np.ndarray:
    """The person of each video: Patient where the dataset knows it, else the video itself."""
    table = latents.table
    return (
        table["Patient"].to_numpy() if "Patient" in table.columns else table["FileName"].to_numpy()
    )


def frames_of(latents: LatentSet, k: int) -> tuple[Tensor, np.ndarray]:
    """k evenly spread frames of every video, (V k, 4, h, w), and the video row of each."""
    frames = [latents.frames(i, k) for i in range(len(latents))]
    return torch.cat(frames), np.repeat(np.arange(len(latents)), k)


def first_frames(latents: LatentSet) -> Tensor:
    """The first frame of every video, (V, 4, h, w)."""
    return torch.cat([latents.mean(i, 0, 1) for i in range(len(latents))])


def join(sets: Sequence[LatentSet], k: int) -> tuple[Tensor, np.ndarray]:
    """k frames of every video of several sets, and the person of each."""
    parts = [(*frames_of(s, k), people_of(s)) for s in sets if len(s)]
    return torch.cat([p[0] for p in parts]), np.concatenate([p[2][p[1]] for p in parts])
