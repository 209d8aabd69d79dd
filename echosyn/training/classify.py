"""Classification of videos into two classes, cross-validated by patient: real, synthetic, both.

Arms: `real` learns from the real videos of the other folds, `synthetic` from synthetic videos
only, also when it selects its weights, `both` from the two together. All are tested on the real
videos of the fold that was left out, so no model is tested on a patient whose videos it trained on.
`synthetic` does not depend on the fold; it is trained anew for each all the same, from another
start, so that every arm is the mean of as many trainings and none owes its score to one lucky one.

The generator is another matter: it has seen the real TRAIN videos, so what `synthetic` and `both`
score on those says nothing. The headline of every arm is therefore measured on the real VAL and
TEST videos alone.
"""

import io
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echosyn.data.frames import FrameSet
from echosyn.metrics.classification import RESAMPLES
from echosyn.metrics.ef_meter import predict_clips
from echosyn.models.r2plus1d import R2Plus1d, R2Plus1dConfig, normalise_clips
from echosyn.runtime.config import Params, build, read_yaml, setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_bytes
from echosyn.tracking import Log
from echosyn.training.ef import training_clip
from echosyn.training.folds import ClassifyTask, Labelled, hold_out, patient_folds
from echosyn.training.loop import LoopConfig

if TYPE_CHECKING:
    from echosyn.training.stage import Fit

ARMS = ("real", "synthetic", "both")
FIT = 13  # stream of random numbers


@dataclass(frozen=True)
class ClassifyConfig:
    """conf/<scale>/classify.yaml."""

    model: R2Plus1dConfig
    loop: LoopConfig
    fps: float = setting(16.0, lo=1.0, hi=120.0, help="frame rate of clips")
    frames: int = setting(16, lo=4, help="frames per clip")
    pad: int = setting(6, lo=0, hi=32, help="pixels of random shift")
    gain: float = setting(0.15, lo=0.0, hi=0.9, help="largest relative change of brightness")
    speckle: float = setting(
        0.0, lo=0.0, hi=2.0, help="largest sd of multiplicative noise per pixel and frame"
    )
    test_clips: int = setting(4, lo=1, help="clips per video whose mean probability is taken")
    folds: int = setting(5, lo=2, hi=100, help="parts of the real patients, each tested once")
    validation: float = setting(
        0.15, lo=0.0, hi=0.5, help="share of a model's training patients that selects its weights"
    )
    resamples: int = setting(RESAMPLES, lo=100, help="bootstrap draws behind each interval")

    def check(self) -> str | None:
        if self.model.outputs != 1:
            return f"model: outputs {self.model.outputs}, but a binary classifier has 1"
        return None


def classify_settings(params: Params, name: str) -> tuple[ClassifyTask, ClassifyConfig]:
    """A task of section `classify`, and the sizes of its scale.

    Raises:
        EchosynError: no such task, or a dataset that is not generated.
    """
    where = f"params.yaml: classify.{name}"
    task = build(ClassifyTask, params.entry("classify", name), where)
    generated = params.raw.get("generate") or []
    if task.dataset not in generated:
        raise EchosynError(
            f"{where}: dataset {task.dataset!r} has no synthetic videos: it is not under generate "
            f"({', '.join(map(str, generated))})"
        )
    conf = params.conf("classify")
    return task, build(ClassifyConfig, read_yaml(conf), str(conf.relative_to(params.root)))


@dataclass(frozen=True)
class Job:
    """A model to train, and the rows of the real videos that it is tested on."""

    name: str
    arm: str
    train: list[Labelled]
    val: list[Labelled]
    test: np.ndarray
    seed: int


def plan_jobs(
    real: Labelled, synthetic: Labelled, fold: np.ndarray, cfg: ClassifyConfig, seed: int
) -> list[Job]:
    """Every model of the cross-validation. Those of one fold start from the same weights and hold
    out the same patients.

    Raises:
        EchosynError: all real videos are in TRAIN, or real and synthetic frames differ in size.
    """
    if real.seen.all():
        raise EchosynError(
            "every real video of the task is in TRAIN, from which the generator has learned: "
            "nothing is left to test on; put patients of both classes into VAL and TEST"
        )
    sizes = [x.frames.data.shape[1:] for x in (real, synthetic)]
    if sizes[0] != sizes[1]:
        raise EchosynError(
            f"real frames are {sizes[0]}, synthetic ones {sizes[1]} pixels: run sample_videos again"
        )

    def job(arm: str, sources: list[Labelled], k: int) -> Job:
        state = int(np.random.SeedSequence([seed, FIT, k]).generate_state(1)[0])
        held = [hold_out(s, cfg.validation, state) for s in sources]
        train = [s.take(~h) for s, h in zip(sources, held, strict=True)]
        val = [s.take(h) for s, h in zip(sources, held, strict=True)]
        return Job(f"{arm}-{k}", arm, train, val, np.flatnonzero(fold == k), state)

    jobs = []
    for k in range(cfg.folds):
        others = real.take(fold != k)
        sources = {"real": [others], "synthetic": [synthetic], "both": [others, synthetic]}
        jobs += [job(arm, sources[arm], k) for arm in ARMS]
    return jobs


class ClipClassifier(nn.Module):
    """Clips uint8 (B, T, H, W) to the logit of the positive class (B,)."""

    def __init__(self, net: R2Plus1d, mean: float, std: float) -> None:
        super().__init__()
        self.net, self.mean, self.std = net, mean, std

    def forward(self, clips: Tensor) -> Tensor:
        c = self.net.config.in_channels
        return self.net(normalise_clips(clips, [self.mean] * c, [self.std] * c))[:, 0]


class ClassifierTask:
    """Random clips with the EF task's augmentation, both classes of equal total weight.

    See echosyn.training.loop.Task.
    """

    def __init__(self, cfg: ClassifyConfig, train: list[Labelled], val: list[Labelled]) -> None:
        self.cfg = cfg
        self.train, self.positive = _joined(train)
        self.val, self.val_positive = _joined(val)
        sample = np.stack([s.video(v)[0] for s, v in self.train])
        self.mean, self.std = float(sample.mean()), float(sample.std()) or 1.0
        counts = np.bincount(self.positive, minlength=2)
        self.weight = (len(self.positive) / (2 * np.maximum(counts, 1))).astype(np.float32)

    @property
    def size(self) -> int:
        return len(self.train)

    def build(self) -> ClipClassifier:
        return ClipClassifier(R2Plus1d(self.cfg.model), self.mean, self.std)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        clips = []
        for i in indices:
            videos, v = self.train[i]
            clips.append(training_clip(videos, v, self.cfg, rng))
        truth = self.positive[indices]
        return {
            "clips": torch.from_numpy(np.stack(clips)),
            "truth": torch.from_numpy(truth.astype(np.float32)),
            "weight": torch.from_numpy(self.weight[truth.astype(int)]),
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        logits, truth = model(batch["clips"]).float(), batch["truth"]
        each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        right = ((logits > 0) == (truth > 0.5)).float()
        return (each * batch["weight"]).mean(), {"accuracy": right.mean()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """`loss` is the cross-entropy of one clip per video, the mean of the classes' means."""
        if not self.val:
            return {"loss": float("nan")}
        clips = predict_clips(model, self.val, self.cfg.frames, 1, show=False)
        logits = np.array([c.mean() for c in clips], np.float64)
        each = np.logaddexp(0, np.where(self.val_positive, -logits, logits))
        sides = [each[side] for side in (self.val_positive, ~self.val_positive) if side.any()]
        right = float(((logits > 0) == self.val_positive).mean())
        return {"loss": float(np.mean([s.mean() for s in sides])), "accuracy": right}


def _joined(parts: list[Labelled]) -> tuple[list[tuple[FrameSet, int]], np.ndarray]:
    videos = [(x.frames, v) for x in parts for v in range(len(x))]
    return videos, np.concatenate([np.zeros(0, bool), *(x.positive for x in parts)])


def probabilities(model: nn.Module, frames: FrameSet, cfg: ClassifyConfig) -> np.ndarray:
    """Probability that each video is positive, the mean over evenly spaced clips (V,)."""
    videos = [(frames, v) for v in range(len(frames))]
    logits = predict_clips(
        model, videos, cfg.frames, cfg.test_clips, show=False, precision=cfg.loop.precision
    )
    return np.array([(1 / (1 + np.exp(-np.asarray(x, np.float64)))).mean() for x in logits])


def predict_all(
    real: Labelled,
    synthetic: Labelled,
    cfg: ClassifyConfig,
    seed: int,
    test: Callable[[Job], np.ndarray],
) -> pd.DataFrame:
    """One row per arm and real video, arm by arm, videos in the order of their FileList.

    Columns arm, fold (the video's), FileName, Patient, Split, truth (1 positive) and probability.

    Args:
        test: trains a job's model and returns its probabilities.
    """
    fold = patient_folds(real, cfg.folds, seed)
    found = {arm: np.full(len(real), np.nan) for arm in ARMS}
    for job in plan_jobs(real, synthetic, fold, cfg, seed):
        found[job.arm][job.test] = test(job)
    facts = real.frames.table
    tables = [
        pd.DataFrame(
            {
                "arm": arm,
                "fold": fold,
                "FileName": facts["FileName"],
                "Patient": real.patient,
                "Split": facts["Split"],
                "truth": real.positive.astype(int),
                "probability": values,
            }
        )
        for arm, values in found.items()
    ]
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class _Named:
    """A run's log, its values under the name of the model they are of."""

    run: Log
    name: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(step, {f"{self.name}/{k}": v for k, v in values.items()})

    def resumed(self, step: int) -> None:
        self.run.resumed(step)

    def committing(self, step: int) -> AbstractContextManager:
        return self.run.committing(step)


def predict_job(
    fit: "Fit", job: Job, real: Labelled, cfg: ClassifyConfig, work: Path, log: Log, name: str
) -> np.ndarray:
    """Train a job's model and return its probabilities of the job's test videos (V,).

    They are kept in `work`, where the next call finds them; a killed training resumes.

    Args:
        fit: echosyn.cluster.fit. name: of the task.
    """
    done, folder = work / f"{job.name}.npy", work / job.name
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        task, title = ClassifierTask(cfg, job.train, job.val), f"classify {name} {job.name}"
        model = fit(task, cfg.loop, job.seed, folder, _Named(log, job.name), title, "classify")
        found = probabilities(model, real.take(job.test).frames, cfg)
        data = io.BytesIO()
        np.save(data, found)
        write_bytes(done, data.getvalue())
    shutil.rmtree(folder, ignore_errors=True)
    return np.load(done)
