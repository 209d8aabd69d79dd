"""The re-identification encoder as a task of the loop: pairs of frames of one person in TRAIN."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from echosyn.data.latents import LatentSet
from echosyn.data.training_sets import subfolders
from echosyn.metrics.interval import Estimate
from echosyn.models.reid import AugmentConfig, Encoder, ReidConfig, augment_latents, build_reid
from echosyn.models.store import fill, read_weights, save_model
from echosyn.privacy.detectors.embedding import HeartEncoder, join, people_of
from echosyn.privacy.detectors.verification import verification_scores
from echosyn.runtime.config import Params, setting
from echosyn.runtime.errors import EchosynError
from echosyn.training.loop import LoopConfig


@dataclass(frozen=True)
class TrainReidConfig:
    """Section `train_reid`."""

    model: ReidConfig
    loop: LoopConfig
    augment: AugmentConfig
    joint: bool = setting(
        False, help="learn from every dataset with role train, not from the dataset's own only"
    )
    other_video: float = setting(
        0.5, lo=0.0, hi=1.0, help="share of pairs across two videos, where a person has several"
    )
    init: str = setting(
        "none", help="none, or a file of weights to start from, such as the reference's .pt"
    )
    as_published: bool = setting(False, help="use the weights of `init` without any training")
    validation_items: int = setting(64, lo=2, help="VAL pairs for the validation loss")
    test_frames: int = setting(8, lo=2, help="frames per TEST video when it is measured")

    def check(self) -> str | None:
        if self.as_published and self.init == "none":
            return "as_published: true needs the weights' file in `init`"
        return None


class PairLoss(nn.Module):
    """The encoder with its loss as forward, which is what data-parallel training wraps."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
        return self.encoder.pair_loss(a, b, ids)


class _Videos:
    """Videos of several latent sets, with the person of each; sets never share a person.

    Person numbers come from `Patient`, or, where a set or a video has none, from the video.
    """

    def __init__(self, sets: Sequence[LatentSet]) -> None:
        self.where = [(s, i) for s in sets for i in range(len(s))]
        self.lengths = [int(n) for s in sets for n in s.lengths]
        names = [(k, who) for k, s in enumerate(sets) for who in people_of(s)]
        numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
        self.person = np.array([numbers[name] for name in names], np.int64)
        self.videos: list[list[int]] = [[] for _ in numbers]
        for i, person in enumerate(self.person):
            self.videos[person].append(i)

    def __len__(self) -> int:
        return len(self.where)

    def frame(self, i: int, rng: np.random.Generator) -> Tensor:
        """A random frame (C, h, w) of video i."""
        latents, row = self.where[i]
        f = int(rng.integers(self.lengths[i]))
        return latents.mean(row, f, f + 1)[0]

    def partner(self, i: int, other_video: float, rng: np.random.Generator) -> int:
        """Video i, or with probability `other_video` another of its person, if there is one."""
        others = [v for v in self.videos[self.person[i]] if v != i]
        if others and rng.random() < other_video:
            return others[int(rng.integers(len(others)))]
        return i


class ReidTask:
    """Two disguised frames of one person; every other person of the batch is a negative.

    Args:
        train: latents of one dataset, or of several to train jointly; items are videos.
        val: the same for the validation loss, which is NaN with fewer than two people.

    Raises:
        EchosynError: videos of one person only, who could not be distinguished from anybody.
    """

    def __init__(
        self,
        cfg: TrainReidConfig,
        train: LatentSet | Sequence[LatentSet],
        val: LatentSet | Sequence[LatentSet],
    ) -> None:
        self.cfg = cfg
        self.train, held = (_Videos([s] if isinstance(s, LatentSet) else s) for s in (train, val))
        if len(self.train.videos) == 1:
            raise EchosynError(
                f"train_reid: all {len(self.train)} TRAIN videos are of one person; telling people "
                "apart needs two or more (see the column Patient)"
            )
        self.val = None
        chosen = np.arange(min(len(held), cfg.validation_items))
        if len(np.unique(held.person[chosen])) > 1:
            self.val = self._draw(held, chosen, np.random.default_rng(0))

    @property
    def size(self) -> int:
        return len(self.train)

    def build(self) -> PairLoss:
        encoder = build_reid(dataclasses.asdict(self.cfg.model))
        if self.cfg.init != "none":
            fill(encoder, read_weights(self.cfg.init), self.cfg.init)
        return PairLoss(encoder)

    def _draw(
        self, videos: _Videos, indices: np.ndarray, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        pairs: tuple[list[Tensor], list[Tensor]] = ([], [])
        for i in indices:
            partner = videos.partner(i, self.cfg.other_video, rng)
            for side, video in zip(pairs, (i, partner), strict=True):
                side.append(videos.frame(video, rng))
        a, b = (augment_latents(torch.stack(s), self.cfg.augment, generator) for s in pairs)
        return {"a": a, "b": b, "ids": torch.as_tensor(videos.person[indices])}

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        return self._draw(self.train, indices, rng)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return model(batch["a"], batch["b"], batch["ids"]), {}

    def validate(self, model: nn.Module) -> dict[str, float]:
        if self.val is None:
            return {"loss": float("nan")}
        device = next(model.parameters()).device
        part = {k: v.to(device) for k, v in self.val.items()}
        return {"loss": float(self.loss(model, part)[0])}


def prepare_reid(params: Params, cfg: TrainReidConfig, dataset: str) -> tuple[ReidTask, list[Path]]:
    """The task, and what it reads of the project, the dataset's own latents first."""
    own = params.root / "latents/train" / dataset
    others = subfolders(params, "latents/train") if cfg.joint else []
    folders = [own, *(f for f in others if f != own)]
    train, val = ([LatentSet(f, split) for f in folders] for split in ("TRAIN", "VAL"))
    if cfg.init != "none":
        folders.append(Path(cfg.init))
    return ReidTask(cfg, train, val), folders


def measure_reid(
    model: PairLoss,
    test: LatentSet,
    frames: int,
    seed: int,
    disguise: AugmentConfig | None = None,
) -> dict[str, float]:
    """AUC, EER and recall, with intervals, of telling unseen people apart.

    Args:
        test: one dataset: people of two differ by their machines.
        frames: of each video.
        disguise: also measure (`reid/disguised_...`) with one frame of every pair disguised so.
    """
    if not len(test):
        raise EchosynError(
            f"{test.folder}: no TEST video, on which re-identification is measured: give splits"
        )
    encoder = HeartEncoder(model.encoder)
    latents, people = join([test], frames)
    rows = encoder(latents)
    numbers = _flat(verification_scores(rows, people, seed), "reid/")
    if disguise is not None:
        copies = augment_latents(latents, disguise, torch.Generator().manual_seed(seed))
        scores = verification_scores(rows, people, seed, probes=encoder(copies))
        numbers |= _flat(scores, "reid/disguised_")
    return numbers


def _flat(scores: dict[str, Estimate], prefix: str) -> dict[str, float]:
    return {k: v for name, e in scores.items() for k, v in e.flat(prefix + name).items()}


def save_reid(model: PairLoss, folder: Path) -> None:
    """Write the encoder alone; echosyn.privacy.detectors.embedding.HeartEncoder.load reads it."""
    save_model(folder, model.encoder, dataclasses.asdict(model.encoder.config))
