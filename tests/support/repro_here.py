"""`dvc repro` whose stages run in this process: no interpreter starts for each, and nothing is
imported twice. DVC checks, hashes and locks as ever.
"""

import importlib
import shlex
from contextlib import chdir

import pytest
import yaml
from accelerate.state import AcceleratorState

from echosyn.runtime.errors import EchosynError


def repro(project, *targets):
    """Bring targets of a project up to date; what a stage raises, this does."""
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageCmdFailedError

    failed = []

    def run(executable, cmd, env, **_):
        python, dash_m, module, *arguments = shlex.split(cmd)
        assert (python, dash_m) == ("python", "-m")
        patch.setenv("DVC_STAGE", env["DVC_STAGE"])
        AcceleratorState._reset_state(reset_partial_state=True)  # its precision is for a process
        try:
            importlib.import_module(module).main(*arguments)
        except EchosynError as e:
            failed.append(e)
            raise StageCmdFailedError(cmd, 1) from e

    def quick(text, *_, **__):  # DVC's own reader takes a second and more for each stage
        return yaml.load(text, yaml.CSafeLoader)

    with pytest.MonkeyPatch.context() as patch, chdir(project), Repo() as repo:
        patch.setattr("dvc.stage.run._run", run)
        patch.setattr("dvc.utils.serialize._yaml.parse_yaml", quick)
        patch.setenv("DVC_ROOT", str(project))
        patch.setenv("ECHOSYN_RECORDS_CARRIED", "1")  # MLflow gets none
        try:
            repo.reproduce(list(targets))
        except Exception:
            if failed:
                raise failed[0] from None
            raise
