"""EF scores of several regressors, cut-offs, and the table and figures of an evaluation."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_auroc

from echosyn.data.frames import FrameSet
from echosyn.evaluation import EfEvaluation, EvaluateConfig
from echosyn.metrics.ef import CUTOFFS, cutoff_auc, ef_scores, seed_weights
from echosyn.metrics.interval import resample_counts
from echosyn.models.ef_regressor import EfRegressor
from echosyn.models.r2plus1d import R2Plus1d, R2Plus1dConfig
from echosyn.report.ef_plots import evaluation_figures, scarce_curve
from echosyn.report.plots import png


def people(n=60, seeds=3, noise=6.0):
    r = np.random.default_rng(0)
    true = r.uniform(20, 75, n)
    return true, true + r.normal(0, noise, (seeds, n))


def test_the_score_of_several_regressors_is_the_mean_of_theirs():
    true, predicted = people()
    each = [ef_scores(true, p, 0, 100) for p in predicted]
    for name, made in ef_scores(true, predicted, 0, 100).items():
        assert made.value == pytest.approx(np.mean([e[name].value for e in each]))


def test_the_interval_of_several_regressors_equals_the_loop_over_videos_and_regressors():
    true, predicted = people()
    made = ef_scores(true, predicted, seed=5, resamples=300)["mae"]
    drawn = []
    counts = next(resample_counts(60, 300, seed=5))
    for videos, seeds in zip(counts, seed_weights(3, 300, 5), strict=True):
        mae = [np.average(np.abs(p - true), weights=videos) for p in predicted]
        drawn.append(np.average(mae, weights=seeds))
    assert (made.lo, made.hi) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_regressors_that_differ_widen_the_interval():
    true, predicted = people(200)
    alike = ef_scores(true, np.stack([predicted[0]] * 3), 0, 2000)["mae"]
    alone = ef_scores(true, predicted[0], 0, 2000)["mae"]
    assert (alike.lo, alike.hi) == pytest.approx((alone.lo, alone.hi), rel=0.03)
    apart = np.stack([predicted[0], predicted[0] + 5, predicted[0] - 9])
    wide = ef_scores(true, apart, 0, 2000)["mae"]
    assert wide.hi - wide.lo > 2 * (alone.hi - alone.lo)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 50), st.integers(0, 10**6))
def test_cutoff_auc_agrees_with_torchmetrics(n, seed):
    r = np.random.default_rng(seed)
    true, predicted = r.uniform(20, 70, n), r.uniform(20, 70, n).round()
    made = cutoff_auc(true, predicted, 0, 20)
    for cutoff in CUTOFFS:
        below = true < cutoff
        if below.any() and not below.all():
            score = 1 - torch.tensor(predicted) / 100
            expected = binary_auroc(score, torch.tensor(below).int())
            assert made[cutoff].value == pytest.approx(float(expected), abs=1e-6)
        else:
            assert cutoff not in made


def test_cutoff_auc_of_several_regressors_is_their_mean_with_an_interval():
    true, predicted = people(100, 3, 12)
    made = cutoff_auc(true, predicted, 0, 300)
    for cutoff, e in made.items():
        each = [cutoff_auc(true, p, 0, 20)[cutoff].value for p in predicted]
        assert e.value == pytest.approx(np.mean(each))
        assert e.lo < e.value < e.hi
    assert [e.value for e in cutoff_auc(true, true, 0, 20).values()] == pytest.approx([1] * 4)


@pytest.fixture
def arm(tmp_path):
    config = R2Plus1dConfig(widths=(2,), blocks=(1,), stem_width=2, stem_stride=4, in_channels=1)
    for k in range(2):
        torch.manual_seed(k)
        net = R2Plus1d(config)
        EfRegressor(net, 100.0, 50.0, 30.0, 4, 16.0).save(tmp_path / f"seed{k}")
    return tmp_path


def in_process(name, items, worker):
    compute = worker()
    return np.concatenate([compute(range(i, min(i + 3, items))) for i in range(0, items, 3)])


def test_an_evaluation_has_every_score_of_every_arm_and_a_row_per_seed(arm):
    r = np.random.default_rng(0)
    data = r.integers(0, 255, (8 * 7, 32, 32), np.uint8)
    table = pd.DataFrame({"FileName": [f"v{i}" for i in range(8)], "EF": np.linspace(25, 65, 8)})
    test = FrameSet(data, table, 7 * np.arange(8), np.full(8, 7), 16.0)
    ef = EfEvaluation(EvaluateConfig(test_clips=0, resamples=100, precision="fp32"), 0, in_process)
    ef.add("synthetic", arm, test)
    for key in ("ef/synthetic/r2", "ef_one_clip/synthetic/mae", "ef_below/synthetic/auc_40"):
        assert {key, f"{key}_lo", f"{key}_hi"} <= set(ef.numbers), key
    rows = ef.predictions()
    assert rows.groupby("seed")["FileName"].nunique().to_dict() == {0: 8, 1: 8}
    by_hand = []
    for _, some in rows.groupby("seed"):
        residual = ((some["ef_predicted"] - some["ef_true"]) ** 2).sum()
        by_hand.append(1 - residual / ((some["ef_true"] - some["ef_true"].mean()) ** 2).sum())
    assert ef.numbers["ef/synthetic/r2"] == pytest.approx(np.mean(by_hand), abs=1e-3)
    assert ef.numbers["ef/synthetic/r2_seed_sd"] == pytest.approx(np.std(by_hand, ddof=1), abs=1e-3)
    assert not np.allclose(rows["ef_predicted"], rows["ef_one_clip"])


def rows_of(arms):
    true, predicted = people(20, 2)
    parts = [
        {"arm": a, "seed": k, "FileName": [f"v{i}" for i in range(20)], "ef_true": true,
         "ef_predicted": predicted[k]}
        for a in arms for k in range(2)
    ]  # fmt: skip
    return pd.concat(map(pd.DataFrame, parts))


def test_figures_average_seeds_repeat_and_say_bias_and_limits():
    table = rows_of(["real", "synthetic"])
    made = evaluation_figures(table, {})
    assert set(made) == {"predictions", "bland_altman", "residuals_by_band"}
    assert png(made["bland_altman"]) == png(evaluation_figures(table, {})["bland_altman"])
    means = table[table["arm"] == "real"].groupby("FileName", sort=False).mean(numeric_only=True)
    error = means["ef_predicted"] - means["ef_true"]
    title = made["bland_altman"].axes[0].get_title(loc="left")
    assert title == f"real\nbias {error.mean():+.1f}, limits ±{1.959964 * error.std():.1f}"
    drawn = made["predictions"].axes[0].collections[0].get_offsets()
    assert np.allclose(np.sort(drawn[:, 1]), np.sort(means["ef_predicted"]))
    ticks = [t.get_text() for t in made["residuals_by_band"].axes[1].get_xticklabels()]
    counts = [int(t.split("n = ")[1]) for t in ticks]
    assert sum(counts) == 20


def test_the_curve_of_few_real_videos_has_both_lines():
    arms = {
        "few_real_5": 0.2, "few_real_20": 0.5, "real": 0.9, "few_real_5_plus_synthetic": 0.4,
        "real_plus_synthetic": 0.92, "synthetic": 0.1, "real_plus_synthetic_50": 0.95,
    }  # fmt: skip
    metrics = {}
    for name, r2 in arms.items():
        metrics |= {
            f"ef/{name}/r2{end}": r2 + d for end, d in (("", 0), ("_lo", -0.1), ("_hi", 0.1))
        }
    lines = {}
    for line in scarce_curve(metrics).axes[0].lines:
        if len(line.get_xdata()) and line.get_marker() == "o":
            lines[line.get_color()] = list(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert sorted(lines.values()) == [
        [(5, 0.2), (20, 0.5), (100, 0.9)],
        [(5, 0.4), (100, 0.92)],
    ]
    assert scarce_curve({"ef/real/r2": 0.9}) is None
