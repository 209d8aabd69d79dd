"""A project that was moved, copied or unpacked: nothing runs again, and nothing looks back."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from odd_folder import ODD, after_the_graph, look, stand_in
from repro import ROOT, lock, new_project, run

from echosyn import tracking
from echosyn.runtime import lineage, place
from echosyn.tracking import stage_run, tracking_uri


@pytest.fixture
def here(tmp_path, monkeypatch):
    return stand_in(tmp_path, monkeypatch)


@after_the_graph
def test_a_moved_project_runs_nothing_again(project, tmp_path):
    copy = shutil.copytree(project, tmp_path / ODD, symlinks=True)
    before = lock(copy)
    _, text = run(copy, "dvc", "repro")
    assert "Data and pipelines are up to date" in text
    assert "Running stage" not in text
    assert lock(copy) == before


@after_the_graph
def test_pictures_of_a_moved_project_are_found_and_new_ones_lie_there(
    project, tmp_path, monkeypatch
):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    moved = tmp_path / ODD
    shutil.copytree(project / "mlruns", moved / "mlruns")
    shutil.copy(project / "params.yaml", moved)
    left = look(project / "mlruns")
    monkeypatch.chdir(moved)
    with stage_run("train_vae", "moved", {}) as run_:
        run_.artifact(moved / "params.yaml")
    client = MlflowClient(tracking_uri())
    (stages,) = [client.get_experiment_by_name("stages").experiment_id]
    runs = client.search_runs([stages])
    places = [r.info.artifact_uri for r in runs]
    assert len(places) > 18
    assert [p for p in places if not p.startswith((moved / "mlruns/artifacts").as_uri())] == []
    for name, file in (("train_vae/moved", "params.yaml"), ("train_lvdm/all", "pictures")):
        (one,) = [r.info.run_id for r in runs if r.info.run_name == name]
        assert [a.path for a in client.list_artifacts(one)] == [file]
    assert len(list((moved / "mlruns/artifacts").rglob("params.yaml"))) == 1
    assert look(project / "mlruns") == left


@pytest.mark.slow
def test_what_waits_for_mlflow_moves_along(here, monkeypatch):
    """Records, and the state that a killed stage continues from."""
    (here / "state").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("echosyn.tracking.sender.Sender._attempt", lambda *_, **__: False)
        with suppress(KeyboardInterrupt), stage_run("s", "all", {}, (), here / "state"):
            raise KeyboardInterrupt
        new = here.rename(here.parent / "new")
    monkeypatch.chdir(new)
    with stage_run("s", "all", {}, (), new / "state") as one:
        one.final({"n": 1.0}, "metrics.json")
    client = MlflowClient(tracking_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("stages").experiment_id])
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"n": 1.0})
    tracking._sender(tracking._root()).round()
    assert [p.name for p in (new / ".echosyn/outbox").glob("s-*")] == [one.outbox.key]
    shutil.rmtree(new / "state")
    tracking._sender(tracking._root()).round()
    assert list((new / ".echosyn/outbox").glob("s-*")) == []
    assert not here.exists()


@pytest.mark.parametrize("name", ["50% off", "a%20b", "who?"])
def test_a_store_in_a_folder_whose_name_means_something_in_an_address(tmp_path, monkeypatch, name):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with stage_run("s", "all", {}) as one:
        one.final({"n": 1.0}, "metrics.json")
    assert (tmp_path / name / "mlruns/mlflow.db").is_file()
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.db")] == [
        f"{name}/mlruns/mlflow.db"
    ]


def printed(folder, *command):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


SCRIPT = "# -*- coding: utf-8 -*-\nimport sys\nprint(sys.prefix)\n"


def installed(folder):
    """A .venv with commands as pip writes them, and an editable install."""
    venv = folder / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    for name in ("pip", "dvc"):
        python = venv / "bin/python"
        first = f"#!{python}\n"
        if " " in first:
            first = f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"
        (venv / "bin" / name).write_text(first + SCRIPT)
        (venv / "bin" / name).chmod(0o755)
    (site,) = venv.glob("lib/python*/site-packages")
    finder = site / "__editable___echosyn_finder.py"
    finder.write_text(f"MAPPING = {{'echosyn': {str(folder / 'echosyn')!r}}}\nO = '{folder}x/a'\n")
    return finder.relative_to(folder)


@pytest.mark.parametrize("copied", [False, True])
def test_the_commands_of_a_moved_venv_run_where_it_is_now(tmp_path, copied):
    old = tmp_path / "old"
    old.mkdir()
    finder = installed(old)
    assert place.mend_venv(old) is None
    for new in (tmp_path / "new ü", tmp_path / "plain", tmp_path / ("long" * 40)):
        shutil.copytree(old, new, symlinks=True) if copied else old.rename(new)
        assert place.mend_venv(new) == old
        assert place.mend_venv(new) is None
        for name in ("pip", "dvc"):
            assert printed(new, f".venv/bin/{name}") == f"{new / '.venv'}\n"
        activated = ". .venv/bin/activate; command -v dvc"
        assert printed(new, "sh", "-c", activated) == f"{new}/.venv/bin/dvc\n"
        first, other = (new / finder).read_text().splitlines()
        assert first == f"MAPPING = {{'echosyn': {str(new / 'echosyn')!r}}}"
        assert other == f"O = '{tmp_path}/oldx/a'"  # another folder, whose name begins so
        old = new


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_in_a_path_with_spaces_prints_addresses_that_open(here):
    """A stand-in for .venv, whose Python is this one's and whose `echosyn` makes a report."""
    bin_ = here / ".venv/bin"
    bin_.mkdir(parents=True)
    (here / ".git").mkdir()
    shutil.copytree(ROOT / "echosyn", here / "echosyn", ignore=lambda d, f: set(f) - {"errors.py", "place.py", "runtime", "__init__.py"})  # fmt: skip  # noqa: E501
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, here)
        os.utime(here / name, (0, 0))
    (here / ".venv/.installed").touch()
    (bin_ / "python").symlink_to(Path(sys.executable).resolve())
    (bin_ / "echosyn").write_text("#!/bin/sh\nmkdir -p reports/a && touch reports/a/index.html\n")
    (bin_ / "echosyn").chmod(0o755)
    make = ["make", "--no-print-directory", "demo"]
    done = subprocess.run(make, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"report: {(here / 'reports/a/index.html').as_uri()}"
    assert "%20" in done.stdout
    (bin_ / "python").unlink()
    (bin_ / "python").symlink_to("/gone/python3.11")
    done = subprocess.run(make, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "remove it and make again: rm -r .venv" in done.stdout


# No git


@pytest.mark.slow
def test_without_git_dvc_works_once_make_has_set_it(tmp_path, monkeypatch):
    project = tmp_path / "tar"
    project.mkdir()
    new_project(project)
    shutil.rmtree(project / ".git")
    code, text = run(project, "dvc", "status", "phantom@phantom", ok=False)
    assert (code, "is not a git repository" in text) == (255, True)
    assert place.mend_dvc(project)
    assert not place.mend_dvc(project)
    _, text = run(project, "dvc", "status", "phantom@phantom")
    assert "changed deps" in text
    monkeypatch.chdir(project)
    assert lineage.project() == {"scale": "smoke", "git_commit": "unknown"}


def git(folder, *command):
    return run(folder, "git", *command, ok=False)[1]


def test_the_commit_is_that_of_this_project_or_unknown(here, monkeypatch):
    outer = here.parent
    git(outer, "init", "-q")
    git(outer, "commit", "-q", "--allow-empty", "-m", "something else")
    assert lineage.project()["git_commit"] == "unknown"
    git(here, "init", "-q")
    git(here, "add", "-A")
    git(here, "commit", "-q", "-m", "start")
    head = git(here, "rev-parse", "HEAD").strip()
    assert lineage.project()["git_commit"] == head
    (here / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")  # as a run leaves it
    assert lineage.project()["git_commit"] == head
    (here / "params.yaml").write_text("scale: demo\n")
    assert lineage.project()["git_commit"] == f"{head}+dirty"
    monkeypatch.setenv("PATH", str(here))  # no git on this machine
    assert lineage.project()["git_commit"] == "unknown"


def test_a_folder_of_another_user_has_its_commit_recorded(here, monkeypatch):
    git(here, "init", "-q")
    git(here, "add", "-A")
    git(here, "commit", "-q", "-m", "start")
    head = git(here, "rev-parse", "HEAD").strip()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert "dubious ownership" in git(here, "rev-parse", "HEAD")
    assert lineage.project()["git_commit"] == head
