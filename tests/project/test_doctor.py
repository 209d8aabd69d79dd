"""`echosyn doctor`: what it says of a machine and a project, and its exit status."""

import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
from repro import ROOT, environment, new_project

from echosyn.project import doctor
from echosyn.project.doctor import Finding, examine_arithmetic, examine_machine

STAGES = (
    "train_vae", "beats", "train_lidm", "train_reid", "train_lvdm", "train_ef", "classify",
    "distill_lvdm", "encode", "sample_hearts", "sample_videos", "evaluate",
)  # fmt: skip


def found(findings):
    return {f.what: f for f in findings}


def test_this_machine_is_described(tmp_path):
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    said = found(examine_machine(tmp_path, index=False))
    assert set(said) == {"Python", "git", "cores", "memory", "disk", "folder", "versions", "GPU"}
    assert said["Python"].state == "ok"
    assert said["git"].state == "warn"  # no repository
    assert str(tmp_path) in said["git"].text
    assert said["folder"].state == "ok"
    assert not list(tmp_path.glob(".echosyn-doctor*"))
    assert "GiB" in said["memory"].text


def test_other_versions_than_the_tested_ones_are_named(tmp_path):
    (tmp_path / "constraints.txt").write_text("# tested\nnumpy==0.1.2\nnot-there==1\ntorch==0.0\n")
    said = found(examine_machine(tmp_path, index=False))["versions"]
    assert said.state == "warn"
    assert "(tested: 0.1.2)" in said.text
    assert "torch" in said.text
    assert "make install" in said.text


@pytest.mark.parametrize(
    ("patch", "what", "state", "part"),
    [
        ({"available_memory": lambda: 3 << 30}, "memory", "warn", "3.0 GiB; the demo wants 4"),
        ({"shutil.which": lambda _: None}, "git", "warn", "do without"),
        (
            {"shutil.disk_usage": lambda _: namedtuple("Usage", "free")(1 << 30)},
            "disk", "warn", "1.0 GiB free",
        ),
        ({"subprocess.run": lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "no route")},
         "index", "warn", "no route"),
    ],
)  # fmt: skip
def test_what_a_machine_lacks_is_said(tmp_path, monkeypatch, patch, what, state, part):
    for name, value in patch.items():
        monkeypatch.setattr(f"echosyn.project.doctor.{name}", value)
    said = found(examine_machine(tmp_path, index=what == "index"))[what]
    assert (said.state, part in said.text) == (state, True)


def test_a_folder_that_cannot_be_written_is_bad(tmp_path):
    (said,) = [f for f in [doctor._folder(tmp_path / "none")] if f.state == "bad"]
    assert str(tmp_path / "none") in said.text


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return new_project(tmp_path_factory.mktemp("doctor"))


@pytest.mark.slow
def test_every_network_of_the_graph_is_checked_in_its_precision(smoke, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said = list(examine_arithmetic(smoke))
    lines = [f.text for f in said[1:]]
    for stage in STAGES:
        assert any(line.startswith(f"{stage}, ") for line in lines), stage
    assert {f.state for f in said} == {"ok"}
    assert all("operations right" in line for line in lines)


@pytest.mark.slow
def test_a_wrong_precision_is_a_warning_and_fp32_wrong_is_bad(smoke, monkeypatch):
    def wrong(jobs, device, anew=False):
        from echosyn.arithmetic.trust import ProbeResult

        for probe, precision in jobs:
            bad = precision == "bf16" or probe.what == "clips"
            yield ProbeResult(probe.what, precision, 3, wrong=("conv(x), off by 1",) if bad else ())

    monkeypatch.setattr("echosyn.arithmetic.trust.examine_all", wrong)
    monkeypatch.setattr("echosyn.runtime.device.pick_precision", lambda _: "bf16")
    said = list(examine_arithmetic(smoke))
    assert sum(f.state == "warn" and "fp32 is used instead" in f.text for f in said) == 12
    (bad,) = [f for f in said if f.state == "bad"]
    assert "evaluate, clips, fp32" in bad.text
    assert "conv(x)" in bad.text


@pytest.mark.slow
def test_the_command_exits_with_1_when_something_would_stop_a_run(smoke):
    def run(*arguments):
        command = [sys.executable, "-m", "echosyn.cli", "doctor", *arguments]
        return subprocess.run(
            command, cwd=smoke, env=environment(smoke), capture_output=True, text=True, check=False
        )

    help_text = run("--help").stdout
    assert "--offline" in help_text
    (smoke / "params.yaml").rename(smoke / "params.kept")
    lost = run("--offline")
    (smoke / "params.kept").rename(smoke / "params.yaml")
    assert lost.returncode == 1
    assert "no params.yaml" in lost.stderr
    assert str(Finding("bad", "git", "x")).startswith("BAD")
