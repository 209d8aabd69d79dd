"""A guest dataset animated with the models of another, and scored."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echosyn.data.frames import load_frames
from echosyn.data.latents import LatentSet
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.encoding.codec import VideoCodec
from echosyn.metrics.ef_meter import CLIPS, measure_ef
from echosyn.models.ef_regressor import EfRegressor
from echosyn.models.vae import Vae
from echosyn.privacy.detectors.embedding import HeartEncoder
from echosyn.report.mosaic import webp
from echosyn.runtime.files import atomic_dir, write_bytes
from echosyn.synthesis.animate import (
    COUNTERFACTUAL,
    AnimateConfig,
    Identities,
    animate_guest,
    animated_names,
    clips_by_video,
    counterfactual_guest,
    counterfactual_names,
    counterfactual_numbers,
    ef_numbers,
    side_by_side,
    unchanged_ssim,
)

MOSAIC = "mosaic.webp"


@dataclass(frozen=True)
class GuestFolders:
    """What is animated, and with what.

    image: the LIDM, None without `image_steps`; regressor: the real-trained EF regressors; cache:
    keeps decoded frames.
    """

    videos: Path
    latents: Path
    reconstructed: Path
    beats: Path
    vae: Path
    video: Path
    image: Path | None
    encoder: Path
    regressor: Path
    cache: Path

    @property
    def read(self) -> list[Path]:
        """The folders that stages made for this."""
        found = [self.latents, self.beats, self.vae, self.video, self.encoder, self.regressor]
        return [*found, *([self.image] if self.image else [])]


def animate_dataset(
    folders: GuestFolders,
    label: str,
    cfg: AnimateConfig,
    sampling: SampleVideosConfig,
    seed: int,
    out: Path,
) -> dict[str, float]:
    """Write the videos and their mosaic in `out`, and counterfactuals in a folder of it; returns
    flat metrics.

    Args:
        label: of the dataset.
    """
    latents = LatentSet(folders.latents, beats=folders.beats)
    codec = VideoCodec(Vae.load(folders.vae), precision=sampling.precision)
    sampler = VideoSampler(folders.video, sampling, folders.image)
    sampler.warn(cfg.ef)
    people = Identities(latents, codec, HeartEncoder.load(folders.encoder))
    regressor = folders.regressor
    fps = EfRegressor.load(regressor / "seed0").fps
    real = load_frames(folders.videos, fps, folders.cache, label)
    real_ef = measure_ef(regressor, real, CLIPS)

    def compared(
        folder: Path, names: list[list[str]], frames: int | None = None
    ) -> list[list[np.ndarray]]:
        """The clips side by side, and their mosaic written to the folder."""
        rows = side_by_side(folders.videos, folders.reconstructed, folder, names, frames)
        tiles, rate = [clip for row in rows for clip in row], float(latents.table["FPS"].iloc[0])
        write_bytes(folder / MOSAIC, webp(tiles, rate, columns=len(rows[0])))
        return rows

    with atomic_dir(out) as tmp:
        animate_guest(latents, cfg.ef, sampler, codec, tmp, seed)
        compared(tmp, animated_names(latents, cfg.ef), sampling.frames)
        if cfg.counterfactual:
            part, own_ef = tmp / "counterfactual", np.clip(real_ef, 0, 100)
            used = counterfactual_guest(latents, own_ef, cfg.ef, sampler, codec, part)
            clips = compared(part, counterfactual_names(latents, used, cfg.ef))

    made = load_frames(out, fps, folders.cache)
    numbers = people.verification()
    numbers |= people.kept(clips_by_video(made, np.arange(len(latents))), "animate")
    measured = measure_ef(regressor, made, CLIPS)
    numbers |= ef_numbers(made.ef, measured, real.ef, real_ef, seed)
    if cfg.counterfactual:
        made = load_frames(out / "counterfactual", fps, folders.cache)
        rebuilt = load_frames(folders.reconstructed, fps, folders.cache, "none").take(used)
        grid = len(used), -1  # a row per video, the unchanged one first
        numbers |= counterfactual_numbers(
            made.ef.reshape(grid),
            measure_ef(regressor, made, CLIPS).reshape(grid),
            measure_ef(regressor, rebuilt, CLIPS),
            seed,
        )
        numbers |= unchanged_ssim([row[:3] for row in clips])
        numbers |= people.kept(clips_by_video(made, used), COUNTERFACTUAL)
    return numbers
