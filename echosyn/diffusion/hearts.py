"""Hearts from the LIDM, latents of one frame: one seed, and one label, per sample index."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from echosyn.arithmetic.trust import Probe, trusted
from echosyn.data.latents import LatentSet
from echosyn.diffusion.ef_draw import ef_quantile
from echosyn.diffusion.heart_file import HEARTS, Hearts
from echosyn.diffusion.moments import MomentMap
from echosyn.diffusion.objectives import load_objective
from echosyn.diffusion.sampling import (
    autoguided,
    denoise,
    guided,
    sample_generators,
    sample_noise,
)
from echosyn.diffusion.settings import SampleHeartsConfig
from echosyn.diffusion.windows import Predict
from echosyn.models.condition import ConditionSpec
from echosyn.models.image import GUIDE, ImageDenoiser
from echosyn.models.published_image import PublishedImageDenoiser, load_image
from echosyn.runtime.device import autocast, pick_device
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir

LABELS = 8  # stream of random numbers


def draw_labels(
    spec: ConditionSpec, kind: str, train: LatentSet, indices: Sequence[int], seed: int
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """The EFs (percent) and the classes to ask for, None for what the model is not
    conditioned on.

    A heart's label follows from the seed and its index alone, so that hearts drawn later change
    none: EF and class have TRAIN's distributions (`kind` of EF: see ef_quantile), each at a rank
    uniform in [0, 1) that belongs to the index.

    Raises:
        EchosynError: no video of TRAIN has the label.
    """
    drawn = [np.random.default_rng([seed, LABELS, i, 1]).random(2) for i in indices]
    ranks = np.array(drawn).reshape(-1, 2)
    ef = ef_quantile(kind, train.ef, ranks[:, 0]) if spec.ef else None
    if not spec.classes:
        return ef, None
    known = sorted(c for c in train.classes if c is not None)
    if not known:
        raise EchosynError(
            f"{train.folder}: classes cannot be drawn: no TRAIN video has one, but the image model "
            "is conditioned on one: set `condition` of train_lidm to ef or none and train it again"
        )
    return ef, tuple(known[int(rank * len(known))] for rank in ranks[:, 1])


class HeartSampler:
    """Draws hearts, unit-scale latents (B, 4, h, w), from a trained LIDM folder.

    Args:
        train: TRAIN of the dataset that the model learned; labels are drawn from it.

    Raises:
        EchosynError: a sampler that does not fit the model, guidance of an unconditional model, or
            autoguidance without a model to steer away from.
    """

    def __init__(self, folder: Path, cfg: SampleHeartsConfig, train: LatentSet) -> None:
        self.cfg, self.train = cfg, train
        self.objective = load_objective(folder)
        self.objective.scheduler(cfg.sampler, cfg.steps)  # refuses a sampler that does not fit
        self.device = pick_device()
        self.model = load_image(folder).to(self.device)
        self.shape = (4, self.model.size, self.model.size)
        if cfg.guidance != 1 and self.model.spec.dim == 0:
            raise EchosynError(
                f"{folder}: guidance {cfg.guidance:g} of sample_hearts, but this model "
                "is unconditional: set guidance 1, or `condition` of train_lidm to ef or class"
            )
        self.guide = None
        if cfg.autoguidance != 1:
            if not (folder / GUIDE).is_dir():
                raise EchosynError(
                    f"{folder}: autoguidance {cfg.autoguidance:g} of sample_hearts, but this model "
                    "has none to steer away from: set autoguidance 1, or `guide` of train_lidm "
                    "above 0 and train it again"
                )
            self.guide = load_image(folder / GUIDE).to(self.device)
        self.precision = trusted(cfg.precision, self.device, heart_probe(self.model), str(folder))

    @torch.inference_mode()
    def draw(self, indices: Sequence[int], seed: int) -> Hearts:
        """Hearts of these sample indices, on the CPU."""
        spec, n = self.model.spec, len(indices)
        ef, classes = draw_labels(spec, self.cfg.ef, self.train, indices, seed)
        condition = spec.rows(n, None if ef is None else torch.from_numpy(ef), None, classes)
        condition = condition.to(self.device)
        predict = self._predict(self.model, condition, self.cfg.guidance)
        if self.guide is not None:
            weak = self._predict(self.guide, condition, 1.0)
            predict = autoguided(predict, weak, self.cfg.autoguidance)
        generators = sample_generators(seed, indices)
        noise = sample_noise(self.shape, generators).to(self.device)
        scheduler = self.objective.scheduler(self.cfg.sampler, self.cfg.steps)
        with autocast(self.device, self.precision):
            x = denoise(predict, noise, scheduler, generators)
        return Hearts(x.cpu(), ef, classes)

    def _predict(self, model: torch.nn.Module, condition: Tensor, guidance: float) -> Predict:
        return guided(
            lambda x, t, _, condition, start: model(x, t, condition),
            condition.new_zeros(len(condition), 0),  # an image model is given no heart
            condition,
            self.model.spec.unlabelled(condition),
            guidance,
        )

    def write_shard(self, indices: range, folder: Path, seed: int) -> None:
        """Draw hearts into one file in `folder`."""
        self.draw(indices, seed).write(folder / f"{indices.start:06d}.safetensors")


def heart_probe(model: ImageDenoiser | PublishedImageDenoiser, hearts: int = 8) -> Probe:
    """One pass of an image model, for a check of the arithmetic."""
    shape = (hearts, 4, model.size, model.size)
    condition = torch.zeros(hearts, model.spec.dim)
    return Probe("hearts", model, (torch.randn(shape), torch.full((hearts,), 500.0), condition))


def read_shards(shards: list[Path]) -> Hearts:
    """The hearts of all shards of HeartSampler."""
    return Hearts.join([Hearts.read(f) for s in shards for f in sorted(s.glob("*.safetensors"))])


def finish_hearts(shards: list[Path], out: Path, real: Tensor | None = None) -> None:
    """Join the shards of HeartSampler into out/hearts.safetensors.

    real: hearts of TRAIN (M, 4, h, w), whose moments the drawn ones are given; the map is kept
    beside them, for those that are drawn later.
    """
    hearts = read_shards(shards)
    with atomic_dir(out) as tmp:
        if real is not None:
            moved = MomentMap.of(hearts.latents, real)
            moved.save(tmp)
            hearts = replace(hearts, latents=moved(hearts.latents))
        hearts.write(tmp / HEARTS)


def load_hearts(folder: Path) -> Hearts:
    """All hearts, in the order of their sample indices, with their labels.

    Raises:
        EchosynError: there are none in `folder`.
    """
    path = folder / HEARTS
    if not path.is_file():
        raise EchosynError(f"{path} does not exist; run sample_hearts")
    return Hearts.read(path)


def read_hearts(folder: Path) -> Tensor:
    """The latents (N, 4, h, w) of `load_hearts`."""
    return load_hearts(folder).latents
