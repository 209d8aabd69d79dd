"""All that is measured of a synthetic dataset, from the folders that stages left."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from echosyn.data.frames import VideoFolder, load_frames
from echosyn.data.latents import LatentSet
from echosyn.encoding.codec import VideoCodec
from echosyn.evaluation.beat import BeatEvaluation
from echosyn.evaluation.config import EvaluateConfig
from echosyn.evaluation.ef import EfEvaluation
from echosyn.evaluation.protocol import ProtocolEvaluation
from echosyn.evaluation.quality import QualityEvaluation, Sets
from echosyn.metrics.feature_cache import FeatureCache
from echosyn.metrics.streaming import MapRows
from echosyn.models.ef_regressor import EfRegressor
from echosyn.models.vae import Vae
from echosyn.training.arms import ARMS, parse_arm, read_none


@dataclass(frozen=True)
class Folders:
    """What is measured, and with what.

    videos: of `real`, `reconstructed` and `synthetic`; regressors: of a folder for each EF arm,
    further arms in `more`; cache: keeps decoded frames and features.
    """

    videos: Mapping[str, Path]
    regressors: Path
    latents: Path
    beats: Path
    vae: Path
    cache: Path


@dataclass(frozen=True)
class Evaluated:
    """Flat numbers, the tables of EF by name, and why there are none (`read_none`)."""

    numbers: dict[str, float | str]
    tables: dict[str, pd.DataFrame]
    none: dict[str, str | float] | None


def evaluate_dataset(
    folders: Folders,
    label: str,
    cfg: EvaluateConfig,
    protocol: str,
    more: tuple[str, ...],
    weights: Mapping[str, Path | None],
    seed: int,
    over: MapRows,
) -> Evaluated:
    """Measure EF, quality, beat, and what the published protocols ask for.

    Args:
        label: of the dataset. protocol, more: of the EF arms, those beyond the usual ones.
        weights: published weights of `inception` and `i3d`; None leaves out what needs them.
        over: computes over videos, here or on a cluster.
    """
    models, frames = folders.regressors, folders.cache / "frames"
    none = read_none(models / "real")
    fps = float(none["fps"]) if none else EfRegressor.load(models / "real/seed0").fps
    videos = {name: load_frames(f, fps, frames, label) for name, f in folders.videos.items()}
    test = videos["real"].split("TEST")

    ef, tables = EfEvaluation(cfg, seed, over), {}
    if none is None:
        arms = {arm: models / arm for arm in ARMS} | {arm: models / "more" / arm for arm in more}
        for arm, folder in arms.items():
            ef.add(parse_arm(arm).label(protocol), folder, test)
        ef.add("real_on_reconstructed", models / "real", videos["reconstructed"].split("TEST"))
        tables["requested"] = ef.faithfulness(models / "real", videos["synthetic"])
        tables["predictions"] = ef.predictions()

    quality = QualityEvaluation(cfg, seed, over, FeatureCache(folders.cache / "features"))
    quality.measure(Sets.of(**videos), None if none else models / "real/seed0")
    codec = VideoCodec(Vae.load(folders.vae), precision=cfg.precision)
    beat = BeatEvaluation(codec, folders.beats, cfg.resamples, seed)
    real = LatentSet(folders.latents, "TEST")
    rate = float(real.table["FPS"].iloc[0])
    moving = beat.measure(real, load_frames(folders.videos["synthetic"], rate, frames, label))
    published = ProtocolEvaluation(**weights, strict_names=cfg.strict_names, seed=seed, over=over)
    streamed = {n: VideoFolder.open(f, cfg.protocol_fps, label) for n, f in folders.videos.items()}
    published.measure(**vars(Sets.of(**streamed)))

    numbers = {**ef.numbers, **quality.numbers, **moving, **published.numbers}
    for metric, how in published.protocol.items():
        numbers |= {f"protocol/{metric}/{k}": str(v) for k, v in how.items()}
    return Evaluated(numbers, tables, none)
