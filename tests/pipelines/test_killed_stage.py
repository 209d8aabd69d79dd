"""Stages of the finished smoke graph, killed and run again."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
from repro import edit, environment, run

from echosyn.runtime.lineage import dvc_md5

LONGER = {"steps": 60, "batch": 4, "lr": 1e-3, "checkpoint_every": 4}
NOT_COPIED = shutil.ignore_patterns(".dvc", ".git", ".echosyn", "mlruns")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # waits for the whole graph


@pytest.mark.parametrize(
    ("stage", "conf", "sign", "out"),
    [
        ("train_lidm phantom", {"loop": LONGER}, "checkpoint-*", "models/lidm/phantom"),
        ("sample_hearts phantom", {"steps": 40, "hearts": 80}, "shard-00001", "hearts/phantom"),
        ("train_ef phantom real", {"loop": LONGER}, "seed1/checkpoint-*", "models/ef/phantom/real"),
    ],
)  # fmt: skip
def test_a_killed_stage_resumes_to_the_same_bytes(project, warm, tmp_path, stage, conf, sign, out):
    """The one that is killed is a process of its own, from its beginning."""
    stage, *subject = stage.split()
    name = "-".join(subject)
    command = ["-m", f"pipelines.{stage}", *subject]
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for copy in (calm, killed):
        shutil.copytree(project, copy, ignore=NOT_COPIED)
        edit(copy / "conf/smoke" / f"{stage}.yaml", **conf)
        shutil.rmtree(copy / out)
    state = killed / ".echosyn" / stage
    with start(calm, "python", *command, warm=warm) as undisturbed:
        with start(killed, sys.executable, *command) as process:
            deadline = time.monotonic() + 120
            while not list(state.glob(f"{name}/*/{sign}")) and time.monotonic() < deadline:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
        assert not (killed / out).exists(), "a killed stage left an output"
        run(killed, "python", *command, warm=warm)
    assert undisturbed.returncode == 0
    assert dvc_md5(killed / out) == dvc_md5(calm / out)
    (left,) = state.glob(f"{name}/*")
    assert (left / "finished").exists(), "the next stage may remove it"


def start(project, *command, warm=None):
    own = environment(project, warm)
    return subprocess.Popen(command, cwd=project, env=own, stderr=subprocess.DEVNULL)
