"""Stages forked from a process that has imported: signals, deaths, and when it is not there."""

import os
import signal
import subprocess
import sys
import time

import pytest
from repro import ROOT, environment

from echosyn.project import prefork
from echosyn.project.prefork import READY, asking

SLOW = """
import os, sys, time
from pathlib import Path
from echosyn.runtime.process import run_stage

def main():
    Path("begun").write_text(str(os.getpid()))
    try:
        time.sleep(60)
    finally:
        Path("saved").touch()

if sys.argv[1:] == ["quick"]:
    sys.exit(3 if "torch" in sys.modules else 4)
run_stage(main)
"""


@pytest.fixture
def stage(tmp_path):
    """A project of one stage, which says whether it was forked, or sleeps until it is stopped."""
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/__init__.py").touch()
    (tmp_path / "pipelines/slow.py").write_text(SLOW)
    return tmp_path


def begin(stage, warm, *command, **more):
    own = {**environment(stage, warm), "PYTHONPATH": str(ROOT), **more}
    return subprocess.Popen(command, cwd=stage, env=own, stderr=subprocess.PIPE, text=True)


def appears(path):
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.exists()


def gone(number):
    """Ended, though perhaps not yet waited for."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


pytestmark = [
    pytest.mark.slow,  # the process has to import first
    pytest.mark.skipif(sys.platform != "linux", reason="forks with what Linux has"),
]


def test_a_stage_is_forked_and_its_exit_status_is_handed_on(stage, warm):
    assert appears(warm / READY)
    process = begin(stage, warm, "python", "-m", "pipelines.slow", "quick")
    assert process.wait(60) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_stage_which_saves(stage, warm, number):
    assert appears(warm / READY)
    process = begin(stage, warm, "python", "-m", "pipelines.slow")
    assert appears(stage / "begun")
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped; the same command continues" in text
    assert (stage / "saved").exists()


def test_a_stage_ends_with_its_stand_in(stage, warm):
    assert appears(warm / READY)
    process = begin(stage, warm, "python", "-m", "pipelines.slow")
    assert appears(stage / "begun")
    process.kill()
    assert appears(stage / "saved")
    process.communicate()


def test_a_stage_ends_with_the_dvc_that_runs_it(stage, warm):
    """A shell and the stand-in lie between the two, and both outlive DVC."""
    assert appears(warm / READY)
    code = (
        "import os, subprocess; own = {**os.environ, 'DVC_STAGE': 'slow'};"
        "subprocess.run('python -m pipelines.slow; true', shell=True, env=own)"
    )
    dvc = begin(stage, warm, sys.executable, "-c", code)
    assert appears(stage / "begun")
    dvc.kill()
    assert appears(stage / "saved")
    number = int((stage / "begun").read_text())
    deadline = time.monotonic() + 60
    while not gone(number) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone(number)
    dvc.communicate()


def test_before_it_has_imported_and_after_it_has_ended_python_is_the_real_one(stage, tmp_path):
    folder = tmp_path / "prefork"
    process = prefork.start(folder, {"PYTHONPATH": str(ROOT)})
    try:
        begun = begin(stage, folder, "python", "-m", "pipelines.slow", "quick")
        assert begun.wait(60) == 4
        other = begin(stage, folder, "python", "-c", "import sys; sys.exit(7)")
        assert other.wait(60) == 7
    finally:
        prefork.stop(process)
    (folder / READY).touch()
    assert begin(stage, folder, "python", "-m", "pipelines.slow", "quick").wait(60) == 4


def test_one_within_another_asks_that_one(tmp_path, monkeypatch):
    monkeypatch.setenv(prefork.WITHIN, "elsewhere")
    with prefork.prefork(tmp_path / "own", {}) as env:
        assert env == {}
    assert not (tmp_path / "own").exists()
    assert asking(tmp_path, "/bin")["PATH"] == f"{tmp_path / 'bin'}{os.pathsep}/bin"
