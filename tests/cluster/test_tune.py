"""`echosyn tune`: spaces, patches, and whole searches with a real Ray on this machine."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from local_cluster import ENVIRONMENT, LocalCluster
from repro import edit, environment, new_project, run

from echosyn.cli import main
from echosyn.cluster.outcome import trial_state
from echosyn.cluster.space import Range, SearchConfig, changed, check_space, draws, read_space
from echosyn.data.beats import write_beats
from echosyn.data.latents import INDEX_COLUMNS, pack, write_index, write_shard
from echosyn.project.config_patch import set_value
from echosyn.runtime.config import Params, build
from echosyn.runtime.errors import EchosynError
from echosyn.training.diffusion import TrainLvdmConfig

STEPS = 6
SPACE = {"loop.lr": {"log": [1.0e-4, 1.0e-2]}, "drop_label": {"uniform": [0.0, 0.5]}}
SEARCH = {"trials": 4, "every": 2, "grace": 1, "reduction": 2, "space": SPACE}
# Where it does not matter which model is searched: its processes do not import diffusers.
LIGHT_SPACE = {"loop.lr": {"log": [1.0e-4, 1.0e-2]}, "other_video": {"uniform": [0.0, 1.0]}}
LIGHT = {**SEARCH, "steps": STEPS, "space": LIGHT_SPACE}


# Spaces


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (3, "expected one of {log: [...]}"),
        ({"log": [1, 2], "uniform": [1, 2]}, "expected one of"),
        ({"loguniform": [1, 2]}, "'loguniform' is not one of"),
        ({"log": 3}, "log takes two numbers above 0"),
        ({"log": [0, 1]}, "log takes two numbers above 0"),
        ({"uniform": [2, 1]}, "the least value comes first"),
        ({"uniform": [1, float("nan")]}, "uniform takes two numbers"),
        ({"uniform": [1, True]}, "uniform takes two numbers"),
        ({"uniform": ["a", 1]}, "uniform takes two numbers"),
        ({"integer": [1, 2.5]}, "integer takes two whole numbers"),
        ({"choice": []}, "choice takes a list of values"),
    ],
)
def test_a_range_that_is_none_is_refused(entry, words):
    with pytest.raises(EchosynError, match=re.escape(words)) as e:
        read_space({"loop.lr": entry}, "params.yaml: tune.lvdm.space")
    assert str(e.value).startswith("params.yaml: tune.lvdm.space.loop.lr: ")


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"loop.rl": {"log": [1e-4, 1e-2]}}, "unknown setting 'rl'. Known settings: steps,"),
        (
            {"droplabel": {"uniform": [0.0, 0.5]}},
            "unknown setting 'droplabel'; did you mean 'drop_label'?",
        ),
        ({"drop_label": {"uniform": [0.0, 1.5]}}, "1.5 is above the greatest allowed value 1"),
        ({"loop.ema": {"choice": [0.9, "often"]}}, "'often'"),
        ({"loop.steps": {"integer": [1, 5]}}, "cannot be searched: not this"),
        ({"model.heads": {"integer": [1, 2]}}, "cannot be searched: nor that"),
    ],
)
def test_a_space_that_the_stage_cannot_take_is_refused(space, words):
    model = {"width": 16, "inner": 32, "outer_blocks": 1, "inner_blocks": 1, "heads": 1}
    values = {"model": model, "loop": {"steps": 6, "batch": 2, "lr": 1e-3}}
    build(TrainLvdmConfig, values, "test")
    fixed = {"loop.steps": "not this", "model": "nor that"}
    with pytest.raises(EchosynError, match=re.escape(words)):
        check_space(read_space(space, "space"), values, TrainLvdmConfig, fixed, "space")


@pytest.mark.slow
@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e3), st.integers(0, 9))
def test_what_is_drawn_and_moved_stays_inside(low, factor, seed):
    rng = np.random.default_rng(seed)
    for limits in (
        Range("log", (low, low * factor)),
        Range("uniform", (-low, low * factor)),
        Range("integer", (round(low), round(low) + 5)),
        Range("choice", ("a", "b")),
    ):
        value = limits.draw(rng)
        for _ in range(5):
            if limits.kind == "choice":
                assert value in limits.values
            else:
                assert limits.values[0] <= value <= limits.values[1]
            value = limits.moved(value, rng)


def test_the_first_trial_has_the_present_settings_and_all_repeat():
    space = read_space(SPACE, "space")
    first = draws(space, {"loop.lr": 1e-3, "drop_label": 0.1}, 5, seed=1)
    assert first[0] == {"loop.lr": 1e-3, "drop_label": 0.1}
    assert len({json.dumps(d) for d in first}) == 5
    assert first == draws(space, {"loop.lr": 1e-3, "drop_label": 0.1}, 5, seed=1)
    assert first != draws(space, {"loop.lr": 1e-3, "drop_label": 0.1}, 5, seed=2)


def test_search_settings_are_checked():
    with pytest.raises(EchosynError, match="space is empty"):
        build(SearchConfig, {"space": {}}, "tune.lvdm")
    with pytest.raises(EchosynError, match="pbt needs 4 or more"):
        build(SearchConfig, {"space": SPACE, "method": "pbt", "trials": 3}, "tune.lvdm")
    with pytest.raises(EchosynError, match="pbt compares all trials at the same step"):
        build(SearchConfig, {"space": SPACE, "method": "pbt", "concurrent": 1}, "tune.lvdm")


# Patches

scalars = st.one_of(
    st.integers(-99, 99), st.floats(-1e6, 1e6), st.booleans(), st.text("ab: #'{}[],", max_size=6)
)
names = st.sampled_from(["alpha", "beta", "gamma", "delta"])
documents = st.dictionaries(
    names, st.one_of(scalars, st.dictionaries(names, scalars, min_size=1, max_size=3)), max_size=4
)


@given(documents, names, names, scalars, st.booleans(), st.booleans())
def test_a_value_is_set_in_place_and_nothing_else_changes(top, a, b, value, flow, newline):
    text = "# a comment\n" + yaml.safe_dump(top, default_flow_style=None if flow else False)
    if not top:
        text = "# a comment\n"
    text = text if newline else text.rstrip("\n")
    keys = [a, b] if isinstance(top.get(a), dict) else [a]
    after = set_value(text, keys, value)
    assert (yaml.safe_load(after) or {}) == changed(top, {".".join(keys): value})
    assert after.startswith("# a comment")


def test_comments_and_layout_stay():
    text = "# sizes\nloop: {steps: 750, lr: 1.5e-3, warmup: 30} # long\n\nwindow: 16 # a beat\n"
    after = set_value(set_value(text, ["loop", "lr"], 2e-5), ["window"], 8)
    assert after == text.replace("1.5e-3", "2.0e-05").replace("16", "8")


# Searches


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A project with what the LVDM trains on: latents and beats of six TRAIN, four VAL videos."""
    project = new_project(tmp_path_factory.mktemp("tune") / "project", tune={"lvdm": SEARCH})
    folder = project / "latents" / "train" / "phantom"
    generator = torch.Generator().manual_seed(0)
    rows = []
    folder.mkdir(parents=True)
    latents = {}
    for i in range(10):
        mean = torch.randn(12, 4, 14, 14, generator=generator)
        latents[f"v{i}"] = pack(mean, torch.full_like(mean, -4.0))
        split = "TRAIN" if i < 6 else "VAL"
        rows.append((f"v{i}", 30.0 + 5 * i, split, 16.0, 12, "00000.safetensors"))
    write_shard(folder / "00000.safetensors", latents)
    table = pd.DataFrame(rows, columns=INDEX_COLUMNS)
    write_index(folder, table)
    beats = table[["FileName"]].assign(HeartRate=60.0, Phase=0.0, Share=1.0)
    write_beats(project / "beats" / "train" / "phantom", beats)
    return project


@pytest.fixture
def project(base, tmp_path):
    copy = tmp_path / "project"
    subprocess.run(["cp", "-r", base, copy], check=True)
    return copy


def tune(project, *arguments, **variables):
    env = {**environment(project), **ENVIRONMENT, **variables}
    del env["PYTHONPATH"]  # as a user types it
    command = [Path(sys.executable).parent / "echosyn", "tune", *arguments]
    return subprocess.Popen(
        command, cwd=project, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def finished(project, *arguments, **variables):
    with tune(project, *arguments, **variables) as process:
        out, _ = process.communicate(timeout=600)
    return process.returncode, out


def runs(project):
    """Runs of the project's MLflow store."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlruns' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "stages"]
    return client, client.search_runs([experiment.experiment_id])


@pytest.fixture(scope="module")
def cluster():
    """For searches that nothing happens to; a Ray of their own costs them seconds."""
    with LocalCluster(nodes=2) as running:
        yield running


@pytest.mark.slow
def test_asha_on_a_cluster_finds_settings_and_shows_the_patch(project, cluster):
    conf = project / "conf" / "smoke" / "train_lvdm.yaml"  # where the present rate is the worst
    edit(conf, loop={**yaml.safe_load(conf.read_text())["loop"], "lr": 1.0e-4})
    status, out = finished(project, "lvdm", RAY_ADDRESS=cluster.address)
    assert status == 0, out
    assert not cluster.processes("ImplicitFunc")
    table = pd.read_csv(project / "tuning" / "lvdm" / "trials.csv")
    assert list(table["trial"]) == [f"trial-00{i}" for i in range(4)]
    assert set(table["status"]) <= {"complete", "stopped early"}
    assert (table["status"] == "complete").sum() < 4
    assert (project / "tuning" / "lvdm" / "trials.png").stat().st_size > 10_000
    facts = yaml.safe_load((project / "tuning" / "lvdm" / "best.yaml").read_text())
    complete = table[table["status"] == "complete"]
    assert facts["val/loss"] == pytest.approx(complete["value"].min())
    assert facts["steps"] == STEPS
    # Nothing was applied; the patch, applied with git, gives exactly the best settings.
    before = Params(project).stage("train_lvdm", TrainLvdmConfig)
    assert facts["present"] == {"loop.lr": before.loop.lr, "drop_label": before.drop_label}
    assert "git apply tuning/lvdm/best.patch" in out
    assert (project / "tuning" / "lvdm" / "best.patch").read_text() in out
    run(project, "git", "apply", "tuning/lvdm/best.patch")
    after = Params(project).stage("train_lvdm", TrainLvdmConfig)
    assert {"loop.lr": after.loop.lr, "drop_label": after.drop_label} == facts["settings"]
    run(project, "git", "apply", "-R", "tuning/lvdm/best.patch")
    # Each trial is one nested run that has each step once.
    client, found = runs(project)
    (parent,) = [r for r in found if r.info.run_name == "tune/lvdm"]
    nested = [r for r in found if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(r.info.run_name for r in nested) == list(table["trial"])
    assert len(found) == 5
    for each in nested:
        row = table[table["trial"] == each.info.run_name].iloc[0]
        assert each.info.status == "FINISHED"
        assert each.data.tags["outcome"] == row["status"]
        assert float(each.data.params["loop.lr"]) == row["loop.lr"]
        history = client.get_metric_history(each.info.run_id, "val/loss")
        assert [m.step + 1 for m in history] == list(range(2, int(row["step"]) + 1, 2))
    assert parent.data.metrics["tune/best_value"] == pytest.approx(facts["val/loss"])
    # Done is done.
    status, again = finished(project, "lvdm")
    assert status == 0
    assert again in out
    assert len(runs(project)[1]) == 5


def trials(project):
    (work,) = (project / ".echosyn" / "tune" / "reid-phantom").iterdir()
    return work / "trials"


def histories(project):
    return {
        f.parent.name: json.loads(f.read_text())
        for f in sorted(trials(project).glob("*/history.json"))
    }


def no_process_of(project):
    deadline = time.monotonic() + 300
    while left := [p.cmdline() for p in psutil.process_iter() if _inside(p, project)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def _inside(process, project):
    try:
        return process.environ().get("PYTHONPATH", "").split(os.pathsep)[0] == str(project)
    except psutil.Error:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("method", ["asha", "pbt"])
def test_a_killed_search_goes_on_where_it_was(project, cluster, method):
    search = {**LIGHT, "method": method, **({"concurrent": 1} if method == "asha" else {})}
    edit(project / "params.yaml", tune={"reid": search})
    undisturbed = project.with_name("undisturbed")
    subprocess.run(["cp", "-r", project, undisturbed], check=True)
    with tune(undisturbed, "reid", "phantom", RAY_ADDRESS=cluster.address) as meanwhile:
        process = tune(project, "reid", "phantom")
        enough = 3 if method == "asha" else 6
        deadline = time.monotonic() + 300
        work = project / ".echosyn" / "tune" / "reid-phantom"
        while (
            sum(len(json.loads(f.read_text())) for f in work.glob("*/trials/*/history.json"))
            < enough
        ):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        no_process_of(project)
        out, _ = meanwhile.communicate(timeout=600)
    assert meanwhile.returncode == 0, out
    before = {f: f.stat().st_mtime_ns for f in trials(project).glob("*/history.json")}
    found = histories(project)
    status, out = finished(project, "reid", "phantom", RAY_ADDRESS=cluster.address)
    assert status == 0, out
    after = histories(project)
    for name, entries in found.items():
        assert after[name][: len(entries)] == entries  # nothing known was trained again
    assert after == histories(undisturbed)
    done = [
        n
        for n, e in found.items()
        if trial_state(trials(project) / n, STEPS)["step"] == e[-1]["step"]
    ]
    for name in done:
        path = trials(project) / name / "history.json"
        assert path.stat().st_mtime_ns == before[path]
    assert (project / "tuning" / "reid-phantom" / "trials.csv").read_bytes() == (
        undisturbed / "tuning" / "reid-phantom" / "trials.csv"
    ).read_bytes()
    client, found = runs(project)
    assert len(found) == 5
    for each in found:
        if each.info.run_name != "tune/reid-phantom":
            steps = [m.step for m in client.get_metric_history(each.info.run_id, "train/loss")]
            assert len(steps) == len(set(steps))
    if method == "pbt":
        assert any(e["from"][0] != name for name, es in after.items() for e in es)


@pytest.mark.slow
def test_a_trial_that_fails_does_not_end_the_search(project, cluster):
    space = {"loop.lr": {"choice": [1.0e-3, 1.0e30]}}
    search = {**LIGHT, "trials": 6, "space": space, "grace": 3, "concurrent": 1}
    edit(project / "params.yaml", tune={"reid": search})
    status, out = finished(project, "reid", "phantom", RAY_ADDRESS=cluster.address)
    assert status == 0, out
    table = pd.read_csv(project / "tuning" / "reid-phantom" / "trials.csv").set_index("trial")
    failed = table[table["loop.lr"] == 1e30]
    assert len(failed) >= 1
    assert set(failed["status"]) == {"failed"}
    assert table.loc["trial-000", "status"] == "complete"
    assert re.search(r"trial-00\d failed at step \d+: trial-00\d: the loss is nan", out)
    _, found = runs(project)
    statuses = {r.info.run_name: r.info.status for r in found}
    assert {statuses[name] for name in failed.index} == {"FAILED"}
    assert statuses["tune/reid-phantom"] == "FINISHED"


@pytest.mark.parametrize(
    ("section", "arguments", "words"),
    [
        ({"lvdm": {**SEARCH, "metod": "pbt"}}, ("lvdm",), "did you mean 'method'?"),
        ({"lvdm": {**SEARCH, "every": 7}}, ("lvdm",), "every 7 is above the 6 steps"),
        (
            {"lvdm": {**SEARCH, "method": "pbt", "space": {"model.heads": {"integer": [1, 2]}}}},
            ("lvdm",),
            "model.heads: cannot be searched: a trial takes over the weights",
        ),
        (
            {"lvdm": {**SEARCH, "space": {"window": {"integer": [4, 8]}}}},
            ("lvdm",),
            "window: cannot be searched: it changes what validation measures",
        ),
        ({"lvdm": SEARCH}, ("lvdm", "phantom"), "echosyn tune lvdm\n"),
        ({"lidm": SEARCH}, ("lidm",), "echosyn tune lidm <dataset>"),
        (
            {"ef": {**SEARCH, "space": {"pad": {"integer": [0, 8]}}}},
            ("ef", "phantom", "real"),
            "run it for train_ef first",
        ),
    ],
)
def test_what_cannot_be_searched_is_said_before_anything_runs(
    project, monkeypatch, capsys, section, arguments, words
):
    edit(project / "params.yaml", tune=section)
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command puts the project first
    assert main(["tune", *arguments]) == 1
    refused(project, "".join(capsys.readouterr()), words)


@pytest.mark.slow
def test_a_refusal_is_one_line_where_it_is_typed(project):
    edit(project / "params.yaml", tune=None)
    status, out = finished(project, "lvdm")
    assert status == 1
    refused(project, out, "params.yaml: tune.lvdm: no such section; for instance")


def refused(project, out, words):
    assert out.startswith("echosyn: ")
    assert words in out
    assert len(out.splitlines()) == 1
    assert not (project / "mlruns" / "mlflow.db").exists()
