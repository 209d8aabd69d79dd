"""Placement, shards and training on a real cluster of two nodes, and what deaths cost."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import indent

import numpy as np
import psutil
import pytest
import torch
from local_cluster import ENVIRONMENT, LocalCluster
from torch import nn

from echosyn import cluster
from echosyn.cluster.settings import ClusterConfig, Placement, address, cluster_config
from echosyn.data.frames import FrameSet
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text
from echosyn.tracking import NullRun
from echosyn.training.batches import Batches, share
from echosyn.training.loop import LoopConfig, fit

PARAMS = """
scale: smoke
cluster:
  train: {workers: 2, cpus: 2, retries: 2}
  shards: {workers: 2, cpus: 2, retries: 1}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    write_text(tmp_path / "params.yaml", PARAMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def two_nodes():
    """One cluster for the tests that leave it whole. A worker of 2 CPUs fills a node."""
    with pytest.MonkeyPatch.context() as patch, LocalCluster(nodes=2, cpus=2) as running:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield running


@pytest.fixture
def on_cluster(two_nodes, project, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", two_nodes.address)
    return two_nodes


def until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# Settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("http://head:8265", "echosyn submit --address"),
        ("ray://head:10001", "echosyn submit"),
        ("tcp://head:6379", "unknown scheme 'tcp'; write head:6379"),
        ("head", "expected host:port"),
        ("head:port", "expected host:port"),
        ("local", "ray start --head"),
    ],
)
def test_an_address_of_something_else_is_refused_with_what_to_write(given, words, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(EchosynError, match=words):
        address()


def test_an_address_is_the_clusters_or_none(monkeypatch):
    for given, expected in (("10.0.0.5:6379", "10.0.0.5:6379"), ("auto", "auto"), (" ", None)):
        monkeypatch.setenv("RAY_ADDRESS", given)
        assert address() == expected


def test_a_stage_takes_its_own_placement_over_the_shared_one():
    values = {
        "train": {"workers": 2, "retries": 5},
        "stages": {"train_lvdm": {"workers": 8, "gpus": 1, "accelerator": "A100"}},
    }
    config = build(ClusterConfig, values, "params.yaml: cluster")
    assert config.placement("train", "train_vae") == Placement(workers=2, retries=5)
    lvdm = config.placement("train", "train_lvdm")
    assert lvdm == Placement(workers=8, gpus=1.0, accelerator="A100", retries=5)
    assert config.placement("shards", "encode") == Placement()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train": {"worker": 2}}, "did you mean 'workers'"),
        ({"train": {"min_workers": 3, "workers": 2}}, "min_workers 3 is above workers 2"),
        ({"shards": {"gpus": 1.5}}, "a fraction of one GPU, or a whole number"),
        ({"shards": {"accelerator": "A100"}}, "without gpus"),
        ({"stages": {"encode": {"cpus": 0}}}, "cluster.stages.encode: cpus: 0 is below"),
    ],
)
def test_impossible_placements_are_named(project, values, words):
    write_text(project / "params.yaml", json.dumps({"scale": "smoke", "cluster": values}))
    with pytest.raises(EchosynError, match=words):
        cluster_config(project).placement("shards", "encode")


def test_without_an_address_ray_is_not_imported(project):
    code = """
import sys
from pathlib import Path
from echosyn.cluster import map_rows
import numpy as np
values = map_rows(Path("w"), 2, "s", "item", "n", 5, lambda: lambda rows: np.array(rows))
assert values.tolist() == [0, 1, 2, 3, 4]
assert not [m for m in sys.modules if m.split(".")[0] == "ray"]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_frames_travel_as_their_address(tmp_path):
    np.save(tmp_path / "f.npy", np.arange(400_000, dtype=np.uint8).reshape(100, 80, 50))
    data = np.load(tmp_path / "f.npy", mmap_mode="r")
    import pandas as pd

    table = pd.DataFrame({"FileName": list("ab"), "Split": ["TRAIN", "VAL"], "EF": [50.0, 60.0]})
    whole = FrameSet(data, table, np.array([0, 60]), np.array([60, 40]), 32.0)
    sent = pickle.dumps(whole.split("VAL"))
    assert len(sent) < 5000
    there = pickle.loads(sent)
    assert isinstance(there.data, np.memmap)
    assert np.array_equal(there.video(0), whole.video(1))


# Training: one batch, however many share it


class LineTask:
    """y = 3x + 1 with noise.

    The `after`-th item of a process makes a file `slow` in `folder`; each from then on takes so
    many seconds, until there is a file `hurry`.
    """

    size = 20

    def __init__(self, slow=0.0, folder=None, after=0, poison=False):
        self.slow, self.folder, self.after, self.poison = slow, folder, after, poison
        self.drawn = 0

    def build(self):
        return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))

    def batch(self, indices, rng):
        self.drawn += 1
        if self.folder and self.drawn > self.after:
            (self.folder / "slow").touch()
            end = time.monotonic() + self.slow
            while not (self.folder / "hurry").exists() and time.monotonic() < end:
                time.sleep(0.02)
        x = torch.tensor(indices / 20, dtype=torch.float32)[:, None]
        y = 3 * x + 1 + torch.tensor(rng.normal(0, 0.01, x.shape), dtype=torch.float32)
        return {"x": x * (float("nan") if self.poison else 1.0), "y": y}

    def loss(self, model, batch):
        error = model(batch["x"]) - batch["y"]
        return error.square().mean(), {"mae": error.abs().mean()}

    def validate(self, model):
        x = torch.linspace(0, 1, 7)[:, None]
        return {"loss": float((model(x) - 3 * x - 1).square().mean().detach())}


CONFIG = LoopConfig(
    steps=30, batch=5, lr=1e-2, ema=0.9, precision="fp32", checkpoint_every=5, validate_every=5,
    select="best", warmup=3,
)  # fmt: skip


def weights(model):
    return {k: v.numpy() for k, v in model.state_dict().items()}


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (3, 1), (5, 1), (2, 2), (1, 4)])
def test_any_number_of_processes_sees_the_same_items_with_the_same_noise(world, accumulate):
    one = Batches(LineTask(), LoopConfig(steps=4, batch=5, lr=1.0), 7, 0, 1)
    cfg = LoopConfig(steps=4, batch=5, lr=1.0, accumulate=accumulate)
    ranks = [Batches(LineTask(), cfg, 7, rank, world) for rank in range(world)]
    for step in range(4):
        parts = [
            rank[step * accumulate + micro]["y"] for micro in range(accumulate) for rank in ranks
        ]
        assert torch.equal(torch.cat(parts), one[step]["y"])


def test_shares_of_a_batch_differ_by_one_at_most():
    sizes = [len(share(16, 7, part)) for part in range(7)]
    assert sum(sizes) == 16
    assert max(sizes) - min(sizes) == 1


def test_a_batch_too_small_for_its_passes_is_refused():
    with pytest.raises(EchosynError, match="accumulate 6 is above batch 5"):
        build(LoopConfig, {"steps": 3, "batch": 5, "lr": 0.1, "accumulate": 6}, "train_x")


@pytest.fixture(scope="module")
def undisturbed(two_nodes, tmp_path_factory):
    """Weights of two workers that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_text(folder / "params.yaml", PARAMS)
    (folder / "work").mkdir()
    before = Path.cwd()
    os.chdir(folder)
    os.environ["RAY_ADDRESS"] = two_nodes.address
    try:
        model = cluster.fit(LineTask(), CONFIG, 0, folder / "work", NullRun(), "line", "train_x")
    finally:
        os.chdir(before)
        del os.environ["RAY_ADDRESS"]
    return weights(model)


@pytest.mark.slow
def test_two_workers_learn_what_one_does(undisturbed, tmp_path):
    alone = weights(fit(LineTask(), CONFIG, 0, tmp_path, NullRun(), "line"))
    for name, value in alone.items():
        # An uneven batch (3 + 2), so that unweighted averaging would show.
        assert undisturbed[name] == pytest.approx(value, abs=1e-5)


@pytest.mark.slow
def test_a_training_worker_killed_costs_nothing(on_cluster, undisturbed, project):
    work = project / "work"
    work.mkdir()
    killed = []

    def kill_one():
        until(lambda: list(work.glob("checkpoint-0000001*")))
        victim = on_cluster.processes("RayTrainWorker")[0]
        victim.send_signal(signal.SIGKILL)
        (project / "hurry").touch()
        killed.append(victim.pid)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    task = LineTask(slow=10.0, folder=project, after=33)  # of 60 or 90, by two workers
    model = cluster.fit(task, CONFIG, 0, work, NullRun(), "line", "train_x")
    assert killed
    for name, value in weights(model).items():
        assert value.tobytes() == undisturbed[name].tobytes(), name
    assert not on_cluster.processes("RayTrainWorker")


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_training_at_once_with_its_message(on_cluster, project):
    (project / "work").mkdir()
    with pytest.raises(EchosynError, match=r"line: the loss is nan .* Lower lr"):
        cluster.fit(
            LineTask(poison=True), CONFIG, 0, project / "work", NullRun(), "line", "train_x"
        )
    assert not on_cluster.processes("RayTrainWorker")


@pytest.mark.slow
def test_a_node_about_to_be_taken_away_saves_at_once(on_cluster, project):
    rare = LoopConfig(steps=400, batch=4, lr=1e-2, precision="fp32", checkpoint_every=10_000)
    work = project / "work"
    work.mkdir()
    saved = []

    def take_away():
        until((project / "slow").exists)
        on_cluster.drain(1, seconds=600)
        until(lambda: list(work.glob("checkpoint-*")))
        saved.extend(p.name for p in work.glob("checkpoint-*"))
        (project / "hurry").touch()
        on_cluster.kill_node(1)
        on_cluster.add_node()

    thread = threading.Thread(target=take_away, daemon=True)
    thread.start()
    task = LineTask(slow=0.1, folder=project)
    cluster.fit(task, rare, 0, work, NullRun(), "line", "train_x")
    thread.join()
    assert "checkpoint-00000000" < saved[0] < "checkpoint-00000400"


# Shards


def numbers(rows, folder):
    write_text(folder / f"{rows.start}.txt", ",".join(map(str, rows)))


def contents(folders):
    return [p.read_text() for f in folders for p in sorted(f.iterdir())]


@pytest.mark.slow
def test_shards_are_the_same_wherever_they_are_made(on_cluster, project, monkeypatch):
    there = cluster.run_shards(project / "a", 11, 2, lambda: numbers, "s", "item")
    monkeypatch.delenv("RAY_ADDRESS")
    here = cluster.run_shards(project / "b", 11, 2, lambda: numbers, "s", "item")
    assert contents(there) == contents(here) == ["0,1", "2,3", "4,5", "6,7", "8,9", "10"]
    assert [f.name for f in there] == [f.name for f in here]


@pytest.mark.slow
def test_a_shard_whose_worker_dies_is_made_by_another(on_cluster, project):
    log = project / "log"
    log.mkdir()

    def worker():
        def make(rows, folder):
            (log / f"{rows.start}-{os.getpid()}").touch()
            (folder / "half").touch()
            if rows.start == 4 and len(list(log.glob("4-*"))) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            (folder / "half").unlink()
            numbers(rows, folder)

        return make

    folders = cluster.run_shards(project / "w", 8, 2, worker, "s", "item")
    assert contents(folders) == ["0,1", "2,3", "4,5", "6,7"]
    assert len(list(log.glob("4-*"))) == 2
    assert sorted(p.name for p in (project / "w").iterdir()) == [f.name for f in folders]


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_is_given_up_and_the_others_are_kept(on_cluster, project):
    made = project / "w"

    def worker():
        def make(rows, folder):
            if rows.start == 2:
                until(lambda: len(list(made.glob("shard-*"))) == 3)
                os.kill(os.getpid(), signal.SIGKILL)
            numbers(rows, folder)

        return make

    with pytest.raises(EchosynError, match=r"s: the worker with items 2\.\.3 was lost 2 times"):
        cluster.run_shards(project / "w", 8, 2, worker, "s", "item")
    kept = {p.name for p in (project / "w").glob("shard-*")}
    assert kept == {"shard-00000", "shard-00002", "shard-00003"}
    assert not on_cluster.processes("_Worker")


@pytest.mark.slow
def test_what_a_user_can_mend_arrives_as_it_was_said(on_cluster, project):
    def worker():
        def make(rows, folder):
            raise EchosynError(f"video {rows.start} cannot be read")

        return make

    with pytest.raises(EchosynError) as caught:
        cluster.run_shards(project / "w", 2, 2, worker, "s", "item")
    assert str(caught.value) == "video 0 cannot be read"


@pytest.mark.slow
def test_a_node_that_dies_takes_no_work_with_it(two_nodes, project, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", two_nodes.address)
    write_text(
        project / "params.yaml", PARAMS.replace("shards: {workers: 2", "shards: {workers: 3")
    )
    doomed, busy, gone = len(two_nodes.nodes), project / "busy", project / "gone"
    two_nodes.add_node()
    busy.mkdir()

    def worker():
        def make(rows, folder):
            (busy / str(os.getpid())).touch()
            until(gone.exists)
            numbers(rows, folder)

        return make

    def kill():
        until(lambda: len(list(busy.iterdir())) == 3)  # each node has one in hand
        two_nodes.kill_node(doomed)
        gone.touch()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    folders = cluster.run_shards(project / "w", 20, 2, worker, "s", "item")
    thread.join()
    assert ",".join(contents(folders)) == ",".join(map(str, range(20)))


TRAINER = """
import sys
sys.path[:0] = ["{tests}"]
import test_cluster as t
from ray import cloudpickle
cloudpickle.register_pickle_by_value(t)
rare = t.LoopConfig(steps=60, batch=4, lr=1e-2, precision="fp32", checkpoint_every=10_000)
work = t.Path("{work}")
task = t.LineTask(slow=0.2, folder=work, after=8)
t.cluster.fit(task, rare, 0, work, t.NullRun(), "line", "train_x")
"""


@pytest.mark.slow
def test_a_driver_asked_to_stop_saves_first(on_cluster, project):
    """By either signal; two drivers at a time, because most of it is waiting for workers."""
    write_text(project / "params.yaml", PARAMS.replace("cpus: 2", "cpus: 1"))
    root = Path(__file__).parents[2]

    def stopped(number):
        work = project / number.name
        work.mkdir()
        driver = subprocess.Popen(
            [sys.executable, "-c", TRAINER.format(tests=root / "tests/support", work=work)],
            env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until((work / "slow").exists)
        driver.send_signal(number)
        _, said = driver.communicate(timeout=300)
        return driver.returncode, said, work

    with ThreadPoolExecutor(2) as both:
        ends = list(both.map(stopped, (signal.SIGTERM, signal.SIGINT)))
    _, left = psutil.wait_procs(on_cluster.processes("RayTrainWorker"), timeout=120)
    assert not left
    for status, said, work in ends:
        assert status != 0
        assert "saving, then stopping" in said
        (saved,) = work.glob("checkpoint-*")
        assert 0 < int(saved.name[-8:]) < 60
        # The same command goes on from there.
        rare = LoopConfig(steps=60, batch=4, lr=1e-2, precision="fp32", checkpoint_every=10_000)
        started = []

        class Steps(NullRun):
            def resumed(self, step, started=started):
                started.append(step)

        fit(LineTask(), rare, 0, work, Steps(), "line")
        assert started == [int(saved.name[-8:])]


DRIVER = """
import time
from pathlib import Path
from echosyn import cluster
hurry = Path("hurry").resolve()
def worker():
    def make(rows, folder):
        end = time.monotonic() + 60
        while rows.start >= 4 and not hurry.exists() and time.monotonic() < end:
            time.sleep(0.02)
        (folder / "x").write_text(str(rows.start))
    return make
cluster.run_shards(Path("w").resolve(), 20, 1, worker, "s", "item")
"""


@pytest.mark.slow
def test_a_driver_asked_to_stop_cleans_up_as_it_does_without_a_cluster(on_cluster, project):
    """Ray would end it on the spot: no message, and a run in MLflow that failed."""
    code = f"from echosyn.runtime.process import run_stage\ndef main():\n{indent(DRIVER, '  ')}\n"
    code += "run_stage(main)"
    driver = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    until(lambda: len(list((project / "w").glob("shard-*"))) >= 2)
    driver.terminate()
    _, said = driver.communicate(timeout=300)
    assert driver.returncode == 1
    assert said.splitlines()[-1] == "echosyn: stopped; the same command continues where it was"
    _, left = psutil.wait_procs(on_cluster.processes("_Worker"), timeout=120)
    assert not left


@pytest.mark.slow
def test_a_driver_killed_leaves_no_worker_and_its_shards(on_cluster, project):
    command = [sys.executable, "-c", DRIVER]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    driver = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    until(lambda: len(list((project / "w").glob("shard-*"))) >= 4)
    assert driver.poll() is None
    assert on_cluster.processes("_Worker")
    driver.kill()
    driver.wait()
    _, left = psutil.wait_procs(on_cluster.processes("_Worker"), timeout=120)
    assert not left
    kept = {p.name: p.stat().st_mtime_ns for p in (project / "w").glob("shard-*")}
    assert 4 <= len(kept) < 20
    (project / "hurry").touch()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    shards = sorted((project / "w").glob("shard-*"))
    assert [(s / "x").read_text() for s in shards] == [str(i) for i in range(20)]
    assert all((project / "w" / name).stat().st_mtime_ns == t for name, t in kept.items())


@pytest.mark.slow
def test_no_cluster_at_the_address_is_said(project, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(EchosynError, match=r"no Ray cluster answers at 127\.0\.0\.1:9"):
        cluster.run_shards(project / "w", 2, 2, lambda: numbers, "s", "item")
