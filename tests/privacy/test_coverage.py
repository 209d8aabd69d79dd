"""Coverage: occupancy, extrapolation, bands and videos, against exact counts and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from echosyn.metrics.bands import ef_bands
from echosyn.metrics.interval import Estimate
from echosyn.privacy.coverage import irs
from echosyn.privacy.coverage.learned_fraction import (
    band_fractions,
    coverage_numbers,
    learned_fraction,
    nearest_to_videos,
    nearest_videos,
)
from echosyn.privacy.detectors.similarity import unit_rows
from echosyn.runtime.errors import EchosynError


def draws(of: int, queries: int, seed: int) -> np.ndarray:
    """Queries that each retrieve one of the first `of` videos, evenly."""
    return np.random.default_rng(seed).integers(0, of, queries)


def exact_occupancy(size: int, n: int) -> np.ndarray:
    """P(j distinct after n even draws), j from 0, one draw after the other."""
    p = np.zeros(n + 1)
    p[0] = 1
    j = np.arange(n + 1)
    for _ in range(n):
        p = p * j / size + np.append(0, p[:-1] * (size - j[:-1]) / size)
    return p


# ---- the occupancy distribution


@pytest.mark.parametrize(("size", "n"), [(3, 12), (40, 25), (40, 200), (500, 60)])
def test_occupancy_is_the_exact_distribution(size, n):
    stirling = irs._log_stirling(n, min(n, 2 * size))
    p = irs._occupancy(size, n, stirling)
    exact = exact_occupancy(size, n)[1 : len(p) + 1]
    assert p == pytest.approx(exact, abs=2e-3)
    j = np.arange(1, len(p) + 1)
    assert p @ j == pytest.approx(size * irs.uniform_expectation(size, n), rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 4), st.data())
def test_rarefaction_is_hypergeometric(counts, times, data):
    counts = np.array(counts)
    n = int(counts.sum()) + data.draw(st.integers(0, 5))
    at = data.draw(st.integers(1, n))
    expected = sum(hypergeom.pmf(times, n, x, at) for x in counts)
    assert irs.rarefied(counts, n, at, times) == pytest.approx(expected, abs=1e-9)


# ---- extrapolation


@pytest.mark.parametrize(("known", "queries"), [(50, 400), (200, 150), (700, 900)])
def test_uniform_retrieval_recovers_the_known_number(known, queries):
    estimates = [irs.irs_infinity(draws(known, queries, s), 1000, None) for s in range(40)]
    covered = sum(e.lo <= known / 1000 <= e.hi for e in estimates)
    assert covered >= 36  # 95 % of 40, less three
    assert np.median([e.value for e in estimates]) == pytest.approx(known / 1000, rel=0.1)
    bounds = [irs.chao1(draws(known, queries, s), 1000) for s in range(40)]
    assert sum(e.lo <= known / 1000 <= e.hi for e in bounds) >= 34


def test_a_collapsed_generator_covers_its_modes_only():
    nearest = np.repeat(np.arange(7), 60)
    for measured in (irs.irs_infinity, irs.chao1):
        assert measured(nearest, 100) == Estimate(0.07, 0.07, pytest.approx(0.07, abs=1e-6))
    assert learned_fraction(nearest, 100, 0).value == pytest.approx(0.07)


def test_queries_that_never_repeat_say_only_how_many_there_are_at_least():
    e = irs.irs_infinity(np.arange(30), 1000)
    assert e.value == e.hi == 1.0
    assert 0.03 < e.lo < 0.3
    # P(30 draws of K are all distinct) is just 2.5 % at the lower end.
    below = round(e.lo * 1000) - 1
    assert exact_occupancy(below, 30)[30] < 0.025 <= exact_occupancy(below + 1, 30)[30] + 5e-4


def test_uneven_retrieval_is_extrapolated_too_low_and_never_above_the_truth():
    r = np.random.default_rng(0)
    p = r.exponential(size=400) ** 2
    nearest = r.choice(400, 1500, p=p / p.sum())
    seen = len(np.unique(nearest)) / 400
    assert seen <= irs.irs_infinity(nearest, 400).value <= irs.chao1(nearest, 400).value <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.data())
def test_monotone_in_queries_and_in_order(nearest, data):
    nearest = np.array(nearest)
    at = data.draw(st.integers(1, len(nearest)))
    more = data.draw(st.integers(at, len(nearest)))
    fewer, all_ = (learned_fraction(nearest, 40, 0, a, resamples=20) for a in (at, more))
    assert fewer.value <= all_.value + 1e-12
    for estimate in (irs.irs_infinity(nearest, 40, at), irs.chao1(nearest, 40, at)):
        assert fewer.value - 1e-9 <= estimate.value <= 1
        assert 0 < estimate.lo <= estimate.value <= estimate.hi <= 1


def test_more_distinct_videos_mean_a_larger_extrapolation():
    values = [irs.irs_infinity(np.arange(200) % k, 300).value for k in (5, 20, 80, 150)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_real_against_real_is_near_one_and_half_the_patients_near_a_half():
    ratios, halves = [], []
    for seed in range(30):
        real = irs.irs_infinity(draws(300, 400, 100 + seed), 300)
        same = irs.irs_infinity(draws(300, 400, seed), 300)
        half = irs.irs_infinity(draws(150, 400, seed), 300)
        ratios.append(irs.adjusted(same, real))
        halves.append(irs.adjusted(half, real))
    assert sum(r.lo <= 1 <= r.hi for r in ratios) >= 27
    assert np.mean([h.value for h in halves]) == pytest.approx(0.5, abs=0.05)
    assert all(h.hi < 0.8 for h in halves)


def test_a_ratio_joins_both_intervals_on_the_log_scale():
    ratio = irs.adjusted(Estimate(0.5, 0.4, 0.6), Estimate(0.8, 0.7, 1.0))
    assert ratio.value == 0.625
    assert ratio.lo == pytest.approx(0.625 / np.exp(np.hypot(np.log(5 / 4), np.log(5 / 4))))
    assert ratio.hi == pytest.approx(0.625 * np.exp(np.hypot(np.log(6 / 5), np.log(8 / 7))))


def test_uniform_expectation_is_what_even_queries_find():
    found = [learned_fraction(draws(200, 150, s), 200, 0, resamples=2).value for s in range(200)]
    assert np.mean(found) == pytest.approx(irs.uniform_expectation(200, 150), abs=0.01)
    assert irs.uniform_expectation(1, 5) == 1.0


def test_impossible_counts_are_refused():
    for measured in (irs.irs_infinity, irs.chao1):
        with pytest.raises(EchosynError, match="at 5 queries, of 3"):
            measured(np.arange(3), 10, 5)
        with pytest.raises(EchosynError, match="3 distinct videos retrieved from a gallery of 2"):
            measured(np.arange(3), 2)
        with pytest.raises(EchosynError, match="of 0 that exist"):
            measured(np.array([]), 2)


# ---- bands of EF


def test_bands_share_out_the_learned_fraction():
    ef = np.linspace(20, 80, 120)
    nearest = draws(90, 200, 0)
    found = band_fractions(nearest, ef, seed=0, at=80)
    sizes = {b.name: b.holds(ef).sum() for b in ef_bands()}
    total = sum(found[name].value * size for name, size in sizes.items()) / 120
    assert total == pytest.approx(learned_fraction(nearest, 120, 0, at=80).value)


def test_a_range_of_patients_that_is_never_shown_is_seen():
    ef = np.repeat([30.0, 50.0, 65.0], 50)
    nearest = 50 + draws(100, 300, 0)  # no patient below 40 %
    found = band_fractions(nearest, ef, seed=0)
    assert found["ef_lt40"].value == found["ef_lt40"].lo == 0
    # Up to 300 (1 - 0.025^(1/300)) = 3.67 of 50 could have been missed by chance.
    assert found["ef_lt40"].hi == pytest.approx(3.67 / 50, abs=1e-3)
    assert found["ef_40to55"].value > 0.8
    numbers = coverage_numbers(nearest, draws(150, 300, 1), 150, 0, ef)
    assert numbers["coverage/bands_absent"] == 1
    assert (
        numbers["coverage/ef_lt40/learned_fraction_hi"]
        < (numbers["coverage/ef_lt40/learned_fraction_real_lo"])
    )
    assert numbers["coverage/ef_lt40/videos"] == 50


def test_band_intervals_cover_repeated_draws():
    ef = np.repeat([30.0, 65.0], [40, 160])
    expected = 1 - (1 - 1 / 200) ** 150
    covered = 0
    for seed in range(50):
        found = band_fractions(draws(200, 150, seed), ef, seed, resamples=200)["ef_lt40"]
        covered += found.lo <= expected <= found.hi
    assert covered >= 42


def test_bands_without_patients_are_left_out_and_foreign_rows_refused():
    ef = np.array([30.0, np.nan, 65.0])
    assert set(band_fractions(np.array([0, 1, 2]), ef, 0)) == {"ef_lt40", "ef_ge55"}
    with pytest.raises(EchosynError, match="nearest video 3 of 3"):
        band_fractions(np.array([3]), ef, 0)


# ---- all numbers


def test_numbers_are_at_matched_queries_and_bounded():
    synthetic, real = draws(20, 500, 0), draws(60, 80, 1)
    numbers = coverage_numbers(synthetic, real, 60, 0, prefix="coverage/videos")
    assert numbers["coverage/videos/queries"] == 80
    assert numbers["coverage/videos/learned_fraction"] <= 20 / 60
    assert numbers["coverage/videos/irs_inf"] == pytest.approx(20 / 60, abs=0.02)
    assert numbers["coverage/videos/irs_adjusted_hi"] < 0.6
    assert not any("ef_" in key for key in numbers)
    assert all(np.isfinite(v) for v in numbers.values())
    assert not any(
        "ef_" in k for k in coverage_numbers(synthetic, real, 60, 0, np.full(60, np.nan))
    )


# ---- videos as queries


def embeddings(n: int, seed: int) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, 6)), "cosine")


@pytest.mark.parametrize("by", ["mean", "max"])
@pytest.mark.parametrize("cells", [1, 50, 10**6])
def test_nearest_to_videos_is_brute_force_for_any_block(by, cells, monkeypatch):
    monkeypatch.setattr("echosyn.privacy.coverage.learned_fraction.CELLS", cells)
    r = np.random.default_rng(0)
    q, g = embeddings(33, 1), embeddings(41, 2)
    q_of, g_of = r.integers(0, 7, 33), r.integers(10, 19, 41)
    expected = []
    for video in np.unique(q_of):
        similarity = q[q_of == video] @ g.T
        per = np.stack([similarity[:, g_of == v].max(1) for v in np.unique(g_of)])
        score = per.mean(1) if by == "mean" else per.max(1)
        expected.append(np.unique(g_of)[score.argmax()])
    assert nearest_to_videos(q, q_of, g, g_of, by).tolist() == expected


@pytest.mark.parametrize("by", ["mean", "max"])
def test_videos_of_one_frame_are_hearts(by):
    q, g = embeddings(12, 1), embeddings(30, 2)
    videos = np.repeat(np.arange(10), 3)
    hearts = nearest_videos(q, g, videos)
    assert (nearest_to_videos(q, np.arange(12), g, videos, by) == hearts).all()


def test_one_copied_frame_decides_by_max_only():
    g = np.eye(4, dtype=np.float32)
    videos = np.array(["copied", "alike", "alike", "alike"])
    like = unit_rows(np.array([[0.3, 1, 0, 0], [0.3, 0, 1, 0]]), "cosine")
    q = np.concatenate([g[:1], like])
    assert nearest_to_videos(q, np.zeros(3), g, videos, "max").tolist() == ["copied"]
    assert nearest_to_videos(q, np.zeros(3), g, videos, "mean").tolist() == ["alike"]


def test_videos_need_both_sides():
    x = embeddings(2, 0)
    with pytest.raises(EchosynError, match="0 query and 2 gallery"):
        nearest_to_videos(x[:0], np.arange(0), x, np.arange(2))
    with pytest.raises(ValueError, match="neither mean nor max"):
        nearest_to_videos(x, np.arange(2), x, np.arange(2), "median")
