"""What every stage's process does beside its work."""

import subprocess
import sys
import time

import psutil
import pytest

STAGE = """
import os, pathlib, time
from echosyn.runtime.process import run_stage

def main():
    pathlib.Path("pid").write_text(str(os.getpid()))
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        pathlib.Path("cleaned").touch()
        raise

run_stage(main)
"""
# Runs a command as DVC runs a stage's.
DVC = """
import os, subprocess, sys
subprocess.run(["/bin/sh", "-c", sys.argv[1]], env={**os.environ, "DVC_STAGE": "some@stage"})
"""


def started(folder):
    pid = folder / "pid"
    deadline = time.monotonic() + 300
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return psutil.Process(int(pid.read_text()))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="uses what Linux offers")
@pytest.mark.parametrize("shell", ["replaces itself", "stays", "stays, with one more inside"])
def test_a_stage_ends_with_the_dvc_that_started_it(tmp_path, shell):
    (tmp_path / "stage.py").write_text(STAGE)
    stage = f"{sys.executable} stage.py"
    line = {
        "replaces itself": f"exec {stage}",
        "stays": f"{stage}; true",
        "stays, with one more inside": f"(sh -c '{stage}; true'; true); true",
    }[shell]
    with subprocess.Popen([sys.executable, "-c", DVC, line], cwd=tmp_path) as dvc:
        process = started(tmp_path)
        assert process.is_running()
        dvc.kill()
    process.wait(timeout=300)
    assert (tmp_path / "cleaned").exists()


@pytest.mark.slow
def test_a_stage_run_by_hand_does_not_end_with_its_shell(tmp_path):
    (tmp_path / "stage.py").write_text(STAGE)
    line = [sys.executable, "-c", DVC.replace("DVC_STAGE", "OTHER"), f"{sys.executable} stage.py"]
    with subprocess.Popen(line, cwd=tmp_path) as parent:
        process = started(tmp_path)
        parent.kill()
    with pytest.raises(psutil.TimeoutExpired):
        process.wait(timeout=1)
    process.kill()
