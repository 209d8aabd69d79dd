"""One synthetic video, made as `sample_hearts` and `sample_videos` make theirs, measured as
`evaluate` does, and judged as `privacy_filter` and `filter_videos` do, with the same settings.
"""

import dataclasses
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from echosyn.beat.curve import fit_beats
from echosyn.beat.lv_area import area_curve, load_area
from echosyn.data.beats import first_phases
from echosyn.data.filelist import CLASS, HEART_RATE, PHASE
from echosyn.data.latents import LatentSet
from echosyn.data.video import read_video, resample_indices
from echosyn.diffusion.generate import synthetic_name
from echosyn.diffusion.heart_file import HEARTS, Hearts
from echosyn.diffusion.hearts import HeartSampler, load_hearts
from echosyn.diffusion.moments import MomentMap
from echosyn.diffusion.settings import SampleHeartsConfig, SampleVideosConfig
from echosyn.encoding.codec import EncodeConfig
from echosyn.metrics.interval import Estimate
from echosyn.privacy.detectors.embedding import Gallery, HeartEncoder
from echosyn.privacy.filters.calibration import TAUS, accepted, read_taus
from echosyn.privacy.filters.hearts import AcceptedHearts, PrivacyConfig
from echosyn.privacy.filters.video_detectors import (
    RealVideos,
    VideoScorer,
    made_with,
    open_scorer,
)
from echosyn.privacy.filters.video_scores import VideoFilterConfig
from echosyn.runtime.config import Params, setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, digest, read_json
from echosyn.synthesis.ef_truth import EfMeter
from echosyn.synthesis.samples import SamplePlan, sample_shard, synthetic_table
from echosyn.synthesis.video_writer import VideoModels

GALLERY = "gallery.npz"
STEPS = 4  # that `Maker.make` names


@dataclass(frozen=True)
class Wish:
    """What one asks for. None: the model is not told."""

    heart: int = setting(lo=0, hi=999_999, help="sample index; beyond hearts/<dataset>: drawn anew")
    ef: float | None = setting(None, lo=0.0, hi=100.0, help="percent")
    rate: float | None = setting(None, lo=20.0, hi=250.0, help="beats a minute")
    kind: str | None = setting(None, help="class")
    seed: int = setting(0, lo=0, hi=2**32 - 1, help="of the noise, the speckle, the first phase")


@dataclass(frozen=True)
class Verdict:
    """What one detector finds: `score` is refused from `tau` on."""

    what: str
    score: float
    tau: Estimate

    @property
    def refused(self) -> bool:
        return not accepted(np.array([self.score]), self.tau.value)[0]


@dataclass(frozen=True, eq=False)
class Made:
    """A finished video, as its file has it, and what was found in it.

    frames: uint8 (T, H, W). ef: percent, and rate: beats a minute; None where there is nothing to
    measure with, or the beat is not sure.
    """

    name: str
    wish: Wish
    note: str
    frames: np.ndarray
    fps: float
    ef: float | None
    rate: float | None
    verdicts: tuple[Verdict, ...]

    @property
    def refused(self) -> bool:
        return any(v.refused for v in self.verdicts)


@dataclass(frozen=True)
class Choices:
    """What can be asked for: the hearts that are kept, the first that was accepted, and (least,
    usual, most) of TRAIN, None for what the video model is not conditioned on."""

    hearts: int
    accepted: int
    ef: tuple[float, float, float] | None
    rate: tuple[float, float, float] | None
    classes: tuple[str, ...]
    seed: int


class Maker:
    """Everything that making and judging takes, loaded once. One video at a time: hold `turn`.

    Args:
        params: of the project; its root is where stages left their outputs.

    Raises:
        EchosynError: the dataset is none of `generate`, or something is missing, with what makes
            it; taus that were calibrated with something else than lies there.
    """

    def __init__(self, params: Params, dataset: str, cache: Path) -> None:
        root, self.dataset, self.seed = params.root, dataset, params.seed
        generate = params.raw.get("generate") or []
        if dataset not in generate:
            raise EchosynError(
                f"{dataset!r} is not under generate in params.yaml: {', '.join(generate) or 'none'}"
            )
        self.turn = threading.Lock()
        self.sampling = params.stage("sample_videos", SampleVideosConfig)
        self.drawing = params.stage("sample_hearts", SampleHeartsConfig)
        of_hearts = params.stage("privacy_filter", PrivacyConfig)
        of_videos = params.stage("filter_videos", VideoFilterConfig)
        encoding = params.stage("encode", EncodeConfig)
        models = root / "models"
        hearts, privacy = root / "hearts" / dataset, root / "privacy" / dataset
        latents, beats = root / "latents/train" / dataset, root / "beats/train" / dataset
        videos, reid = root / "data/train" / dataset, models / "reid" / dataset
        self.image, regressor = models / "lidm" / dataset, models / "ef" / dataset / "real"
        made = [hearts, privacy / "hearts", privacy / "videos", latents, beats, videos, reid]
        made += [self.image, regressor, models / "vae"]
        if lacking := [str(p) for p in made if not p.is_dir()]:
            raise EchosynError(
                f"{', '.join(lacking)}: not there; `make demo` makes all of it, or dvc repro "
                f"filter_videos@{dataset} train_ef@{dataset}-real"
            )
        self.hearts, self.moved = load_hearts(hearts), MomentMap.load(hearts)
        self.train = LatentSet(latents, "TRAIN", beats)
        self.own_fps = float(self.train.table["FPS"].iloc[0])
        self.fps = self.sampling.fps or self.own_fps
        folders = VideoModels.of(self.sampling, models, dataset)
        self.sampler, self.codec, self.speckle, self.truth = folders.open(
            self.sampling, self.fps, self.own_fps, measured=True
        )
        # A dataset without EF has a folder without regressors.
        seeds = any(regressor.glob("seed*"))
        self.meter = EfMeter(regressor, self.sampling.precision) if seeds else None
        self.area = load_area(beats)
        encoder = HeartEncoder.load(reid)
        of_taus = of_hearts.made_with(latents, encoder)
        self.taus = read_taus(privacy / "hearts" / TAUS, of_taus)
        self.gallery = Gallery.of(encoder, self.train, of_hearts.gallery_frames, of_hearts.mirrors)
        real = RealVideos.open(latents, videos, cache / "frames", params.dataset(dataset).label)
        identities = made_with(real, reid, models / "vae", of_videos)
        self.taus |= read_taus(privacy / "videos" / TAUS, identities)
        kept = cache / "app" / digest(identities) / GALLERY
        if not kept.is_file():
            with atomic_dir(kept.parent) as tmp:
                open_scorer(real, reid, models / "vae", of_videos, encoding).save(tmp / GALLERY)
        self.scorer: VideoScorer = open_scorer(
            real, reid, models / "vae", of_videos, encoding, kept
        )
        self.first = int(AcceptedHearts(privacy / "hearts").indices[0])
        numbers = root / "metrics/evaluate" / f"{dataset}.json"
        found = read_json(numbers).get("ef/real/mae") if numbers.is_file() else None
        self.ef_error: float | None = found  # of the regressors on real TEST, points

    @cached_property
    def heart_sampler(self) -> HeartSampler:
        return HeartSampler(self.image, self.drawing, self.train)

    @property
    def choices(self) -> Choices:
        spec, rates = self.sampler.model.spec, self.train.beats[:, 0]
        rates, efs = rates[np.isfinite(rates)], self.train.ef[np.isfinite(self.train.ef)]
        return Choices(
            len(self.hearts),
            self.first,
            _range(efs) if spec.ef and len(efs) else None,
            _range(rates) if spec.beat is not None and len(rates) else None,
            () if self.hearts.classes else spec.classes,
            self.seed,
        )

    def heart(self, index: int) -> Hearts:
        """One of hearts/<dataset>, or, beyond those, what privacy_filter draws as that index."""
        if index < len(self.hearts):
            return self.hearts.take([index])
        drawn = self.heart_sampler.draw([index], self.seed)
        if self.moved is None:
            return drawn
        return dataclasses.replace(drawn, latents=self.moved(drawn.latents))

    def make(self, wish: Wish) -> Iterator[str | Made]:
        """What is done next, STEPS times, and then the video.

        With the seed of the project, and the EF and the rate of a row of `candidates`, it is the
        video of that row, byte for byte.

        Raises:
            EchosynError: an EF or a class that the model cannot be asked for.
        """
        yield "taking the heart" if wish.heart < len(self.hearts) else "drawing a heart"
        heart = self.heart(wish.heart)
        cfg, name = self.sampling, synthetic_name(self.dataset, wish.seed, wish.heart)
        yield f"animating it: {cfg.frames} frames in {cfg.steps} steps"
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            heart.write(folder / HEARTS, indices=torch.tensor([wish.heart]))
            plan = self._plan(wish, name, AcceptedHearts(folder))
            truth = self.truth if wish.ef is not None else None
            sample_shard(
                self.sampler, self.codec, plan, range(1), folder, wish.seed, self.speckle, truth
            )
            frames, fps = read_video(folder / f"{name}.avi")
        yield "measuring EF and heart rate"
        ef = self.meter(frames, fps) if self.meter else None
        clip = frames[resample_indices(len(frames), fps, self.own_fps)]
        rate = self._rate(clip)
        yield (
            f"comparing it with {len(self.scorer.rows):,} frames of {len(self.train)} training "
            "videos"
        )
        note = self.sampler.model.spec.beyond([wish.ef]) if wish.ef is not None else ""
        yield Made(name, wish, note, frames, fps, ef, rate, self._judge(heart, clip))

    def _plan(self, wish: Wish, name: str, heart: AcceptedHearts) -> SamplePlan:
        ef = np.array([np.nan if wish.ef is None else wish.ef])
        table = synthetic_table([name], ef, ["TRAIN"], self.sampling.frames, self.fps)
        kind = heart.classes[0] if heart.classes else wish.kind
        if kind is not None:
            table[CLASS] = [kind]
        if wish.rate is not None:
            table[HEART_RATE] = [wish.rate]
            table[PHASE] = np.round(first_phases(heart.indices, wish.seed), 4) % 1
        return SamplePlan(heart, heart.indices, table)

    def _rate(self, clip: np.ndarray) -> float | None:
        """Beats a minute, where they are sure; clip: at the latents' rate."""
        if self.area is None:
            return None
        curve = area_curve(self.area, self.scorer.embeddable(clip))
        (rate,) = fit_beats([curve], self.own_fps).rate
        return float(rate) if np.isfinite(rate) else None

    def _judge(self, heart: Hearts, clip: np.ndarray) -> tuple[Verdict, ...]:
        scores = self.scorer.score([clip])
        found = (
            ("the heart, by re-identification", "hearts", self.gallery.nearest(heart.latents)[0]),
            ("the video's frames, by re-identification", "similarity", scores.similarity),
            ("the video's frames, by the copy detector", "ncc", scores.ncc),
        )
        return tuple(Verdict(what, float(score[0]), self.taus[n]) for what, n, score in found)


def _range(values: np.ndarray) -> tuple[float, float, float]:
    """Least, median and most, in whole numbers."""
    lo, middle, hi = np.quantile(values, [0, 0.5, 1])
    return float(np.floor(lo)), float(np.round(middle)), float(np.ceil(hi))
