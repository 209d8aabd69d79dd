"""The segmenter, and what is traced with it."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from echosyn.cluster import map_rows
from echosyn.data.filelist import read_filelist, video_path, write_filelist
from echosyn.data.phantom import PhantomConfig
from echosyn.data.phantom.anatomy import ML_PER_CUBIC_PIXEL
from echosyn.data.phantom.dataset import write_dataset
from echosyn.data.video import read_video, write_video
from echosyn.models.segmenter import Segmenter, probabilities
from echosyn.release.tracings import add_tracings
from echosyn.report.tracing_plots import real_rows, synthetic_rows, tracing_figure
from echosyn.runtime.config import build
from echosyn.runtime.files import read_json
from echosyn.segmentation.agreement import agreement, measured_agreement
from echosyn.segmentation.files import NONE
from echosyn.segmentation.task import (
    SegmentationConfig,
    SegmentationTask,
    cubic_pixel,
    dice_numbers,
    dices,
    shuffled,
    traced_frames,
)
from echosyn.segmentation.trace import (
    OUTCOMES,
    trace,
    trace_videos,
    tracing_numbers,
    volume_table,
    write_tracings,
)
from echosyn.tracking import NullRun
from echosyn.training.loop import fit

LOOP = {"steps": 110, "batch": 8, "lr": 6e-3, "warmup": 5, "precision": "fp32"}
SIZES = PhantomConfig(train=24, val=3, test=6, frames=34)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantom"
    write_dataset(folder, SIZES, 0, 1)
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A folder with a network that learned from a few phantoms for seconds."""
    cfg = build(SegmentationConfig, {"loop": LOOP, "width": 8}, "test")
    train, val = (traced_frames(data, split) for split in ("TRAIN", "VAL"))
    task = SegmentationTask(cfg, train, val, cubic_pixel(data))
    work = tmp_path_factory.mktemp("work")
    fit(task, cfg.loop, 0, work, NullRun(), "test").save(work / "model")
    return work / "model"


def test_traced_frames_are_those_of_the_file(data):
    train = traced_frames(data, "TRAIN")
    assert (train.videos, len(train.frames), int(train.diastole.sum())) == (24, 48, 24)
    ed, es = train.areas[train.diastole], train.areas[~train.diastole]
    assert ed.mean() > es.mean()
    assert traced_frames(data, "TRAIN", most=3).videos == 3
    assert not traced_frames(data, "NONE").videos


def test_a_cubic_pixel_is_known_where_all_videos_agree(data, tmp_path):
    assert cubic_pixel(data) == pytest.approx(ML_PER_CUBIC_PIXEL, rel=1e-3)
    table = read_filelist(data / "FileList.csv")
    table["EDV"] *= np.linspace(0.8, 1.2, len(table))
    write_filelist(tmp_path / "FileList.csv", table)
    (tmp_path / "VolumeTracings.csv").write_bytes((data / "VolumeTracings.csv").read_bytes())
    assert cubic_pixel(tmp_path) is None


def test_it_learns_where_the_ventricle_is(data, trained):
    test = traced_frames(data, "TEST")
    net = Segmenter.load(trained)
    each = dices(net, test)
    numbers = dice_numbers(each, test, 0)
    assert each.mean() > 0.85
    assert numbers["segmentation/dice"] == pytest.approx(each.mean())
    assert numbers["segmentation/dice_lo"] < each.mean() < numbers["segmentation/dice_hi"]
    assert numbers["segmentation/dice_ed"] == pytest.approx(each[test.diastole].mean())
    assert numbers["segmentation/test_videos"] == 6
    assert net.ml == pytest.approx(ML_PER_CUBIC_PIXEL, rel=1e-3)


def test_videos_without_a_heart_are_left_out_and_counted(data, trained, tmp_path):
    names = read_filelist(data / "FileList.csv")["FileName"].tolist()[-3:]
    (tmp_path / "Videos").mkdir()
    rng = np.random.default_rng(0)
    for name in names:
        frames, fps = read_video(video_path(data, name))
        write_video(video_path(tmp_path, name), frames, fps)
    mixed = np.stack([shuffled(f, np.random.default_rng(1)) for f in frames])
    noise = rng.integers(0, 60, frames.shape, np.uint8)
    for name, video in {"mixed": mixed, "noise": noise, "black": np.zeros_like(noise)}.items():
        write_video(video_path(tmp_path, name), video, fps)
    listed = [*names, "mixed", "noise", "black"]
    over = partial(map_rows, tmp_path / "work", 2, "trace", "video")
    traced = trace_videos(tmp_path, listed, trained, over, "test")
    table = volume_table(listed, traced, None)
    assert [t.traced for t in traced] == [True] * 3 + [False] * 3
    assert (table["VolumeUnit"] == "pixel^3").all()
    write_tracings(tmp_path, table, traced)
    kept = pd.read_csv(tmp_path / "VolumeTracings.csv")
    assert set(kept["FileName"]) == {f"{name}.avi" for name in names}
    assert (kept.groupby(["FileName", "Frame"]).size() == 21).all()
    samples = pd.DataFrame({"FileName": listed, "EF": 50.0, "HeartRate": 60.0, "Phase": 0.0,
                            "FPS": fps, "NumberOfFrames": 34})  # fmt: skip
    numbers = tracing_numbers(samples, table, 0)
    assert numbers["segmentation/traced"] == 0.5
    out = [v for k, v in numbers.items() if k.startswith("segmentation/left_out_")]
    assert len(out) == len(OUTCOMES) - 1
    assert sum(out) == 3
    assert 0 <= numbers["segmentation/ed_off"] <= 0.5
    rows = [*synthetic_rows(tmp_path, table, traced), *real_rows(data, Segmenter.load(trained))]
    assert [len(row) for row in rows] == [3, 3, 6, 6]
    assert len(tracing_figure(rows).axes) == 18


class Bright(nn.Module):
    """Stands for a trained network: what is bright is the ventricle."""

    areas = (400.0, 1600.0)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return 20 * self.scale * x


def beating(sizes):
    """Ellipses of these half-lengths, half as wide."""
    y, x = np.mgrid[:112, :112]
    return np.stack([255 * (4 * (x - 56) ** 2 + (y - 56) ** 2 < s**2) for s in sizes])


@pytest.mark.parametrize(
    ("sizes", "outcome"),
    [
        ([24, 30, 22, 26], "traced"),
        ([24, 30, 0, 26], "no ventricle"),
        ([24, 55, 22, 26], "implausible area"),  # 4752 pixels
        ([24, 30, 8, 26], "implausible area"),  # 101 pixels
        ([24, 24, 24, 24], "no contraction"),
    ],
)
def test_what_cannot_be_is_not_traced(sizes, outcome):
    found = trace(Bright(), beating(sizes).astype(np.uint8))
    assert found.outcome == outcome
    assert found.traced == np.isfinite(found.lines).all()
    if found.traced:
        assert found.frames == (1, 2)
        ed, es = found.volumes
        assert 100 * (1 - es / ed) == pytest.approx(100 * (1 - (22 / 30) ** 3), abs=2)


def test_probabilities_are_of_each_frame():
    frames = beating([20, 30, 10]).astype(np.uint8)
    assert np.array_equal(probabilities(Bright(), frames, batch=2) > 0.5, frames > 0)


def test_agreement_is_of_the_videos_that_have_both(tmp_path):
    stated, traced = np.array([30.0, 40, 50, np.nan]), np.array([33.0, 43, 53, 1])
    found = agreement("ef", stated, traced, 0, "_real")
    assert found["segmentation/ef_mae_real"] == pytest.approx(3)
    assert found["segmentation/ef_r_real"] == pytest.approx(1)
    assert not agreement("ef", stated[1:], traced[1:], 0)
    names = ["a", "b", "c", "d"]
    pd.DataFrame({"FileName": names, "EFTraced": traced}).to_csv(tmp_path / "volumes.csv")
    measured = pd.DataFrame({"FileName": names[::-1], "ef_measured": stated[::-1] - 1})
    found = measured_agreement(tmp_path, measured, 0)
    assert found["segmentation/ef_measured_mae"] == pytest.approx(4)
    (tmp_path / NONE).touch()
    assert measured_agreement(tmp_path, measured, 0) == {}


@pytest.mark.slow
def test_without_tracings_there_is_no_model_and_it_is_said(data, tmp_path, monkeypatch, capsys):
    from pipelines.trace import main as trace_main
    from pipelines.train_segmentation import main as train_main

    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    params = {"scale": "smoke", "seed": 0, "datasets": {"phantom": {"role": "train"}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "conf/smoke").mkdir(parents=True)
    (tmp_path / "conf/smoke/train_segmentation.yaml").write_text(yaml.safe_dump({"loop": LOOP}))
    for place in ("data/train/phantom", "samples/phantom"):
        (tmp_path / place / "Videos").mkdir(parents=True)
        (tmp_path / place / "FileList.csv").write_bytes((data / "FileList.csv").read_bytes())
    train_main("phantom")
    trace_main("phantom")
    said = capsys.readouterr().out
    assert "0 real videos of TRAIN and 0 of VAL are traced" in said
    assert "no tracings in the release" in said
    assert [p.name for p in (tmp_path / "tracings/phantom").iterdir()] == [NONE]
    assert json.loads((tmp_path / "metrics/trace/phantom.json").read_text()) == {}
    table = read_filelist(data / "FileList.csv")
    same, facts = add_tracings(tmp_path / "tracings/phantom", tmp_path, table)
    assert same is table
    reason = read_json(tmp_path / "models/segmentation/phantom/none.json")["reason"]
    assert facts == {"videos": 0, "reason": reason}
