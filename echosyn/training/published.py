"""Weights trained elsewhere, used as they are: what a task builds when `weights` names a folder.

Folders have diffusers' layout, as the reference publishes its own: config.json and weights.
"""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from echosyn.models.store import read_config, unet_folder
from echosyn.runtime.errors import EchosynError

WATCHED = Path("weights")  # folders vae, lidm and lvdm in it are dependencies in dvc.yaml


def weights_folder(weights: str, stage: str, dataset: str = "") -> Path:
    """The folder that `weights` of a stage's settings names, {dataset} in it replaced.

    Raises:
        EchosynError: there is none, or it lies in the project where DVC does not watch it.
    """
    folder = Path(weights.replace("{dataset}", dataset))
    place = WATCHED / stage.removeprefix("train_")
    if not folder.is_absolute() and place not in (folder, *folder.parents):
        raise EchosynError(
            f"{folder}: `weights` of {stage}, but DVC watches {place}: put the published weights "
            "there, or give a whole path to a folder that is never changed"
        )
    if not folder.is_dir():
        raise EchosynError(
            f"{folder}: no such folder, but it is `weights` of {stage}: put the published weights "
            "there (paths begin at the project), or set weights: none to train"
        )
    return folder


class Untrained:
    """A task without data to learn from: nothing may change the weights."""

    cfg: Any

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        raise EchosynError(
            f"{self.cfg.weights}: published weights are used as they are: set weights: none to "
            "train or to search"
        )


def published_config(folder: Path, kind: str) -> dict[str, Any]:
    """The config.json of a network of diffusers' class `kind`.

    diffusers itself builds any class from any config, with random weights where it finds none.
    """
    at = folder if kind == "AutoencoderKL" else unet_folder(folder)
    if not (at / "config.json").is_file():
        inside = "" if kind == "AutoencoderKL" else ", nor in unet_ema or unet there"
        there = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise EchosynError(
            f"{folder}: no config.json{inside}; found {there}: give the folder that "
            f"save_pretrained wrote for {kind}"
        )
    facts = read_config(at)
    if facts.get("_class_name") != kind:
        raise EchosynError(
            f"{at / 'config.json'}: of class {facts.get('_class_name')}, but a {kind} is needed: "
            "is this another model's folder?"
        )
    return facts
