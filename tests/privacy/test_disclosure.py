"""Attacks on a release against generators of which it is known what they give away."""

import numpy as np
import pytest

from echosyn.privacy.attacks.disclosure import disclosure_audit
from echosyn.privacy.attacks.records import DisclosureConfig, Records, labels_of
from echosyn.privacy.detectors.similarity import unit_rows

CONFIG = DisclosureConfig()
ATTACKS = ("attribute", "singling_out", "linkability")
TRAIN, OTHERS, RELEASED = 200, 120, 150


def people(n: int, seed: int, noise: float = 0.15) -> Records:
    """n people of one population: four frames around a direction of their own, EF and rate."""
    r = np.random.default_rng(seed)
    own = np.repeat(r.normal(size=(n, 24)), 4, axis=0)
    frames = unit_rows(own + noise * r.normal(size=own.shape), "cosine").reshape(n, 4, 24)
    ef, rate = r.normal(55, 10, n).clip(10, 85), r.normal(70, 12, n).clip(40, 120)
    return Records(frames, labels_of(ef, rate, [None] * n, []))


def shown(frames: np.ndarray, labels: dict[str, np.ndarray], seed: int) -> Records:
    """As a release shows it: frames a little off, labels to 0.1."""
    r = np.random.default_rng(seed)
    rows = frames.reshape(-1, frames.shape[2]) + 0.02 * r.normal(size=(frames.size // 24, 24))
    rounded = {name: np.round(values, 1) for name, values in labels.items()}
    return Records(unit_rows(rows, "cosine").reshape(frames.shape), rounded)


def audit(released: Records, members: Records, others: Records, level: float = 0.95) -> dict:
    return disclosure_audit(members, others, released, CONFIG, level, 0)


def failed(numbers: dict[str, float]) -> set[str]:
    return {attack for attack in ATTACKS if numbers[f"privacy/{attack}_risk_lo"] > 0}


def mixed(share: float, members: Records, seed: int = 3) -> Records:
    """A release of which a share are copies of members with their labels."""
    copies, new = round(share * RELEASED), people(RELEASED, seed)
    frames = np.concatenate([members.frames[:copies], new.frames[copies:]])
    labels = {
        name: np.concatenate([members.labels[name][:copies], values[copies:]])
        for name, values in new.labels.items()
    }
    return shown(frames, labels, seed)


@pytest.fixture(scope="module")
def world():
    return people(TRAIN, 0), people(OTHERS, 1)


def test_a_release_of_copies_fails_every_attack(world):
    members, others = world
    numbers = audit(mixed(1.0, members), members, others)
    assert failed(numbers) == set(ATTACKS)
    # 150 of 200 people were copied; the copy is nearest to each, in looks and in labels.
    assert numbers["privacy/attribute_ef_nearest_success"] == pytest.approx(0.8, abs=0.06)
    assert numbers["privacy/attribute_ef_nearest_risk"] > 0.6
    assert numbers["privacy/linkability_labels_success"] == pytest.approx(0.75, abs=0.02)
    # A copied person is among 119 of 200 with that probability, and alone but for chance.
    assert numbers["privacy/singling_out_joint_success"] == pytest.approx(119 / 200 * 0.9, abs=0.07)
    for key in ("risk", "risk_lo", "risk_hi", "success", "control", "naive"):
        assert {f"privacy/{attack}_{key}" for attack in ATTACKS} <= numbers.keys()


def test_the_risk_grows_with_the_share_of_copies(world):
    members, others = world
    found = [audit(mixed(share, members), members, others) for share in (0.0, 0.3, 1.0)]
    assert failed(found[0]) == set()
    assert failed(found[1]) >= {"linkability"}
    for attack in ATTACKS:
        risks = [numbers[f"privacy/{attack}_risk"] for numbers in found]
        assert risks == sorted(risks)


@pytest.mark.slow
def test_an_independent_release_passes_as_often_as_promised():
    alarms = dict.fromkeys(ATTACKS, 0)
    for seed in range(60):
        members, others = people(TRAIN, 10 * seed), people(OTHERS, 10 * seed + 1)
        released = people(RELEASED, 10 * seed + 2)
        numbers = audit(shown(released.frames, released.labels, seed), members, others)
        for attack in failed(numbers):
            alarms[attack] += 1
        for attack in ATTACKS:
            assert numbers[f"privacy/{attack}_risk_lo"] <= numbers[f"privacy/{attack}_risk"]
    # 2.5 % of 60 is 1.5; 6 or more of 60 has a probability below 0.005
    assert max(alarms.values()) <= 5, alarms


def test_labels_alone_single_out_but_tell_and_join_nothing(world):
    members, others = world
    new = people(RELEASED, 3)
    labels = {name: values[:RELEASED] for name, values in members.labels.items()}
    numbers = audit(shown(new.frames, labels, 0), members, others)
    assert failed(numbers) == {"singling_out"}
    assert numbers["privacy/singling_out_risk"] == numbers["privacy/singling_out_labels_risk"]
    assert numbers["privacy/singling_out_look_risk_lo"] == 0


def test_looks_alone_single_out_but_tell_and_join_nothing(world):
    members, others = world
    new = people(RELEASED, 3)
    numbers = audit(shown(members.frames[:RELEASED], new.labels, 0), members, others)
    assert failed(numbers) == {"singling_out"}
    assert numbers["privacy/singling_out_risk"] == numbers["privacy/singling_out_look_risk"]
    assert numbers["privacy/singling_out_joint_success"] < 0.2  # the labels are others'
    assert numbers["privacy/singling_out_labels_risk_lo"] == 0


def test_what_the_release_teaches_about_anybody_is_no_risk():
    def told(n: int, seed: int) -> Records:
        """People whose EF shows in how they look."""
        p = people(n, seed, noise=0.05)
        p.labels["ef"] = 55 + 80 * p.look()[:, 0]
        return p

    members, others = told(TRAIN, 0), told(OTHERS, 1)
    numbers = audit(told(RELEASED, 2), members, others)
    assert numbers["privacy/attribute_ef_regression_success"] > 0.95
    assert numbers["privacy/attribute_ef_regression_control"] > 0.95
    assert numbers["privacy/attribute_ef_regression_naive"] < 0.5
    assert "attribute" not in failed(numbers)


def test_classes_are_told_where_there_is_nothing_else():
    def classed(p: Records, classes: list[str | None]) -> Records:
        unknown = [np.nan] * len(p)
        return Records(p.frames, labels_of(unknown, unknown, classes, ["ASD", "none"]))

    r = np.random.default_rng(0)
    members, others = people(TRAIN, 0), people(OTHERS, 1)
    drawn = [r.choice(["ASD", "none", None], n, p=[0.45, 0.45, 0.1]) for n in (TRAIN, OTHERS)]
    members, others = classed(members, drawn[0]), classed(others, drawn[1])
    numbers = audit(shown(members.frames, members.labels, 0), members, others)
    assert failed(numbers) == {"attribute", "singling_out", "linkability"}
    assert numbers["privacy/attribute_class_nearest_success"] == 1
    assert numbers["privacy/attribute_class_nearest_naive"] == pytest.approx(0.5, abs=0.1)
    assert not [k for k in numbers if "singling_out_labels" in k or "attribute_ef" in k]


def test_without_labels_no_attribute_is_told_and_frames_are_joined(world):
    bare = [Records(p.frames, labels_of(*[[np.nan] * len(p)] * 3, [])) for p in world]
    numbers = audit(shown(bare[0].frames, bare[0].labels, 0), *bare)
    assert [numbers.pop(f"privacy/attribute_risk{end}") for end in ("", "_hi")] == [0, 0]
    assert failed(numbers) == {"singling_out", "linkability"}
    numbers.pop("privacy/attribute_risk_lo")
    assert not [k for k in numbers if "attribute" in k or "labels" in k]
    assert numbers["privacy/linkability_risk"] == numbers["privacy/linkability_frames_risk"]


def test_the_same_release_gives_the_same_numbers(world):
    released = mixed(0.3, world[0])
    numbers = audit(released, *world)
    assert numbers == audit(released, *world)
    wider = audit(released, *world, level=0.999)
    assert all(wider[f"privacy/{a}_risk_hi"] > numbers[f"privacy/{a}_risk_hi"] for a in ATTACKS)
