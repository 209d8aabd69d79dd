"""The statistics behind the attacks on a release, against closed forms, brute force, simulation."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import RidgeCV

from echosyn.metrics.interval import wilson
from echosyn.privacy.attacks.attribute import PENALTIES, commonest, ridge
from echosyn.privacy.attacks.records import Records, gaps, labels_of
from echosyn.privacy.attacks.risk import Attacked, Rate, risk_numbers
from echosyn.privacy.attacks.singling_out import exactly_one, singling_out
from echosyn.runtime.errors import EchosynError

shares = st.floats(0, 1)
trials = st.floats(1, 2000)


def attacked(a: float, n: float, c: float, m: float) -> Attacked:
    return Attacked(Rate(a, n), Rate(c, m), 0.1)


# ---- shares and risks


@pytest.mark.parametrize(("hits", "n"), [(0, 12), (3, 12), (12, 12), (140, 300)])
def test_wilson_is_scipys(hits, n):
    ours = wilson(hits / n, n, 0.99)
    theirs = stats.binomtest(hits, n).proportion_ci(0.99, "wilson")
    assert (ours.lo, ours.hi) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.value == hits / n


@given(shares, trials, shares, trials, st.floats(0.5, 0.9999))
def test_a_risk_lies_in_its_interval_within_0_and_1(a, n, c, m, level):
    e = attacked(a, n, c, m).risk(level)
    assert 0 <= e.lo <= e.value + 1e-12 <= e.hi + 2e-12 <= 1 + 3e-12
    wider = attacked(a, n, c, m).risk((1 + level) / 2)
    assert wider.lo <= e.lo + 1e-12
    assert wider.hi >= e.hi - 1e-12


@given(shares, trials, shares, trials)
def test_a_risk_is_the_excess_over_what_strangers_leave(a, n, c, m):
    e = attacked(a, n, c, m).risk()
    assert e.value == pytest.approx(max((a - c) / (1 - c), 0) if c < 1 else 0, abs=1e-6)
    if a <= c:
        assert e.lo == 0


def test_risks_at_the_ends():
    certain = attacked(1.0, 300, 0.0, 140).risk()
    assert certain.value == certain.hi == 1
    assert 0.95 < certain.lo < 1
    nothing = attacked(0.0, 300, 0.0, 140).risk()
    assert (nothing.value, nothing.lo) == (0, 0)
    assert nothing.hi < 0.02
    # Everybody's attribute is known anyhow: nothing left to measure a risk by.
    always = attacked(1.0, 300, 1.0, 140).risk()
    assert (always.value, always.lo, always.hi) == (0, 0, 1)


@pytest.mark.parametrize(("a", "c"), [(0.3, 0.3), (0.6, 0.3), (0.99, 0.5), (0.02, 0.01)])
def test_intervals_of_risks_cover(a, c):
    r = np.random.default_rng(0)
    n, m, repeats = 300, 140, 1000
    found = [
        attacked(x / n, n, y / m, m).risk()
        for x, y in zip(r.binomial(n, a, repeats), r.binomial(m, c, repeats), strict=True)
    ]
    truth = (a - c) / (1 - c)
    assert np.mean([e.lo <= truth <= e.hi for e in found]) >= 0.935
    assert np.mean([e.lo > truth for e in found]) <= 0.035


def test_numbers_are_those_of_the_attacker_whose_interval_begins_highest():
    attackers = {"weak": attacked(0.3, 100, 0.3, 100), "strong": attacked(0.8, 100, 0.2, 100),
                 "unsure": attacked(0.9, 5, 0.2, 5)}  # fmt: skip
    numbers = risk_numbers("attribute", attackers, 0.95)
    for key in ("risk", "risk_lo", "risk_hi", "success", "control", "naive"):
        assert numbers[f"privacy/attribute_{key}"] == numbers[f"privacy/attribute_strong_{key}"]
    assert numbers["privacy/attribute_unsure_risk"] > numbers["privacy/attribute_risk"]
    # Each interval has a third of what may err.
    alone = attackers["strong"].risk(1 - 0.05 / 3)
    assert numbers["privacy/attribute_risk_lo"] == alone.lo
    assert risk_numbers("attribute", {}, 0.95) == {}


# ---- exactly one


@given(st.integers(3, 7), st.integers(1, 5), st.integers(0, 10**6))
def test_exactly_one_is_the_mean_over_all_groups(people, predicates, seed):
    r = np.random.default_rng(seed)
    met = r.random((people, predicates)) < r.random()
    n = int(r.integers(1, people))

    def brute(rows: np.ndarray) -> float:
        groups = [rows[list(g)].sum(0) == 1 for g in combinations(range(len(rows)), n)]
        return float(np.mean(groups))

    rate = exactly_one(met, n)
    assert rate.share == pytest.approx(brute(met))
    left_out = [brute(np.delete(met, i, 0)) for i in range(people)]
    variance = (people - 1) * np.var(left_out)
    if 0 < rate.share < 1 and variance > 1e-12:
        by_people = rate.share * (1 - rate.share) / variance
        assert rate.trials == pytest.approx(max(min(by_people, predicates), 1))
    else:
        assert rate.trials == max(min(people, predicates), 1)


def test_people_whom_many_predicates_describe_are_few_trials():
    met = np.zeros((60, 200), bool)
    met[np.arange(60), np.arange(60)] = True  # sixty people, one predicate each
    spread = exactly_one(met, 59)
    one = np.zeros((60, 200), bool)
    one[0, :60] = True  # one person meets sixty
    alone = exactly_one(one, 59)
    assert spread.share == alone.share == pytest.approx(0.3, abs=0.01)
    assert alone.trials < 3
    assert spread.trials > 100


def test_singling_out_needs_two_people_a_side():
    def some(n: int) -> Records:
        frames = np.tile(np.eye(4, dtype=np.float32)[:1], (n, 2, 1)).reshape(n, 2, 4)
        return Records(frames, labels_of([50.0] * n, [60.0] * n, [None] * n, []))

    with pytest.raises(EchosynError, match="9 TRAIN people and 1 others; it needs two of each"):
        singling_out(some(9), some(1), some(5), {"ef": 5, "rate": 5, "class": 0}, 0.1, 0)


def test_a_predicate_without_agreeing_strangers_still_needs_agreeing_labels():
    def far_apart(n: int, seed: int) -> Records:
        rows = np.random.default_rng(seed).normal(size=(n, 1, 8)).repeat(2, 1)
        frames = rows / np.linalg.norm(rows, axis=2, keepdims=True)
        ef = np.arange(n) * 12.0
        return Records(frames, labels_of(ef, [np.nan] * n, [None] * n, []))

    members, others = far_apart(9, 0), far_apart(8, 1)
    tolerances = {"ef": 5.0, "rate": 5.0, "class": 0.0}
    found = singling_out(members, others, members, tolerances, 0.5, 0)["joint"]
    # No two strangers agree in EF; each member alone meets the predicate of its copy.
    assert found.success.share == pytest.approx(7 / 9)


# ---- labels and guesses


def test_gaps_by_hand():
    frames = np.ones((3, 2, 2), np.float32)
    nan = np.nan
    a = Records(frames, labels_of([50, 60, nan], [70, nan, nan], ["x", None, None], ["x", "y"]))
    b = Records(frames, labels_of([52, 50, nan], [80, 70, nan], ["x", "y", "x"], ["x", "y"]))
    found = gaps(a, b, {"ef": 5.0, "rate": 5.0, "class": 0.0})
    assert found[0].tolist() == [2.0, np.inf, 0.0]  # the rate; another class; the class alone
    assert found[1, :2].tolist() == [1.6, 2.0]
    assert np.isnan(found[1, 2])
    assert np.isnan(found[2]).all()
    unreleased = labels_of([nan], [nan], ["z"], ["x", "y"])["class"]
    assert unreleased.tolist() == [-1.0]


def test_records_refuse_what_no_attack_can_use():
    with pytest.raises(EchosynError, match="3 videos of 1 frames"):
        Records(np.ones((3, 1, 4)), {})
    with pytest.raises(EchosynError, match="'ef': 2"):
        Records(np.ones((3, 2, 4)), {"ef": np.ones(2)})


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.sampled_from([0.0, 1.0, 5.0]))
def test_the_commonest_guess_is_right_as_often_as_any(labels, within):
    y = np.array(labels, float)
    hits = (np.abs(y[:, None] - y) <= within).sum(0)
    assert (np.abs(y - commonest(y, within)) <= within).sum() == hits.max()


@pytest.mark.parametrize("n", [8, 9, 10, 40])
def test_ridge_is_scikit_learns(n):
    r = np.random.default_rng(n)
    x, new = r.normal(size=(n, 6)), r.normal(size=(9, 6))
    y = x[:, :2] @ r.normal(size=(2, 2)) + r.normal(size=(n, 2))
    scale = np.mean(np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2)
    theirs = RidgeCV(alphas=PENALTIES * scale).fit(x, y).predict(new)
    assert ridge(x, y, [new])[0] == pytest.approx(theirs, abs=1e-8)
