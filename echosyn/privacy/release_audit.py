"""Every audit of a release, in the order of the stages it looks back on.

Hearts and videos of training patients are planted before the filters, what was released is attacked
(membership, attributes, singling out, links), coverage is measured on the same, and `hold_against`
holds all of it against the thresholds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from echosyn.data.filelist import CLASS, HEART_RATE, read_filelist, video_path
from echosyn.data.latents import LatentSet
from echosyn.data.spaced import evenly_spaced
from echosyn.metrics.interval import Estimate
from echosyn.models.speckle import Speckle
from echosyn.privacy.attacks.disclosure import disclosure_audit
from echosyn.privacy.attacks.membership import AttackConfig, Audience, Losses, membership_audit
from echosyn.privacy.attacks.planted import (
    Augment,
    PlantedConfig,
    Refuse,
    planted_curve,
    share_interval,
)
from echosyn.privacy.attacks.records import DisclosureConfig, Records, labels_of
from echosyn.privacy.coverage.learned_fraction import (
    coverage_numbers,
    nearest_to_videos,
    nearest_videos,
)
from echosyn.privacy.detectors.embedding import Gallery, frames_of, hearts_of, join, people_of
from echosyn.privacy.filters.calibration import accepted
from echosyn.privacy.filters.video_detectors import RealVideos, read_clip
from echosyn.privacy.gate.requirements import Thresholds
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.progress import track

# What became of planted copies, by level, in audit/<dataset>.
PLANTED = {"hearts": "planted_hearts.csv", "videos": "planted_videos.csv"}


@dataclass(frozen=True)
class AuditConfig:
    """Section `privacy_audit`."""

    thresholds: Thresholds
    attacks: AttackConfig
    planted: PlantedConfig
    planted_videos: PlantedConfig
    disclosure: DisclosureConfig = setting(DisclosureConfig())
    hearts_per_person: int = setting(8, lo=1, help="hearts per person in membership and coverage")
    frames_per_video: int = setting(
        8, lo=2, help="frames per video in coverage by videos and in attacks on the release"
    )
    pairs: int = setting(6, lo=0, help="most similar accepted videos that the local page shows")


@dataclass(frozen=True)
class Audited:
    """Flat numbers, and the tables behind them."""

    numbers: dict[str, float]
    planted: pd.DataFrame  # PlantedResult.curve with a column `level`: hearts or videos


def audit_hearts(
    sets: Mapping[str, LatentSet],
    gallery: Gallery,
    tau: Estimate,
    drawn: Tensor,
    released: Tensor,
    losses: Losses | None,
    cfg: AuditConfig,
    seed: int,
) -> Audited:
    """Planted hearts, membership inference and coverage.

    Args:
        sets: TRAIN, VAL and TEST; the last two are strangers to the generator.
        gallery, tau: the filter's own.
        drawn: hearts (N, 4, h, w) before the filter: planted copies are mixed with them, and they
            are attacked too (`privacy/drawn/...`), since what the filter hid is worth knowing.
        released: hearts (R, 4, h, w) of the released videos.
        losses: per-heart losses of the image model; None leaves that attack out.
    """
    train, strangers = sets["TRAIN"], [sets["VAL"], sets["TEST"]]
    people, encoder = people_of(train), gallery.encoder

    def refuse(candidates: Tensor) -> np.ndarray:
        return ~accepted(gallery.nearest(candidates)[0], tau.value)

    planted = planted_curve(
        any_heart(train, seed), people, drawn, refuse, cfg.planted, seed, progress="plant hearts"
    )
    numbers = planted.numbers()

    members, rows = hearts_of(train, cfg.hearts_per_person)
    others, other_people = join(strangers, cfg.hearts_per_person, hearts_of)
    member_people = people[rows]
    member_rows, other_rows = encoder(members), encoder(others)
    embedded = Audience(member_rows, member_people, other_rows, other_people)
    hearts = Audience(members, member_people, others, other_people)
    queries = encoder(released)
    attacked = membership_audit(embedded, queries, hearts, released, losses, cfg.attacks, seed)
    numbers |= attacked.numbers()
    before = membership_audit(embedded, encoder(drawn), hearts, drawn, None, cfg.attacks, seed)
    numbers |= before.numbers("privacy/drawn")

    one_each = one_per_person(other_people)
    nearest, real = (nearest_videos(x, member_rows, rows) for x in (queries, other_rows[one_each]))
    ef = train.table["EF"].to_numpy()
    numbers |= coverage_numbers(nearest, real, len(train), seed, ef)
    return Audited(numbers, planted.curve.assign(level="hearts"))


def audit_videos(
    sets: Mapping[str, LatentSet],
    gallery: Gallery,
    released: tuple[Tensor, np.ndarray],
    filelist: pd.DataFrame,
    clips: Tensor,
    people: np.ndarray,
    candidates: Tensor,
    refuse: Refuse,
    augment: Augment,
    rebuild: Callable[[np.ndarray], np.ndarray],
    cfg: AuditConfig,
    seed: int,
) -> Audited:
    """Planted videos, what the released ones give away, and coverage by whole videos.

    Args:
        released: latents (N, 4, h, w) of frames of the released videos, as an attacker would
            encode them, `frames_per_video` of each, and the video of each.
        filelist: of the released videos, in their order.
        clips: TRAIN clips of `people`, (N, T, H, W) uint8. candidates: released ones, alike, to mix
            them with.
        refuse: the filter on finished videos. augment: its disguises, in pixels.
        rebuild: a clip as a generator would show what it knows by heart: see `as_released`.
    """
    planted = planted_curve(
        clips, people, candidates, refuse, cfg.planted_videos, seed, augment, "plant videos"
    )
    numbers = planted.numbers("privacy_videos")
    rebuilt = np.stack([rebuild(clip) for clip in clips.numpy()])
    caught = share_interval(refuse(torch.from_numpy(rebuilt)), people)
    numbers |= caught.flat("privacy_videos/planted_rebuilt_recall")
    train, encoder = sets["TRAIN"], gallery.encoder
    frames, rows = frames_of(train, cfg.frames_per_video)
    others, other_people, other_videos = [], [], []
    for s in (sets["VAL"], sets["TEST"]):
        latents, videos = frames_of(s, cfg.frames_per_video)
        others.append(latents)
        other_people.append(people_of(s))
        other_videos.append(videos + sum(map(len, other_people[:-1])))
    kept = one_per_person(np.concatenate(other_people))
    stranger_rows = np.concatenate(other_videos)
    inside = np.isin(stranger_rows, kept)
    gallery_rows, other_rows = encoder(frames), encoder(torch.cat(others))
    released_rows = encoder(released[0])
    numbers |= disclosure_audit(
        real_records([train], gallery_rows, filelist),
        real_records([sets["VAL"], sets["TEST"]], other_rows, filelist),
        released_records(released_rows, filelist),
        cfg.disclosure,
        cfg.attacks.level,
        seed,
    )
    synthetic = nearest_to_videos(released_rows, released[1], gallery_rows, rows)
    real = nearest_to_videos(other_rows[inside], stranger_rows[inside], gallery_rows, rows)
    ef = train.table["EF"].to_numpy()
    numbers |= coverage_numbers(synthetic, real, len(train), seed, ef, prefix="coverage/videos")
    return Audited(numbers, planted.curve.assign(level="videos"))


def released_records(embedded: np.ndarray, filelist: pd.DataFrame) -> Records:
    """The released videos as an attacker holds them; embeddings (N k, D) of k frames of each."""
    unknown = np.full(len(filelist), np.nan)
    ef, rate, classes = (filelist.get(c, unknown) for c in ("EF", HEART_RATE, CLASS))
    frames = embedded.reshape(len(filelist), -1, embedded.shape[1])
    return Records(frames, labels_of(ef, rate, classes, classes))


def real_records(
    sets: Sequence[LatentSet], embedded: np.ndarray, filelist: pd.DataFrame
) -> Records:
    """The first video of each person of some splits; embeddings (V k, D) of k frames of each of
    their videos, and the release's FileList."""
    people = np.concatenate([people_of(s) for s in sets])
    labels = labels_of(
        np.concatenate([s.ef for s in sets]),
        np.concatenate([s.beats[:, 0] for s in sets]),
        [c for s in sets for c in s.classes],
        filelist.get(CLASS, []),
    )
    frames = embedded.reshape(len(people), -1, embedded.shape[1])
    return Records(frames, labels).take(one_per_person(people))


def as_released(
    rebuild: Callable[[np.ndarray], np.ndarray], speckle: Speckle | None, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Clips uint8 (T, H, W) through the autoencoder, and painted where synthetic videos are."""
    rng = np.random.default_rng([seed, 60])

    def shown(clip: np.ndarray) -> np.ndarray:
        return rebuild(clip) if speckle is None else speckle.paint(rebuild(clip), rng)

    return shown


def training_clips(
    train: RealVideos, frames: int, count: int, seed: int
) -> tuple[Tensor, np.ndarray]:
    """Random clips of random TRAIN videos, uint8 (N, frames, H, W), and the person of each.

    Raises:
        EchosynError: no TRAIN video is that long.
    """
    rng = np.random.default_rng([seed, 59])
    long = np.flatnonzero(train.frames.lengths >= frames)
    if len(long) == 0:
        raise EchosynError(f"{train.latents.folder}: no TRAIN video has {frames} frames")
    chosen = np.sort(rng.permutation(long)[:count])
    clips = []
    for v in chosen:
        start = int(rng.integers(train.frames.lengths[v] - frames + 1))
        clips.append(torch.from_numpy(train.frames.video(v)[start : start + frames].copy()))
    return torch.stack(clips), people_of(train.latents)[chosen]


def released_clips(samples: Path, frames: int, count: int, fps: float, seed: int) -> Tensor:
    """The first frames of random released videos, uint8 (N, frames, H, W)."""
    names = read_filelist(samples / "FileList.csv", "none")["FileName"].to_numpy()
    chosen = np.sort(np.random.default_rng([seed, 61]).permutation(len(names))[:count])
    clips = [read_clip(video_path(samples, names[i]), fps)[:frames] for i in chosen]
    return torch.from_numpy(np.stack(clips))


def released_latents(
    samples: Path, k: int, fps: float, encode: Callable[[np.ndarray], Tensor]
) -> tuple[Tensor, np.ndarray]:
    """Latents of k evenly spread frames of every released video, and the video of each."""
    names = read_filelist(samples / "FileList.csv", "none")["FileName"]
    parts = []
    for name in track(names, "encode released", "video"):
        clip = read_clip(video_path(samples, name), fps)
        parts.append(encode(clip[evenly_spaced(len(clip), k)]))
    return torch.cat(parts), np.repeat(np.arange(len(names)), k)


def any_heart(latents: LatentSet, seed: int) -> Tensor:
    """One random heart of every video (V, 4, h, w): most are none of the gallery's frames."""
    rng = np.random.default_rng([seed, 53])
    chosen = [int(rng.choice(latents.heart_frames(i))) for i in range(len(latents))]
    return torch.cat([latents.mean(i, f, f + 1) for i, f in enumerate(chosen)])


def one_per_person(people: np.ndarray) -> np.ndarray:
    """Position of the first item of each person, ascending."""
    _, first = np.unique(np.asarray(people, str), return_index=True)
    return np.sort(first)
