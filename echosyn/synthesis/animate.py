"""A guest's own hearts at EFs asked for: the same heart, another EF, scored for both.

A guest is a dataset too small to train on. It goes through the models of another dataset; what
they were trained on decides what its numbers mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from echosyn.data.filelist import COLUMNS, read_filelist, video_path, write_filelist
from echosyn.data.frames import FrameSet
from echosyn.data.latents import LatentSet
from echosyn.data.video import read_video, resample_indices, write_video
from echosyn.diffusion.counterfactual import check_counterfactual, counterfactuals
from echosyn.diffusion.generate import VideoSampler
from echosyn.encoding.codec import VideoCodec
from echosyn.metrics.ef import ef_scores, requested_vs_measured
from echosyn.metrics.image import ssim
from echosyn.privacy.detectors.embedding import HeartEncoder, frames_of, people_of
from echosyn.privacy.detectors.similarity import max_similarity
from echosyn.privacy.detectors.verification import verification_scores
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.synthesis.ef_truth import as_asked

UNCHANGED = "unchanged"
COUNTERFACTUAL = "animate/counterfactual"  # metrics under it


@dataclass(frozen=True)
class AnimateConfig:
    """One entry of section `animate`."""

    models: str = setting(help="dataset whose re-identification encoder and EF regressor are used")
    ef: tuple[float, ...] = setting((25.0, 40.0, 55.0, 70.0), lo=0.0, hi=100.0, help="percent")
    counterfactual: bool = setting(False, help="also each video itself at these EFs")


def animated_names(latents: LatentSet, efs: Sequence[float]) -> list[list[str]]:
    """Per video its name, then those of its animations."""
    return [[name, *(f"{name}_EF{ef:g}" for ef in efs)] for name in latents.table["FileName"]]


def counterfactual_names(
    latents: LatentSet, videos: Sequence[int] | np.ndarray, efs: Sequence[float]
) -> list[list[str]]:
    """Per video its name, then those of it unchanged and at each EF."""
    labels = [UNCHANGED, *(f"EF{ef:g}" for ef in efs)]
    names = latents.table["FileName"]
    return [[names[v], *(f"{names[v]}_{label}" for label in labels)] for v in videos]


def animate_guest(
    latents: LatentSet,
    efs: tuple[float, ...],
    sampler: VideoSampler,
    codec: VideoCodec,
    out: Path,
    seed: int,
) -> None:
    """Animate the first heart (LatentSet.heart_frames) of every video at every EF; EchoNet layout
    in `out`.

    One video's EFs share their noise, so that they differ by the EF alone.
    """
    with _EchoNetFolder(latents, codec, out) as folder:
        for v, (_, *names) in enumerate(animated_names(latents, efs)):
            heart = latents.hearts(v, 1).expand(len(efs), -1, -1, -1)
            fps = float(latents.table["FPS"][v])
            videos = sampler.animate(heart, torch.tensor(efs), [v] * len(efs), seed, fps=fps)
            for name, ef, z in zip(names, efs, videos, strict=True):
                folder.add(v, name, ef, z)


def counterfactual_guest(
    latents: LatentSet,
    own_ef: np.ndarray,
    efs: tuple[float, ...],
    sampler: VideoSampler,
    codec: VideoCodec,
    out: Path,
) -> np.ndarray:
    """Every video at its own EF, then at every EF asked for; EchoNet layout in `out`.

    Videos shorter than the model's window are left out.

    Args:
        own_ef: the EF of each video, percent (V,).

    Returns:
        the rows of `latents` that were long enough.

    Raises:
        EchosynError: none was, or the model cannot do it.
    """
    check_counterfactual(sampler)
    long = np.flatnonzero(latents.lengths >= sampler.model.window)
    if len(long) == 0:
        raise EchosynError(
            f"{latents.folder}: no video has the {sampler.model.window} frames that a "
            "counterfactual takes; set counterfactual: false"
        )
    with _EchoNetFolder(latents, codec, out) as folder:
        every = counterfactual_names(latents, long, efs)
        for v, (_, *names) in zip(long.tolist(), every, strict=True):
            z, asked = latents.mean(v), (float(own_ef[v]), *efs)
            fps = float(latents.table["FPS"][v])
            made = counterfactuals(sampler, z, latents.hearts(v, 1)[0], asked[0], asked, fps)
            for name, ef, y in zip(names, asked, made, strict=True):
                folder.add(v, name, ef, y)
    return long


class _EchoNetFolder:
    """Videos decoded into a folder in EchoNet layout; the FileList comes last."""

    def __init__(self, latents: LatentSet, codec: VideoCodec, out: Path) -> None:
        self.table, self.codec, self.out = latents.table, codec, out
        self.rows: list[tuple] = []

    def __enter__(self) -> "_EchoNetFolder":
        (self.out / "Videos").mkdir(parents=True)
        return self

    def add(self, v: int, name: str, ef: float, z: Tensor) -> None:
        """A video made from video v, latents (T, 4, h, w)."""
        source, frames = self.table.iloc[v], self.codec.decode(z)
        fps = float(source["FPS"])
        write_video(video_path(self.out, name), frames, fps)
        shape = (frames.shape[1], frames.shape[2], fps, len(frames))
        self.rows.append((name, ef, np.nan, np.nan, *shape, source["Split"]))

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            table = pd.DataFrame(self.rows, columns=list(COLUMNS))
            write_filelist(self.out / "FileList.csv", as_asked(table, table["EF"]))


class Identities:
    """The guest's people as the re-identification model sees them.

    Args:
        latents: of the real videos, 8 frames of which stand for each.
    """

    def __init__(self, latents: LatentSet, codec: VideoCodec, encoder: HeartEncoder) -> None:
        self.codec, self.encoder = codec, encoder
        frames, self.owner = frames_of(latents, 8)
        self.gallery = encoder(frames)
        self.people = people_of(latents)

    def verification(self) -> dict[str, float]:
        """`reid/auc` and `reid/eer` over pairs of real frames, where there are two people."""
        if len(np.unique(self.people)) < 2:
            return {}
        scores = verification_scores(self.gallery, self.people[self.owner], seed=0)
        return scores["auc"].flat("reid/auc") | scores["eer"].flat("reid/eer")

    def kept(self, made: Mapping[int, np.ndarray], prefix: str) -> dict[str, float]:
        """Whether what was made of a video is still of its person.

        Args:
            made: frames uint8 (N, H, W) made from real video v, by v.

        Returns:
            the mean highest similarity of a generated frame to its own video
            (`self_similarity`) and to those of other people (`other_similarity`), and how often
            its own is the nearest (`identity_kept`).
        """
        own, other, kept = [], [], []
        for v, frames in made.items():
            queries = self.encoder(self.codec.encode(frames)[0])
            own.append(max_similarity(queries, self.gallery[self.owner == v])[0])
            strangers = self.people[self.owner] != self.people[v]
            if strangers.any():
                other.append(max_similarity(queries, self.gallery[strangers])[0])
                kept.append(own[-1] > other[-1])
        numbers = {f"{prefix}/self_similarity": float(np.concatenate(own).mean())}
        if other:
            numbers[f"{prefix}/other_similarity"] = float(np.concatenate(other).mean())
            numbers[f"{prefix}/identity_kept"] = float(np.concatenate(kept).mean())
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
    numbers |= ef_scores(requested, measured, seed)["mae"].flat("ef/requested_vs_measured/mae")
    known = np.isfinite(real)
    if known.any():
        for name, e in ef_scores(real[known], real_measured[known], seed).items():
            numbers |= e.flat(f"ef/real/{name}")
    return numbers


def counterfactual_numbers(
    requested: np.ndarray, measured: np.ndarray, reconstructed: np.ndarray, seed: int
) -> dict[str, float]:
    """Whether counterfactuals have the EF asked for, and moved by as much as was asked.

    Args:
        requested, measured: EF of the videos made, percent (V, 1 + K), the first column being the
            unchanged video, asked for at its own EF. reconstructed: EF of the reconstructions, as
            measured (V,).

    Returns:
        under `animate/counterfactual/`: `ef_r2`, `ef_mae` of the measured EF; `shift_r`,
        `shift_r2`, `shift_slope`, `shift_mae` of the measured shift, from the reconstruction's EF,
        against the shift asked for; `drift_mae`, the shift where none was asked for; `videos`,
        their number.
    """
    asked = (requested - requested[:, :1])[:, 1:].ravel()
    moved = (measured - reconstructed[:, None])[:, 1:].ravel()
    of_ef = ef_scores(requested[:, 1:].ravel(), measured[:, 1:].ravel(), seed)
    scores = {f"ef_{name}": of_ef[name] for name in ("r2", "mae")}
    scores |= {f"shift_{k}": e for k, e in requested_vs_measured(asked, moved, seed).items()}
    scores["shift_mae"] = ef_scores(asked, moved, seed)["mae"]
    scores["drift_mae"] = ef_scores(reconstructed, measured[:, 0], seed)["mae"]
    numbers: dict[str, float] = {f"{COUNTERFACTUAL}/videos": len(requested)}
    for name, e in scores.items():
        numbers |= e.flat(f"{COUNTERFACTUAL}/{name}")
    return numbers


def unchanged_ssim(clips: Sequence[Sequence[np.ndarray]]) -> dict[str, float]:
    """SSIM of videos at their unchanged EF.

    Args:
        clips: per video the real one, its reconstruction and the unchanged one, uint8 (T, H, W).

    Returns:
        under `animate/counterfactual/`: `ssim` against the reconstruction, `ssim_real` against the
        real video, and `ssim_ceiling`, that of the reconstruction against the real video.
    """
    found = {
        "ssim": [ssim(rebuilt, made) for _, rebuilt, made in clips],
        "ssim_real": [ssim(real, made) for real, _, made in clips],
        "ssim_ceiling": [ssim(real, rebuilt) for real, rebuilt, _ in clips],
    }
    return {f"{COUNTERFACTUAL}/{name}": float(np.mean(values)) for name, values in found.items()}


def clips_by_video(made: FrameSet, videos: Sequence[int] | np.ndarray) -> dict[int, np.ndarray]:
    """The frames made of each of `videos`, uint8 (N, H, W): as many clips in turn for each."""
    each = len(made) // len(videos)
    return {
        int(v): np.concatenate([made.video(i * each + k) for k in range(each)])
        for i, v in enumerate(videos)
    }


def side_by_side(
    source: Path,
    reconstructed: Path,
    animated: Path,
    names: Sequence[Sequence[str]],
    frames: int | None = None,
) -> list[list[np.ndarray]]:
    """Per video: the real clip, its reconstruction, then others, uint8 (T, H, W) each.

    The real clip is read at the frame rate of the others. T is `frames`, the last frame repeated
    where there are fewer; or, without it, the length of the video's shortest clip.

    Args:
        animated: folder in EchoNet layout. names: per video its name, then those made of it.
    """
    table = read_filelist(reconstructed / "FileList.csv", label="none").set_index("FileName")
    rows = []
    for name, *made in names:
        real, real_fps = read_video(video_path(source, name))
        fps = float(table["FPS"][name])
        clips = [real[resample_indices(len(real), real_fps, fps)]]
        clips.append(read_video(video_path(reconstructed, name))[0])
        clips += [read_video(video_path(animated, other))[0] for other in made]
        if min(len(c) for c in clips) < 2:
            raise EchosynError(f"{name}: fewer than two frames to show")
        shown = np.arange(frames or min(len(c) for c in clips))
        rows.append([c[np.minimum(shown, len(c) - 1)] for c in clips])
    return rows
