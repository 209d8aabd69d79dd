import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from echosyn.runtime import lineage
from echosyn.runtime.errors import EchosynError
from echosyn.tracking import (
    RELEASES,
    STAGES,
    nested_run,
    release_run,
    stage_run,
    tracking_uri,
    trial_run,
)


@dataclasses.dataclass(frozen=True)
class Inner:
    decay: float = 0.99


@dataclasses.dataclass(frozen=True)
class Config:
    lr: float = 1e-3
    widths: tuple[int, ...] = (8, 16)
    ema: Inner = Inner()


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("scale: smoke\n")
    return tmp_path


def runs(experiment: str = STAGES) -> list:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri())
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def history(run_id: str, key: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    return [(m.step, m.value) for m in MlflowClient(tracking_uri()).get_metric_history(run_id, key)]


def test_importing_tracking_does_not_import_mlflow():
    code = "import sys, echosyn.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_run_carries_settings_numbers_tags_and_artifacts(project):
    Path("in.csv").write_text("x\n")
    Path("out.bin").write_text("y\n")
    with stage_run("train_vae", "all", Config(), inputs=[Path("in.csv")]) as run:
        run.log(5, {"train/loss": 0.5})
        run.output("out.bin")
        run.artifact(Path("in.csv"), "tables")
        run.final({"vae/ssim": 0.75, "count": 3}, "metrics/train_vae/all.json")
    (found,) = runs()
    assert found.info.run_name == "train_vae/all"
    assert found.info.status == "FINISHED"
    assert found.data.params == {"lr": "0.001", "widths": "[8, 16]", "ema.decay": "0.99"}
    assert found.data.tags["scale"] == "smoke"
    assert found.data.tags["md5:in.csv"] == lineage.dvc_md5(Path("in.csv"))
    assert found.data.tags["md5:out.bin"] == lineage.dvc_md5(Path("out.bin"))
    written = json.loads(Path("metrics/train_vae/all.json").read_text())
    assert written == {"vae/ssim": 0.75, "count": 3}
    assert found.data.metrics == {"train/loss": 0.5, **written}
    copies = (project / "mlruns/artifacts").rglob("in.csv")
    assert [p.parent.name for p in copies] == ["tables"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_a_number_that_is_none_is_refused_by_name(project, value):
    with (
        pytest.raises(EchosynError, match=r"metrics/x\.json: val/loss: (nan|inf), which is no"),
        stage_run("train_vae", "all", Config()) as run,
    ):
        run.final({"vae/ssim": 0.75, "val/loss": value}, "metrics/x.json")
    assert not Path("metrics/x.json").exists()


def test_resumed_run_is_the_same_run_and_repeats_no_step(project):
    saved = [0]  # steps in the last checkpoint

    def attempt(killed_at: int | None) -> None:
        with stage_run("train_vae", "all", Config(), resume_dir=Path("state")) as run:
            run.resumed(saved[0])
            for step in range(saved[0], 30):
                run.log(step, {"loss": float(step)})
                if step % 10 == 9:
                    with run.committing(step + 1):
                        saved[0] = step + 1
                if step == killed_at:
                    raise EchosynError("disk full")

    with pytest.raises(EchosynError, match="disk full"):
        attempt(killed_at=15)
    (failed,) = runs()
    assert failed.info.status == "FAILED"
    assert failed.data.tags["error"] == "EchosynError: disk full"
    assert history(failed.info.run_id, "loss") == [(step, float(step)) for step in range(10)]
    attempt(killed_at=None)
    (found,) = runs()
    assert found.info.run_id == failed.info.run_id
    assert found.info.status == "FINISHED"
    assert "error" not in found.data.tags
    assert history(found.info.run_id, "loss") == [(step, float(step)) for step in range(30)]


def test_a_stage_that_ended_unrecorded_by_dvc_is_the_same_run(project):
    """`dvc repro` was killed after the stage had ended, so DVC runs the stage again."""
    Path("state").mkdir()
    for _ in range(2):
        with stage_run("train_vae", "all", Config(), resume_dir=Path("state")) as run:
            run.final({"train_vae/val_loss": 0.5}, "metrics.json")
    (found,) = runs()
    assert found.info.status == "FINISHED"
    assert len(history(found.info.run_id, "train_vae/val_loss")) == 1


def test_other_settings_never_continue_a_run(project):
    for cfg in (Config(), Config(lr=2e-3)):
        with stage_run("train_vae", "all", cfg, resume_dir=Path("state")):
            pass
    assert {run.data.params["lr"] for run in runs()} == {"0.001", "0.002"}


def test_a_run_closes_when_what_is_nested_in_it_has_arrived(project, monkeypatch):
    monkeypatch.setattr("echosyn.tracking.sender.PAUSE", 3600)  # no help from the background
    with stage_run("train_ef", "phantom-real", {}) as parent:
        with nested_run(parent, "seed0", {"seed": 3}) as part:
            part.log(0, {"loss": 1.0})
        left_open = trial_run(parent, "seed1", {"seed": 4}, "seed1")
        left_open.log(0, {"loss": 2.0})
        left_open.end("FINISHED")
        parent.final({"mae": 2.0, "protocol": "strict"}, "metrics.json")
    found = {r.info.run_name: r for r in runs()}
    above = found["train_ef/phantom-real"]
    assert above.data.metrics == {"mae": 2.0}
    assert above.data.tags["protocol"] == "strict"
    assert json.loads(Path("metrics.json").read_text()) == {"mae": 2.0, "protocol": "strict"}
    for name in ("seed0", "seed1"):
        assert found[name].info.status == "FINISHED"
        assert found[name].data.tags["mlflow.parentRunId"] == above.info.run_id
        assert "loss" in found[name].data.metrics


def test_interrupted_run_is_killed_not_failed(project):
    with pytest.raises(KeyboardInterrupt), stage_run("encode", "phantom", {}):
        raise KeyboardInterrupt
    assert runs()[0].info.status == "KILLED"


def test_worker_process_logs_into_the_run_of_its_driver(project):
    with stage_run("train_lvdm", "all", {}) as run:
        worker = pickle.loads(pickle.dumps(run))
        worker.log(1, {"loss": 2.0})
        worker.flush()
    (found,) = runs()
    assert found.data.metrics == {"loss": 2.0}


def test_queued_experiments_share_the_store_of_the_project(project, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(project / "original"))
    assert tracking_uri() == f"sqlite:///{project}/original/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert tracking_uri() == "http://tracking:5000"


@pytest.mark.slow
def test_processes_may_open_a_fresh_store_at_once(project):
    code = (
        "from echosyn.tracking import stage_run\n"
        "with stage_run('encode', 'phantom', {}) as run: run.log(0, {'x': 1.0})"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(lineage.__file__).parents[1])}
    started = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env=env)
        for _ in range(2)
    ]
    for process in started:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors.decode()
    assert [run.data.metrics for run in runs()] == [{"x": 1.0}] * 2


@pytest.mark.slow
def test_releases_are_recorded_once_and_compare(project):
    Path("pictures").mkdir()
    Path("pictures/a.txt").write_text("a")

    def record(version: str, r2: float) -> str:
        lineage = {"data": {"data/train/phantom": "1" * 32}, "models": {"models/vae": "2" * 32}}
        manifest = {
            "name": "echosyn-phantom",
            "version": version,
            "videos": 7,
            "metrics": {"ef/synthetic/r2": r2, "quality/kd_motion_21f_n100x90": 0.5},
            "params": {"scale": "smoke", "sample_videos": {"guidance": 2.0}},
            "protocol": {"protocol/us/fps": "12"},
            "lineage": {**lineage, "code": {}},
        }
        return release_run(manifest, "phantom", version * 8, Path("pictures"))

    with stage_run("train_vae", "all", {}) as run:
        run.tag("md5:models/vae", "2" * 32)
    first = record("1.0.0", 0.9)
    assert record("1.0.0", 0.9) == first
    record("1.1.0", 0.95)
    found = {run.info.run_name: run for run in runs(RELEASES)}
    assert set(found) == {"echosyn-phantom@v1.0.0", "echosyn-phantom@v1.1.0"}
    newer = found["echosyn-phantom@v1.1.0"]
    hours = newer.data.metrics.pop("cost/stage_hours")
    assert newer.data.metrics == {
        "ef/synthetic/r2": 0.95,
        "utility/ef_r2_synthetic": 0.95,
        "quality/kd_motion_21f_n100x90": 0.5,
        "quality/motion_kd": 0.5,
    }
    assert newer.data.params == {"scale": "smoke", "sample_videos.guidance": "2.0"}
    assert newer.data.tags["md5:models/vae"] == "2" * 32
    assert newer.data.tags["protocol/us/fps"] == "12"
    (trained,) = runs(STAGES)
    assert newer.info.start_time == trained.info.start_time
    assert hours == (trained.info.end_time - trained.info.start_time) / 3_600_000
    inputs = {i.dataset.name: i for i in newer.inputs.dataset_inputs}
    assert inputs["phantom"].dataset.digest == "1" * 8
    assert inputs["phantom"].tags[0].value == "training"
    assert json.loads(inputs["echosyn-phantom"].dataset.profile)["videos"] == 7
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri())
    (model,) = client.get_run(newer.info.run_id).inputs.model_inputs
    assert client.get_logged_model(model.model_id).source_run_id == trained.info.run_id
    version = client.get_model_version_by_alias("echosyn-phantom-vae", "candidate")
    assert (int(version.version), version.tags["md5"]) == (1, "2" * 32)  # both releases have it
    assert len(list((project / "mlruns/artifacts").rglob("a.txt"))) == 2


def test_md5_is_the_one_that_dvc_records(tmp_path):
    # `dvc add` of this folder and of its table with DVC 3.67.1.
    (tmp_path / "Videos").mkdir()
    (tmp_path / "FileList.csv").write_text("a,b\n")
    (tmp_path / "Videos/b.avi").write_text("xyz")
    (tmp_path / "Videos/a.avi").write_text("é", encoding="utf-8")
    assert lineage.dvc_md5(tmp_path) == "538cb5e7e203d692fe5e2101839d153c.dir"
    assert lineage.dvc_md5(tmp_path / "FileList.csv") == "f69f5b72bc79a92dc70c63c9aa142e36"


def write_lock(root: Path, stages: dict) -> None:
    def entries(hashes: dict) -> list:
        return [{"path": path, "hash": "md5", "md5": md5} for path, md5 in hashes.items()]

    made = {
        name: {"cmd": "x", "deps": entries(deps), "outs": entries(outs)}
        for name, (deps, outs) in stages.items()
    }
    text = yaml.safe_dump({"schema": "2.0", "stages": made}, sort_keys=False)
    (root / "dvc.lock").write_text(text)


def test_ancestors_follow_files_inside_folders_and_stop_at_strangers(tmp_path):
    write_lock(
        tmp_path,
        {
            "ingest": ({"raw": "1"}, {"data": "2"}),
            "fit": ({"data/FileList.csv": "3"}, {"model": "4"}),
            "stranger": ({"data": "2"}, {"data2": "5"}),
            "sample": ({"model": "4"}, {"samples": "6"}),
        },
    )
    stages = lineage.read_lock(tmp_path)
    found = lineage.ancestors(stages, ["samples"])
    assert [stage.name for stage in found] == ["ingest", "fit", "sample"]
    assert lineage.produced(found) == {"data": "2", "model": "4", "samples": "6"}
    with pytest.raises(EchosynError, match="no stage that wrote data3"):
        lineage.ancestors(stages, ["data3"])


def test_under_dvc_the_lock_vouches_for_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("1")
    Path("unknown").write_text("2")
    write_lock(tmp_path, {"make": ({}, {"a": "f" * 32})})
    monkeypatch.setenv("DVC_STAGE", "encode")
    assert lineage.inputs(["a", "unknown"]) == {"a": "f" * 32}
    monkeypatch.delenv("DVC_STAGE")
    by_hand = lineage.inputs(["a", "unknown", "absent"])
    assert by_hand == {name: lineage.dvc_md5(Path(name)) for name in ("a", "unknown")}


def test_damaged_lock_is_refused(tmp_path):
    (tmp_path / "dvc.lock").write_text("stages: {encode: {outs: [oops]}}\n")
    with pytest.raises(EchosynError, match=r"dvc\.lock: not a lock file"):
        lineage.read_lock(tmp_path)
