"""Distances within bands of EF see whether what was drawn has the EF asked for."""

import numpy as np
import pytest

from echosyn.metrics.bands import band_distances, ef_bands
from echosyn.metrics.frechet import frechet_distance, frechet_interval
from echosyn.metrics.interval import Estimate
from echosyn.metrics.kernel import kernel_distance
from echosyn.runtime.errors import EchosynError

BANDS = ["ef_lt40", "ef_40to55", "ef_ge55"]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def population(n: int, seed: int, lo: float = 20.0, hi: float = 75.0):
    """Features (n, 6) of videos of EF (n,), to which four of them bear a relation."""
    ef = rng(seed).uniform(lo, hi, n)
    features = rng(seed + 1000).normal(size=(n, 6))
    features[:, :4] += ((ef - 50) / 10)[:, None] * np.array([1.0, 0.5, -0.7, 0.3])
    return features, ef


@pytest.mark.parametrize("distance", [kernel_distance, frechet_interval])
def test_shuffled_ef_is_seen_within_bands_and_nowhere_else(distance):
    real, real_ef = population(240, 0)
    fake, fake_ef = population(240, 1)
    wrong_ef = rng(2).permutation(fake_ef)
    right = band_distances(distance, real, fake, real_ef, fake_ef)
    wrong = band_distances(distance, real, fake, real_ef, wrong_ef)
    # All that the distance over all videos is given is the same.
    whole = distance(real, fake)
    assert whole.lo < distance(real, real[::-1]).value + 1
    assert wrong.conditional.lo > right.conditional.hi
    assert wrong.conditional.lo > whole.hi
    for outer in ("ef_lt40", "ef_ge55"):
        assert wrong.bands[outer].lo > right.bands[outer].hi


def test_another_distribution_of_ef_alone_is_no_fault():
    values, whole = [], []
    for seed in range(24):
        real, real_ef = population(200, 3 * seed)
        # The same hearts by EF, but far more of them fail.
        many, many_ef = population(600, 3 * seed + 1)
        keep = rng(seed).random(600) < np.where(many_ef < 40, 0.9, 0.2)
        fake, fake_ef = many[keep], many_ef[keep]
        made = band_distances(kernel_distance, real, fake, real_ef, fake_ef)
        values.append(made.conditional.value)
        n = min(len(real), len(fake))
        whole.append(kernel_distance(real[:n], fake[:n]).value)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(24)
    assert np.mean(whole) > 10 * abs(np.mean(values))


def test_both_sides_of_a_band_have_the_same_number_of_videos():
    real_ef = np.array([30.0] * 12 + [50.0] * 30 + [60.0] * 58)
    fake_ef = np.array([30.0] * 40 + [50.0] * 10 + [60.0] * 50)
    features = np.arange(100.0)[:, None]
    seen = []

    def distance(a: np.ndarray, b: np.ndarray) -> Estimate:
        seen.append((a[:, 0], b[:, 0]))
        return Estimate(float(len(a)), len(a) - 1.0, len(a) + 2.0)

    made = band_distances(distance, features, features, real_ef, fake_ef)
    assert [(len(a), len(b)) for a, b in seen] == [(12, 12), (10, 10), (50, 50)]
    assert made.counts == dict(zip(BANDS, (12, 10, 50), strict=True))
    a, b = seen[0]
    assert a.tolist() == list(range(12))
    assert len(np.unique(b)) == 12
    assert (b[0], b[-1]) == (0, 39)  # spread over the longer side
    # Weighted by the shares of the real videos, 12, 30 and 58 %; errors add in squares.
    assert made.conditional.value == pytest.approx(0.12 * 12 + 0.30 * 10 + 0.58 * 50)
    error = 1.5 * np.sqrt(0.12**2 + 0.30**2 + 0.58**2)
    assert made.conditional.hi - made.conditional.value == pytest.approx(error)
    assert made.conditional.value - made.conditional.lo == pytest.approx(error)
    assert made.share == 1
    assert sorted(made.flat("kd_motion_32f")) == sorted(
        [
            f"kd_motion_32f_{name}{end}"
            for name in ("ef_lt40_n12x12", "ef_40to55_n10x10", "ef_ge55_n50x50", "ef_conditional")
            for end in ("", "_lo", "_hi")
        ]
        + ["kd_motion_32f_ef_conditional_share"]
    )


def test_bands_with_too_few_videos_are_left_out_and_listed():
    real, real_ef = population(60, 6, lo=45)
    fake, fake_ef = population(60, 7)
    made = band_distances(kernel_distance, real, fake, real_ef, fake_ef)
    assert made.left_out == {"ef_lt40": (0, int(np.sum(fake_ef < 40)))}
    assert list(made.bands) == BANDS[1:]
    assert made.share == 1
    short = band_distances(kernel_distance, real, fake, real_ef, fake_ef, minimum=30)
    middle = np.sum((real_ef >= 40) & (real_ef < 55))
    assert list(short.bands) == []
    assert short.left_out["ef_40to55"][0] == middle
    assert np.isnan(short.conditional.value)
    assert short.flat("kd") == {}
    assert short.share == 0


def test_one_band_is_the_distance_of_its_videos():
    real, real_ef = population(80, 8)
    fake, fake_ef = population(80, 9)
    made = band_distances(frechet_interval, real, fake, real_ef, fake_ef, edges=(50,))
    below = [np.flatnonzero(ef < 50) for ef in (real_ef, fake_ef)]
    n = min(map(len, below))
    a, b = (
        x[rows[np.linspace(0, len(rows) - 1, n).round().astype(int)]]
        for x, rows in zip((real, fake), below, strict=True)
    )
    assert made.bands["ef_lt50"].value == pytest.approx(frechet_distance(a, b))
    assert made.counts["ef_lt50"] == n


def test_bands_share_every_ef_once():
    bands = ef_bands((35, 42.5, 55))
    assert [b.name for b in bands] == ["ef_lt35", "ef_35to42p5", "ef_42p5to55", "ef_ge55"]
    ef = np.array([-5.0, 34.9, 35.0, 42.5, 54.999, 55.0, 120.0])
    assert np.array_equal(sum(b.holds(ef).astype(int) for b in bands), np.ones(7))
    assert bands[1].holds(ef).tolist() == [False, False, True, False, False, False, False]
    assert [b.name for b in ef_bands()] == BANDS


@pytest.mark.parametrize("edges", [(), (55, 40), (40, 40), (0, 50), (50, 100), (40, np.nan)])
def test_edges_that_make_no_bands_are_refused(edges):
    with pytest.raises(EchosynError, match="must rise within 0 to 100"):
        ef_bands(edges)


def test_ef_that_does_not_pair_is_refused():
    x, ef = np.zeros((20, 2)), np.full(20, 50.0)
    gap = ef.copy()
    gap[3] = np.nan
    for args, match in (
        ((x, x, ef[:5], ef), "20 rows of real features and EF of shape"),
        ((x, x, ef, ef[:, None]), "20 rows of fake features"),
        ((x, x, ef, gap), "EF of fake video 3 is nan"),
    ):
        with pytest.raises(EchosynError, match=match):
            band_distances(kernel_distance, *args)


def test_a_band_uses_at_most_as_many_videos_as_it_may_and_names_keep_their_ending():
    ef = np.linspace(20, 75, 90)
    features = np.random.default_rng(0).normal(size=(90, 3))
    free = band_distances(kernel_distance, features, features[::-1], ef, ef[::-1])
    most = {"ef_lt40": 12, "ef_40to55": 12, "ef_ge55": 7}
    held = band_distances(kernel_distance, features, features[::-1], ef, ef[::-1], most=most)
    assert min(free.counts.values()) > 12
    assert held.counts == {"ef_lt40": 12, "ef_40to55": 12}
    assert list(held.left_out) == ["ef_ge55"]
    keys = held.flat("kd_x", "_floor")
    assert "kd_x_ef_lt40_n12x12_floor" in keys
    assert "kd_x_ef_conditional_floor_lo" in keys
