"""A tracking store of the project that is no database any more: work goes on, records wait."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from echosyn import tracking
from echosyn.runtime.errors import EchosynError
from echosyn.tracking import stage_run, sync
from echosyn.tracking.store import DamagedError, Store


def whole(path):
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("CREATE TABLE experiments (name TEXT)")
        rows = [(f"{i:0500d}",) for i in range(200)]
        store.executemany("INSERT INTO experiments VALUES (?)", rows)
    return path.read_bytes()


DAMAGE = {
    "text": lambda data: b"not a database, but long enough to be read as one" * 40,
    "cut in half": lambda data: data[: len(data) // 2],
    "cut within the header": lambda data: data[:50],
    "first page overwritten": lambda data: bytes(4096) + data[4096:],
    "tables overwritten": lambda data: data[:100] + b"\xff" * (len(data) - 100),
}


@pytest.fixture
def own_store(tmp_path, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("scale: smoke\n")
    Path("mlruns").mkdir()
    return Path("mlruns/mlflow.db")


@pytest.mark.parametrize("kind", DAMAGE)
def test_work_goes_on_with_a_damaged_store(own_store, capfd, kind):
    own_store.write_bytes(DAMAGE[kind](whole(own_store)))
    with stage_run("encode", "phantom", {}) as run:
        run.log(0, {"loss": 1.0})
    said = capfd.readouterr().err
    assert said.count("is damaged") == 1
    assert "mlruns/mlflow.db is damaged" in said
    assert ".echosyn/outbox" in said
    assert "mv mlruns/mlflow.db mlruns/mlflow.db.damaged" in said
    assert "`echosyn sync` then sends what waits" in said
    assert "MLFLOW_TRACKING_URI" not in said
    assert "records of this run wait in" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_what_waits_is_sent_once_the_damaged_file_is_aside(own_store, kind):
    damaged = DAMAGE[kind](whole(own_store))
    own_store.write_bytes(damaged)
    for step in range(2):
        with stage_run("encode", "phantom", {}) as run:
            run.log(step, {"loss": float(step)})
    assert sync()[0] == 0
    own_store.rename("mlruns/mlflow.db.damaged")
    sent, left = sync()
    assert (sent, left) == (4, 0)
    client = MlflowClient(tracking.tracking_uri())
    runs = client.search_runs([client.get_experiment_by_name("stages").experiment_id])
    assert sorted(run.data.metrics["loss"] for run in runs) == [0.0, 1.0]
    assert Path("mlruns/mlflow.db.damaged").read_bytes() == damaged


@pytest.mark.slow
def test_a_store_that_is_damaged_under_way_does_not_stop_the_work(own_store, capfd):
    with stage_run("encode", "phantom", {}) as run:
        whole_store = own_store.read_bytes()
        own_store.write_bytes(whole_store[: len(whole_store) // 3])
        run.log(0, {"loss": 1.0})
    assert "mv mlruns/mlflow.db mlruns/mlflow.db.damaged" in capfd.readouterr().err
    own_store.rename("mlruns/mlflow.db.damaged")
    command = [sys.executable, "-m", "echosyn.cli", "sync"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command, env=environment, check=True)
    assert sync() == (0, 0)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("attempt to write a readonly database", "Let this user write mlruns/mlflow.db"),
        ("unable to open database file", "Let this user write mlruns/mlflow.db"),
        ("Detected out-of-date database schema", "mlflow db upgrade sqlite:///"),
        ("Can't locate revision identified by 'f5a4'", "mv mlruns/mlflow.db"),
    ],
)
def test_what_is_wrong_with_the_own_store_is_not_a_variables_fault(own_store, text, fix):
    with pytest.raises(EchosynError) as e, Store(tracking.tracking_uri()).failures():
        raise sqlite3.OperationalError(text)
    assert fix in str(e.value)
    assert "unset" not in str(e.value)
    with pytest.raises(EchosynError, match="unset it to use"), Store("http://h").failures():
        raise sqlite3.OperationalError(text)


def test_only_a_file_can_be_moved_aside():
    with pytest.raises(DamagedError), Store("sqlite:///a.db").failures():
        raise sqlite3.DatabaseError("database disk image is malformed")
    with pytest.raises(EchosynError), Store("postgresql://u:p@h/d").failures():
        raise sqlite3.DatabaseError("database disk image is malformed")
