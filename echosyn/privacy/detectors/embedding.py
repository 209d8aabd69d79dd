"""Hearts as unit embeddings, made the same way wherever similarities are compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from echosyn.data.filelist import PATIENT
from echosyn.data.latents import LatentSet
from echosyn.models.reid import Encoder, build_reid
from echosyn.models.store import load_model
from echosyn.privacy.detectors.similarity import max_similarity, unit_rows
from echosyn.runtime.device import pick_device
from echosyn.runtime.files import digest


class HeartEncoder:
    """A trained re-identification encoder: latents (N, 4, h, w) to unit rows float32 (N, D).

    `identity` changes with the bytes of the model's folder; thresholds belong to one of them.
    """

    def __init__(self, model: Encoder, batch: int = 256, identity: str = "") -> None:
        self.device = pick_device()
        self.model = model.to(self.device).eval()
        self.batch = batch
        self.identity = identity

    @classmethod
    def load(cls, folder: Path | str) -> "HeartEncoder":
        """Raises EchosynError when the folder holds no encoder."""
        return cls(load_model(folder, build_reid), identity=digest(None, [folder]))

    @torch.inference_mode()
    def __call__(self, latents: Tensor) -> np.ndarray:
        parts = [self.model.embed(part.to(self.device)).cpu() for part in latents.split(self.batch)]
        return unit_rows(torch.cat(parts).float().numpy(), self.model.similarity)


@dataclass(frozen=True)
class Gallery:
    """Embedded TRAIN frames, and the one way in which candidates are compared with them."""

    encoder: HeartEncoder
    rows: np.ndarray  # float32 (M, D)
    videos: np.ndarray  # (M,) the TRAIN video of each row
    mirror: bool  # a heart counts as its mirror image does, if that is nearer

    @classmethod
    def of(cls, encoder: HeartEncoder, train: LatentSet, frames: int, mirror: bool) -> "Gallery":
        """`frames` of every TRAIN video, evenly spread; 0: all of them."""
        parts = [encoder(frames_of_video(train, i, frames)) for i in range(len(train))]
        videos = np.repeat(np.arange(len(train)), [len(p) for p in parts])
        return cls(encoder, np.concatenate(parts), videos, mirror)

    def nearest(self, hearts: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The highest similarity of each heart (N, 4, h, w) with any row, and that row; (N,)."""
        best, row = max_similarity(self.encoder(hearts), self.rows)
        if not self.mirror:
            return best, row
        # Latents of a mirrored frame are nearly the mirrored latents: the VAE is convolutional.
        other, other_row = max_similarity(self.encoder(hearts.flip(-1)), self.rows)
        return np.maximum(best, other), np.where(other > best, other_row, row)


def people_of(latents: LatentSet) -> np.ndarray:
    """The person of each video: Patient where the dataset knows it, else the video itself."""
    table = latents.table
    alone = "video\0" + table["FileName"]  # no patient is called so
    if PATIENT not in table.columns:
        return alone.to_numpy()
    return table[PATIENT].where(table[PATIENT].notna(), alone).to_numpy()


def frames_of_video(latents: LatentSet, i: int, k: int) -> Tensor:
    """k evenly spread frames of video i, or all with k = 0: (k, 4, h, w)."""
    return latents.frames(i, k) if k else latents.mean(i)


def frames_of(latents: LatentSet, k: int) -> tuple[Tensor, np.ndarray]:
    """k evenly spread frames of every video, (V k, 4, h, w), and the video row of each."""
    frames = [latents.frames(i, k) for i in range(len(latents))]
    return torch.cat(frames), np.repeat(np.arange(len(latents)), k)


def hearts_of(latents: LatentSet, k: int) -> tuple[Tensor, np.ndarray]:
    """k hearts of every video, as `frames_of`."""
    hearts = [latents.hearts(i, k) for i in range(len(latents))]
    return torch.cat(hearts), np.repeat(np.arange(len(latents)), k)


def first_frames(latents: LatentSet) -> Tensor:
    """The first frame of every video, (V, 4, h, w)."""
    return torch.cat([latents.mean(i, 0, 1) for i in range(len(latents))])


def join(
    sets: Sequence[LatentSet],
    k: int,
    take: Callable[[LatentSet, int], tuple[Tensor, np.ndarray]] = frames_of,
) -> tuple[Tensor, np.ndarray]:
    """k frames of every video of several sets, as `take` takes them, and the person of each."""
    parts = [(*take(s, k), people_of(s)) for s in sets if len(s)]
    return torch.cat([p[0] for p in parts]), np.concatenate([p[2][p[1]] for p in parts])
