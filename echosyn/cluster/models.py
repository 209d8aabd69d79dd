"""The models that can be searched. Each is imported when it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.runtime.config import Params
from echosyn.runtime.process import state_root

if TYPE_CHECKING:
    from echosyn.training.loop import Task

# The task of a stage with these settings, and what it reads; of params, settings and subject.
Prepare = Callable[..., tuple["Task", list[Path]]]


def _vae() -> tuple[type, Prepare]:
    from echosyn.training.published_vae import prepare_vae
    from echosyn.training.vae import TrainVaeConfig

    return TrainVaeConfig, lambda params, cfg: prepare_vae(params, cfg, state_root() / "frames")


def _lidm() -> tuple[type, Prepare]:
    from echosyn.training.diffusion import TrainLidmConfig
    from echosyn.training.published_denoiser import prepare_lidm

    return TrainLidmConfig, prepare_lidm


def _lvdm() -> tuple[type, Prepare]:
    from echosyn.training.diffusion import TrainLvdmConfig
    from echosyn.training.published_denoiser import prepare_lvdm

    return TrainLvdmConfig, prepare_lvdm


def _reid() -> tuple[type, Prepare]:
    from echosyn.training.reid import TrainReidConfig, prepare_reid

    return TrainReidConfig, prepare_reid


def _ef() -> tuple[type, Prepare]:
    from echosyn.training.ef import TrainEfConfig
    from echosyn.training.ef_arms import EfArms

    def prepare(params: Params, cfg: TrainEfConfig, dataset: str, arm: str) -> tuple:
        return EfArms(params, cfg, dataset, state_root() / "frames").prepare(arm)

    return TrainEfConfig, prepare


@dataclass(frozen=True)
class Model:
    """A model that can be searched.

    stage: that trains it; load: imports its settings and what prepares its training; subject: what
    names one of several; fixed: settings that change what validation measures.
    """

    stage: str
    load: Callable[[], tuple[type, Prepare]]
    subject: tuple[str, ...]
    fixed: tuple[str, ...]

    @property
    def settings_class(self) -> type:
        return self.load()[0]

    @property
    def prepare(self) -> Prepare:
        return self.load()[1]


MODELS = {
    "vae": Model("train_vae", _vae, (), ("fps", "validation_frames", "kl_weight")),
    "lidm": Model("train_lidm", _lidm, ("dataset",), ("objective", "validation_items")),
    "lvdm": Model("train_lvdm", _lvdm, (), ("objective", "validation_items", "window")),
    "reid": Model("train_reid", _reid, ("dataset",), ("validation_items",)),
    "ef": Model("train_ef", _ef, ("dataset", "arm"), ("fps",)),
}
