"""The project in odd places: each works, or ends with one line that says what to do."""

import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import echonet_layout
import pytest
import yaml
from mlflow.tracking import MlflowClient
from odd_folder import ODD, after_the_graph, look, stand_in
from repro import ROOT, environment, new_project

from echosyn import tracking
from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import read_video
from echosyn.metrics.weights import cache_folder, fetch
from echosyn.release.leaks import local_people
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json
from echosyn.runtime.progress import bar
from echosyn.runtime.shards import finish, work_dir
from echosyn.tracking import stage_run, tracking_uri
from echosyn.tracking.outbox import Outbox

NO_HOME = "/proc/nobody"  # nobody can make it
HOUR = 3600
linux = pytest.mark.skipif(sys.platform != "linux", reason="uses what Linux offers")


@pytest.fixture
def here(tmp_path, monkeypatch):
    return stand_in(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """`dvc repro` of a read-only dataset, in a folder of an odd name, by one core, with umask 077,
    no home and no language: the project, the dataset before and after, and what was printed."""
    folder = tmp_path_factory.mktemp("odd")
    data, project = folder / "Données ü", folder / ODD
    echonet_layout.make(data)
    for path in [*data.rglob("*"), data]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = look(data)
    project.mkdir(parents=True)
    entry = {"role": "train", "source": "echonet", "path": str(data), "label": "ef"}
    new_project(project, datasets={"clinic": entry}, generate=["clinic"])
    own = {k: v for k, v in environment(project).items() if k not in ("ECHOSYN_THREADS", "LANG")}

    def restricted():
        os.umask(0o077)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    done = subprocess.run(
        ["dvc", "repro", "ingest@clinic"], cwd=project, env={**own, "HOME": NO_HOME, "LC_ALL": "C"},
        capture_output=True, text=True, check=False, preexec_fn=restricted,
    )  # fmt: skip
    yield project, before, look(data), done.stdout + done.stderr
    data.chmod(0o755)
    (data / "Videos").chmod(0o755)


@pytest.mark.slow
def test_a_path_with_spaces_and_other_letters(odd):
    project, _, _, text = odd
    assert "Traceback" not in text
    table = read_filelist(project / "data/train/clinic/FileList.csv")
    for name, frames in zip(table["FileName"], table["NumberOfFrames"], strict=True):
        assert len(read_video(video_path(project / "data/train/clinic", name))[0]) == frames
    client = MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("stages")
    assert experiment.artifact_location == (project / "mlruns/artifacts").as_uri()
    (ingest,) = client.search_runs([experiment.experiment_id])
    assert ingest.info.status == "FINISHED"


@pytest.mark.slow
def test_a_read_only_dataset_gets_nothing_written_beside_it(odd):
    project, before, after, _ = odd
    assert len(before) > 4
    assert after == before
    copies = list((project / "data/train/clinic/Videos").iterdir())
    assert copies
    assert all(os.stat(p).st_mode & stat.S_IWUSR for p in copies)  # only the originals are locked


@pytest.mark.slow
def test_umask_077_lets_nobody_else_read_what_stages_make(odd):
    project, _, _, _ = odd
    made = [project / name for name in (".echosyn", "mlruns", "data", "metrics")]
    paths = [p for top in made for p in [top, *top.rglob("*")]]
    # DVC makes the files of its cache readable by all, in folders that are not.
    cache = project / ".dvc/cache"
    paths += [p for p in [cache, *cache.rglob("*")] if p.is_dir()]
    assert [p for p in paths if p.stat().st_mode & 0o077] == []


@pytest.mark.slow
def test_without_a_home_nothing_is_missed_or_complained_of(odd):
    _, _, _, text = odd
    assert not Path(NO_HOME).exists()
    assert not re.search("home|HOME|Permission|[Mm]atplotlib|Warning", text)


@after_the_graph
def test_the_same_umask_holds_for_every_file_of_a_release(project):
    mask = os.umask(0)
    os.umask(mask)
    paths = [project / "releases/phantom", *(project / "releases/phantom").rglob("*")]
    modes = {p.name: (stat.S_IMODE(p.stat().st_mode), p.is_dir()) for p in paths}
    assert len(modes) > 12
    assert {n: m for n, m in modes.items() if m[0] != (0o777 if m[1] else 0o666) & ~mask} == {}


NAMELESS = """
import pwd, runpy, sys
def nobody(number): raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = nobody
sys.argv = ["pipelines.ingest", "clinic"]
runpy.run_module("pipelines.ingest", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_a_user_that_is_but_a_number_runs_a_stage(odd, tmp_path):
    """As in a container: no name, no home, and HOME is not set."""
    project = tmp_path / "project"
    for part in ("pipelines", "echosyn", "conf", "params.yaml", "dvc.yaml"):
        source = odd[0] / part
        if source.is_dir():
            shutil.copytree(source, project / part)
        elif source.is_file():
            project.mkdir(exist_ok=True)
            shutil.copy(source, project)
    names = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME")
    own = {k: v for k, v in environment(project).items() if k not in names}
    done = subprocess.run(
        [sys.executable, "-c", NAMELESS], cwd=project, env=own, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (project / "data/train/clinic/FileList.csv").is_file()


def test_what_needs_a_home_says_so(monkeypatch, tmp_path):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "file").touch()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "home", none)
        with pytest.raises(EchosynError, match="set HOME, or XDG_CACHE_HOME"):
            cache_folder()
        assert isinstance(local_people(), frozenset)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EchosynError, match=r"file/echosyn/weights: .*set XDG_CACHE_HOME"):
        fetch("i3d")


def test_a_file_without_permission_is_one_line():
    code = (
        "from echosyn.runtime.process import run_stage\n"
        "def main(): raise PermissionError(13, 'Permission denied', '/data/FileList.csv')\n"
        "run_stage(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"echosyn: /data/FileList.csv: Permission denied\. .*ls -l.*\n", done.stderr
    )


@linux
def test_one_core_is_one_thread():
    code = "from echosyn.runtime.process import prepare; import os; prepare(); print(os.environ[N])"
    own = {k: v for k, v in os.environ.items() if k != "ECHOSYN_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code.replace("N]", "'OMP_NUM_THREADS']")], cwd=ROOT, env=own,
        capture_output=True, text=True, check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    )  # fmt: skip
    assert done.stdout == "1\n"


def test_the_demo_fits_four_gib():
    """The stages of most memory are measured; two run at once, beside `echosyn run` and DVC."""
    page = (ROOT / "docs/results/small_machines.md").read_text()
    rows = re.findall(r"^\| (\w+)(?:, [^|]*(train_ef))? \| ([\d,]+) \|$", page, re.M)
    peaks = {group or stage: int(mib.replace(",", "")) for stage, group, mib in rows}
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert {"train_vae", "train_lvdm", "sample_videos", "privacy_audit"} <= peaks.keys()
    assert peaks.keys() <= {*graph, "train_ef"}
    assert sum(sorted(peaks.values())[-2:]) + 1024 < 4096


# A clock that jumps


@pytest.mark.parametrize("jump", [-2 * HOUR, 2 * HOUR])
def test_what_dvc_recorded_is_seen_by_content(tmp_path, monkeypatch, jump):
    monkeypatch.chdir(tmp_path)
    lock_ = tmp_path / "dvc.lock"
    lock_.write_text("before")
    work = work_dir(tmp_path / ".echosyn", "encode", "a", {}, [])
    (work / "shard-00000").mkdir()
    finish(work)
    now = time.time()
    os.utime(lock_, (now + jump, now + jump))
    work_dir(tmp_path / ".echosyn", "encode", "a", {}, [])
    assert (work / "shard-00000").is_dir()  # not recorded: it was killed
    lock_.write_text("after")
    os.utime(lock_, (now + jump, now + jump))
    work_dir(tmp_path / ".echosyn", "encode", "a", {}, [])
    assert list(work.iterdir()) == []  # recorded: it runs because it shall


def test_records_stay_in_order_when_the_clock_is_set_back(tmp_path, monkeypatch):
    outbox = Outbox.create(tmp_path, "key", {})
    hours = iter([9, 3, 5, 1])
    monkeypatch.setattr(time, "time_ns", lambda: next(hours) * HOUR * 10**9)
    kinds = ["metrics", "end", "reopen", "tag"]
    for kind in kinds:
        outbox.add(kind)
    assert [read_json(path)["kind"] for path in outbox.operations()] == kinds


def test_a_run_lasts_as_long_as_it_did(here, monkeypatch):
    before = tracking._milliseconds()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: 0)
        patch.setattr(time, "time", lambda: 0.0)
        assert 0 <= tracking._milliseconds() - before < 60_000
    with stage_run("s", "all", {}):
        # Another process, started after the clock was set back, ends what this one began.
        monkeypatch.setattr(tracking, "_START", tracking._START - 2 * HOUR * 10**9)
    client = MlflowClient(tracking_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("stages").experiment_id])
    assert found.info.end_time == found.info.start_time


def test_progress_is_shown_though_the_clock_was_set_back(monkeypatch, capsys):
    clock = [2.0 * HOUR]
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    with bar(1000, "work", "item") as progress:
        progress.mininterval = 0.001
        clock[0] = HOUR
        for _ in range(3):
            time.sleep(0.002)
            progress.update(100)
        assert 0 < progress.format_dict["elapsed"] < 60
    shown = capsys.readouterr().err
    assert all(f"{n}/1000" in shown for n in (100, 200, 300))
