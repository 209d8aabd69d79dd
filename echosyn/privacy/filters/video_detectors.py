"""The filter on a finished video: the TRAIN gallery, both detectors, the VAE, and the taus.

A video is scored as an attacker would hold it, its frames as they come out of the file. They go
through the VAE to latents of the very kind that the gallery is made of: same rate, scale, rounding.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echosyn.data.frames import FrameSet, load_frames
from echosyn.data.latents import LatentSet
from echosyn.data.video import read_video, resample_indices
from echosyn.encoding.codec import EncodeConfig, VideoCodec
from echosyn.models.anomaly import AnomalyDetector
from echosyn.models.vae import Vae
from echosyn.privacy.detectors.copies import CopyDetector, frame_rows
from echosyn.privacy.detectors.embedding import Gallery, HeartEncoder, people_of
from echosyn.privacy.filters.calibration import TAUS, read_taus
from echosyn.privacy.filters.video_scores import (
    VideoFilterConfig,
    VideoScores,
    passes,
    score_videos,
)
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import digest, read_json

PIECE = 2048  # frames compared at once: 26 MB of pixels


@dataclass(frozen=True)
class RealVideos:
    """A real dataset as latents and, frame by frame the same, as pixels."""

    latents: LatentSet
    frames: FrameSet

    @classmethod
    def open(cls, latents: Path, videos: Path, cache: Path, label: str) -> "RealVideos":
        """Args: latents of `encode`, the dataset's folder, and the cache of `load_frames`.

        Raises:
            EchosynError: the latents were not made of these videos.
        """
        encoded = LatentSet(latents)
        rates = encoded.table["FPS"].unique()
        if len(rates) != 1:
            raise EchosynError(
                f"{latents}: latents at {rates.tolist()} frames a second, not at one rate: run "
                "encode again"
            )
        frames = load_frames(videos, float(rates[0]), cache, label)
        same = np.array_equal(encoded.table["FileName"], frames.table["FileName"])
        if not same or not np.array_equal(encoded.lengths, frames.lengths):
            raise EchosynError(
                f"{latents} was not made of {videos}: {len(encoded)} videos of "
                f"{encoded.lengths.sum()} frames, against {len(frames)} of {frames.lengths.sum()}"
                f"{'' if same else ', not all of the same names'}; run encode again"
            )
        return cls(encoded, frames)

    def split(self, name: str) -> "RealVideos":
        """One split.

        Raises:
            EchosynError: it has no videos.
        """
        found = RealVideos(LatentSet(self.latents.folder, name), self.frames.split(name))
        if len(found) == 0:
            raise EchosynError(
                f"{self.latents.folder}: no {name} videos; the video filter needs TRAIN, VAL, "
                f"TEST: put patients into {name}"
            )
        return found

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def fps(self) -> float:
        return self.frames.fps


class VideoScorer:
    """Compares videos with all TRAIN videos, by both detectors.

    Args:
        train: the TRAIN split.
        kept: file that an earlier scorer of the same TRAIN videos, encoder and settings left
            there by `save`, which saves the work; None: prepare now.
        anomaly: scores how strange videos are too.
    """

    def __init__(
        self,
        train: RealVideos,
        encoder: HeartEncoder,
        codec: VideoCodec,
        cfg: VideoFilterConfig,
        kept: Path | None = None,
        anomaly: AnomalyDetector | None = None,
    ) -> None:
        self.train, self.codec, self.anomaly = train, codec, anomaly
        self.rows, self.videos = frame_rows(train.frames, cfg.gallery_frames)
        data = train.frames.data
        if kept:
            with np.load(kept) as arrays:
                state = {name: arrays[name] for name in arrays.files}
            self.gallery = Gallery(encoder, state.pop("rows"), self.videos, cfg.mirror)
            self.detector = CopyDetector(data, self.rows, cfg.copies, kept=state)
        else:
            self.gallery = Gallery.of(encoder, train.latents, cfg.gallery_frames, cfg.mirror)
            self.detector = CopyDetector(data, self.rows, cfg.copies, "describe TRAIN")

    def save(self, path: Path) -> None:
        """Keep what took time to prepare; it is made of patients and stays local."""
        arrays: dict[str, Any] = {"rows": self.gallery.rows, **self.detector.state()}
        np.savez(path, **arrays)

    def names(self) -> tuple[np.ndarray, np.ndarray]:
        """The TRAIN video of each gallery row, and which of its frames (at the latents' rate)."""
        names = self.train.frames.table["FileName"].to_numpy()[self.videos]
        return names, self.rows - self.train.frames.starts[self.videos]

    def score(self, clips: Iterable[np.ndarray]) -> VideoScores:
        """Scores of videos, uint8 (T, H, W) each, at the latents' rate; a piece is held at once."""
        return VideoScores.join(
            [self._compare([self.embeddable(c) for c in some], some) for some in _pieces(clips)]
        )

    def score_real(self, real: RealVideos, videos: np.ndarray, frames: int) -> VideoScores:
        """Scores of the middle `frames` frames of real videos, by their own latents and pixels."""
        parts = []
        step = max(1, PIECE // frames)
        for some in (videos[i : i + step] for i in range(0, len(videos), step)):
            latents, clips = [], []
            for v in some:
                start = (int(real.frames.lengths[v]) - frames) // 2
                latents.append(real.latents.mean(int(v), start, start + frames))
                clips.append(real.frames.video(v)[start : start + frames])
            parts.append(self._compare(latents, clips))
        return VideoScores.join(parts)

    def embeddable(self, clip: np.ndarray) -> Tensor:
        """The latents of a video's frames (T, 4, h, w), rounded as stored ones are."""
        return self.codec.encode(clip)[0].to(torch.float16).float()

    def rebuild(self, clip: np.ndarray) -> np.ndarray:
        """A video's frames through the autoencoder and back, uint8 (T, H, W)."""
        return self.codec.decode(self.embeddable(clip))

    def _compare(self, latents: list[Tensor], clips: list[np.ndarray]) -> VideoScores:
        lengths = [len(c) for c in clips]
        scores = score_videos(
            torch.cat(latents), np.concatenate(clips), lengths, self.gallery, self.detector
        )
        if self.anomaly is None:
            return scores
        strange = [self.anomaly.score(c, self.train.fps) for c in clips]
        return dataclasses.replace(scores, anomaly=np.array(strange))


class VideoFilter:
    """The filter on finished videos as a question: may these not be released?"""

    def __init__(self, scorer: VideoScorer, taus: dict[str, float], frames: int) -> None:
        self.scorer, self.taus, self.frames = scorer, taus, frames

    @classmethod
    def load(
        cls,
        folder: Path,
        real: RealVideos,
        encoder: Path,
        vae: Path,
        cfg: VideoFilterConfig,
        encoding: EncodeConfig,
    ) -> "VideoFilter":
        """The filter of a stage that has run.

        Args:
            folder: privacy/<dataset>/videos. encoder, vae: folders of models.

        Raises:
            EchosynError: its taus were calibrated with another encoder, VAE, dataset or settings.
        """
        path = folder / TAUS
        identities = made_with(real, encoder, vae, cfg)
        taus = read_taus(path, identities)
        scorer = open_scorer(real, encoder, vae, cfg, encoding)
        frames = int(read_json(path)["made_with"]["frames"])
        return cls(scorer, {name: tau.value for name, tau in taus.items()}, frames)

    def __call__(self, clips: Tensor | np.ndarray) -> np.ndarray:
        """Which of the clips, uint8 (N, T, H, W) at the latents' rate, are refused: bool (N,).

        Raises:
            EchosynError: clips shorter than those that the taus were set with.
        """
        clips = np.asarray(clips)
        if clips.ndim != 4 or clips.dtype != np.uint8 or clips.shape[1] < self.frames:
            raise EchosynError(
                f"clips {clips.dtype} {clips.shape}; the video filter takes uint8 (N, T, H, W) of "
                f"{self.frames} frames or more, which its taus were set with"
            )
        return ~passes(self.scorer.score(clips), self.taus)


def open_scorer(
    real: RealVideos,
    encoder: Path,
    vae: Path,
    cfg: VideoFilterConfig,
    encoding: EncodeConfig,
    kept: Path | None = None,
    anomaly: Path | None = None,
) -> VideoScorer:
    """The scorer of these models (folders); `kept` as of VideoScorer."""
    codec = VideoCodec(Vae.load(vae), encoding.batch, encoding.precision)
    detector = AnomalyDetector.load(anomaly) if anomaly else None
    train = real.split("TRAIN")
    return VideoScorer(train, HeartEncoder.load(encoder), codec, cfg, kept, detector)


def made_with(real: RealVideos, encoder: Path, vae: Path, cfg: VideoFilterConfig) -> dict[str, Any]:
    """What taus of this filter hold for, but for the length of their windows."""
    assert real.frames.content is not None  # they were read from files
    return {
        "encoder": digest(None, [encoder]),
        "vae": digest(None, [vae]),
        "latents": digest(None, [real.latents.folder]),
        "videos": digest(real.frames.content.tolist()),
        "gallery_frames": cfg.gallery_frames,
        "mirror": cfg.mirror,
        "copies": dataclasses.asdict(cfg.copies),
    }


def read_clip(path: Path, fps: float) -> np.ndarray:
    """Frames of a video at `fps`, uint8 (T, H, W)."""
    frames, source_fps = read_video(path)
    return frames[resample_indices(len(frames), source_fps, fps)]


def long_enough(real: RealVideos, frames: int, needed: int, split: str) -> np.ndarray:
    """Videos of at least `frames` frames, int64 (V,).

    Raises:
        EchosynError: of fewer than `needed` people.
    """
    videos = np.flatnonzero(real.frames.lengths >= frames)
    people = len(np.unique(people_of(real.latents)[videos]))
    if people < needed:
        raise EchosynError(
            f"{real.latents.folder}: {people} {split} people with videos of at least {frames} "
            f"frames ({len(real) - len(videos)} of {len(real)} videos are shorter), but the video "
            f"filter needs {needed}: hold out more people in {split}, lower `frames` in "
            "conf/<scale>/filter_videos.yaml, or raise its `false_rejection`, of which each "
            "detector has half"
        )
    return videos


def _pieces(clips: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Lists of clips of about PIECE frames, at least one clip each."""
    source = iter(clips)
    while first := list(islice(source, 1)):
        yield first + list(islice(source, max(0, PIECE // len(first[0]) - 1)))
