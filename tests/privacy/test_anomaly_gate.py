"""The threshold of what is strange: its rate, its interval, and what is refused by it."""

import dataclasses

import numpy as np
import pytest

from echosyn.privacy.filters.anomaly_gate import calibrate_gate, require_people
from echosyn.privacy.filters.calibration import CalibrationConfig
from echosyn.privacy.filters.video_result import refusals
from echosyn.privacy.filters.video_scores import VideoScores, passes
from echosyn.runtime.errors import EchosynError

CFG = CalibrationConfig(resamples=200)


def gate(val, test, rate=0.1):
    people = [np.arange(len(side)) for side in (val, test)]
    return calibrate_gate(val, people[0], test, people[1], rate, CFG, 0)


def scores(anomaly, ncc):
    n, zero = len(anomaly), np.zeros(len(anomaly), np.int64)
    low = np.zeros(n, np.float32)
    return VideoScores(low, np.array(ncc, np.float32), *[zero] * 7, np.full(n, 8), 10,
                       np.array(anomaly))  # fmt: skip


def test_real_videos_are_refused_at_the_rate_asked_for():
    rng = np.random.default_rng(0)
    found = [gate(rng.normal(size=100), rng.normal(size=100)) for _ in range(40)]
    assert np.mean([g.false_alarm.value for g in found]) == pytest.approx(0.1, abs=0.03)
    assert np.mean([g.false_alarm.lo <= 0.1 <= g.false_alarm.hi for g in found]) >= 0.95


def test_strange_candidates_are_refused_and_counted():
    rng = np.random.default_rng(0)
    real = gate(rng.normal(size=100), rng.normal(size=100))
    candidates = np.concatenate([rng.normal(size=90), rng.normal(6, 1, 10)])
    kept = candidates[candidates < real.tau]
    numbers = real.numbers(candidates, kept, 0)
    assert 0.1 <= numbers["anomaly/refused"] == numbers["anomaly/strange"] < 0.25
    assert numbers["anomaly/strange_lo"] < numbers["anomaly/strange"]
    assert numbers["anomaly/released_auroc"] < numbers["anomaly/candidates_auroc"]
    assert numbers["anomaly/false_alarm_asked"] == 0.1
    assert numbers["anomaly/calibration_people"] == numbers["anomaly/heldout_people"] == 100


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1])
def test_where_most_are_strange_the_strangest_are_refused(share):
    rng = np.random.default_rng(0)
    real, candidates = gate(rng.normal(size=100), rng.normal(size=100)), rng.normal(9, 1, 200)
    numbers = real.at_most(candidates, share).numbers(candidates, candidates, 0)
    assert numbers["anomaly/strange"] == 1
    assert numbers["anomaly/refused"] == pytest.approx(share)
    assert real.at_most(candidates - 9, 0.5).tau == real.tau  # none needs to be spared


def test_too_few_people_say_what_to_set():
    require_people(20, 0.05)
    with pytest.raises(EchosynError, match=r"19 VAL people.* takes 20 .*`anomaly_rate`.*0\.053"):
        require_people(19, 0.05)
    with pytest.raises(EchosynError, match="hold out more people in VAL"):
        gate(np.zeros(5), np.zeros(5))


def test_a_refusal_names_each_score_that_refuses():
    found = scores([0.0, 5.0, 5.0, 0.0], [0.1, 0.1, 0.9, 0.9])
    taus = {"similarity": 1.0, "ncc": 0.5, "anomaly": 4.0}
    assert refusals(found, taus) == ["", "anomaly", "ncc+anomaly", "ncc"]
    assert passes(found, taus).tolist() == [True, False, False, False]


def test_scores_with_and_without_it_survive_the_disk(tmp_path):
    found = scores([0.0, 5.0], [0.1, 0.2])
    for one in (found, dataclasses.replace(found, anomaly=None)):
        one.save(tmp_path / "scores.npz")
        back = VideoScores.load(tmp_path / "scores.npz")
        assert back.arrays == one.arrays
        both = VideoScores.join([back, one])
        assert len(both) == 4
        assert (both.anomaly is None) == (one.anomaly is None)
        assert back.comparisons == 10
