"""The command line of a stage, and its way of ending."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path

from echosyn.runtime import timing
from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.process import project_root, run_stage, threads

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
    """The project's params; a stage asks for them once its modules are imported. Their root is
    relative, so that the folders below it have the names that dvc.lock gives them."""
    timing.loaded()
    project_root()  # refuses a folder that is none
    return Params(Path())


def torch_params() -> Params:
    """The same, after giving torch its threads: for stages that compute."""
    from echosyn.runtime.device import set_threads

    set_threads(threads())
    return params_here()
