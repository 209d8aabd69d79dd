"""A synthetic dataset measured against the real one: EF, image and motion quality, coverage."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from echosyn.config import PRECISIONS, setting
from echosyn.data.frames import FrameSet
from echosyn.data.latents import LatentSet
from echosyn.device import pick_device
from echosyn.errors import EchosynError
from echosyn.metrics.ef import ef_scores, requested_vs_measured
from echosyn.metrics.features import (
    EfNet,
    FeatureSpace,
    RandomFeatures2d,
    RandomFeatures3d,
    distance_name,
)
from echosyn.metrics.frechet import frechet_interval
from echosyn.metrics.kernel import kernel_distance
from echosyn.metrics.prdc import prdc
from echosyn.privacy.audit import membership_auc
from echosyn.privacy.coverage import learned_fraction, nearest_videos
from echosyn.privacy.embedding import HeartEncoder, frames_of, join, people_of
from echosyn.training.ef import EfRegressor, predict_ef


@dataclass(frozen=True)
class EvaluateConfig:
    """Section `evaluate`."""

    test_clips: int = setting(4, lo=1, help="clips per video whose mean is the EF prediction")
    quality_videos: int = setting(2048, lo=2, help="at most this many videos a side in distances")
    frames_per_video: int = setting(4, lo=1, help="frames per video in image distances")
    hearts_per_person: int = setting(8, lo=1, help="hearts per person in membership and coverage")
    resamples: int = setting(10_000, lo=100, hi=1_000_000, help="bootstrap resamples of EF scores")
    shard: int = setting(64, lo=1, help="videos per unit of work, the unit of resume")
    precision: str = setting("auto", choices=PRECISIONS)


# name, number of items, worker (see echosyn.cluster.map_rows) -> one array over all items
MapRows = Callable[[str, int, Callable[[], Callable[[range], np.ndarray]]], np.ndarray]


class EfEvaluation:
    """EF predictions gathered arm by arm, and their scores.

    Args:
        over: computes over videos, here or on a cluster.
    """

    def __init__(self, cfg: EvaluateConfig, seed: int, over: MapRows) -> None:
        self.cfg, self.seed, self.over = cfg, seed, over
        self.tables: list[pd.DataFrame] = []
        self.numbers: dict[str, float] = {}

    def _predict(self, name: str, model: Path, videos: FrameSet) -> np.ndarray:
        cfg = self.cfg

        def worker() -> Callable[[range], np.ndarray]:
            net = on_device(EfRegressor.load(model))
            return lambda rows: predict_ef(net, videos.take(rows), cfg.test_clips, cfg.precision)

        return self.over(f"ef-{name}", len(videos), worker)

    def add(self, arm: str, model: Path, test: FrameSet) -> None:
        """Test the regressor in folder `model` on videos with a known EF."""
        predicted = self._predict(arm, model, test)
        rows = {"FileName": test.table["FileName"], "ef_true": test.ef, "ef_predicted": predicted}
        self.tables.append(pd.DataFrame(rows).assign(arm=arm).round({"ef_predicted": 4}))
        for name, e in ef_scores(test.ef, predicted, self.seed, self.cfg.resamples).items():
            self.numbers |= e.flat(f"ef/{arm}/{name}")

    def faithfulness(self, model: Path, samples: FrameSet) -> pd.DataFrame:
        """Measure the EF of synthetic videos with the real-trained regressor."""
        measured = self._predict("samples", model, samples)
        scores = requested_vs_measured(samples.ef, measured, self.seed, self.cfg.resamples)
        for name, e in scores.items():
            self.numbers |= e.flat(f"ef/requested_vs_measured/{name}")
        return pd.DataFrame(
            {
                "FileName": samples.table["FileName"],
                "ef_requested": samples.ef,
                "ef_measured": measured.round(4),
            }
        )

    def predictions(self) -> pd.DataFrame:
        return pd.concat(self.tables)[["arm", "FileName", "ef_true", "ef_predicted"]]


def spread(n: int, k: int) -> np.ndarray:
    """k of n rows, evenly spread."""
    return np.linspace(0, n - 1, k).round().astype(int)


class QualityEvaluation:
    """Distances, precision and recall in offline feature spaces, with their floors.

    Every number has the same count of videos on both sides: synthetic against real TEST, and its
    floors, real TRAIN against real TEST (`_floor`: what two real sets differ by) and
    VAE-reconstructed TRAIN against real TEST (`_reconstruction`: the best that any generator can
    do through this VAE). `_vs_train` compares with TRAIN, which a copying generator would win.

    Args:
        over: computes over videos, here or on a cluster.
    """

    def __init__(self, cfg: EvaluateConfig, seed: int, over: MapRows) -> None:
        self.cfg, self.seed, self.over = cfg, seed, over
        self.numbers: dict[str, float] = {}
        self.protocol: dict[str, dict] = {}

    def measure(
        self,
        train: FrameSet,
        test: FrameSet,
        reconstructed: FrameSet,
        synthetic: FrameSet,
        regressor: Path,
    ) -> None:
        """Measure in every feature space; `regressor` is the folder of the real-trained one."""
        sets = {
            "train": train,
            "test": test,
            "reconstructed": reconstructed,
            "synthetic": synthetic,
        }
        n = min(self.cfg.quality_videos, *(len(s) for s in sets.values()))
        if n < 2:
            raise EchosynError("distances need at least two videos in TRAIN, TEST and the samples")
        for make, per_video in (
            (RandomFeatures2d, self.cfg.frames_per_video),
            (RandomFeatures3d, 1),
            (lambda: efnet(regressor), 1),
        ):
            space = make()
            features = {
                k: self._features(f"{space.name}-{k}", make, s, n, per_video)
                for k, s in sets.items()
            }
            groups = np.repeat(np.arange(n), per_video)
            pairs = {
                "": ("test", "synthetic"),
                "_floor": ("test", "train"),
                "_reconstruction": ("test", "reconstructed"),
                "_vs_train": ("train", "synthetic"),
            }
            for kind, distance in (("fd", frechet_interval), ("kd", kernel_distance)):
                base = distance_name(kind, space, n * per_video, n * per_video)
                for suffix, (a, b) in pairs.items():
                    value = distance(features[a], features[b], groups, groups)
                    self.numbers |= value.flat(f"quality/{base}{suffix}")
            self.numbers |= self._fidelity(space, features)
            self.protocol[space.name] = {
                "extractor_sha256": space.sha256,
                "videos_per_side": n,
                "frames_per_video": _clip_frames(space) or per_video,
                "offsets": "even" if not space.clip else f"random, seed {self.seed}",
            }

    def _fidelity(self, space: FeatureSpace, features: dict[str, np.ndarray]) -> dict[str, float]:
        """Precision, recall, density and coverage of videos, with those of TRAIN as floor."""
        n = len(features["test"])
        if not space.clip or n < 2:
            return {}
        numbers = {}
        for suffix, fake in (("", "synthetic"), ("_floor", "train")):
            scores = prdc(features["test"], features[fake], k=min(5, n - 1))
            for name, value in scores.items():
                numbers[f"quality/{distance_name(name, space, n, n)}{suffix}"] = value
        return numbers

    def _features(
        self, name: str, make: Callable[[], FeatureSpace], s: FrameSet, n: int, per_video: int
    ) -> np.ndarray:
        chosen, seed = s.take(spread(len(s), n)), self.seed

        def worker() -> Callable[[range], np.ndarray]:
            space = make()
            return lambda rows: features(space, chosen, rows, per_video, seed)

        return self.over(name, n, worker)


def features(
    space: FeatureSpace, s: FrameSet, rows: range, per_video: int, seed: int
) -> np.ndarray:
    """Features of some videos: of one clip each, its start drawn per video, or of `per_video`
    evenly spread frames each; (rows x (1 or per_video), D)."""
    if t := _clip_frames(space):
        spare = [max(int(s.lengths[v]) - t, 0) for v in rows]
        starts = [
            int(np.random.default_rng([seed, 5, v]).integers(k + 1))
            for v, k in zip(rows, spare, strict=True)
        ]
        return space(np.stack([s.clip(v, start, t) for v, start in zip(rows, starts, strict=True)]))
    return space(np.concatenate([s.video(v)[spread(int(s.lengths[v]), per_video)] for v in rows]))


def efnet(folder: Path) -> EfNet:
    """The feature space of the regressor in `folder`."""
    regressor = on_device(EfRegressor.load(folder))
    channels = regressor.net.config.in_channels
    return EfNet(
        regressor.net, regressor.frames, [regressor.mean] * channels, [regressor.std] * channels
    )


def on_device(model: nn.Module) -> nn.Module:
    return model.to(pick_device())


def _clip_frames(space: FeatureSpace) -> int:
    """Frames of a clip that a space takes, 0 when it takes single frames."""
    return int(space.clip.removesuffix("f") or 0)


def privacy_numbers(
    latents: dict[str, LatentSet],
    released: torch.Tensor,
    encoder: HeartEncoder,
    cfg: EvaluateConfig,
    seed: int,
) -> dict[str, float]:
    """Membership inference and coverage of the released hearts (N, 4, h, w).

    Coverage is given at as many queries as there are held-out people, so that synthetic hearts and
    real held-out hearts, one a person, compare.
    """
    train, heldout = latents["TRAIN"], [latents["VAL"], latents["TEST"]]
    gallery_frames, rows = frames_of(train, cfg.hearts_per_person)
    gallery, names = encoder(gallery_frames), people_of(train)
    others, other_people = join(heldout, cfg.hearts_per_person)
    other_rows = encoder(others)
    queries = encoder(released)
    auc = membership_auc(gallery, names[rows], other_rows, other_people, queries, seed)
    one_each = other_rows[:: cfg.hearts_per_person]
    at = min(len(queries), len(one_each))
    numbers = auc.flat("privacy/membership_auc")
    for name, rows_of in (("learned_fraction", queries), ("learned_fraction_real", one_each)):
        nearest = nearest_videos(rows_of, gallery, rows)
        numbers |= learned_fraction(nearest, len(train), seed, at).flat(f"coverage/{name}")
    numbers["coverage/queries"] = at
    return numbers
