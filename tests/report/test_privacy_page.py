"""The privacy page: complete, self-contained, escaped, and silent about what was not measured."""

import base64
import io
import re
from html import unescape

import numpy as np
import pandas as pd
import pytest
from html_page import problems
from PIL import Image

from echosyn.metrics.interval import Estimate
from echosyn.privacy.coverage.learned_fraction import coverage_numbers
from echosyn.privacy.gate.requirements import Thresholds, hold_against
from echosyn.report import plots, privacy_plots
from echosyn.report.numbers import collect, plain
from echosyn.report.privacy_evidence import (
    Check,
    Clip,
    Pair,
    PrivacyEvidence,
    Scores,
    attack_table,
    band_table,
    gate_checks,
    loosened,
)
from echosyn.report.privacy_page import render
from echosyn.report.privacy_pairs import LOCAL_ONLY, MOST_PAIRS

CHECKS = (
    Check("exact planted copies caught", "0.9987 (0.9954 to 1)", "at least 0.99", "pass"),
    Check(
        "lightly disguised copies caught", "0.8765", "at least 0.95", "fail", meaning="It hides."
    ),
    Check("nearness", "-", "interval around 0.5", "not measured"),
    Check("canary bound", "-", "at most 0.01", "not measured", counts=False),
)
METRICS = {
    "privacy/tau": 0.9123,
    "privacy/tau_lo": 0.9011,
    "privacy/tau_hi": 0.9234,
    "privacy/rejection_rate": 0.1357,
    "privacy/false_rejection_calibrated": 0.05,
    "privacy/false_rejection_heldout": 0.0468,
    "privacy/false_rejection_heldout_lo": 0.0321,
    "privacy/false_rejection_heldout_hi": 0.0654,
    "privacy/planted_exact_recall": 0.9987,
    "reid/auc": 0.9876,
}


def pictures(n: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (n, 12, 10), np.uint8))


def evidence(**changes) -> PrivacyEvidence:
    r = np.random.default_rng(0)
    ef = np.repeat([30.0, 50.0, 65.0], 40)
    hearts = coverage_numbers(r.integers(40, 120, 300), r.integers(0, 120, 90), 120, 0, ef)
    drawn = {"synthetic": r.beta(8, 3, 200), "heldout": r.beta(8, 4, 90)}
    table = pd.concat([pd.DataFrame({"kind": k, "similarity": v}) for k, v in drawn.items()])
    one, two, three, four = pictures(4)
    whole = {
        "dataset": "phantom",
        "checks": CHECKS,
        "metrics": {**METRICS, **hearts},
        "videos": 1234,
        "tested": ["Every frame of every video was compared."],
        "scores": (
            Scores("hearts", table, Estimate(0.9123, 0.9011, 0.9234)),
            Scores("videos in pixels", table.rename(columns={"similarity": "ncc"}),
                   Estimate(0.8765, 0.8666, 0.8888), "ncc"),
        ),
        "planted": pd.DataFrame(
            {
                "level": ["hearts"] * 5 + ["videos"] * 3,
                "disguise": ["exact", "noise", "noise", "flip", "flip", "exact", "noise", "noise"],
                "strength": [1.0, 0.15, 0.45, 0.15, 1.0, 1.0, 0.35, 0.75],
                "limit": [float("nan"), 0.15, 0.45, 0.15, 1.0, float("nan"), 0.35, 0.77],
                "recall": [1.0, 0.9432, 0.8111, 0.9, 0.7654, 0.9876, 0.8421, 0.5],
                "recall_lo": [0.99, 0.91, 0.77, 0.85, 0.71, 0.97, 0.81, float("nan")],
                "recall_hi": [1.0, 0.96, 0.85, 0.95, 0.81, 1.0, 0.87, float("nan")],
            }
        ),
        "membership": pd.DataFrame(
            {"attack": ["nearest neighbour", "loss"], "auc": [0.5123, 0.5432],
             "lo": [0.4711, 0.5012], "hi": [0.5534, float("nan")]}
        ),
        "canary": pd.DataFrame(
            {"time": [0.4, 1.0], "marked": [0.9321, 0.0123], "marked_lo": [0.9, 0.001],
             "marked_hi": [0.96, 0.03], "unmarked": [0.0, 0.0234], "unmarked_lo": [0.0, 0.01],
             "unmarked_hi": [0.012, 0.05], "bound": [0.0456, 0.0345]}
        ),
        "bands": band_table(hearts),
        "pairs": (
            Pair(one, two, 0.8123, "SYN0001", "0XREAL7"),
            Pair(three, four, 0.9087, "SYN0002", "0XREAL9"),
        ),
    }  # fmt: skip
    return PrivacyEvidence(**(whole | changes))


def plain_evidence(**changes) -> PrivacyEvidence:
    """Without figures, which take long to draw."""
    none = {
        "scores": (), "planted": None, "membership": None, "bands": None, "canary": None
    }  # fmt: skip
    return evidence(**(none | changes))


@pytest.fixture(scope="module")
def page():
    return render(evidence())


@pytest.mark.slow
def test_page_needs_nothing_else_and_repeats(page):
    assert render(evidence()) == page
    assert problems(page) == []
    assert "<script" not in page
    assert not re.search(r" on\w+=", page)


def test_every_number_is_shown(page):
    whole = evidence()
    for number in collect(whole.metrics).values():
        assert f"<td>{plain(number.value)}<" in page
        assert number.interval in page
    for check in CHECKS:
        for text in (check.name, check.measured, check.required, check.result, check.meaning):
            assert text in page
    for row in whole.planted.itertuples():
        interval = f" ({100 * row.recall_lo:.3g}% to {100 * row.recall_hi:.3g}%)"
        known = row.recall_lo == row.recall_lo
        assert f"<td>{100 * row.recall:.3g}%{interval if known else ''}</td>" in page
        assert f"<td>{plain(row.strength)}</td>" in page
        limit = plain(row.limit) if row.limit == row.limit else ""
        assert f"<td>{plain(row.strength)}</td><td>{limit}</td>" in page
    assert "0.512<small>(0.471 to 0.553)</small>" in page
    assert "<td>0.543</td>" in page  # an interval with an end that is not known is not shown
    for row in whole.bands.itertuples():
        assert row.band in page
        assert f"{100 * row.synthetic:.3g}% ({100 * row.synthetic_lo:.3g}%" in page
        assert f"{100 * row.real:.3g}% ({100 * row.real_lo:.3g}%" in page
    assert "Every frame of every video was compared." in page
    assert "1,234 videos" in page
    words = unescape(page)
    for key, said in (
        ("learned_fraction", "training videos represented, by synthetic queries"),
        ("learned_fraction_real", "by as many held-out real queries"),
    ):
        known = whole.metrics[f"coverage/{key}"]
        assert re.search(rf'<th scope="row">{said}</th><td>{100 * known:.3g}%[^<]*</td>', words)
    assert "13.6%" in page
    assert "4.68% (3.21% to 6.54%)" in page


def test_verdict_comes_first_and_names_what_failed(page):
    assert "Do not release: 2 of 4 checks did not pass." in page
    assert page.index("Do not release") < page.index("<svg")
    order = [page.index(name) for name in ("lightly", "nearness", "canary", "exact planted")]
    assert order == sorted(order)
    good = render(plain_evidence(checks=[CHECKS[0], CHECKS[3]]))
    assert "Every required check passed, 1 in all. Optional and not passed: 1." in good
    assert "Do not release" not in good
    for nothing in ((), (CHECKS[3],)):
        assert "Do not release: nothing was checked." in render(plain_evidence(checks=nothing))


def test_the_verdict_of_the_audits_is_shown():
    outcome = hold_against({"privacy/planted_exact_recall": 0.5}, Thresholds())
    checks = gate_checks(outcome)
    assert [c.stops for c in checks] == [f in outcome.failures() for f in outcome.findings]
    page = render(plain_evidence(checks=checks))
    assert f"Do not release: {len(outcome.failures())} of {len(checks)}" in page
    assert all(text in unescape(page) for text in outcome.table().to_numpy().ravel())


def test_bands_that_no_heart_reached_are_named(page):
    assert "Never represented: EF below 40%." in page
    assert page.count("<svg") == 6


def test_pairs_are_shown_most_alike_first_and_keep_the_page_in_the_house(page):
    shown = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    found = [np.array(Image.open(io.BytesIO(base64.b64decode(data)))) for data in shown]
    one, two, three, four = pictures(4)
    assert len(found) == 4
    for got, expected in zip(found, (three, four, one, two), strict=True):
        assert (got == expected).all()
    assert page.count(LOCAL_ONLY) == 2
    assert page.index("Similarity 0.909") < page.index("Similarity 0.812")
    assert (
        page.count("LOCAL ONLY.</strong>") == 2
    )  # every pair says it, were it cut out of the page
    assert "0XREAL9" in page
    public = render(plain_evidence(pairs=()))
    assert LOCAL_ONLY not in public
    assert "0XREAL" not in public
    assert "data:image" not in public


def test_what_was_not_measured_has_no_section():
    bare = render(PrivacyEvidence("phantom", (), {}))
    assert re.findall("<h2>(.*?)</h2>", bare) == ["What was tested"]
    assert "<svg" not in bare
    assert "<img" not in bare
    assert "Nothing was measured." in bare
    pair = Pair(*pictures(2), 0.5, "SYN1", "0XREAL1")
    given = {
        "scores": ((evidence().scores[0],), "Similarity to the training patients", 1),
        "planted": (evidence().planted, "Planted copies", 1),
        "membership": (evidence().membership, "Who was in the training set?", 1),
        "canary": (evidence().canary, "A mark planted before training", 1),
        "bands": (evidence().bands, "Coverage of the training patients", 1),
        "pairs": ((pair,), "The most similar pairs that were accepted", 0),
    }
    for name, (value, title, figures) in given.items():
        one = render(PrivacyEvidence("phantom", (), {}, **{name: value}))
        assert re.findall("<h2>(.*?)</h2>", one) == ["What was tested", title]
        assert one.count("<svg") == figures


def test_what_people_wrote_is_escaped():
    bad = "<b>&\"'</b>"
    picture = pictures(1)[0]
    page = render(
        PrivacyEvidence(
            bad,
            [Check(bad, bad, bad, bad, meaning=bad)],
            {f"privacy/{bad.replace('/', '')}": 1.0},
            tested=[bad],
            scores=[Scores(bad, pd.DataFrame({"kind": ["synthetic"], bad: [0.3]}),
                           Estimate(0.5, 0.4, 0.6), bad)],
            planted=pd.DataFrame({"disguise": [bad], "strength": [1.0], "recall": [0.5],
                                  "recall_lo": [0.4], "recall_hi": [0.6], "level": [bad]}),
            membership=pd.DataFrame({"attack": [bad], "auc": [0.5], "lo": [0.4], "hi": [0.6]}),
            bands=pd.DataFrame({"band": [bad], "synthetic": [0.0], "synthetic_lo": [0.0],
                                "synthetic_hi": [0.1]}),
            pairs=[Pair(picture, picture, 0.5, bad, bad)],
            loosened=[bad],
        )
    )  # fmt: skip
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert re.search(r'alt="[^"]*&#34;[^"]*"', page)


def test_band_table_reads_the_metrics():
    table = band_table(evidence().metrics)
    assert list(table["band"]) == ["EF below 40%", "EF 40 to 55%", "EF 55% and above"]
    assert list(table["videos"]) == [40, 40, 40]
    assert (table["synthetic_lo"] <= table["synthetic"]).all()
    assert {"real", "real_lo", "real_hi"} <= set(table.columns)
    assert band_table({"coverage/learned_fraction": 0.5}) is None
    only = band_table({"coverage/videos/ef_lt37p5/learned_fraction": 0.5}, "coverage/videos")
    assert list(only["band"]) == ["EF below 37.5%"]


def test_figures_show_tau_and_its_interval():
    scores = pd.DataFrame({"kind": ["heldout", "synthetic"] * 5, "similarity": np.arange(10) / 10})
    drawn = plots.svg(privacy_plots.similarity_histogram(scores, Estimate(0.7, 0.65, 0.75)), "a")
    assert "τ = 0.7 (0.65 to 0.75)" in drawn
    unknown = Estimate(0.7, float("nan"), float("nan"))
    bare = plots.svg(privacy_plots.similarity_histogram(scores, unknown), "a")
    assert "τ = 0.7<" in bare


def test_attack_table_reads_the_metrics():
    metrics = {"privacy/membership_loss_auc": 0.5, "privacy/membership_loss_auc_lo": 0.4,
               "privacy/membership_auc": 0.6, "privacy/membership_dcr_share": 0.5}  # fmt: skip
    table = attack_table(metrics)
    assert list(table["auc"]) == [0.6, 0.5]
    assert table["lo"].isna().tolist() == [True, False]
    assert attack_table({"privacy/tau": 0.5}) is None
    assert "<svg" in render(plain_evidence(membership=table))


def test_attacks_before_the_filter_differ_from_those_on_the_release():
    table = attack_table({"privacy/membership_auc": 0.5, "privacy/drawn/membership_auc": 0.7})
    assert table["auc"].tolist() == [0.5, 0.7]
    assert table["attack"].tolist()[1] == f"{table['attack'][0]}, before the filter"


def test_membership_says_what_its_intervals_promise(page):
    assert "intervals that hold for all attacks together with 95 %" in page
    assert "lie closer to a training patient" not in page
    more = plain_evidence(
        membership=evidence().membership,
        confidence=0.99,
        metrics={"privacy/membership_dcr_share": 0.4321},
    )
    shown = render(more)
    assert "intervals that hold for all attacks together with 99 %" in shown
    assert "Of the synthetic hearts 43.2% lie closer to a training patient" in shown


def test_canary_is_explained_by_its_numbers(page):
    metrics = {"privacy/canary_share": 0.0213, "privacy/canary_bound_from_noise": 0.0345}
    shown = render(plain_evidence(canary=evidence().canary, metrics=metrics))
    assert "2.13% of the training videos carried the mark" in shown
    assert "reproduces a marked heart in at most 3.45% of cases." in shown
    more = {**metrics, "privacy/canary_relative": 1.62}
    shown = render(plain_evidence(canary=evidence().canary, metrics=more))
    assert "in at most 3.45% of cases, 1.62 times that rate." in shown
    assert "marked share (0.0213)" in shown
    assert "marked share" not in page  # where the share is not known
    for text in ("93.2% (90% to 96%)", "2.34% (1% to 5%)", "4.56%"):
        assert f"<td>{text}</td>" in page


def test_a_verdict_on_loosened_thresholds_says_so():
    assert loosened(Thresholds()) == []
    stricter = Thresholds(planted_exact=1.0, rejection=0.1, widest=0.1, optional=())
    assert loosened(stricter) == []
    default = Thresholds()
    looser = Thresholds(
        planted_exact=0.9, rejection=0.95, avoidance=0.3, optional=("canary", "loss")
    )
    said = loosened(looser)
    assert [one.split(":")[0] for one in said] == [
        "planted_exact", "rejection", "avoidance", "optional instead of required"
    ]  # fmt: skip
    assert f"0.9 instead of {default.planted_exact:g}" in said[0]
    assert said[-1].endswith(": loss")
    page = render(plain_evidence(loosened=said))
    assert page.index("asks less than is usual") < page.index("<h2>What was tested")
    assert all(one in unescape(page) for one in said)
    assert "asks less" not in render(plain_evidence())


def moving(frames: int, noise: float, side: int = 112) -> Clip:
    """A bright disc that shrinks and grows, with speckle."""
    r = np.random.default_rng(frames)
    y, x = np.mgrid[:side, :side] / side - 0.5
    radius = 0.3 + 0.05 * np.sin(np.arange(frames) / 4)[:, None, None]
    disc = 140.0 * (np.hypot(x, y) < radius) + noise * r.normal(size=(frames, side, side))
    return Clip((disc + 60).clip(0, 255).astype(np.uint8), 32.0)


def animations(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_videos_of_a_pair_move_side_by_side():
    one, two = pictures(2)
    pair = Pair(one, two, 0.5, "SYN1", "0XREAL1", (moving(60, 5), moving(40, 5)))
    page = render(plain_evidence(pairs=(pair,)))
    (image,) = animations(page)
    assert image.n_frames == 20  # at 16 frames a second; the shorter one's 1.25 s
    assert image.size == (2 * 112 + 2, 112)
    assert 'alt="both videos"' in page
    assert page.count("data:image/png") == 2
    assert animations(render(plain_evidence(pairs=())) or "") == []


@pytest.mark.slow
def test_the_page_stays_small_however_many_and_long_the_videos_are():
    one, two = pictures(2)
    noise = tuple(moving(600, 60.0) for _ in range(2))
    pairs = [Pair(one, two, i / 100, f"SYN{i}", f"0X{i}", noise) for i in range(MOST_PAIRS + 5)]
    page = render(plain_evidence(pairs=pairs))
    assert len(page) < 5_000_000
    shown = animations(page)
    assert len(shown) == MOST_PAIRS
    assert {getattr(image, "n_frames", 1) for image in shown} == {1}  # first frames only
    assert page.count('alt="first frames of both videos"') == MOST_PAIRS
    assert f"The {MOST_PAIRS} most similar of {MOST_PAIRS + 5} are shown." in page
    assert "0X4<" not in page
    few = render(plain_evidence(pairs=[Pair(one, two, 0.5, "SYN", "0X", noise)]))
    assert animations(few)[0].n_frames == 48
    assert len(few) < 5_000_000
