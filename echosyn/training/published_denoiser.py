"""The tasks of train_lidm and train_lvdm, and denoisers trained elsewhere, used as they are: what a
task builds when `weights` names a folder.

Folders have diffusers' layout, as the reference publishes its own: the UNet in `unet_ema`, in
`unet` or in the folder itself, its noise schedule in `scheduler`, which the reference leaves out.
"""

import sys
from pathlib import Path

import numpy as np
from diffusers import DDPMScheduler
from torch import nn

from echosyn.data.latents import LatentSet
from echosyn.data.training_sets import subfolders, trained_on
from echosyn.diffusion.objectives import DdpmV, load_objective
from echosyn.models.condition import ConditionSpec
from echosyn.models.image import ImageDenoiser
from echosyn.models.published_image import (
    PublishedImageDenoiser,
    is_own_image,
    load_image,
)
from echosyn.models.published_video import PublishedVideoDenoiser, is_own, load_video
from echosyn.models.video import VideoDenoiser
from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json
from echosyn.training.diffusion import LidmTask, LvdmTask, TrainLidmConfig, TrainLvdmConfig
from echosyn.training.published import Untrained, published_config, weights_folder

SCHEDULE = "scheduler/scheduler_config.json"


def prepare_lidm(params: Params, cfg: TrainLidmConfig, dataset: str) -> tuple[LidmTask, list[Path]]:
    """The task of a dataset's image model, and the folders that it reads of the project."""
    latents, beats = (params.root / f / "train" / dataset for f in ("latents", "beats"))
    fit, held_out = (LatentSet(latents, split, beats) for split in ("TRAIN", "VAL"))
    if cfg.weights == "none":
        return LidmTask(cfg, fit, held_out), [latents, beats]
    _warn_of_hearts(cfg.layout, params.settings("train_lvdm")[0].get("weights", "none"), [fit])
    task = PublishedLidm(cfg, fit, held_out, dataset)
    return task, [latents, beats, task.folder]


def prepare_lvdm(params: Params, cfg: TrainLvdmConfig) -> tuple[LvdmTask, list[Path]]:
    """The task of the video model of all datasets, and the folders that it reads."""
    folders = [*subfolders(params, "latents/train"), *subfolders(params, "beats/train")]
    fit, held_out = trained_on(params, "TRAIN"), trained_on(params, "VAL")
    if cfg.weights == "none":
        image = params.settings("train_lidm")[0]
        if image.get("weights", "none") != "none":
            _warn_of_hearts(image.get("layout", "own"), cfg.weights, fit)
        return LvdmTask(cfg, fit, held_out), folders
    task = PublishedLvdm(cfg, fit, held_out)
    return task, [*folders, task.folder]


class PublishedLidm(Untrained, LidmTask):
    """The image model in `cfg.weights`, for one dataset."""

    def __init__(
        self, cfg: TrainLidmConfig, train: LatentSet, val: LatentSet, dataset: str
    ) -> None:
        self.folder = weights_folder(cfg.weights, "train_lidm", dataset)
        super().__init__(cfg, train, val)

    def build(self) -> ImageDenoiser | PublishedImageDenoiser:
        """Raises EchosynError: no image model, or one that the settings or latents do not fit."""
        folder = self.folder
        own = is_own_image(folder)
        if not own:
            published_config(folder, "UNet2DModel")
        _check_objective(folder, self.cfg.objective, "train_lidm")
        _check_layout(folder, own, self.cfg.layout, "train_lidm")
        model = load_image(folder)
        _check_condition(
            folder, model.spec, self.spec, "set `condition` of train_lidm to what it knows"
        )
        fit_size(folder, model, self.frame_size)
        return model


class PublishedLvdm(Untrained, LvdmTask):
    """The video model in `cfg.weights`."""

    def __init__(self, cfg: TrainLvdmConfig, train: list[LatentSet], val: list[LatentSet]) -> None:
        self.folder = weights_folder(cfg.weights, "train_lvdm")
        super().__init__(cfg, train, val)

    def build(self) -> VideoDenoiser | PublishedVideoDenoiser:
        """Raises EchosynError: no video model, or one that the settings or latents do not fit."""
        folder, cfg = self.folder, self.cfg
        if not is_own(folder):
            published_config(folder, "UNetSpatioTemporalConditionModel")
        _check_objective(folder, cfg.objective, "train_lvdm")
        model = load_video(folder)
        _check_layout(folder, isinstance(model, VideoDenoiser), cfg.layout, "train_lvdm")
        _check_condition(folder, model.spec, self.spec, "choose a model of these datasets' labels")
        if model.window != cfg.window:
            raise EchosynError(
                f"{folder}: clips of {model.window} frames, but train_lvdm has window "
                f"{cfg.window}: set window: {model.window}"
            )
        if model.continues != (cfg.continues > 0):
            raise EchosynError(
                f"{folder}: a network that is {'' if model.continues else 'not '}given frames: set "
                f"continues of train_lvdm {'above' if model.continues else 'to'} 0"
            )
        fit_size(folder, model, self.frame_size)
        return model


def _warn_of_hearts(layout: str, video_weights: str, sets: list[LatentSet]) -> None:
    """A published image model draws frames of any moment of the beat, a video model that is trained
    here starts from end-diastolic ones: neither can tell that the other does not."""
    known = any(np.isfinite(latents.beats).any() for latents in sets)
    if layout == "published" and video_weights == "none" and known:
        print(
            "warning: train_lidm uses published weights, which draw hearts of any moment of the "
            "beat, but train_lvdm learns from end-diastolic ones: videos will contract too little. "
            "Set `weights` of train_lvdm too, or weights: none of train_lidm",
            file=sys.stderr,
        )


def _check_objective(folder: Path, wanted: str, stage: str) -> None:
    found = load_objective(folder).name
    if found != wanted:
        raise EchosynError(
            f"{folder}: trained with objective '{found}', but {stage} has '{wanted}': set "
            f"objective: {found}"
        )
    if found == DdpmV.name and (folder / SCHEDULE).is_file():
        schedule = DDPMScheduler.from_config(read_json(folder / SCHEDULE)).config
        for key, value in DdpmV.settings.items():
            if schedule[key] != value:
                raise EchosynError(
                    f"{folder / SCHEDULE}: {key} {schedule[key]}, but '{found}' is {value}: this "
                    "model cannot be sampled from here; choose another, or train one with "
                    "weights: none"
                )


def _check_layout(folder: Path, own: bool, wanted: str, stage: str) -> None:
    found = "own" if own else "published"
    if found != wanted:
        raise EchosynError(
            f"{folder}: a network of layout '{found}', but {stage} has layout '{wanted}': set "
            f"layout: {found}"
        )


def _check_condition(folder: Path, found: ConditionSpec, wanted: ConditionSpec, fix: str) -> None:
    if _named(found) != _named(wanted):
        raise EchosynError(
            f"{folder}: a model conditioned on {_named(found)}, but the settings and datasets "
            f"have {_named(wanted)}: {fix}, or train one with weights: none"
        )


def _named(spec: ConditionSpec) -> str:
    names = [
        name
        for name, known in (
            ("EF", spec.ef),
            ("the frame rate", spec.fps),
            ("the beat", spec.beat is not None),
        )
        if known
    ]
    return ", ".join([*names, *(f"class {c}" for c in spec.classes)]) or "nothing"


def fit_size(folder: Path, model: nn.Module, size: int) -> None:
    """Latents of `size` are what the model is for; a UNet may name the size that they are padded
    to."""
    if not isinstance(model, PublishedImageDenoiser | PublishedVideoDenoiser):
        if model.size != size:
            raise EchosynError(_other_size(folder, model.size, size))
        return
    named = model.net.config.sample_size
    padded = -(-size // model.multiple) * model.multiple
    sides = {named} if isinstance(named, int) else set(named or ())
    if not sides <= {size, padded}:
        raise EchosynError(_other_size(folder, named, size))
    model.net.register_to_config(sample_size=size)


def _other_size(folder: Path, named: object, size: int) -> str:
    return (
        f"{folder}: for latents of {named}, but those of latents/train are {size}x{size}: "
        "choose a model of the same VAE, or train one with weights: none"
    )
