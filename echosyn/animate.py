"""A guest's own hearts at EFs asked for: the same heart, another EF, scored for both.

A guest is a dataset too small to train on. It goes through the models of another dataset; what
they were trained on decides what its numbers mean.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from echosyn.config import setting
from echosyn.data.filelist import COLUMNS, read_filelist, video_path, write_filelist
from echosyn.data.latents import LatentSet
from echosyn.data.reconstruct import VideoCodec
from echosyn.data.video import read_video, resample_indices, write_video
from echosyn.diffusion.generate import VideoSampler
from echosyn.errors import EchosynError
from echosyn.metrics.ef import ef_scores, requested_vs_measured
from echosyn.privacy.embedding import HeartEncoder, frames_of, people_of
from echosyn.privacy.similarity import max_similarity
from echosyn.privacy.verification import verification_scores


@dataclass(frozen=True)
class AnimateConfig:
    """One entry of section `animate`."""

    models: str = setting(help="dataset whose re-identification encoder and EF regressor are used")
    ef: tuple[float, ...] = setting((25.0, 40.0, 55.0, 70.0), lo=0.0, hi=100.0, help="percent")


def animated_name(name: str, ef: float) -> str:
    return f"{name}_EF{ef:g}"


def animate_guest(
    latents: LatentSet,
    efs: tuple[float, ...],
    sampler: VideoSampler,
    codec: VideoCodec,
    out: Path,
    seed: int,
) -> None:
    """Animate the first heart of every video at every EF; EchoNet layout in `out`.

    One video's EFs share their noise, so that they differ by the EF alone.
    """
    (out / "Videos").mkdir(parents=True)
    rows = []
    for v in range(len(latents)):
        heart = latents.mean(v, 0, 1).expand(len(efs), -1, -1, -1)
        videos = sampler.animate(heart, torch.tensor(efs), [v] * len(efs), seed)
        fps = float(latents.table["FPS"].iloc[v])
        for ef, z in zip(efs, videos, strict=True):
            name = animated_name(latents.table["FileName"].iloc[v], ef)
            frames = codec.decode(z)
            write_video(video_path(out, name), frames, fps)
            shape = (frames.shape[1], frames.shape[2], fps, len(frames))
            rows.append((name, ef, np.nan, np.nan, *shape, latents.table["Split"].iloc[v]))
    write_filelist(out / "FileList.csv", pd.DataFrame(rows, columns=list(COLUMNS)))


def identity_numbers(
    latents: LatentSet, animated: list[np.ndarray], codec: VideoCodec, encoder: HeartEncoder
) -> dict[str, float]:
    """How well clips tell apart, and whether an animated heart is still its own.

    Args:
        animated: for each video of `latents`, frames uint8 (N, H, W) generated from its heart.

    Returns:
        `reid/auc` over pairs of real frames where there are two videos or more, the mean highest
        similarity of generated frames to their own video (`animate/self_similarity`) and to the
        others (`animate/other_similarity`), and how often their own is the nearest
        (`animate/identity_kept`).
    """
    frames, owner = frames_of(latents, 8)
    gallery = encoder(frames)
    own, other, kept = [], [], []
    for v, generated in enumerate(animated):
        queries = encoder(codec.encode(generated)[0])
        own.append(max_similarity(queries, gallery[owner == v])[0])
        if len(latents) > 1:
            other.append(max_similarity(queries, gallery[owner != v])[0])
            kept.append(own[-1] > other[-1])
    numbers = {"animate/self_similarity": float(np.concatenate(own).mean())}
    if other:
        scores = verification_scores(gallery, people_of(latents)[owner], seed=0)
        numbers |= scores["auc"].flat("reid/auc") | scores["eer"].flat("reid/eer")
        numbers["animate/other_similarity"] = float(np.concatenate(other).mean())
        numbers["animate/identity_kept"] = float(np.concatenate(kept).mean())
    return numbers


def ef_numbers(
    requested: np.ndarray,
    measured: np.ndarray,
    real: np.ndarray,
    real_measured: np.ndarray,
    seed: int,
) -> dict[str, float]:
    """Requested against measured EF, and the regressor on the guest's own labels, if any."""
    numbers: dict[str, float] = {}
    for name, e in requested_vs_measured(requested, measured, seed).items():
        numbers |= e.flat(f"ef/requested_vs_measured/{name}")
    known = np.isfinite(real)
    if known.any():
        for name, e in ef_scores(real[known], real_measured[known], seed).items():
            numbers |= e.flat(f"ef/real/{name}")
    return numbers


def side_by_side(
    source: Path, reconstructed: Path, animated: Path, efs: tuple[float, ...], frames: int
) -> list[list[np.ndarray]]:
    """Per video: the real clip, its reconstruction, then each EF, uint8 (frames, H, W) each.

    The real clip is read at the frame rate of the others.
    """
    table = read_filelist(reconstructed / "FileList.csv", label="none")
    rows = []
    for name, fps in zip(table["FileName"], table["FPS"], strict=True):
        real, real_fps = read_video(video_path(source, name))
        clips = [real[resample_indices(len(real), real_fps, float(fps))]]
        clips.append(read_video(video_path(reconstructed, name))[0])
        clips += [read_video(video_path(animated, animated_name(name, ef)))[0] for ef in efs]
        if min(len(c) for c in clips) < 2:
            raise EchosynError(f"{name}: fewer than two frames to show")
        rows.append([c[np.minimum(np.arange(frames), len(c) - 1)] for c in clips])
    return rows
