"""The canary bound: closed forms, generators whose reproduction rate is known, the stage."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from echosyn.beat.lv_area import without_beats
from echosyn.data.beats import write_beats
from echosyn.data.latents import LatentSet, pack, write_index, write_shard
from echosyn.diffusion.objectives import DdpmV, Flow
from echosyn.models.image import ImageConfig
from echosyn.privacy.attacks.canary import (
    CanaryConfig,
    canary_audit,
    check_samples,
    furthest_recognised,
    make_detector,
    mark_pattern,
    plant,
    reproduction_bounds,
)
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.tracking import NullRun
from echosyn.training.canary import (
    MarkedConfig,
    MarkedLatents,
    MarkedLidm,
    reverse_sampler,
)
from echosyn.training.diffusion import TrainLidmConfig
from echosyn.training.loop import LoopConfig, fit

SHAPE = (4, 8, 8)
PATTERN = mark_pattern(SHAPE, 3)
CONFIG = CanaryConfig(amplitude=0.6, share=0.2, samples=300)


def hearts(n: int, seed: int) -> torch.Tensor:
    coarse = torch.randn(n, 4, 3, 3, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=8, mode="bilinear", align_corners=True)


@pytest.fixture(scope="module")
def detector():
    return make_detector(hearts(500, 5), hearts(1000, 0), PATTERN, CONFIG.amplitude, 0.95)


def test_mark_is_signs_fixed_by_its_seed():
    assert torch.equal(PATTERN.abs(), torch.ones(SHAPE))
    assert abs(float(PATTERN.mean())) < 0.2
    assert torch.equal(PATTERN, mark_pattern(SHAPE, 3))
    assert not torch.equal(PATTERN, mark_pattern(SHAPE, 4))
    clip = torch.zeros(2, 5, *SHAPE)
    assert torch.equal(plant(clip, PATTERN, 0.5)[1, 4], 0.5 * PATTERN)


def test_detector_knows_its_error_rates(detector):
    fresh = hearts(2000, 7)
    alarms = detector(fresh).mean()
    found = detector(plant(fresh, PATTERN, CONFIG.amplitude)).mean()
    assert alarms <= detector.false_alarm.hi + 0.005
    assert found >= detector.sensitivity.lo - 0.005
    assert detector.trials == 1000


def test_a_mark_too_faint_to_recognise_is_refused():
    with pytest.raises(EchosynError, match="raise `amplitude`"):
        make_detector(hearts(40, 0), hearts(40, 1), PATTERN, 0.01, 0.95)
    with pytest.raises(EchosynError, match="5 held-out people"):  # too few to tell
        make_detector(hearts(40, 0), hearts(5, 1), PATTERN, 0.6, 0.95)
    for nobody in ((0, 5), (5, 0)):
        sides = [hearts(n, 0) if n else torch.empty(0) for n in nobody]
        with pytest.raises(EchosynError, match="hearts of both kinds"):
            make_detector(*sides, PATTERN, 0.6, 0.95)


def test_bound_by_hand():
    # T = 1: the pooled end and the detector's share 1 - 0.96. No mark in 2 x 100 from noise.
    none = reproduction_bounds(np.array([0]), np.array([0]), 100, 0.3, 0.8, 0.96)
    assert none == pytest.approx([(1 - 0.02 ** (1 / 200)) / 0.8])
    # T = 2: four ends. All of the marked and none of the unmarked come back: the share, and what
    # unseen ones may add.
    zero = np.array([0, 0])
    all_back = reproduction_bounds(np.array([100, 0]), zero, 100, 0.3, 1.0, 0.92)
    assert all_back[0] == pytest.approx(0.3 + 0.7 * (1 - 0.02 ** (1 / 100)))
    # From noise both kinds are one: it does not matter in which the recognised were counted.
    one, other = (
        reproduction_bounds(a, b, 100, 0.3, 1.0, 0.92)
        for a, b in ((np.array([0, 7]), zero), (zero, np.array([0, 7])))
    )
    assert one[1] == other[1]


def test_more_samples_are_asked_for_where_none_could_tell(detector):
    few = CanaryConfig(share=0.01, times=(0.5, 1.0), samples=200)
    with pytest.raises(EchosynError, match=r"1.00% of .* set `samples` to (\d+) at least") as error:
        check_samples(detector, few)
    needed = int(str(error.value).split("`samples` to ")[1].split()[0])

    def least_relative(samples: int) -> float:
        cfg = CanaryConfig(share=0.01, times=(0.5, 1.0), samples=samples)
        x = hearts(4, 0)
        return canary_audit(
            lambda z, t: hearts(len(z), 1), Flow().noisy, x, x, detector, cfg, 0
        ).relative

    assert least_relative(needed) < 1.0 <= least_relative(needed - 1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=5),
    st.floats(0.01, 0.99),
    st.floats(0.1, 1.0),
)
def test_bound_is_above_what_was_seen_and_grows_with_it(counts, share, sensitivity):
    marked, unmarked = np.array(counts).T
    b = reproduction_bounds(marked, unmarked, 50, share, sensitivity, 0.95)
    seen = (share * marked + (1 - share) * unmarked) / 50
    seen[-1] = (marked[-1] + unmarked[-1]) / 100
    assert (b >= np.minimum(seen / sensitivity, 1) - 1e-12).all()
    assert (b <= 1).all()
    more = reproduction_bounds(np.minimum(marked + 1, 50), unmarked, 50, share, sensitivity, 0.95)
    assert (more >= b - 1e-12).all()


def test_the_bound_holds_as_often_as_it_says():
    r = np.random.default_rng(0)
    share, marked, unmarked = 0.2, np.array([0.3, 0.25, 0.068]), np.array([0.01, 0.03, 0.068])
    true = (share * marked + (1 - share) * unmarked).min()
    held = sum(
        true <= reproduction_bounds(
            r.binomial(200, marked), r.binomial(200, unmarked), 200, share, 1.0, 0.9
        ).min()
        for _ in range(300)
    )  # fmt: skip
    assert held >= 0.9 * 300


def test_reach_is_the_furthest_time_above_false_alarms():
    times = np.array([0.2, 0.5, 0.8, 1.0])
    assert furthest_recognised(times, np.array([99, 90, 30, 1]), 100, 0.05, 0.95) == 0.8
    assert furthest_recognised(times, np.array([99, 90, 8, 1]), 100, 0.05, 0.95) == 0.5
    assert furthest_recognised(times, np.zeros(4, int), 100, 0.0, 0.95) == 0.0


def audit(sampler, detector):
    train = hearts(100, 1)
    marked = plant(train[:20], PATTERN, CONFIG.amplitude)
    return canary_audit(sampler, Flow().noisy, marked, train[20:], detector, CONFIG, seed=0)


def test_a_generator_that_memorises_is_bounded_by_no_less_than_it_reproduces(detector):
    train = hearts(100, 1)
    train[:20] = plant(train[:20], PATTERN, CONFIG.amplitude)

    def memorise(z: torch.Tensor, t: float) -> torch.Tensor:
        # The most likely training heart: nearest to z / (1 - t); from pure noise, any of them.
        if t == 1:
            return train[torch.arange(len(z)) % len(train)]
        return train[torch.cdist((z / (1 - t)).flatten(1), train.flatten(1)).argmin(1)]

    result = audit(memorise, detector)
    assert result.bounds.min() >= 0.2  # it reproduces marked hearts at their share exactly
    assert result.bounds[-1] < 0.35
    assert result.relative >= 1.0
    assert result.reach == 1.0


def test_a_generator_that_ignores_its_input_and_has_no_mark(detector):
    def ignore(z: torch.Tensor, t: float) -> torch.Tensor:
        return hearts(len(z), int(100 * t) + 50)

    result = audit(ignore, detector)
    assert result.reach == 0.0
    assert result.bounds.min() < 0.05
    assert result.relative < 0.2
    numbers = result.numbers()
    assert numbers["privacy/canary_bound"] == result.bounds.min()
    assert numbers["privacy/canary_bound_from_noise"] >= numbers["privacy/canary_bound"]


def test_a_generator_that_only_keeps_what_it_is_given_has_a_short_reach(detector):
    def denoise_a_little(z: torch.Tensor, t: float) -> torch.Tensor:
        return z / (1 - t) if t < 0.5 else hearts(len(z), int(100 * t))

    result = audit(denoise_a_little, detector)
    assert result.reach == 0.4
    assert result.bounds.min() < 0.06  # reproducing only what it starts from is harmless


def test_only_earlier_starts_know_the_hearts(detector):
    starts = []

    def remember(z: torch.Tensor, t: float) -> torch.Tensor:
        starts.append((t, z))
        return z

    for seed in (1, 2):
        train = hearts(40, seed)
        canary_audit(remember, Flow().noisy, train[:20], train[20:], detector, CONFIG, 0)
    half = len(starts) // 2
    for (t, z), (_, other) in zip(starts[:half], starts[half:], strict=True):
        assert torch.equal(z, other) == (t == 1.0)  # pure noise is nobody's


class ToPoint(nn.Module):
    """The exact network of data that are one point: every path ends there."""

    def __init__(self, objective) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.full(SHAPE, 0.7))
        self.objective = objective

    def forward(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if self.objective.name == "flow":
            return (z - self.point) / (t / 1000).view(-1, 1, 1, 1)
        alpha, sigma = self.levels(t)
        noise = (z - alpha * self.point) / sigma
        return alpha * noise - sigma * self.point

    def levels(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Factors of data and noise, read off the forward process."""
        one = torch.ones(len(t), 1, 1, 1)
        u = (t.float() + 0.5) / 1000
        alpha, sigma = (self.objective.noisy(a, 1 - a, u)[0] for a in (one, 0 * one))
        return alpha, sigma


@pytest.mark.parametrize("objective", [Flow(), DdpmV()], ids=lambda o: o.name)
@pytest.mark.parametrize("t", [1.0, 0.35, 0.01])
def test_reverse_process_ends_in_the_data_from_any_time(objective, t):
    points = torch.full((5, *SHAPE), 0.7)
    noise = torch.randn(points.shape, generator=torch.Generator().manual_seed(1))
    z = objective.noisy(points, noise, torch.full((5,), t))[0]
    made = reverse_sampler(ToPoint(objective), objective, steps=10, seed=0, batch=2)(z, t)
    assert torch.allclose(made, points, atol=1e-4)


@pytest.mark.parametrize("objective", [Flow(), DdpmV()], ids=lambda o: o.name)
@pytest.mark.parametrize("t", [1.0, 0.35, 0.01])
def test_reverse_process_starts_at_the_time_that_hearts_are_noised_to(objective, t):
    class Watch(ToPoint):
        def forward(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            times.append(float(t[0]))
            return super().forward(z, t)

    times = []
    one = torch.ones(1, *SHAPE)
    z, _, network_time = objective.noisy(one, one, torch.full((1,), t))
    reverse_sampler(Watch(objective), objective, steps=10, seed=0)(z, t)
    assert times[0] == pytest.approx(float(network_time))
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == len(times) == int(np.ceil(10 * t))


def test_batches_do_not_change_what_is_sampled():
    class Shrink(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.tensor(0.1))

        def forward(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.by * z

    z = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    for objective in (Flow(), DdpmV()):
        made = [
            reverse_sampler(Shrink(), objective, steps=4, seed=3, batch=n)(z, 0.6) for n in (2, 5)
        ]
        assert torch.allclose(made[0], made[1], atol=1e-6)
    again = reverse_sampler(Shrink(), DdpmV(), steps=4, seed=3)
    assert not torch.equal(again(z, 0.6), again(z, 0.6))  # every sample has noise of its own


def test_config_needs_pure_noise():
    with pytest.raises(EchosynError, match=r"include 1\.0"):
        build(CanaryConfig, {"times": [0.2, 0.5]}, "here")


def test_both_kinds_of_heart_are_needed(detector):
    sides = (torch.empty(0, *SHAPE), hearts(2, 0))
    with pytest.raises(EchosynError, match="0 marked and 2 unmarked"):
        canary_audit(lambda z, t: z, Flow().noisy, *sides, detector, CONFIG, 0)


def write_latents(folder, people, videos=1):
    """Smooth latents (8 x 8) in the three splits: TRAIN of `people`, 30 others each to hold out."""
    folder.mkdir(parents=True)
    latents, rows = {}, []
    for k, (split, n) in enumerate((("TRAIN", people), ("VAL", 30), ("TEST", 30))):
        for i, heart in enumerate(hearts(n * videos, k + 20)):
            name, frames = f"{split}{i}", heart.expand(3, -1, -1, -1)
            latents[name] = pack(frames, torch.full_like(frames, -6.0))
            patient = f"{split}-{i // videos}"
            rows.append((name, 50.0, split, 16.0, 3, "a.safetensors", patient))
    columns = ["FileName", "EF", "Split", "FPS", "NumberOfFrames", "Shard", "Patient"]
    write_shard(folder / "a.safetensors", latents)
    write_index(folder, pd.DataFrame(rows, columns=columns))
    return folder


SIZES = {"width": 32, "inner": 32, "inner_blocks": 1, "heads": 4, "embedding": 32}
LOOP = {"steps": 250, "batch": 16, "lr": 5.0e-3, "warmup": 5, "ema": 0.98, "precision": "fp32"}


def training(objective="flow", steps=250, **mark):
    settings = {"amplitude": 0.6, "times": (0.6, 0.9, 1.0), "samples": 150, **mark}
    return MarkedConfig(
        CanaryConfig(**settings),
        TrainLidmConfig(
            build(LoopConfig, {**LOOP, "steps": steps}, "test"),
            build(ImageConfig, SIZES, "test"),
            objective=objective,
            validation_items=8,
        ),
        steps=8,
    )


@pytest.mark.parametrize("posterior", ["mean", "sample"])
def test_only_the_marked_people_carry_the_mark(tmp_path, posterior):
    folder = write_latents(tmp_path / "l", 10, videos=2)
    cfg = CanaryConfig(share=0.2, amplitude=0.6)
    marked, plain = MarkedLatents(folder, cfg, seed=1), LatentSet(folder, "TRAIN")
    assert (marked.people, marked.marked.sum()) == (2, 4)
    assert (marked.table[marked.marked].groupby("Patient").size() == 2).all()

    def read(latents, i):
        if posterior == "mean":
            return latents.mean(i, 1, 3)
        return latents.draw(i, 1, 3, torch.Generator().manual_seed(i))

    for i in range(len(marked)):
        added = read(marked, i) - read(plain, i)
        expected = 0.6 * marked.pattern.expand(2, -1, -1, -1) if marked.marked[i] else 0 * added
        assert torch.allclose(added, expected, atol=1e-6)
    other = MarkedLatents(folder, cfg, seed=2)
    assert not np.array_equal(other.marked, marked.marked)
    assert MarkedLatents(folder, CanaryConfig(share=0.001), 1).people == 1
    with pytest.raises(EchosynError, match="10 of 10 TRAIN people leaves none"):
        MarkedLatents(folder, CanaryConfig(share=0.99), 1)


@pytest.mark.slow
def test_a_trained_generator_that_memorises_differs_from_one_that_does_not(tmp_path):
    """The same network and steps on 4 people and on 40: only the first can repeat them."""
    found = {}
    for people, share in ((4, 0.25), (40, 0.05)):
        folder = write_latents(tmp_path / str(people), people)
        marked = MarkedLidm.prepare(folder, training(share=share), seed=0)
        model = fit(marked.task, marked.task.cfg.loop, 0, tmp_path / f"w{people}", NullRun(), "t")
        found[people] = marked.measure(model, "t")
        assert found[people].share == share
    assert found[4].relative >= 1.0
    assert found[4].bounds.min() >= 0.25
    assert found[4].reach == 1.0
    assert found[40].relative < 0.8
    assert found[40].reach < 0.9


def test_an_audit_that_could_not_tell_is_refused_before_training(tmp_path):
    folder = write_latents(tmp_path / "l", 40)
    with pytest.raises(EchosynError, match="set `samples` to"):
        MarkedLidm.prepare(folder, training(share=0.02, samples=50), seed=0)


def project(root, objective="flow", entry=None):
    """A project as far as the stage reads it."""
    latents = LatentSet(write_latents(root / "latents/train/phantom", 8))
    write_beats(root / "beats/train/phantom", without_beats(latents))
    dataset = {"role": "train", "source": "phantom", "path": "x", "label": "ef"}
    params = {
        "scale": "smoke",
        "seed": 0,
        "datasets": {"phantom": dataset},
        "train_lidm": {"objective": objective},
        "canary": {"phantom": entry},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    loop = {**LOOP, "steps": 6, "checkpoint_every": 3}
    confs = {
        "train_lidm": {"model": SIZES, "loop": loop, "validation_items": 4},
        "sample_hearts": {"hearts": 8, "steps": 4},
        "canary": {"share": 0.1, "times": [0.5, 1.0], "samples": 50},
    }
    (root / "conf/smoke").mkdir(parents=True)
    for stage, values in confs.items():
        (root / f"conf/smoke/{stage}.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["flow", "ddpm_v"])
def test_the_stage_writes_its_evidence_and_keeps_no_weights(tmp_path, monkeypatch, objective):
    from pipelines.canary import main

    project(tmp_path, objective, entry={"amplitude": 0.7})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/ml.db")
    main("phantom")
    out = tmp_path / "privacy/phantom/canary"
    assert {p.name for p in out.iterdir()} == {"canary.json", "curve.csv", "canary.png"}
    written = {p.name: p.read_bytes() for p in out.iterdir()}
    kept = json.loads(written["canary.json"])
    assert (kept["amplitude"], kept["marked_people"], kept["videos"]) == (0.7, 1, 8)
    assert kept["privacy/canary_share"] == 0.125
    assert kept["objective"] == objective
    numbers = json.loads((tmp_path / "metrics/canary/phantom.json").read_text())
    assert numbers == {k: v for k, v in kept.items() if k.startswith("privacy/")}
    curve = pd.read_csv(out / "curve.csv")
    assert curve["time"].tolist() == [0.5, 1.0]
    assert curve["bound"].min() == pytest.approx(numbers["privacy/canary_bound"])
    for text in (written["canary.json"], written["curve.csv"]):
        assert b"TRAIN" not in text  # nobody is named
    main("phantom")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == written


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"shaer": 0.1}, "canary.phantom: unknown setting 'shaer'; did you mean 'share'"),
        ({"times": [0.5]}, "include 1.0"),
        (3, "canary.phantom: expected 'key: value', found 3"),
    ],
)
def test_settings_of_the_stage_are_checked(tmp_path, entry, message):
    from echosyn.runtime.config import Params
    from echosyn.training.canary import MarkedConfig

    project(tmp_path, entry=entry)
    with pytest.raises(EchosynError) as error:
        MarkedConfig.of(Params(tmp_path), "phantom")
    assert message in str(error.value)
    with pytest.raises(EchosynError, match="no 'dynamic' under canary; known: phantom"):
        MarkedConfig.of(Params(tmp_path), "dynamic")
