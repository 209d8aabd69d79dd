"""The designed experiment: every level of every condition with every other, on each heart.

A full factorial, so that what a condition does is apart from what the others do. The noise is a
factor too, and is held while a condition changes.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from echosyn.data.latents import LatentSet
from echosyn.models.condition import ConditionSpec
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

CONDITIONS = ("ef", "class", "rate")
NOISE, HEART = "noise", "heart"
SPAN = (0.025, 0.975)  # quantiles of TRAIN between which levels are spread evenly


@dataclass(frozen=True)
class AttributionConfig:
    """One entry of section `attribution`."""

    dataset: str = setting(help="dataset whose real TEST hearts are animated")
    model: str = setting(help="folder under models/: lvdm, or distilled/<name>")
    hearts: int = setting(lo=3, help="hearts to animate, the unit of intervals")
    steps: int = setting(lo=1, help="denoising steps; a student has its own")
    conditions: tuple[str, ...] = setting(
        (), choices=CONDITIONS, help="what is varied; none named: all that the model knows"
    )
    guidance: tuple[float, ...] = setting(
        (1.0, 1.5, 3.0), lo=0.0, hi=20.0, help="compared; a student has its own"
    )
    ventricle: bool = setting(
        True, help="compare with the ventricle's place and volume; false: for datasets untraced"
    )
    efs: int = setting(5, lo=2, hi=8, help="levels of EF")
    rates: int = setting(2, lo=2, hi=8, help="levels of the heart rate")
    seeds: int = setting(2, lo=2, hi=8, help="noises")
    resamples: int = setting(2000, lo=100, help="bootstrap draws of hearts")


@dataclass(frozen=True)
class Factor:
    """A condition, or the noise, and its levels: percent, names, beats a minute, numbers."""

    name: str
    levels: tuple

    @property
    def varied(self) -> bool:
        return len(self.levels) > 1


@dataclass(frozen=True)
class Design:
    """The factors of a model in the order of the axes of what is measured, the noise last."""

    factors: tuple[Factor, ...]
    fps: float

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(f.levels) for f in self.factors)

    @property
    def varied(self) -> list[str]:
        """Names of the conditions that are, without the noise."""
        return [f.name for f in self.factors if f.varied and f.name != NOISE]

    def axis(self, name: str) -> int:
        return [f.name for f in self.factors].index(name)

    def cells(self) -> list[dict[str, float | str | int]]:
        """The levels of each cell by factor, in the order of a flattened array of `shape`."""
        names = [f.name for f in self.factors]
        levels = product(*(f.levels for f in self.factors))
        return [dict(zip(names, some, strict=True)) for some in levels]

    def rows(self, spec: ConditionSpec, cells: list[dict]) -> Tensor:
        """Condition rows (n, K); every video begins at end-diastole."""

        def column(name: str) -> list | None:
            return [c[name] for c in cells] if name in cells[0] else None

        ef, rate = column("ef"), column("rate")
        beat = None
        if rate is not None:
            beat = torch.tensor([[r / 60 / self.fps, 0.0] for r in rate])
        asked = None if ef is None else torch.tensor(ef, dtype=torch.float32)
        return spec.rows(len(cells), asked, self.fps, column("class"), beat)


def make_design(spec: ConditionSpec, train: LatentSet, cfg: AttributionConfig) -> Design:
    """The levels of all that a model knows; what is not varied keeps its middle level.

    Args:
        spec: what the model is conditioned on. train: TRAIN with its beats, whose EFs and rates
            levels span.

    Raises:
        EchosynError: a condition is asked for that the model, or the dataset, lacks.
    """
    ef = train.ef[np.isfinite(train.ef)].astype(np.float64)
    rates = train.beats[:, 0][np.isfinite(train.beats[:, 0])]
    found: dict[str, tuple] = {}
    if spec.ef and len(ef):
        found["ef"] = _spread(ef, cfg.efs)
    if spec.classes and any(c in spec.classes for c in train.classes):
        found["class"] = spec.classes
    if spec.beat is not None and len(rates):
        found["rate"] = _spread(rates, cfg.rates)
    known = ", ".join(found) or "none"
    if lacking := [c for c in cfg.conditions if c not in found]:
        raise EchosynError(
            f"{train.folder}: conditions: '{lacking[0]}' is none that the model was trained with "
            f"and the dataset has (those are: {known}): set `conditions` under attribution in "
            "params.yaml to some of those"
        )
    if not found:
        raise EchosynError(
            f"{train.folder}: the model knows no condition that this dataset has: set `dataset` "
            "under attribution in params.yaml to one with an EF, a class or a beat"
        )
    wanted = cfg.conditions or tuple(found)
    factors = [
        Factor(n, levels if n in wanted else (levels[len(levels) // 2],))
        for n, levels in found.items()
    ]
    return Design((*factors, Factor(NOISE, tuple(range(cfg.seeds)))), _fps(train))


def _spread(values: np.ndarray, levels: int) -> tuple[float, ...]:
    low, high = (float(q) for q in np.quantile(values, SPAN))
    return tuple(np.linspace(low, high, levels).round(1).tolist())


def _fps(train: LatentSet) -> float:
    return float(train.table["FPS"].iloc[0])
