"""What later stages need is asked at the first gate, with the number."""

import dataclasses

import numpy as np
import pytest
from gate_list import ROWS, SPLIT, GoodList, failing
from repro import ROOT

from echosyn.runtime.config import SCALES, Params
from echosyn.validation.demands import Demands, Task, read_demands

BASE = Demands(
    "tr", "train", "ef", generated=True, fps=16.0, window=20, ef_fps=16.0, ef_frames=16,
    filtered=16, hearts=10, videos=15, planted=20, widest=0.4,
)  # fmt: skip


def judged(change=lambda rows: rows, label="ef", **demands):
    rows = GoodList()
    change(rows)
    found = rows.judge("table", label, dataclasses.replace(BASE, label=label, **demands))
    says = [e for name in ("needs", "needs_soft") if name in found for e in found[name].examples]
    return failing(found) & {"needs", "needs_soft"}, "\n".join(says)


def all_of(split):
    return lambda rows: rows.all("Split", [split] * ROWS)


def moved(**of):
    """Rows of one split given to another."""

    def change(rows):
        for split, other in of.items():
            rows.all("Split", [other if s == split else s for s in rows.text["Split"]])

    return change  # fmt: skip


def shorter(n, rows=range(ROWS)):
    def change(found):
        for row in rows:
            found.set(row, MeasuredNumberOfFrames=float(n))

    return change  # fmt: skip


def people(split, n):
    """Everybody of a split is one of n people."""

    def change(rows):
        for i in (i for i in range(ROWS) if SPLIT[i] == split):
            rows.set(i, Patient=f"{split}{i % n}")

    return change  # fmt: skip


@pytest.mark.slow
def test_a_good_list_has_all_that_is_needed():
    assert judged() == (set(), "")
    assert judged(all_of("TEST"), role="guest", generated=False) == (set(), "")


MISSING = {
    "everything in TRAIN": (all_of("TRAIN"), {}, "VAL has 0 of 60 people, where 10 are needed"),
    "no TRAIN": (moved(TRAIN="TEST"), {}, "TRAIN has 0 of 60 videos, where 1 are needed"),
    "no TEST": (moved(TEST="TRAIN"), {}, "TEST has 0 of 60 people, where 2 are needed"),
    "few people calibrate": (people("VAL", 9), {}, "VAL has 9 of 54 people, where 10 are needed"),
    "few to tell an interval": (people("TEST", 7), {}, "where 8 are needed, since the audit"),
    "one person learns": (people("TRAIN", 1), {}, "people are distinguished"),
    "short videos held out": (
        shorter(40, range(30, 45)), {},
        "VAL has 0 of 60 people with 16 frames at 16 a second, where 15 are needed"),
    "no video as long as a window": (
        shorter(60, range(30)), {}, "the video model looks at 20 frames at 16 a second (1.19 s) "
        "and 30 of 30 TRAIN videos are shorter"),
    "a guest's still": (
        shorter(2, [7]), {"role": "guest", "generated": False, "animated": True},
        "1 of 60 videos have fewer than 2 frames at 16 a second, from line 9"),
    "few to say what is strange": (
        lambda rows: rows, {"with_anomaly": True, "strange": 400},
        "where 400 are needed, since so many calibrate what is strange"),
    "no videos to refuse": (
        lambda rows: rows, {"with_anomaly": True, "strange": 1, "generated": False},
        "no videos are made of it: put it under generate"),
    "nobody unmarked": (
        moved(VAL="TRAIN", TEST="TRAIN"), {"generated": False, "with_canary": True},
        "VAL and TEST has 0 of 60 people, where 6 are needed"),
    "folds": (
        lambda rows: rows.all("Class", ["PAH"] * 3 + ["non-PAH"] * (ROWS - 3)),
        {"label": "class", "tasks": (Task("pah", None, ("PAH", "non-PAH"), 4),)},
        "`classify` pah takes 4 folds of people and 3 have class PAH"),
    "a class that is only learned": (
        lambda rows: rows.all("Class", ["PAH"] * 30 + ["non-PAH"] * 30),
        {"label": "class", "tasks": (Task("pah", None, ("PAH", "non-PAH"), 4),)},
        "`classify` pah is scored on VAL and TEST and nobody there has class PAH"),
    "nobody below": (
        lambda rows: rows, {"tasks": (Task("low", 20.0, None, 4),)}, "0 have EF below 20"),
    "no EF to share out": (
        lambda rows: rows, {"label": "none", "few_real": (5,)}, "ef_arms needs label: ef"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("change", "demands", "words"), MISSING.values(), ids=MISSING)
def test_what_is_missing_is_said_with_its_number(change, demands, words):
    found, says = judged(change, **demands)
    assert "needs" in found
    assert words in says
    assert all(line.startswith("tr: ") for line in says.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "demands", "words"),
    [
        (shorter(60, range(5)), {}, "5 of 30 TRAIN videos are shorter, from line 2: their last"),
        (lambda rows: rows, {"planted": 31}, "plants copies of 31 TRAIN videos and there are 30"),
        (lambda rows: rows, {"few_real": (2, 5)}, "few_real_2 and few_real_5 are the same 2 of 30"),
        (lambda rows: [rows.set(i, EF="50", ESV="50") for i in range(45, ROWS)], {},
         "every EF of TEST is 50"),
    ],
)  # fmt: skip
def test_what_makes_a_poorer_end_is_a_warning(change, demands, words):
    found, says = judged(change, **demands)
    assert found == {"needs_soft"}
    assert words in says


@pytest.mark.slow
def test_a_remedy_is_named():
    _, says = judged(all_of("TRAIN"))
    assert "has role train and VAL has 0 of 60 people" in says
    assert "give splits, or role guest" in says


@pytest.mark.parametrize("scale", SCALES)
def test_the_demands_are_those_of_the_settings(tmp_path, scale):
    text = (ROOT / "params.yaml").read_text().replace("scale: demo", f"scale: {scale}")
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    demands = read_demands(Params(tmp_path), "phantom")
    unknown = [f.name for f in dataclasses.fields(Demands) if getattr(demands, f.name) is None]
    assert not unknown
    assert demands.generated
    assert not demands.animated
    expected = {
        "smoke": (8, 4, 8, 6, 1),
        "demo": (28, 20, 40, 200, 8),
        "study": (28, 20, 40, 200, 8),
        "paper": (64, 20, 40, 1000, 8),
    }
    window, hearts, videos, planted, _ = expected[scale]
    assert (demands.window, demands.hearts, demands.videos) == (window, hearts, videos)
    assert demands.planted == planted


def test_sections_ask_for_more(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    text = text.replace("canary: {}", "canary: {phantom: {}}")
    text = text.replace("anomaly: {}", "anomaly: {phantom: {}}")
    text = text.replace("classify: {}", "classify: {low: {dataset: phantom, ef_below: 50}}")
    arms = "ef_arms: {phantom: {start: phantom, arms: [few_real_5, few_real_20_plus_synthetic]}}"
    text = text.replace("ef_arms: {}", arms)
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    demands = read_demands(Params(tmp_path), "phantom")
    assert demands.with_canary
    assert demands.with_anomaly
    assert demands.strange == 20
    assert demands.tasks == (Task("low", 50, None, 4),)
    assert demands.few_real == (5, 20)
    assert np.isfinite(demands.widest)
