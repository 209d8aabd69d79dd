"""Anomalies that are made of clips: seen where they are, and nothing changed elsewhere."""

import numpy as np
import pytest

from echosyn.anomaly.kinds import KINDS, Source, label, make
from echosyn.data.phantom import PhantomConfig, render_patient

CFG = PhantomConfig(train=2, val=1, test=1, frames=36, size=64)
TIME = ("pace", "reversed", "frozen")
WINDOW = 12


@pytest.fixture(scope="module")
def source():
    video, other = (render_patient(i, CFG, 0).frames[::2].astype(np.float32) for i in (0, 1))
    return Source(video, 3, WINDOW, other[:WINDOW])


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_an_anomaly_is_labelled_where_it_is(source, kind):
    seen = []
    for seed in range(5):
        clip, target = make([kind], source, rng(seed))
        assert clip.shape == source.clip.shape
        assert clip.min() >= 0
        assert clip.max() <= 255
        assert target.shape == clip.shape[1:]
        change = np.abs(clip - source.clip).mean(0)
        assert change[target < 0.01].mean() < change[target > 0.2].mean() / 3
        assert target.min() >= 0
        assert target.max() <= 1
        seen.append(target.max())
        if kind not in TIME:  # a part of the picture
            assert (target > 0.5).mean() < 0.4
    assert np.mean(seen) > 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_makes_the_same_anomaly_and_the_source_stays(source, kind):
    before = source.video.copy()
    (one, _), (again, _), (other, _) = (make([kind], source, rng(s)) for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert kind == "reversed" or not np.array_equal(one, other)
    assert np.array_equal(source.video, before)


def test_kinds_of_time_are_what_they_say(source):
    assert np.array_equal(make(["reversed"], source, rng())[0], source.clip[::-1])
    still, _ = make(["frozen"], source, rng())
    assert (np.diff(still[WINDOW // 2 :], axis=0) == 0).all()


def test_a_video_is_played_at_another_speed_and_turns_round_at_its_ends(source):
    ramp = Source(np.arange(10, dtype=np.float32)[:, None, None], 0, 5, source.other)
    assert ramp.played(0.5, 2.0).ravel().tolist() == [2, 2.5, 3, 3.5, 4]
    assert ramp.played(2.0, 5.0).ravel().tolist() == [5, 7, 9, 7, 5]
    assert ramp.played(1.0, -2.0).ravel().tolist() == [2, 1, 0, 1, 2]


def test_black_clips_and_one_colour_are_no_obstacle():
    for level in (0, 255):
        flat = np.full((20, 64, 64), level, np.float32)
        source = Source(flat, 0, WINDOW, flat[:WINDOW])
        for kind in KINDS:
            clip, target = make([kind], source, rng())
            assert np.isfinite(clip).all()
            assert np.isfinite(target).all()


def test_a_label_saturates_and_ignores_speckle():
    before = np.full((4, 64, 64), 60.0, np.float32)
    after = before.copy()
    after[:, 20:30, 20:30] += 100
    found = label(before, after)
    assert found[25, 25] > 0.99
    assert found[50, 50] == 0
    noise = before + rng().normal(0, 5, before.shape).astype(np.float32)
    assert label(before, noise).max() < 0.2
