"""The fingerprint bound: closed forms, and generators whose reproduction rate is known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from echosyn.config import build
from echosyn.diffusion.objectives import Flow
from echosyn.errors import EchosynError
from echosyn.privacy.fingerprint import (
    FingerprintConfig,
    fingerprint_audit,
    flow_sampler,
    furthest_recognised,
    make_detector,
    mark_pattern,
    plant,
    reproduction_bounds,
)

SHAPE = (4, 8, 8)
PATTERN = mark_pattern(SHAPE, 3)
CONFIG = FingerprintConfig(amplitude=0.6, share=0.2, samples=300)


def hearts(n: int, seed: int) -> torch.Tensor:
    coarse = torch.randn(n, 4, 3, 3, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=8, mode="bilinear", align_corners=True)


@pytest.fixture(scope="module")
def detector():
    return make_detector(hearts(2000, 0), PATTERN, CONFIG.amplitude, 0.95)


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
    with pytest.raises(EchosynError, match="raise the amplitude"):
        make_detector(hearts(40, 0), PATTERN, 0.01, 0.95)
    with pytest.raises(EchosynError, match="four held-out"):
        make_detector(hearts(3, 0), PATTERN, 0.5, 0.95)


def test_bound_by_hand():
    # T = 1: three ends share 1 - 0.94, so each errs 0.02. No mark seen: upper end 1 - 0.02^(1/n).
    none = reproduction_bounds(np.array([0]), np.array([0]), 100, 0.3, 0.8, 0.94)
    assert none == pytest.approx([(1 - 0.02 ** (1 / 100)) / 0.8])
    # All of the marked and none of the unmarked come back: the share, and what unseen ones may add.
    all_back = reproduction_bounds(np.array([100]), np.array([0]), 100, 0.3, 1.0, 0.94)
    assert all_back == pytest.approx([0.3 + 0.7 * (1 - 0.02 ** (1 / 100))])


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
    assert (b >= np.minimum(seen / sensitivity, 1) - 1e-12).all()
    assert (b <= 1).all()
    more = reproduction_bounds(np.minimum(marked + 1, 50), unmarked, 50, share, sensitivity, 0.95)
    assert (more >= b - 1e-12).all()


def test_the_bound_holds_as_often_as_it_says():
    r = np.random.default_rng(0)
    share, marked, unmarked = 0.2, 0.3, 0.01
    true = share * marked + (1 - share) * unmarked
    held = sum(
        true <= reproduction_bounds(
            r.binomial(200, marked, 3), r.binomial(200, unmarked, 3), 200, share, 1.0, 0.9
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
    return fingerprint_audit(sampler, Flow().noisy, marked, train[20:], detector, CONFIG, seed=0)


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
    assert result.reach == 1.0


def test_a_generator_that_ignores_its_input_and_has_no_mark(detector):
    def ignore(z: torch.Tensor, t: float) -> torch.Tensor:
        return hearts(len(z), int(100 * t) + 50)

    result = audit(ignore, detector)
    assert result.reach == 0.0
    assert result.bounds.min() < 0.05
    numbers = result.numbers()
    assert numbers["privacy/fingerprint_bound"] == result.bounds.min()
    assert numbers["privacy/fingerprint_bound_from_noise"] >= numbers["privacy/fingerprint_bound"]


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
        fingerprint_audit(remember, Flow().noisy, train[:20], train[20:], detector, CONFIG, 0)
    half = len(starts) // 2
    for (t, z), (_, other) in zip(starts[:half], starts[half:], strict=True):
        assert torch.equal(z, other) == (t == 1.0)  # pure noise is nobody's


def test_flow_sampler_follows_the_exact_flow():
    class ToPoint(nn.Module):
        """The flow of data that are one point: every path ends there."""

        def __init__(self) -> None:
            super().__init__()
            self.point = nn.Parameter(torch.full(SHAPE, 0.7))

        def forward(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return (z - self.point) / (t / 1000).view(-1, 1, 1, 1)

    sample = flow_sampler(ToPoint(), steps=10, batch=2)
    for t in (1.0, 0.35):
        z = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(sample(z, t), torch.full((5, *SHAPE), 0.7), atol=1e-5)


def test_config_needs_pure_noise():
    with pytest.raises(EchosynError, match=r"include 1\.0"):
        build(FingerprintConfig, {"times": [0.2, 0.5]}, "here")


def test_both_kinds_of_heart_are_needed(detector):
    sides = (torch.empty(0, *SHAPE), hearts(2, 0))
    with pytest.raises(EchosynError, match="0 marked and 2 unmarked"):
        fingerprint_audit(lambda z, t: z, Flow().noisy, *sides, detector, CONFIG, 0)
