"""The re-identification encoder as a task of the loop: pairs of frames of one TRAIN video."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from echosyn.config import setting
from echosyn.data.latents import LatentSet
from echosyn.models.reid import AugmentConfig, ReidConfig, augment_latents, build_reid
from echosyn.models.store import save_model
from echosyn.privacy.embedding import HeartEncoder, join
from echosyn.privacy.verification import verification_scores
from echosyn.training.loop import LoopConfig


@dataclass(frozen=True)
class TrainReidConfig:
    """Section `train_reid`."""

    model: ReidConfig
    loop: LoopConfig
    augment: AugmentConfig
    validation_items: int = setting(64, lo=2, help="VAL pairs for the validation loss")
    test_frames: int = setting(8, lo=2, help="frames per video when AUC and EER are measured")


class PairLoss(nn.Module):
    """The encoder with its loss as forward, which is what data-parallel training wraps."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
        return self.encoder.pair_loss(a, b, ids)


class ReidTask:
    """Two disguised frames of each video; every other video of the batch is a negative."""

    def __init__(self, cfg: TrainReidConfig, train: LatentSet, val: LatentSet) -> None:
        self.cfg = cfg
        self.train = train
        self.val = None
        if len(val) > 1:
            chosen = np.arange(min(len(val), cfg.validation_items))
            self.val = self._draw(val, chosen, np.random.default_rng(0))

    @property
    def size(self) -> int:
        return len(self.train)

    def build(self) -> nn.Module:
        return PairLoss(build_reid(dataclasses.asdict(self.cfg.model)))

    def _draw(
        self, latents: LatentSet, indices: np.ndarray, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        pairs: tuple[list[Tensor], list[Tensor]] = ([], [])
        for i in indices:
            for side in pairs:
                f = int(rng.integers(latents.lengths[i]))
                side.append(latents.mean(i, f, f + 1)[0])
        a, b = (augment_latents(torch.stack(s), self.cfg.augment, generator) for s in pairs)
        return {"a": a, "b": b, "ids": torch.as_tensor(indices)}

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


def measure_reid(model: PairLoss, test: LatentSet, frames: int, seed: int) -> dict[str, float]:
    """AUC and EER, with intervals, of telling unseen people apart from `frames` frames each."""
    latents, people = join([test], frames)
    scores = verification_scores(HeartEncoder(model.encoder)(latents), people, seed)
    return {**scores["auc"].flat("reid/auc"), **scores["eer"].flat("reid/eer")}


def save_reid(model: PairLoss, folder: Path) -> None:
    """Write the encoder alone; echosyn.privacy.embedding.HeartEncoder.load reads it."""
    save_model(folder, model.encoder, dataclasses.asdict(model.encoder.config))
