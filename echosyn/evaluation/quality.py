"""Distances between synthetic and real video in feature spaces that need no download."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from echosyn.data.frames import FrameSet, VideoFolder
from echosyn.data.spaced import evenly_spaced
from echosyn.evaluation.config import EvaluateConfig
from echosyn.metrics.bands import EDGES, band_distances, ef_bands
from echosyn.metrics.extract import Clip, extract
from echosyn.metrics.feature_cache import FeatureCache
from echosyn.metrics.features import (
    EfNet,
    FeatureSpace,
    RandomFeatures2d,
    RandomFeatures3d,
    distance_name,
)
from echosyn.metrics.frechet import frechet_interval
from echosyn.metrics.kernel import kernel_distance
from echosyn.metrics.motion import MotionFeatures
from echosyn.metrics.prdc import prdc
from echosyn.metrics.streaming import MapRows
from echosyn.metrics.ultrasound import compare_statistics, image_statistics, set_means
from echosyn.models.ef_regressor import EfRegressor
from echosyn.runtime.device import pick_device
from echosyn.runtime.errors import EchosynError

# What is compared with what, by the ending of its name.
PAIRS = {
    "": ("test", "synthetic"),
    "_floor": ("test", "train"),
    "_reconstruction": ("test", "reconstructed"),
    "_vs_train": ("train", "synthetic"),
}
LEAST_MOTION = 16  # frames, of MotionFeatures
V = TypeVar("V", FrameSet, VideoFolder)
DISTANCES = {"fd": frechet_interval, "kd": kernel_distance}


@dataclass(frozen=True)
class Sets(Generic[V]):
    """The videos to compare: real TRAIN and TEST, TRAIN through the VAE, and the samples."""

    train: V
    test: V
    reconstructed: V
    synthetic: V

    @classmethod
    def of(cls, real: V, reconstructed: V, synthetic: V) -> "Sets[V]":
        """From whole datasets; all splits of the synthetic one are released."""
        return cls(real.split("TRAIN"), real.split("TEST"), reconstructed.split("TRAIN"), synthetic)

    def matched(self: "Sets[FrameSet]", most: int) -> "Sets[FrameSet]":
        """As many videos of each, evenly spread, at most `most`.

        Raises:
            EchosynError: a set of fewer than two videos, or frames of several sizes.
        """
        sets = vars(self)
        n = min(most, *map(len, sets.values()))
        if n < 2:
            counts = ", ".join(f"{name} {len(s)}" for name, s in sets.items())
            raise EchosynError(
                "distances need at least two videos in TRAIN, TEST and the samples; there are "
                f"{counts}: add patients to the split, or sample more"
            )
        sizes = {name: s.data.shape[1:] for name, s in sets.items()}
        if len(set(sizes.values())) > 1:
            raise EchosynError(f"frames differ in size: {sizes}; sample at the size of the data")
        return Sets(**{name: s.take(evenly_spaced(len(s), n)) for name, s in sets.items()})


class QualityEvaluation:
    """Distances, precision and recall, motion and ultrasound statistics, with their floors.

    Every number has the same count of videos on both sides: synthetic against real TEST, and its
    floors, real TRAIN against real TEST (`_floor`: what two real sets differ by) and
    VAE-reconstructed TRAIN against real TEST (`_reconstruction`: the best that any generator can
    do through this VAE). `_vs_train` compares with TRAIN, which a copying generator would win.

    Args:
        over: computes over videos, here or on a cluster.
        cache: keeps features by the content of the videos.
    """

    def __init__(self, cfg: EvaluateConfig, seed: int, over: MapRows, cache: FeatureCache) -> None:
        self.cfg, self.seed, self.over, self.cache = cfg, seed, over, cache
        self.numbers: dict[str, float | str] = {}

    def measure(self, sets: Sets[FrameSet], regressor: Path | None) -> None:
        """Measure in every feature space.

        Args:
            regressor: folder of a real-trained one; None where the videos have no EF, whose
                features and bands are then left out.
        """
        sets = sets.matched(self.cfg.quality_videos)
        self._space(RandomFeatures2d, sets, self.cfg.frames_per_video, bands=False)
        self._space(RandomFeatures3d, sets, 1, bands=False)
        if regressor is not None:
            self._space(partial(efnet, regressor), sets, 1, bands=True)
        shortest = min(int(s.lengths.min()) for s in vars(sets).values())
        frames = min(self.cfg.motion_frames, shortest)
        if frames >= LEAST_MOTION:  # a last frame repeated would count as a heart that stops
            motion = partial(MotionFeatures, frames, sets.test.fps)
            self._space(motion, sets, 1, bands=regressor is not None)
        else:
            self.numbers["protocol/motion/left_out"] = f"the shortest video has {shortest} frames"
        self._ultrasound(sets)

    def _space(
        self, make: Callable[[], FeatureSpace], sets: Sets, per_video: int, bands: bool
    ) -> None:
        space, n = make(), len(sets.test)
        clips = {k: clips_of(space, s, per_video, self.seed) for k, s in vars(sets).items()}
        features = {
            k: self._features(f"{space.name}-{k}", make, space, s, clips[k])
            for k, s in vars(sets).items()
        }
        groups = np.repeat(np.arange(n), per_video)
        for kind, distance in DISTANCES.items():
            base = distance_name(kind, space, n * per_video, n * per_video)
            for suffix, (a, b) in PAIRS.items():
                value = distance(features[a], features[b], groups, groups)
                self.numbers |= value.flat(f"quality/{base}{suffix}")
            if bands:
                self._bands(kind, space, features, sets)
        self.numbers |= self._fidelity(space, features)
        facts = {
            "extractor_sha256": space.sha256,
            "videos_per_side": n,
            "frames_per_video": clip_frames(space) or per_video,
            "offsets": "even" if not space.clip else f"random, seed {self.seed}",
        }
        self.numbers |= {f"protocol/{space.name}/{k}": str(v) for k, v in facts.items()}

    def _bands(
        self, kind: str, space: FeatureSpace, features: dict[str, np.ndarray], sets: Sets
    ) -> None:
        """Distances between videos of like EF, as many of each set in a band.

        The mean over bands is of the kernel distance alone, whose bands have no bias to mix.
        """
        name, distance = f"quality/{kind}_{space.name}_{space.clip}", DISTANCES[kind]
        ef = {k: s.ef for k, s in vars(sets).items()}
        most = {b.name: min(int(b.holds(x).sum()) for x in ef.values()) for b in ef_bands(EDGES)}
        for suffix, (a, b) in PAIRS.items():
            found = band_distances(
                distance, features[a], features[b], ef[a], ef[b], EDGES, most=most
            )
            numbers = found.flat(name, suffix)
            self.numbers |= {
                k: v for k, v in numbers.items() if kind == "kd" or "_ef_conditional" not in k
            }

    def _ultrasound(self, sets: Sets) -> None:
        rows = {}
        for k, videos in vars(sets).items():

            def worker(videos: FrameSet = videos) -> Callable[[range], np.ndarray]:
                return lambda some: np.stack([image_statistics(videos.video(v)) for v in some])

            rows[k] = self.over(f"ultrasound-{k}", len(videos), worker)
        for suffix, (a, b) in PAIRS.items():
            for key, value in compare_statistics(rows[a], rows[b]).items():
                self.numbers |= value.flat(f"{key}{suffix}")
        for suffix, k in (("", "synthetic"), ("_real", "test")):
            for key, value in set_means(rows[k]).items():
                self.numbers |= value.flat(f"{key}{suffix}")
        self.numbers["protocol/us/videos_per_side"] = str(len(sets.test))
        self.numbers["protocol/us/fps"] = f"{sets.test.fps:g}"

    def _fidelity(self, space: FeatureSpace, features: dict[str, np.ndarray]) -> dict[str, float]:
        """Precision, recall, density and coverage of videos, with those of TRAIN as floor."""
        n = len(features["test"])
        if not space.clip or n < 2:
            return {}
        numbers = {}
        for suffix in ("", "_floor", "_reconstruction", "_vs_train"):
            real, fake = PAIRS[suffix]
            scores = prdc(features[real], features[fake], k=min(5, n - 1))
            for name, value in scores.items():
                numbers[f"quality/{distance_name(name, space, n, n)}{suffix}"] = value
        return numbers

    def _features(
        self,
        name: str,
        make: Callable[[], FeatureSpace],
        space: FeatureSpace,
        videos: FrameSet,
        clips: list[Clip],
    ) -> np.ndarray:
        per_video = len(clips) // len(videos)

        def worker() -> Callable[[range], np.ndarray]:
            own = make()
            return lambda rows: extract(
                own, videos, clips[rows.start * per_video : rows.stop * per_video]
            )

        def compute() -> np.ndarray:
            return self.over(name, len(videos), worker)

        return self.cache.get(space, videos, clips, compute)


def clips_of(space: FeatureSpace, s: FrameSet, per_video: int, seed: int) -> list[Clip]:
    """One clip of each video, its start drawn per video, or `per_video` evenly spread frames.

    A video shorter than a clip repeats its last frame.
    """
    made = []
    for v, length in enumerate(s.lengths):
        if t := clip_frames(space):
            spare = max(int(length) - t, 0)
            start = int(np.random.default_rng([seed, 5, v]).integers(spare + 1))
            frames = np.minimum(np.arange(start, start + t), int(length) - 1)
        else:
            frames = evenly_spaced(int(length), per_video)
        made.append(Clip(v, frames))
    return made


def clip_frames(space: FeatureSpace) -> int:
    """Frames of a clip that a space takes, 0 when it takes single frames."""
    return int(space.clip.removesuffix("f") or 0)


def efnet(folder: Path) -> EfNet:
    """The feature space of the regressor in `folder`."""
    regressor = EfRegressor.load(folder).to(pick_device())
    channels = regressor.net.config.in_channels
    return EfNet(
        regressor.net, regressor.frames, [regressor.mean] * channels, [regressor.std] * channels
    )
