"""`echosyn run`: the order of stages, several at once, what it leaves and prints."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from html_page import problems
from hypothesis import given
from hypothesis import strategies as st
from repro import ROOT, environment, run

from echosyn.project import graph
from echosyn.project.runner import clock, table
from echosyn.project.speed import measure
from echosyn.report.progress import write_progress
from echosyn.runtime import timing
from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError

NEEDS = {
    "data": frozenset(),
    "vae": frozenset({"data"}),
    "ef@real": frozenset({"data"}),
    "ef@both": frozenset({"data", "samples"}),
    "samples": frozenset({"vae", "ef@real"}),
}


@st.composite
def graphs(draw):
    """Acyclic graphs with the seconds of each stage."""
    names = [f"s{i}" for i in range(draw(st.integers(1, 9)))]
    needs = {
        name: frozenset(draw(st.sets(st.sampled_from(names[:i])) if i else st.just(set())))
        for i, name in enumerate(names)
    }
    return needs, {name: draw(st.integers(1, 50)) for name in names}


@given(graphs(), st.integers(1, 4))
def test_a_forecast_lies_between_the_longest_chain_and_one_after_the_other(drawn, jobs):
    needs, seconds = drawn
    chain = max(graph.remaining(needs, seconds).values())
    one_by_one, made = sum(seconds.values()), graph.forecast(needs, seconds, jobs)
    assert max(chain, one_by_one / jobs) <= made <= one_by_one
    assert graph.forecast(needs, seconds, 1) == one_by_one


@given(graphs())
def test_no_stage_starts_before_what_it_needs(drawn):
    needs, seconds = drawn
    urgency, left, done = graph.remaining(needs, seconds), set(needs), []
    while stage := graph.next_stage(needs, left, done, urgency):
        assert needs[stage] <= set(done)
        left.remove(stage)
        done.append(stage)
    assert not left
    assert graph.upstream(needs, needs) == graph.downstream(needs, needs) == set(needs)


def test_targets_are_stages_or_groups_and_bring_what_they_need():
    assert graph.wanted(NEEDS, []) == set(NEEDS)
    assert graph.wanted(NEEDS, ["samples"]) == {"samples", "vae", "ef@real", "data"}
    assert graph.wanted(NEEDS, ["ef"]) == set(NEEDS)
    assert graph.wanted(NEEDS, ["ef@real"]) == {"ef@real", "data"}
    with pytest.raises(EchosynError, match=r"no stage 'lvdm' in dvc\.yaml; known: data, ef@both"):
        graph.wanted(NEEDS, ["lvdm"])
    assert graph.downstream(NEEDS, {"vae"}) == {"vae", "samples", "ef@both"}


def test_the_longest_chain_goes_first():
    urgency = graph.remaining(NEEDS, {"vae": 5, "ef@real": 2, "samples": 1, "ef@both": 1})
    assert urgency == {"data": 8, "vae": 7, "ef@real": 4, "samples": 2, "ef@both": 1}
    assert graph.next_stage(NEEDS, {"vae", "ef@real", "samples"}, {"data"}, urgency) == "vae"
    assert graph.next_stage(NEEDS, {"samples"}, {"data", "vae"}, urgency) is None


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A DVC project without stages."""
    folder = tmp_path_factory.mktemp("empty")
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    return folder


def small_project(empty, folder, **stages):
    """A DVC project of shell commands."""
    shutil.copytree(empty, folder, dirs_exist_ok=True)
    made = {
        name: {"cmd": cmd, "deps": list(deps), "outs": [name]}
        for name, (cmd, deps) in stages.items()
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": made}))
    (folder / "params.yaml").write_text("scale: smoke\nseed: 0\n")
    return folder


def echosyn_run(folder, *arguments):
    own = {**environment(folder), "PYTHONPATH": str(ROOT), "ECHOSYN_CORES": "2"}
    return subprocess.Popen(
        [sys.executable, "-m", "echosyn.cli", "run", *arguments], cwd=folder, env=own,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_stages_that_do_not_wait_for_each_other_run_at_once_as_dvc_would_run_them(empty, tmp_path):
    meet = (
        "touch {0}.here; until test -f {1}.here; do sleep 0.05; done; echo $ECHOSYN_THREADS > {0}"
    )
    project = small_project(
        empty,
        tmp_path,
        a=(meet.format("a", "b"), ()),
        b=(meet.format("b", "a"), ()),
        c=("cat a b > c", ("a", "b")),
    )  # a and b end only if they run at the same time
    process = echosyn_run(project)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert (project / "c").read_text() == "1\n1\n"
    assert "3 stages, 2 at a time" in text
    assert "[3/3] c" in text
    _, status = run(project, "dvc", "status")
    assert "up to date" in status
    again, _ = echosyn_run(project).communicate()
    assert again == "Everything is up to date.\n"
    assert "under way" not in (project / "reports/index.html").read_text()


@pytest.mark.slow
def test_a_failed_stage_ends_the_run_with_what_it_printed(empty, tmp_path):
    project = small_project(
        empty, tmp_path, bad=("echo the disk is on fire; exit 3", ()), next=("touch next", ("bad",))
    )
    process = echosyn_run(project)
    text, _ = process.communicate()
    assert process.returncode == 1
    assert "bad failed" in text
    assert "the disk is on fire" in text
    assert not (project / "next").exists()


@pytest.mark.slow
def test_ctrl_c_reaches_the_stage_and_lets_it_save(empty, tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "try:\n    open('begun', 'w'); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    open('saved', 'w'); raise\n"
    )
    project = small_project(empty, tmp_path, slow=("python slow.py", ()))
    process = echosyn_run(project)
    deadline = time.monotonic() + 120
    while not (project / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert (project / "saved").exists()
    assert "the same command continues" in text


def seconds(**values):
    return timing.Seconds(
        **{"wall": 10, "start_up": 3, "reading": 1, "cpu": 9, "peak_mib": 500, **values}
    )


def test_what_stages_took_is_kept_shown_and_added_up(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with timing.reading():
        time.sleep(0.02)
    timing.loaded()
    timing.keep("train_vae")
    timing.note_dvc(timing.folder(), "train_vae", 2.5)
    (timing.folder() / "damaged.json").write_text("{")
    (timing.folder() / "other.json").write_text(json.dumps({"wall": 1}))
    took = timing.kept(timing.folder())
    assert list(took) == ["train_vae"]
    assert took["train_vae"].dvc == 2.5
    assert took["train_vae"].reading >= 0.02
    assert took["train_vae"].wall >= took["train_vae"].start_up > 0
    text = table({"a": seconds(), "b": seconds(dvc=2.0), "c": seconds()}, {"a", "b"}, 75)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert rows["b"] == ["12", "3", "1", "6", "2", "500"]
    assert rows["all"] == ["22", "6", "2", "12", "2"]
    assert text.endswith("in all 1:15 (75 s)")
    assert clock(601.2) == "10:01"


@pytest.mark.slow
def test_the_page_of_a_run_shows_what_is_there(project, tmp_path):
    page = tmp_path / "index.html"
    write_progress(project, Params(project), page, {"encode@phantom"})
    text = page.read_text()
    assert problems(text) == []
    assert text.count("<img") == 3
    assert 'http-equiv="refresh"' in text
    write_progress(project, Params(project), page, {"encode@phantom"}, 12.0)
    text = page.read_text()
    assert "refresh" not in text
    assert problems(text) == []
    assert "In all 12 s" in text
    assert '<th scope="row">encode@phantom</th>' in text
    assert "train_vae" not in text


@pytest.mark.slow
def test_a_core_has_a_speed():
    assert measure() > 1
