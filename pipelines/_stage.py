"""What every stage file shares: its command line and its way of ending."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from echosyn import timing
from echosyn.config import Params
from echosyn.errors import EchosynError
from echosyn.runtime import project_root, run_stage, threads

if TYPE_CHECKING:
    from echosyn.data.latents import LatentSet

NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


def command(main: Callable[..., None], **arguments: str) -> None:
    """Run `main` with positional arguments named and described by `arguments`."""
    module = main.__globals__
    parser = argparse.ArgumentParser(
        prog=f"python -m {module['__spec__'].name}",
        description=module["__doc__"],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, text in arguments.items():
        parser.add_argument(name, help=text)
    values = vars(parser.parse_args())

    def checked() -> None:
        for name, value in values.items():
            if not NAME.fullmatch(value):
                raise EchosynError(
                    f"{name} {value!r}: use a-z, 0-9 and '_' only: rename it in params.yaml"
                )
        main(**values)
        if stage := os.environ.get("DVC_STAGE"):
            timing.keep(stage)

    run_stage(checked)


def params_here() -> Params:
    """The project's params; a stage asks for them once its modules are imported."""
    timing.loaded()
    return Params(project_root())


def torch_params() -> Params:
    """The same, after giving torch its threads: for stages that compute."""
    from echosyn.device import set_threads

    set_threads(threads())
    return params_here()


def trained_on(params: Params, split: str) -> "list[LatentSet]":
    """Latents of a split of every dataset that models learn from, with their beats."""
    from echosyn.data.latents import LatentSet

    beats = Path("beats/train")
    return [LatentSet(f, split, beats / f.name) for f in subfolders(params, "latents/train")]


def subfolders(params: Params, folder: str) -> list[Path]:
    """The folders of the datasets with role 'train' in, for instance, data/train.

    Raises:
        EchosynError: there is none, or one that belongs to no such dataset.
    """
    found = sorted(p for p in Path(folder).glob("*") if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise EchosynError(
            f"{folder}: no dataset here; does params.yaml have one with role 'train'?"
        )
    for path in found:
        params.require_train(path)
    return found
