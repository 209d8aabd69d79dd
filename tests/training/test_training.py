"""The loop: a kill changes nothing, an EMA averages, a bad loss stops it."""

from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from echosyn.runtime.errors import EchosynError
from echosyn.tracking import NullRun
from echosyn.training.batches import shuffled_indices
from echosyn.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from echosyn.training.curve import FIRST, Pace, write_curves
from echosyn.training.loop import (
    LoopConfig,
    ema_decay,
    fit,
    learning_rate,
)


class Killed(Exception):
    """Stands for a power cut at a chosen batch."""


class LineTask:
    """y = 3x + 1 with dropout and random noise, so that every source of randomness is exercised."""

    size = 20

    def __init__(self, die_at=None, poison_at=None):
        self.die_at, self.poison_at, self.calls = die_at, poison_at, 0

    def build(self):
        return nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))

    def batch(self, indices, rng):
        self.calls += 1  # items
        if self.calls == self.die_at:
            raise Killed
        x = torch.tensor(indices / 20, dtype=torch.float32)[:, None]
        noise = torch.tensor(rng.normal(0, 0.01, x.shape), dtype=torch.float32)
        if self.calls == self.poison_at:
            x = x * float("nan")
        return {"x": x, "y": 3 * x + 1 + noise}

    def loss(self, model, batch):
        error = model(batch["x"]) - batch["y"]
        return error.square().mean(), {"mae": error.abs().mean()}

    def validate(self, model):
        x = torch.linspace(0, 1, 7)[:, None]
        return {"loss": float((model(x) - 3 * x - 1).square().mean().detach())}


CONFIG = LoopConfig(
    steps=30, batch=4, lr=1e-2, accumulate=2, ema=0.9, precision="fp32",
    checkpoint_every=5, validate_every=5, select="best", warmup=3,
)  # fmt: skip


def weights(model):
    return {k: v.numpy() for k, v in model.state_dict().items()}


def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(tmp_path):
    whole = weights(fit(LineTask(), CONFIG, 0, tmp_path / "a", NullRun(), "t"))
    for attempt in (54, 59):  # items, four a step
        with pytest.raises(Killed):
            fit(LineTask(die_at=attempt), CONFIG, 0, tmp_path / "b", NullRun(), "t")
    resumed = weights(fit(LineTask(), CONFIG, 0, tmp_path / "b", NullRun(), "t"))
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert value.tobytes() == resumed[name].tobytes(), name


def test_a_finished_run_leaves_only_its_last_checkpoint(tmp_path):
    fit(LineTask(), CONFIG, 0, tmp_path, NullRun(), "t")
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint-00000030", "curve.jsonl"}
    assert {p.name for p in (tmp_path / "checkpoint-00000030").iterdir()} == {
        "model.safetensors", "average.safetensors", "best.safetensors", "optimizer.pt",
        "state.json",
    }  # fmt: skip


def test_each_step_is_logged_once_however_often_the_run_is_killed(tmp_path):
    class Record(NullRun):
        def __init__(self, kept):
            self.kept, self.buffer = kept, []

        def log(self, step, values):
            self.buffer += [(step, key) for key in values]

        @contextmanager
        def committing(self, step):
            yield
            self.kept += self.buffer
            self.buffer = []

    kept = []
    for attempt in (49, 65):
        with pytest.raises(Killed):
            fit(LineTask(die_at=attempt), CONFIG, 0, tmp_path, Record(kept), "t")
    fit(LineTask(), CONFIG, 0, tmp_path, Record(kept), "t")
    assert len(kept) == len(set(kept))
    assert {step for step, key in kept if key == "val/loss"} == {4, 9, 14, 19, 24, 29}


def read_curves(work, out):
    write_curves(work, out)
    return [pd.read_csv(out / f"{kind}.csv") for kind in ("train", "val")]


def test_curves_of_a_killed_run_have_each_step_once_and_go_on_in_time(tmp_path):
    whole, _ = read_curves(fit_in(tmp_path / "a"), tmp_path / "curves/a")
    with pytest.raises(Killed):
        fit(LineTask(die_at=54), CONFIG, 0, tmp_path / "b", NullRun(), "t")
    train, val = read_curves(fit_in(tmp_path / "b"), tmp_path / "curves/b")
    assert [*train.columns] == [*FIRST, "mae", "grad_norm", "lr", "samples_per_s", "loss"]
    assert [*val.columns] == [*FIRST, "loss"]  # the last is what dvc plots draws
    timed = ["seconds", "samples_per_s"]
    pd.testing.assert_frame_equal(train.drop(columns=timed), whole.drop(columns=timed))
    assert list(val["step"]) == [4, 9, 14, 19, 24, 29]
    assert list(val["samples"]) == [20, 40, 60, 80, 100, 120]
    assert train["seconds"].is_monotonic_increasing
    assert (train["samples_per_s"] > 0).all()


def fit_in(work):
    fit(LineTask(), CONFIG, 0, work, NullRun(), "t")
    return work


def test_curves_without_training_have_no_rows_and_damaged_ones_are_named(tmp_path):
    train, val = read_curves(tmp_path, tmp_path / "curves")
    assert len(train) == len(val) == 0
    assert [*val.columns] == [*FIRST, "loss"]
    (tmp_path / "curve.jsonl").write_text('{"kind": "tr')
    with pytest.raises(EchosynError, match=r"curve\.jsonl is damaged"):
        write_curves(tmp_path, tmp_path / "curves")


def test_pace_leaves_pauses_out(monkeypatch):
    now = iter([0.0, 4.0, 10.0, 14.0])
    monkeypatch.setattr("echosyn.training.curve.time.perf_counter", lambda: next(now))
    pace = Pace(100)
    with pace.paused():
        pass
    assert pace.rate(116) == 2.0


@pytest.mark.slow
def test_it_learns_and_the_seed_matters(tmp_path):
    task = LineTask()
    torch.manual_seed(0)
    before = task.validate(task.build().eval())["loss"]
    config = LoopConfig(
        steps=200, batch=8, lr=2e-2, precision="fp32", select="best", validate_every=20
    )
    a = fit(task, config, 0, tmp_path / "a", NullRun(), "t")
    b = fit(task, config, 1, tmp_path / "b", NullRun(), "t")
    with torch.no_grad():
        assert task.validate(a)["loss"] < 0.3 * before
    assert not np.array_equal(weights(a)["0.weight"], weights(b)["0.weight"])


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    """Noticed when step 24 is to be saved; it was the batch of step 22."""
    items = ", ".join(map(str, shuffled_indices(0, 22 * 4, 4, 20)))
    message = f"the loss is nan .* since step 22, a batch of TRAIN's items {items}; .* of step 20"
    with pytest.raises(EchosynError, match=message):
        fit(LineTask(poison_at=22 * 4 + 2), CONFIG, 0, tmp_path, NullRun(), "line")
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000020"]


def test_no_items_is_said(tmp_path):
    task = LineTask()
    task.size = 0
    with pytest.raises(EchosynError, match="TRAIN split empty"):
        fit(task, CONFIG, 0, tmp_path, NullRun(), "line")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    model = nn.Linear(2, 2)
    save_checkpoint(
        tmp_path, model, None, torch.optim.SGD(model.parameters(), lr=1), TrainState(5, 5)
    )
    other = nn.Linear(3, 2)
    with pytest.raises(EchosynError, match="cannot be resumed from"):
        load_checkpoint(tmp_path, other, None, torch.optim.SGD(other.parameters(), lr=1))


@given(st.integers(1, 30), st.integers(0, 200), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_shuffled_epochs_visit_every_item_once_and_do_not_depend_on_the_batch(n, first, count):
    whole = shuffled_indices(3, 0, first + count, n)
    assert np.array_equal(shuffled_indices(3, first, count, n), whole[first:])
    for epoch in range((first + count) // n):
        assert sorted(whole[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_learning_rate_schedules():
    cosine = LoopConfig(steps=100, batch=1, lr=1.0, warmup=10)
    assert learning_rate(cosine, 0) == pytest.approx(0.1)
    assert learning_rate(cosine, 10) == pytest.approx(1.0)
    assert learning_rate(cosine, 55) == pytest.approx(0.5)
    assert learning_rate(cosine, 99) < 0.01
    step = LoopConfig(steps=45, batch=1, lr=1e-4, schedule="step", decay_every=15)
    assert [learning_rate(step, s) for s in (0, 15, 44)] == pytest.approx([1e-4, 1e-5, 1e-6])


def test_ema_forgets_its_start():
    assert ema_decay(0.999, 0) == pytest.approx(0.1)
    assert ema_decay(0.999, 10**6) == 0.999
