"""Records that one process sends for others, as `echosyn sync --follow` does for `echosyn run`."""

import subprocess
import sys

import pytest
from mlflow.tracking import MlflowClient
from repro import environment

from echosyn import tracking
from echosyn.tracking import CARRIED, stage_run

STAGE = """
from pathlib import Path
from echosyn.tracking import stage_run
with stage_run("train_x", "all", {"lr": 1}) as run:
    run.log(3, {"loss": 0.5})
    run.final({"x/r2": 0.25}, Path("metrics/x.json"))
import sys
assert "mlflow" not in sys.modules
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text("scale: smoke\nseed: 0\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stage(project):
    env = {**environment(project), "PYTHONPATH": ":".join(sys.path), CARRIED: "1"}
    subprocess.run([sys.executable, "-c", STAGE], cwd=project, env=env, check=True)


@pytest.mark.slow
def test_a_stage_leaves_its_records_and_another_process_sends_them_all(project):
    stage(project)
    rounds = iter([False, False, True])
    assert tracking.carry(lambda: next(rounds)) == 0
    client = MlflowClient(tracking.tracking_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("stages").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"loss": 0.5, "x/r2": 0.25}
    assert run.data.params["lr"] == "1"


@pytest.mark.slow
def test_what_is_left_when_asked_to_stop_is_sent_still(project):
    stage(project)
    assert tracking.carry(lambda: True) == 0
    client = MlflowClient(tracking.tracking_uri())
    assert client.get_experiment_by_name("stages") is not None


def test_without_the_mark_a_stage_sends_its_own(project):
    with stage_run("train_x", "all", {}) as run:
        run.log(0, {"loss": 1.0})
    client = MlflowClient(tracking.tracking_uri())
    assert len(client.search_runs([client.get_experiment_by_name("stages").experiment_id])) == 1
