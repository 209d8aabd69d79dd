"""The outcome: every check can pass, fail, be too uncertain and be missing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_project import AUDITED as GOOD

from echosyn.privacy.gate.checks import CHECKS
from echosyn.privacy.gate.requirements import FAIL, MISSING, PASS, WIDE, Thresholds, hold_against
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError

BAD = {  # what makes each check fail
    "planted_exact": {"privacy/planted_exact_recall": 0.98},
    "planted_light": {"privacy/planted_light_recall": 0.94},
    "planted_videos_exact": {"privacy_videos/planted_exact_recall": 0.98},
    "planted_videos_light": {"privacy_videos/planted_light_recall": 0.94},
    "planted_videos_rebuilt": {"privacy_videos/planted_rebuilt_recall": 0.98},
    "false_rejection": {"privacy/false_rejection_heldout_lo": 0.051},
    "false_rejection_videos": {
        "privacy_videos/false_rejection_heldout_lo": 0.051,
        "privacy_videos/false_rejection_heldout_hi": 0.2,
    },
    "rejection": {"privacy/rejection_rate": 0.51},
    "rejection_videos": {"privacy_videos/rejection_rate": 0.51},
    "membership": {"privacy/membership_auc_lo": 0.51},
    "dcr_share": {"privacy/membership_dcr_share_lo": 0.51},
    "nearest_neighbour": {"privacy/membership_nn_auc_hi": 0.44},
    "loss": {"privacy/membership_loss_auc_lo": 0.501},
    "attribute": {"privacy/attribute_risk_lo": 0.01},
    "singling_out": {"privacy/singling_out_risk_lo": 0.01},
    "linkability": {"privacy/linkability_risk_lo": 0.01},
    "canary": {"privacy/canary_relative": 0.6},
}
NARROW = [c for c in CHECKS if c.narrow]


def results(numbers, thresholds=Thresholds()):  # noqa: B008 (frozen)
    outcome = hold_against(numbers, thresholds)
    return {f.check.name: f.result for f in outcome.findings}, outcome


def test_a_good_release_passes_every_check():
    found, outcome = results(GOOD)
    assert set(found.values()) == {PASS}
    assert outcome.passed
    outcome.enforce("the release")
    assert outcome.numbers() == {
        "privacy/gate_passed": 1.0,
        "privacy/checks_passed": len(CHECKS),
        "privacy/checks_failed": 0.0,
        "privacy/checks_not_measured": 0.0,
    }


@pytest.mark.parametrize("name", [c.name for c in CHECKS])
def test_each_check_alone_fails_the_release(name):
    found, outcome = results({**GOOD, **BAD[name]})
    assert [k for k, v in found.items() if v != PASS] == [name]
    assert found[name] == FAIL
    assert not outcome.passed
    with pytest.raises(EchosynError, match=rf"the release fails 1 privacy checks:\n  {name}: fail"):
        outcome.enforce("the release")


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.name)
def test_what_was_not_measured_fails_unless_optional(check):
    without = {k: v for k, v in GOOD.items() if k != check.key}
    found, outcome = results(without)
    assert found[check.name] == MISSING
    assert outcome.passed == (check.name == "canary")
    assert outcome.numbers()["privacy/checks_not_measured"] == 1.0
    _, lenient = results(without, Thresholds(optional=(check.name,)))
    assert lenient.passed
    _, strict = results(without, Thresholds(optional=()))
    assert not strict.passed


def test_nothing_measured_fails_everything():
    found, outcome = results({})
    assert set(found.values()) == {MISSING}
    assert len(outcome.failures()) == len(CHECKS) - 1


def test_an_interval_or_target_that_is_missing_is_not_a_pass():
    found, _ = results({k: v for k, v in GOOD.items() if k != "privacy/membership_auc_lo"})
    assert found["membership"] == MISSING
    found, _ = results({k: v for k, v in GOOD.items() if not k.endswith("_calibrated")})
    assert found["false_rejection"] == MISSING
    found, _ = results({**GOOD, "privacy/planted_exact_recall": float("nan")})
    assert found["planted_exact"] == MISSING


@pytest.mark.parametrize("check", NARROW, ids=lambda c: c.name)
def test_an_interval_that_cannot_tell_is_no_pass(check):
    wide = {f"{check.key}_lo": 0.0, f"{check.key}_hi": 1.0}
    found, outcome = results({**GOOD, **wide})
    assert found[check.name] == WIDE
    assert not outcome.passed
    found, _ = results({**GOOD, **wide}, Thresholds(widest=1.0))
    assert found[check.name] == PASS


def test_a_release_that_the_filter_pushed_away_from_training_patients_passes_by_share():
    low = {
        f"privacy/membership_dcr_share{e}": v for e, v in (("", 0.3), ("_lo", 0.2), ("_hi", 0.4))
    }
    assert results({**GOOD, **low})[0]["dcr_share"] == PASS


def test_avoidance_is_allowed_below_one_half_only_and_only_by_nearness():
    below = {
        f"privacy/membership_{name}{end}": value
        for name in ("auc", "nn_auc", "loss_auc")
        for end, value in (("", 0.44), ("_lo", 0.42), ("_hi", 0.46))
    }
    found, _ = results({**GOOD, **below}, Thresholds(avoidance=0.05))
    assert [k for k, v in found.items() if v == FAIL] == ["loss"]
    found, _ = results({**GOOD, **below}, Thresholds(avoidance=0.03))
    assert [k for k, v in found.items() if v == FAIL] == ["membership", "nearest_neighbour", "loss"]
    _, above = results({**GOOD, **BAD["membership"]}, Thresholds(avoidance=0.5))
    assert not above.passed


def test_advantage_is_allowed_above_chance_only_and_only_to_attacks():
    above = {
        **{
            f"privacy/membership_{name}{end}": value
            for name in ("auc", "dcr_share", "nn_auc", "loss_auc")
            for end, value in (("", 0.56), ("_lo", 0.53), ("_hi", 0.6))
        },
        "privacy/linkability_risk_lo": 0.03,
        **BAD["false_rejection"],
    }
    found, _ = results({**GOOD, **above}, Thresholds(advantage=0.04))
    assert [k for k, v in found.items() if v == FAIL] == ["false_rejection"]
    found, _ = results({**GOOD, **above}, Thresholds(advantage=0.02))
    failed = ["false_rejection", "membership", "dcr_share", "nearest_neighbour", "loss"]
    failed.append("linkability")
    assert [k for k, v in found.items() if v == FAIL] == failed


def test_an_optional_check_that_was_measured_must_pass():
    _, outcome = results({**GOOD, "privacy/canary_relative": 0.9})
    assert not outcome.passed


def test_the_table_says_it_in_words():
    table = hold_against({**GOOD, **BAD["membership"]}, Thresholds()).table().set_index("check")
    assert len(table) == len(CHECKS)
    row = table.loc["Nearness to the release does not reveal who was trained on"]
    assert row["measured"] == "0.520 (0.510 to 0.590)"
    assert row["required"] == "interval around 0.5 or down to 0.05 below, no wider than 0.4"
    assert row["result"] == "fail"
    assert "lie closer to training patients" in row["meaning"]
    passed = table.loc["Exact copies are caught"]
    assert (passed["measured"], passed["required"]) == ("1.000", "at least 0.99")
    assert "broken" not in passed["meaning"]


@given(st.floats(0, 1), st.floats(0, 1))
def test_recall_is_held_against_its_threshold(recall, least):
    found, _ = results(
        {**GOOD, "privacy/planted_exact_recall": recall}, Thresholds(planted_exact=least)
    )
    assert (found["planted_exact"] == PASS) == (recall >= least)


def test_optional_names_are_checked():
    with pytest.raises(EchosynError, match="'losses' is not a check; known: planted_exact"):
        build(Thresholds, {"optional": ["losses"]}, "params.yaml: audit")
