"""The pointing game and IoU on maps whose answer is known; response curves and their verdict."""

import numpy as np
import pytest

from echosyn.attribution.agreement import mean_estimate, pointing_numbers, top_pixels
from echosyn.attribution.response import response_curves, response_numbers, verdict
from echosyn.metrics.interval import Estimate, wilson
from echosyn.runtime.errors import EchosynError

SEEN = np.ones((4, 10, 10), bool)


def region():
    """A fifth of the pixels."""
    mask = np.zeros((4, 10, 10), bool)
    mask[:, 2:6, 3:8] = True
    return mask


def test_a_map_of_the_region_itself_agrees_with_it():
    found = pointing_numbers(region().astype(float), region(), SEEN, 200, 0)
    assert found["pointing"] == found["iou"] == 1
    assert found["pointing_chance"] == pytest.approx(0.2)
    assert found["iou_chance"] == pytest.approx(0.2 / 1.8)
    assert found["pointing_lo"] == pytest.approx(wilson(1.0, 4).lo)


def test_maps_of_chance_agree_as_often_as_is_said():
    rng = np.random.default_rng(0)
    many = np.repeat(region()[:1], 3000, axis=0)
    found = pointing_numbers(rng.random(many.shape), many, np.ones_like(many), 100, 0)
    assert found["pointing"] == pytest.approx(found["pointing_chance"], abs=0.02)
    assert found["iou"] == pytest.approx(found["iou_chance"], abs=0.005)


def test_half_of_the_region_and_as_much_beside_it():
    found = pointing_numbers(np.roll(region(), 2, axis=1).astype(float), region(), SEEN, 100, 0)
    assert found["iou"] == pytest.approx(1 / 3)


def test_a_map_of_nothing_is_a_miss():
    found = pointing_numbers(np.zeros((4, 10, 10)), region(), SEEN, 100, 0)
    assert found["pointing"] == found["iou"] == 0


def test_what_is_not_seen_is_neither_pointed_at_nor_counted():
    seen = SEEN.copy()
    seen[:, 8:] = False
    values = np.zeros((4, 10, 10))
    values[:, 9, 9] = 5
    values[:, 3, 4] = 1
    found = pointing_numbers(values, region(), seen, 100, 0)
    assert found["pointing"] == 1
    assert found["pointing_chance"] == pytest.approx(0.25)
    assert top_pixels(values[0], seen[0], 1)[3, 4]


def test_masks_of_another_size_are_refused_with_the_remedy():
    with pytest.raises(EchosynError, match=r"maps of \(10, 10\) pixels, but masks of \(5, 5\).*in"):
        pointing_numbers(np.zeros((4, 10, 10)), region()[:, :5, :5], SEEN, 100, 0)


def test_a_mean_leaves_out_what_was_not_measured():
    found = mean_estimate(np.array([1.0, 3.0, np.nan]), 500, 0)
    assert found.value == 2
    assert (found.lo, found.hi) == (1, 3)
    assert np.isnan(mean_estimate(np.full(2, np.nan), 100, 0).value)


ASKED = np.linspace(30, 70, 5)


def shown(slope=1.0, noise=0.0, seed=0, hearts=40):
    """EF (hearts, levels, rates, noises)."""
    drawn = np.random.default_rng(seed).standard_normal((hearts, 1, 2, 2))
    return 50 + slope * (ASKED - 50)[:, None, None] + noise * drawn


def test_a_model_that_obeys():
    found = response_numbers(ASKED, shown(0.9, 1.0), 300, 0)
    assert found["slope"] == pytest.approx(0.9, abs=0.05)
    assert found["monotone"] > 0.95
    assert found["spearman"] > 0.98
    assert found["monotone_chance"] == pytest.approx(1 / 120)


def test_a_trace_of_a_dependence_is_no_order():
    """With the noise held, these curves would all rise."""
    faint = shown(1e-4, 3.0)
    assert (np.diff(faint, axis=1) > 0).all()
    found = response_numbers(ASKED, faint, 300, 0)
    assert found["monotone"] <= found["monotone_chance"]
    assert found["spearman"] == pytest.approx(found["spearman_chance"], abs=0.15)
    assert found["spearman_chance"] == pytest.approx(0.5)
    assert found["slope_hi"] < 0.5


def test_curves_of_chance_rise_as_often_as_is_said():
    rng = np.random.default_rng(1)
    found = response_numbers(ASKED[:3], rng.standard_normal((3000, 3, 1, 3)), 100, 0)
    assert found["monotone"] == pytest.approx(1 / 6, abs=0.02)


def test_each_level_of_a_curve_has_the_next_noise():
    marked = np.arange(3)[:, None, None] * 10 + np.arange(2)  # level, noise
    curves = response_curves(marked[None])
    assert curves.tolist() == [[[0, 11, 20], [1, 10, 21]]]


def test_videos_without_an_ef_are_counted_and_their_curves_do_not_rise():
    some = shown()
    some[:, 2, 0, 0] = np.nan
    found = response_numbers(ASKED, some, 300, 0)
    assert found["shown"] == pytest.approx(0.95)
    assert found["monotone"] == pytest.approx(0.75)
    assert found["slope"] == pytest.approx(1)
    none = response_numbers(ASKED, np.full((3, 5, 1, 2), np.nan), 300, 0)
    assert "slope" not in none


@pytest.mark.parametrize(
    ("slope", "words"),
    [
        ((0.9, 0.8, 1.0), "follows EF"),
        ((0.3, 0.2, 0.4), "follows EF weakly"),
        ((0.02, -0.05, 0.08), "ignores EF"),
        ((0.3, -0.2, 0.8), "not told apart from ignoring EF: more hearts or seeds are needed"),
        ((float("nan"),) * 3, "no EF could be measured in its videos"),
    ],
)
def test_the_verdict(slope, words):
    assert verdict(Estimate(*slope)) == words
