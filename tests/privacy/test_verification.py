"""Recall at a rate of false matches, against its closed form and brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from echosyn.privacy.detectors.similarity import unit_rows
from echosyn.privacy.detectors.verification import (
    LEAST_PAIRS,
    RECALL,
    Threshold,
    _different_pairs,
    verification_scores,
)


def people_embeddings(
    people: int, frames: int, seed: int = 0, spread: float = 0.5, d: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings around one random direction per person, and the person of each."""
    r = np.random.default_rng(seed)
    centres = np.repeat(r.normal(size=(people, d)), frames, axis=0)
    rows = unit_rows(centres + spread * r.normal(size=centres.shape), "cosine")
    return rows, np.repeat(np.arange(people), frames)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.2])
@pytest.mark.parametrize("distance", [0.0, 2.0, 4.0])
def test_two_gaussians_give_the_closed_form(distance, rate):
    levels = norm.ppf((np.arange(200_000) + 0.5) / 200_000)  # the distributions themselves
    found = Threshold(levels + distance, levels, rate)
    threshold = norm.isf(rate)
    assert found.score() == pytest.approx(threshold, abs=0.01)
    assert found.recall() == pytest.approx(norm.sf(threshold - distance), abs=0.002)


SCORES = st.lists(st.integers(0, 8), min_size=1, max_size=25)


@settings(max_examples=200, deadline=None)
@given(SCORES, SCORES, st.sampled_from([0.001, 0.1, 0.25, 0.5]), st.integers(0, 10**6))
def test_no_threshold_within_the_rate_recognises_more(same, different, rate, seed):
    r = np.random.default_rng(seed)
    p, n = np.array(same, float), np.array(different, float)
    for wp, wn in ((None, None), (r.integers(0, 3, len(p)) + 0.0, r.integers(0, 3, len(n)) + 0.0)):
        if wp is not None and not (wp.any() and wn.any()):
            continue
        best = max(
            np.average(p > t, weights=wp)
            for t in np.arange(-1, 10) + 0.5
            if np.average(n > t, weights=wn) <= rate
        )
        found = Threshold(p, n, rate)
        assert found.recall(wp, wn) == pytest.approx(best)
        assert np.average(n > found.score(wn), weights=wn) <= rate


@settings(max_examples=50, deadline=None)
@given(SCORES, SCORES, st.integers(0, 10**6))
def test_weights_are_repetitions(same, different, seed):
    r = np.random.default_rng(seed)
    p, n = np.array(same, float), np.array(different, float)
    wp, wn = r.integers(1, 4, len(p)), r.integers(1, 4, len(n))
    repeated = Threshold(np.repeat(p, wp), np.repeat(n, wn), 0.2).recall()
    assert Threshold(p, n, 0.2).recall(wp + 0.0, wn + 0.0) == pytest.approx(repeated)


def test_recall_is_measured_from_enough_pairs_of_people():
    assert RECALL not in verification_scores(*people_embeddings(77, 2), seed=0, resamples=5)
    assert RECALL in verification_scores(*people_embeddings(78, 2), seed=0, resamples=5)
    assert 77 * 76 // 2 < LEAST_PAIRS <= 78 * 77 // 2
    # Frames do not make up for people, nor pairs that were not looked at for those that were.
    assert RECALL not in verification_scores(*people_embeddings(40, 20), seed=0, resamples=5)
    few = verification_scores(*people_embeddings(90, 4), seed=0, max_pairs=2000, resamples=5)
    assert RECALL not in few


def test_recall_falls_with_spread_and_is_all_pairs():
    found = []
    for spread in (0.05, 0.3, 0.8):
        x, people = people_embeddings(80, 3, spread=spread)
        found.append(verification_scores(x, people, seed=0, resamples=100)[RECALL])
    assert found[0].value == 1
    assert found[0].value > found[1].value > found[2].value
    i, j = np.triu_indices(len(x), 1)
    similarity, same = (x @ x.T)[i, j], people[i] == people[j]
    others = np.sort(similarity[~same])
    threshold = others[len(others) - 1 - int(0.001 * len(others))]
    assert found[2].value == pytest.approx((similarity[same] > threshold).mean())
    assert found[2].lo < found[2].value < found[2].hi


@pytest.mark.slow
def test_the_interval_covers_the_value_of_the_population():
    x, _ = people_embeddings(4000, 2, seed=99)
    a, b = x[::2], x[1::2]
    others = np.concatenate([np.einsum("nd,nd->n", a, np.roll(b, k, 0)) for k in range(1, 50)])
    truth = Threshold(np.einsum("nd,nd->n", a, b), others, 0.001).recall()
    covered = 0
    for seed in range(25):
        sample = people_embeddings(100, 2, seed=seed)
        e = verification_scores(*sample, seed=seed, resamples=60)[RECALL]
        covered += e.lo <= truth <= e.hi
    assert covered >= 20


def test_probes_stand_in_for_the_first_of_each_pair():
    x, people = people_embeddings(80, 3, spread=0.2)
    plain = verification_scores(x, people, seed=0, resamples=5)
    assert verification_scores(x, people, seed=0, resamples=5, probes=x) == plain
    strangers = np.random.default_rng(5).normal(size=x.shape)
    lost = verification_scores(
        x, people, seed=0, resamples=50, probes=unit_rows(strangers, "cosine")
    )
    assert lost["auc"].lo < 0.5 < lost["auc"].hi
    assert lost[RECALL].value < 0.05


def test_one_person_of_nearly_all_videos_has_all_its_pairs():
    """Too few pairs of two people to draw the usual number from; drawing never ended."""
    rows, person = people_embeddings(2, 400)
    person = np.where(np.arange(800) < 730, 0, 1)
    found = verification_scores(rows, person, seed=0)
    assert found["auc"].lo <= found["auc"].value <= found["auc"].hi


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30), st.integers(1, 600))
def test_pairs_of_two_people_are_all_of_them_or_as_many_as_asked(person, limit):
    person = np.array(person)
    every = [(i, j) for j in range(len(person)) for i in range(j) if person[i] != person[j]]
    found = _different_pairs(person, limit, np.random.default_rng(0))
    assert len(found) == min(limit, len(every))
    assert {tuple(p) for p in found.tolist()} <= set(every)
    assert len({tuple(p) for p in found.tolist()}) == len(found)
