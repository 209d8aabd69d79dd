"""The datasets that models learn from: those with role `train` in params.yaml."""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError

if TYPE_CHECKING:
    from echosyn.data.latents import LatentSet


def trained_on(params: Params, split: str) -> "list[LatentSet]":
    """Latents of a split of every dataset that models learn from, with their beats."""
    from echosyn.data.latents import LatentSet

    beats = params.root / "beats/train"
    return [LatentSet(f, split, beats / f.name) for f in subfolders(params, "latents/train")]


def subfolders(params: Params, folder: str) -> list[Path]:
    """The folders of the datasets with role 'train' in, for instance, data/train of the project.

    Raises:
        EchosynError: there is none, or one that belongs to no such dataset.
    """
    place = params.root / folder
    found = sorted(p for p in place.glob("*") if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise EchosynError(
            f"{place}: no dataset here; does params.yaml have one with role 'train'?"
        )
    for path in found:
        params.require_train(path)
    return found
