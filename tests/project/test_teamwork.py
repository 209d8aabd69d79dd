"""A project of one's own, and two people who work on it through one remote."""

import csv
import io
import json
import shutil
import subprocess

import pytest
import yaml
from repro import ROOT, edit, run

from echosyn.cli import main
from echosyn.project import new_project
from echosyn.project.new_project import start_project
from echosyn.runtime.errors import EchosynError


def git(folder, *command):
    return run(folder, "git", *command)[1].strip()


@pytest.fixture
def someone(monkeypatch):
    """Git knows who commits."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "someone@example.com")


@pytest.fixture
def checkout(tmp_path, someone):
    """A small checkout with a commit, and what a run leaves in it."""
    folder = tmp_path / "code of theirs"
    (folder / "echosyn/data").mkdir(parents=True)
    (folder / "echosyn/data/frames.py").write_text("FRAMES = 1\n")
    for name in ("dvc.yaml", "params.yaml", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "code")
    for name in ("dvc.lock", "metrics/evaluate/phantom.json", "data/train/x.avi", "models/vae/w"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("of a run")
    return folder


def kept(folder):
    return set(git(folder, "ls-files").splitlines())


CODE = {"dvc.yaml", "params.yaml", ".gitignore", ".dvc/config", ".dvc/.gitignore"}
CODE |= {"echosyn/data/frames.py"}


# Starting


@pytest.mark.slow
def test_a_project_has_the_code_its_history_and_where_data_is_shared(checkout, tmp_path):
    started = start_project(tmp_path / "ours", str(tmp_path / "storage"), checkout)
    assert kept(started.folder) == CODE
    assert (
        started.code == git(checkout, "rev-parse", "HEAD") == git(started.folder, "rev-parse", "@~")
    )
    assert git(started.folder, "status", "--porcelain") == ""
    assert git(started.folder, "remote") == "echosyn"
    assert git(started.folder, "remote", "get-url", "echosyn") == str(checkout)
    assert f"url = {tmp_path / 'storage'}" in (started.folder / ".dvc/config").read_text()
    assert started.notes == ()


def test_later_code_comes_from_where_the_checkout_came_from(checkout, tmp_path):
    git(checkout, "remote", "add", "origin", "https://example.org/echosyn.git")
    started = start_project(tmp_path / "ours", None, checkout)
    assert git(started.folder, "remote", "get-url", "echosyn") == "https://example.org/echosyn.git"


@pytest.mark.slow
def test_without_git_a_project_has_the_code_and_nothing_of_a_run(checkout, tmp_path):
    shutil.rmtree(checkout / ".git")
    started = start_project(tmp_path / "ours", "s3://bucket/echosyn", checkout)
    assert kept(started.folder) == CODE
    assert {p.relative_to(started.folder).as_posix() for p in started.folder.rglob("*.py")} == {
        "echosyn/data/frames.py"
    }
    assert started.code == ""
    assert "url = s3://bucket/echosyn" in (started.folder / ".dvc/config").read_text()
    assert not (checkout / ".git").exists()


def test_what_is_not_committed_is_said(checkout, tmp_path):
    (checkout / "params.yaml").write_text("scale: demo\n")
    (note,) = start_project(tmp_path / "ours", None, checkout).notes
    assert "changes in" in note
    assert "are not in it" in note


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: (f / "full").mkdir() or (f / "full/x").touch(), "is there and not empty"),
        (lambda f: (f / "full").touch(), "is there and not empty"),
    ],
)
def test_a_folder_in_use_is_refused_and_kept(checkout, tmp_path, make, words):
    make(tmp_path)
    before = sorted(tmp_path.rglob("full*"))
    with pytest.raises(EchosynError, match=words):
        start_project(tmp_path / "full", None, checkout)
    assert sorted(tmp_path.rglob("full*")) == before


def test_a_project_within_the_checkout_is_refused(checkout):
    with pytest.raises(EchosynError, match="lies inside the checkout"):
        start_project(checkout / "sub", None, checkout)


def test_code_without_its_graph_starts_no_project(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(new_project, "__file__", str(tmp_path / "site-packages/echosyn/x.py"))
    assert main(["init", str(tmp_path / "ours")]) == 1
    assert "run this from a checkout" in capsys.readouterr().err


def test_what_git_refuses_is_passed_on_and_nothing_is_left(checkout, tmp_path, monkeypatch):
    for name in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL", "GIT_AUTHOR_NAME"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(EchosynError, match=r"git commit .* failed: .*user\.email"):
        start_project(tmp_path / "ours", None, checkout)
    assert sorted(tmp_path.iterdir()) == before


# Two people


def dvc(folder, *command, warm=None):
    return run(folder, "dvc", *command, warm=warm)[1]


def numbers(text):
    return json.loads(text[text.index("{") :])


@pytest.fixture(scope="module")
def two(project, warm, tmp_path_factory):
    """What one person pushed after two runs, and a colleague's clone after `dvc pull`."""
    folder = tmp_path_factory.mktemp("two people")
    mine, colleague = folder / "mine", folder / "colleague"
    subprocess.run(["cp", "-r", project, mine], check=True)
    dvc(mine, "remote", "add", "--default", "storage", str(folder / "storage"))
    git(mine, "add", "--all")
    git(mine, "commit", "-q", "-m", "first run")
    edit(mine / "conf/smoke/evaluate.yaml", test_clips=1)
    dvc(mine, "repro", "--quiet", warm=warm)
    git(mine, "add", "--all")
    git(mine, "commit", "-q", "-m", "one clip")
    dvc(mine, "push", "--quiet")
    git(folder, "clone", "-q", str(mine), str(colleague))
    dvc(colleague, "pull", "--quiet")
    return mine, colleague


@pytest.mark.slow
def test_a_clone_that_pulled_has_nothing_to_run(two):
    _, colleague = two
    assert "up to date" in dvc(colleague, "status")
    assert "Running stage" not in dvc(colleague, "repro", "--dry")
    assert git(colleague, "status", "--porcelain") == ""


@pytest.mark.slow
def test_two_commits_compare_in_the_clone(two):
    _, colleague = two
    diff = numbers(dvc(colleague, "metrics", "diff", "--json", "HEAD~1"))
    found = diff["metrics/evaluate/phantom.json"] if "metrics" not in diff else diff["metrics"]
    ef = found["ef/real/mae"]
    assert isinstance(ef["old"], float)
    assert isinstance(ef["new"], float)
    assert ef["old"] != ef["new"]
    changed = numbers(dvc(colleague, "params", "diff", "--json", "HEAD~1"))
    assert changed["conf/smoke/evaluate.yaml"]["test_clips"] == {"old": 2, "new": 1, "diff": -1}
    dvc(colleague, "plots", "diff", "HEAD~1", "--targets", "curves/train_lvdm", "-o", "drawn")
    drawn = (colleague / "drawn/index.html").read_text()
    for revision in ("HEAD~1", "workspace"):
        assert f'"rev": "{revision}"' in drawn
    shutil.rmtree(colleague / "drawn")


@pytest.mark.slow
def test_an_experiment_runs_only_what_changed_and_compares(two, warm):
    """In the clone, beside its workspace, and as it is shown to the one who asks for it."""
    _, colleague = two
    change = "conf/smoke/evaluate.yaml:frames_per_video=3"
    printed = dvc(
        colleague, "exp", "run", "--temp", "-n", "quick", "-S", change, "evaluate@phantom",
        warm=warm,
    )  # fmt: skip
    assert [line for line in printed.splitlines() if "Running stage" in line] == [
        "Running stage 'evaluate@phantom':"
    ]
    table = list(csv.DictReader(io.StringIO(dvc(colleague, "exp", "show", "--csv"))))
    (row,) = [row for row in table if row["Experiment"] == "quick"]
    assert "!" not in row.values()
    column = next(c for c in row if c.endswith("quality/us/snr") or c.endswith("us/snr"))
    assert float(row[column])
    assert git(colleague, "status", "--porcelain") == ""
    dvc(colleague, "exp", "apply", "quick")
    assert yaml.safe_load((colleague / "conf/smoke/evaluate.yaml").read_text()) == {
        "test_clips": 1, "frames_per_video": 3, "resamples": 200, "protocol_fps": 16
    }  # fmt: skip
    assert "up to date" in dvc(colleague, "status", "evaluate@phantom")


@pytest.mark.slow
def test_a_work_tree_of_another_branch_shares_what_is_kept(two):
    mine, _ = two
    beside = mine.with_name("beside")
    git(mine, "worktree", "add", "-q", "-b", "other", str(beside))
    dvc(beside, "pull", "--quiet")
    assert "up to date" in dvc(beside, "status")
    assert (beside / "models/lvdm").is_dir()
