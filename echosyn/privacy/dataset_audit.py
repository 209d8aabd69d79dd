"""The audits of a dataset's release, from the folders that stages left."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from echosyn.data.filelist import read_filelist
from echosyn.data.latents import LatentSet
from echosyn.diffusion.hearts import read_hearts
from echosyn.diffusion.objectives import load_objective
from echosyn.encoding.codec import EncodeConfig
from echosyn.models.published_image import load_image
from echosyn.models.speckle import Speckle
from echosyn.privacy.attacks.disguise import augment_videos
from echosyn.privacy.attacks.membership import denoising_losses
from echosyn.privacy.detectors.embedding import Gallery, HeartEncoder
from echosyn.privacy.filters.calibration import TAUS, read_taus
from echosyn.privacy.filters.hearts import AcceptedHearts, PrivacyConfig
from echosyn.privacy.filters.video_detectors import RealVideos, VideoFilter
from echosyn.privacy.filters.video_scores import VideoFilterConfig
from echosyn.privacy.release_audit import (
    AuditConfig,
    Audited,
    as_released,
    audit_hearts,
    audit_videos,
    released_clips,
    released_latents,
    training_clips,
)

OTHERS = 4  # released videos among which planted ones are scored, each by itself


@dataclass(frozen=True)
class AuditedFolders:
    """What is audited, and with what.

    drawn: hearts before the filter; privacy: what the filters left, `hearts` and `videos`; speckle:
    what videos were painted with, None where they were not; cache: keeps decoded frames.
    """

    drawn: Path
    privacy: Path
    samples: Path
    latents: Path
    beats: Path
    videos: Path
    encoder: Path
    image: Path
    vae: Path
    speckle: Path | None
    cache: Path

    @property
    def read(self) -> list[Path]:
        """The folders that stages made for this audit."""
        found = [self.drawn, self.privacy, self.samples, self.latents, self.beats, self.encoder]
        return [*found, self.image, self.vae, *([self.speckle] if self.speckle else [])]


@dataclass(frozen=True)
class FilterSettings:
    """Of the filters that are audited, and of the encoding that they compare in."""

    hearts: PrivacyConfig
    videos: VideoFilterConfig
    encoding: EncodeConfig


def audit_dataset(
    folders: AuditedFolders, label: str, cfg: AuditConfig, filters: FilterSettings, seed: int
) -> tuple[Audited, Audited]:
    """Attack the filter on hearts and its release, then the filter on finished videos.

    Args:
        label: of the dataset.

    Raises:
        EchosynError: taus that were calibrated with another encoder, VAE, dataset or settings.
    """
    latents, samples = folders.latents, folders.samples
    sets = {name: LatentSet(latents, name, folders.beats) for name in ("TRAIN", "VAL", "TEST")}
    encoder, accepted = HeartEncoder.load(folders.encoder), folders.privacy / "hearts"
    tau = read_taus(accepted / TAUS, filters.hearts.made_with(latents, encoder))["hearts"]
    gallery = Gallery.of(
        encoder, sets["TRAIN"], filters.hearts.gallery_frames, filters.hearts.mirrors
    )
    generator, objective = load_image(folders.image), load_objective(folders.image)
    generator = generator.to(encoder.device)
    losses = partial(denoising_losses, generator, objective, cfg=cfg.attacks, seed=seed)
    released = AcceptedHearts(accepted).shown_in(samples)
    drawn = read_hearts(folders.drawn)
    hearts = audit_hearts(sets, gallery, tau, drawn, released, losses, cfg, seed)

    real = RealVideos.open(latents, folders.videos, folders.cache, label)
    refuse = VideoFilter.load(
        folders.privacy / "videos", real, folders.encoder, folders.vae, filters.videos,
        filters.encoding,
    )  # fmt: skip
    copies, fps = cfg.planted_videos.copies, real.fps
    clips, people = training_clips(real.split("TRAIN"), refuse.frames, copies, seed)
    seen = released_latents(samples, cfg.frames_per_video, fps, refuse.scorer.embeddable)
    others = released_clips(samples, refuse.frames, OTHERS, fps, seed)
    speckle = Speckle.load(folders.speckle) if folders.speckle else None
    rebuild = as_released(refuse.scorer.rebuild, speckle, seed)
    finished = audit_videos(
        sets, gallery, seen, read_filelist(samples / "FileList.csv", "none"), clips, people,
        others, refuse, augment_videos, rebuild, cfg, seed,
    )  # fmt: skip
    return hearts, finished
