"""EF asked for and EF shown: drawn, measured, relabelled or tried again, listed and plotted."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from gate_list import GoodList, failing
from test_synthesise import CFG as PLAIN
from test_synthesise import accepted, real, write_model

from echosyn.data.filelist import COLUMNS, asked_ef, read_filelist, write_filelist
from echosyn.data.frames import FrameSet
from echosyn.diffusion.ef_draw import draw_ef, ef_quantile
from echosyn.diffusion.generate import VideoSampler
from echosyn.evaluation import EfEvaluation, EvaluateConfig
from echosyn.metrics.ef_meter import measure_ef
from echosyn.models.ef_regressor import EfRegressor
from echosyn.models.r2plus1d import R2Plus1d, R2Plus1dConfig
from echosyn.release.card import card
from echosyn.report import plots
from echosyn.runtime.errors import EchosynError
from echosyn.synthesis.ef_truth import (
    EfMeter,
    as_asked,
    read_truth,
    truth_numbers,
    with_truth,
    without_truth,
)
from echosyn.synthesis.samples import (
    finish_samples,
    noise_index,
    plan_samples,
    sample_numbers,
    sample_shard,
)

CFG = dataclasses.replace(PLAIN, frames=4, overlap=0, steps=1, guidance=1.0)
REJECT = dataclasses.replace(CFG, ef_truth="reject", ef_tolerance=16.0, ef_attempts=3)

# ---- drawing


def test_strata_share_the_draws_and_follow_the_real_values_within():
    values = np.concatenate([np.full(5, 30.0), np.linspace(45, 50, 20), np.linspace(56, 75, 400)])
    ef = draw_ef("stratified", values, 300, seed=0)
    assert [((ef >= a) & (ef < b)).sum() for a, b in ((0, 40), (40, 55), (55, 101))] == [100] * 3
    assert set(ef[ef < 40]) == {30.0}
    assert ef[ef >= 55].mean() == pytest.approx(65.5, abs=0.3)
    assert draw_ef("real", values, 300, seed=0).mean() > 63
    assert not np.array_equal(ef, np.sort(ef))


def test_a_band_without_real_values_gives_its_share_to_the_others():
    ef = ef_quantile("stratified", np.array([30.0, np.nan, 60.0]), np.arange(10) / 10)
    assert ef.tolist() == [30.0] * 5 + [60.0] * 5
    with pytest.raises(EchosynError, match="'stratified': no TRAIN video has one"):
        ef_quantile("stratified", np.array([np.nan]), np.array([0.5]))


def test_ranks_map_to_efs_and_draws_are_those():
    ranks = np.array([0.0, 0.25, 0.999])
    assert ef_quantile("uniform", np.empty(0), ranks).tolist() == [10.0, 30.0, 89.9]
    values = np.linspace(20, 80, 61)
    assert ef_quantile("real", values, ranks).tolist() == [20.0, 35.0, 79.9]
    for kind in ("real", "uniform", "stratified"):
        n = 40
        alone = sorted(ef_quantile(kind, values, np.array([r]))[0] for r in (0.1, 0.5, 0.9))
        drawn = np.sort(draw_ef(kind, values, n, 0))
        near = drawn[[int(0.1 * n), int(0.5 * n), int(0.9 * n)]]
        assert np.abs(near - alone).max() < 80 / n + 0.2


# ---- measuring


@pytest.fixture(scope="module")
def regressors(tmp_path_factory):
    """Two untrained EF regressors, as an arm's folder has them."""
    folder = tmp_path_factory.mktemp("ef")
    for k in range(2):
        torch.manual_seed(k)
        net = R2Plus1d(R2Plus1dConfig(widths=(4,), blocks=(1,), stem_width=4, stem_stride=4))
        EfRegressor(net, 100.0, 50.0, 12.0, 4, 8.0).save(folder / f"seed{k}")
    return folder


def test_the_meter_measures_as_evaluation_does(regressors):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (24, 32, 32), np.uint8)
    at_8 = frames[::2]
    table = pd.DataFrame({"FileName": ["a"]})
    one = FrameSet(at_8, table, np.array([0]), np.array([len(at_8)]), 8.0)
    expected = measure_ef(regressors, one, 4, "fp32")[0]
    assert EfMeter(regressors, "fp32")(frames, 16.0) == pytest.approx(expected, abs=0.006)
    with pytest.raises(EchosynError, match="no regressor seed0"):
        EfMeter(regressors / "none")


# ---- shards


class Pixels:
    """A codec whose pixels are the latents' first channel."""

    def decode(self, z):
        return (z[:, 0] * 40 + 128).clamp(0, 255).to(torch.uint8).numpy()


def meter(frames, fps):
    """Stands for the regressors: a number that differs from one noise to the next."""
    assert fps == 16.0
    return float(np.round(100 * (frames.astype(float).mean() / 255), 2))


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """A model, and a plan that asks for EFs about which the meter's numbers lie."""
    root = tmp_path_factory.mktemp("truth")
    models = write_model(root / "lvdm")
    hearts = accepted(root / "hearts", ef=np.array([50.0, 80, 50.1, 51] + [50.0] * 5))
    return models, plan_samples("set", CFG, hearts, real(), 0)


def made(sampled, cfg, folder, cuts=(range(4),)):
    models, plan = sampled
    sampler = VideoSampler(models.video, cfg)
    folders = [folder / str(rows.start) for rows in cuts]
    for rows, one in zip(cuts, folders, strict=True):
        one.mkdir(parents=True)
        sample_shard(sampler, Pixels(), plan, rows, one, 0, None, meter if cfg != CFG else None)
    return folders, finish_samples(folders, plan, folder / "out")


def test_relabelled_videos_are_those_asked_for_under_a_measured_ef(sampled, tmp_path):
    cfg = dataclasses.replace(CFG, ef_truth="relabel")
    _, plain = made(sampled, CFG, tmp_path / "keep")
    folders, table = made(sampled, cfg, tmp_path / "relabel")
    assert table["EFAsked"].tolist() == plain["EF"].tolist() == [50.0, 80.0, 50.1, 51.0]
    assert (table["EF"] != plain["EF"]).all()
    for name in plain["FileName"]:
        files = [tmp_path / kind / f"out/Videos/{name}.avi" for kind in ("keep", "relabel")]
        assert files[0].read_bytes() == files[1].read_bytes()
    written = read_filelist(tmp_path / "relabel/out/FileList.csv")
    assert written["EF"].tolist() == table["EF"].tolist()
    assert read_truth(folders)["Attempts"].tolist() == [1] * 4
    assert set(plain["EFKind"]) == {"asked"}
    assert plain["EFAsked"].tolist() == plain["EF"].tolist()
    assert plain["EFMeasured"].isna().all()
    assert set(written["EFKind"]) == {"measured"}
    assert written["EFMeasured"].tolist() == written["EF"].tolist()
    assert list(written) == list(read_filelist(tmp_path / "keep/out/FileList.csv"))


def test_a_rejected_video_is_tried_with_other_noise_and_the_nearest_kept(sampled, tmp_path):
    models, plan = sampled
    folders, table = made(sampled, REJECT, tmp_path / "reject")
    found = read_truth(folders).set_index("FileName").loc[table["FileName"]]
    sampler = VideoSampler(models.video, REJECT)
    for i, (index, asked) in enumerate(zip(plan.indices, plan.table["EF"], strict=True)):
        ways = [
            sampler.animate(
                plan.hearts.take(plan.indices[i : i + 1]),
                torch.tensor([asked]), [noise_index(0, int(index), a)], 0,
            )[0]
            for a in range(3)
        ]  # fmt: skip
        shown = [meter(Pixels().decode(z), 16.0) for z in ways]
        assert len(set(shown)) == 3
        off = np.abs(np.array(shown) - asked)
        tried = (
            int(np.argmax(off <= REJECT.ef_tolerance)) + 1
            if (off <= REJECT.ef_tolerance).any()
            else 3
        )
        row = table.iloc[i]
        assert row["EFMeasured"] == shown[int(np.argmin(off[:tried]))]
        assert row["EF"] == row["EFAsked"] == asked
        assert row["EFKind"] == "asked"
        assert found["Attempts"].iloc[i] == tried
    assert sorted(found["Attempts"])[-1] == 3  # nothing shows an EF of 80
    assert found["Attempts"].min() == 1


def test_attempts_depend_on_no_batch_and_no_shard(sampled, tmp_path):
    _, whole = made(sampled, REJECT, tmp_path / "whole")
    cfg = dataclasses.replace(REJECT, batch=1)
    _, cut = made(sampled, cfg, tmp_path / "cut", (range(1), range(1, 4)))
    pd.testing.assert_frame_equal(whole, cut)
    for name in whole["FileName"]:
        files = [tmp_path / kind / f"out/Videos/{name}.avi" for kind in ("whole", "cut")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_numbers_say_how_near_the_videos_come(sampled, tmp_path):
    folders, table = made(sampled, REJECT, tmp_path / "reject")
    numbers = sample_numbers(table, folders, REJECT, 0)
    off = (table["EFMeasured"] - table["EF"]).abs()
    assert numbers["sample_videos/ef_within_tolerance"] == (off <= REJECT.ef_tolerance).mean()
    assert 0 < numbers["sample_videos/ef_within_tolerance"] < 1
    assert numbers["sample_videos/ef_mae"] == pytest.approx(off.mean())
    assert 1 < numbers["sample_videos/attempts"] < 3
    expected = np.corrcoef(table["EF"], table["EFMeasured"])[0, 1]
    assert numbers["sample_videos/ef_r"] == pytest.approx(expected)
    assert {"sample_videos/ef_slope", "sample_videos/ef_r_lo"} <= set(numbers)
    same = pd.DataFrame({"FileName": ["a", "b"], "EFAsked": [50.0, 50], "EFMeasured": [51.0, 52]})
    few = truth_numbers(same.assign(Attempts=1), 1.5, 0)  # no correlation with one EF
    assert few["sample_videos/ef_within_tolerance"] == 0.5
    assert "sample_videos/ef_r" not in few
    assert truth_numbers(None, 1.0, 0) == {}


def test_what_was_measured_comes_off_again():
    table = as_asked(pd.DataFrame({"FileName": ["a", "b"]}), np.array([30.0, 60.0]))
    assert table["EFKind"].tolist() == ["asked", "asked"]
    reject = table.assign(EFMeasured=[33.0, 55.0])
    relabel = reject.assign(EF=[33.0, 55.0], EFKind="measured")
    for found in (relabel, reject):
        judged = with_truth(table, found.iloc[::-1])
        pd.testing.assert_frame_equal(judged, found, check_like=True)
        pd.testing.assert_frame_equal(without_truth(judged), table)
        assert asked_ef(judged).tolist() == [30.0, 60.0]


# ---- lists, cards, evaluation, plots


def listed(**columns):
    rows = [
        ("a", 41.0, "", "", 112, 112, 16.0, 28, "TRAIN"),
        ("b", 59.0, "", "", 112, 112, 16.0, 28, "VAL"),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(**columns)


def test_the_columns_are_kept_and_checked(tmp_path):
    path = tmp_path / "FileList.csv"
    write_filelist(path, listed(EFMeasured=[40.0, 60.5]))
    assert path.read_text().splitlines()[0].endswith("Split,EFMeasured")
    assert read_filelist(path)["EFMeasured"].tolist() == [40.0, 60.5]
    for wrong, why in ((101.0, "outside 0-100"), ("x", "not a finite number")):
        write_filelist(path, listed(EFAsked=[40.0, wrong]))
        with pytest.raises(EchosynError, match=f"EFAsked .*{why}.*line 3"):
            read_filelist(path)
    write_filelist(path, listed(EFAsked=[40.0, np.nan]))
    assert np.isnan(read_filelist(path)["EFAsked"][1])
    write_filelist(path, listed(EFKind=["asked", "guessed"]))
    with pytest.raises(
        EchosynError, match="EFKind is not one of asked, measured: line 3: 'guessed'"
    ):
        read_filelist(path)


@pytest.mark.slow
def test_the_release_gate_knows_them():
    good = GoodList(("EFMeasured",)).all("ESV", "").all("EDV", "")
    assert failing(good.judge("release")) == set()
    good.set(3, EFMeasured="101")
    assert failing(good.judge("release")) == {"ef_measured_range"}
    good = GoodList(("EFMeasured",)).all("ESV", "").all("EDV", "").all("EFMeasured", "")
    assert failing(good.judge("release")) == set()
    good = GoodList(("EFKind",)).all("ESV", "").all("EDV", "").set(2, EFKind="guessed")
    assert "ef_kind" in failing(good.judge("release"))
    good = GoodList(("EFAsked",)).all("ESV", "").all("EDV", "").set(2, EFAsked="n/a")
    assert "ef_asked_number" in failing(good.judge("release"))


def test_the_card_says_what_ef_is():
    params = {"scale": "demo", "datasets": {}}
    manifest = {"name": "x", "version": "1.0.0", "license": "MIT", "generator": "g", "videos": 2}

    def said(table):
        return card({**manifest, "params": params, "metrics": {}}, table)

    assert "asked of the generator, not one measured" in said(listed())
    kept = listed(EFAsked=[41.0, 59.0], EFMeasured=np.nan, EFKind="asked")
    assert said(kept) == said(listed())
    relabelled = said(listed(EFAsked=[45.0, 50.0], EFKind="measured"))
    assert "EF is what networks trained on real videos measure" in relabelled
    assert "`EFAsked` is what was asked of the generator, mean 47.5" in relabelled
    assert "2.0 points from EF on average" in said(listed(EFMeasured=[40.0, 62.0]))


def test_evaluation_compares_with_what_was_asked(monkeypatch):
    table = listed(EFAsked=[30.0, 70.0])
    videos = FrameSet(np.zeros((2, 8, 8), np.uint8), table, np.arange(2), np.ones(2, int), 16.0)
    evaluation = EfEvaluation(EvaluateConfig(resamples=100), 0, None)
    monkeypatch.setattr(evaluation, "_predict", lambda *_: np.array([[[35.0, 0]], [[60.0, 0]]]))
    requested = evaluation.faithfulness(None, videos)
    assert requested["ef_requested"].tolist() == [30.0, 70.0]
    assert evaluation.numbers["ef/requested_vs_measured/slope"] == pytest.approx(25 / 40)


def test_the_calibration_curve_is_of_equal_parts_with_intervals():
    rng = np.random.default_rng(0)
    x = rng.uniform(20, 70, 160)
    y = 10 + 0.5 * x + rng.normal(0, 4, 160)
    middle, mean, reach = plots.calibration_curve(x, y)
    assert len(middle) == 8
    assert (np.diff(middle) > 0).all()
    lowest = np.argsort(x)[:20]
    assert middle[0] == pytest.approx(x[lowest].mean())
    assert mean[0] == pytest.approx(y[lowest].mean())
    assert reach[0] == pytest.approx(1.96 * y[lowest].std(ddof=1) / np.sqrt(20))
    assert (np.abs(mean - (10 + 0.5 * middle)) < 2 * reach).mean() >= 0.75
    assert len(plots.calibration_curve(x[:12], y[:12])[0]) == 2
    assert plots.calibration_curve(x[:1], y[:1])[2].tolist() == [0]
    figure = plots.requested_vs_measured(pd.DataFrame({"ef_requested": x, "ef_measured": y}))
    (axes,) = figure.axes
    assert any(np.array_equal(line.get_xdata(), middle) for line in axes.lines)
