"""Shares of variance against designs whose shares are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from echosyn.attribution.variance import variance_shares

NAMES = ["heart", "ef", "noise"]


def values(y):
    found = variance_shares(y, NAMES)
    return {name: (first.value, total.value) for name, (first, total) in found.items()}


def parts(seed=0, shape=(9, 5, 3), width=4):
    """Effects of each factor alone, of mean 0 over its levels."""
    rng = np.random.default_rng(seed)
    made = []
    for axis, levels in enumerate(shape):
        effect = rng.standard_normal((levels, width))
        at = [1, 1, 1, width]
        at[axis] = levels
        made.append((effect - effect.mean(axis=0)).reshape(at))
    return made


def test_what_only_adds_has_its_share_of_the_variance():
    """V_k / V of each, first order and total, as without interactions they are the same."""
    heart, ef, noise = parts()
    found = values(3 * heart + 2 * ef + noise + 7)
    of = [9 * np.square(heart).mean((0, 1, 2)).sum(), 4 * np.square(ef).mean((0, 1, 2)).sum(),
          np.square(noise).mean((0, 1, 2)).sum()]  # fmt: skip
    for name, part in zip(NAMES, of, strict=True):
        assert found[name] == pytest.approx((part / sum(of),) * 2)


def test_an_interaction_counts_in_the_totals_alone():
    """EF moves every heart its own way: with few hearts its mean effect is not 0, but no sign of
    one either."""
    drawn = []
    for seed in range(20):
        ef, heart = parts(seed)[1], np.random.default_rng(seed).standard_normal((9, 1, 1, 1))
        drawn.append(values(heart * ef * np.ones((1, 1, 3, 1)))["ef"])
    first, total = np.mean(drawn, axis=0)
    assert abs(first) < 0.06  # 0.11 without the correction
    assert total > 0.9


def test_hearts_that_disagree_widen_the_interval():
    heart, ef, noise = parts()
    alike = variance_shares(ef + 0.1 * noise + 0 * heart, NAMES)["ef"][0]
    apart = variance_shares(ef * (1 + 2 * heart) + 0.1 * noise, NAMES)["ef"][0]
    assert alike.hi - alike.lo < 1e-6
    assert apart.hi - apart.lo > 0.05
    assert apart.lo <= apart.value <= apart.hi


def test_nothing_that_varies_has_no_shares():
    found = values(np.ones((4, 2, 2, 5)))
    assert all(np.isnan(v).all() for v in found.values())


@given(arrays(np.float64, (4, 2, 2, 2), elements=st.floats(-1e3, 1e3)))
def test_a_first_order_share_is_at_most_the_total_and_they_make_no_more_than_all(y):
    found = values(y)
    if np.isnan(found["heart"][0]):
        return
    for first, total in found.values():
        assert first <= total + 1e-9
        assert -1e-9 <= total <= 1 + 1e-9
    assert sum(first for first, _ in found.values()) <= 1 + 1e-9
