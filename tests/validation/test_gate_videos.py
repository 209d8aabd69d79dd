"""What the gate measures of video files, and of the splits they are in."""

import re

import cv2
import numpy as np
import pandas as pd
import pytest
from echonet_layout import clip, edit, make

from echosyn.data.phantom.config import PhantomConfig
from echosyn.data.phantom.render import write_patient
from echosyn.data.video import read_video, write_video
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import sha256_file
from echosyn.validation import ValidateConfig, run_gate
from echosyn.validation.charts import histogram, shares
from echosyn.validation.splits import class_table, drift_table, nearest_in_other_splits
from echosyn.validation.videos import WIDTH, describe, measure


def gate(folder, **config):
    passed, docs = folder.parent / "ds.json", folder.parent / "docs"
    return run_gate("raw", folder, "ef", ValidateConfig(**config), passed=passed, docs=docs)


def failing(result):
    return {o.check.name for o in result.outcomes if not o.passed}


def test_a_video_is_measured(tmp_path):
    frames = clip(3, 7, 48, 64)
    write_video(tmp_path / "a.avi", frames, 29.97)
    facts = measure(tmp_path / "a.avi")
    assert (facts.frames, facts.height, facts.width) == (7, 48, 64)
    assert facts.fps == pytest.approx(29.97, abs=0.01)
    assert facts.sha256 == sha256_file(tmp_path / "a.avi")
    read = read_video(tmp_path / "a.avi")[0]
    three = read[[0, 3, 6]]
    assert facts.contrast == min(int(f.max()) - int(f.min()) for f in three)
    assert facts.motion == pytest.approx(
        max(np.abs(three[0].astype(float) - f).mean() for f in three[1:]), abs=1e-3
    )
    assert np.array_equal(facts.descriptors, np.stack([describe(f) for f in three]))


def cut(data):
    return data[:-2000]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: b"", r"is empty \(0 bytes\)"),
        (lambda data: b"FileName,EF\n" * 400, "not a video that can be decoded"),
        (cut, "truncated, .* of the .* bytes"),
        (
            lambda data: cut(data)[:4] + (len(data) - 2008).to_bytes(4, "little") + cut(data)[8:],
            "truncated, [0-9]+ of the 9 frames",
        ),
    ],
)
def test_damaged_videos_are_refused_with_the_reason(tmp_path, spoil, message):
    path = tmp_path / "a.avi"
    write_video(path, clip(1, 9), 50)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(EchosynError, match=message):
        measure(path)


def test_a_video_without_a_file(tmp_path):
    with pytest.raises(EchosynError, match="does not exist"):
        measure(tmp_path / "a.avi")


@pytest.mark.slow
def test_blank_and_still_videos(tmp_path):
    folder = make(tmp_path / "ds")
    black = np.zeros((4, 112, 112), np.uint8)
    write_video(folder / "Videos" / "v0.avi", black, 50)
    still = np.repeat(clip(1, 1), 5, 0)
    write_video(folder / "Videos" / "v1.avi", still, 50)
    late = clip(2, 6)
    late[-1] = 0
    write_video(folder / "Videos" / "v2.avi", late, 50)
    result = gate(folder)
    assert failing(result) == {"not_blank", "moves"}
    found = {o.check.name: o for o in result.outcomes}
    assert found["not_blank"].examples == ("line 2, v0: Contrast 0", "line 4, v2: Contrast 0")
    assert found["moves"].examples == ("line 2, v0: Motion 0", "line 3, v1: Motion 0")


def recompressed(frames):
    quality = [cv2.IMWRITE_JPEG_QUALITY, 50]
    return np.stack([cv2.imdecode(cv2.imencode(".jpg", f, quality)[1], 0) for f in frames])


def brighter(frames):
    return np.clip(frames * 1.2 + 8, 0, 255).astype(np.uint8)


def reversed_in_time(frames):
    return frames[::-1]


@pytest.mark.slow
@pytest.mark.parametrize("change", [recompressed, brighter, reversed_in_time])
def test_a_changed_copy_in_another_split_is_found(tmp_path, change):
    folder = make(tmp_path / "ds")
    frames, fps = read_video(folder / "Videos" / "v1.avi")
    write_video(folder / "Videos" / "v3.avi", change(frames), fps)
    edit(folder, 5, ",7,", ",5,")
    result = gate(folder)
    assert failing(result) == {"near_copies"}
    (example,) = result.failed[0].examples
    assert re.fullmatch(
        r"line 5, v3: Split TEST, Nearest (0\.9\d+|1), NearestVideo v1, NearestSplit TRAIN", example
    )


def test_phantoms_are_not_taken_for_each_other(tmp_path):
    cfg = PhantomConfig(train=6, val=2, test=2, frames=34)
    described = []
    for i in range(cfg.videos):
        labels = write_patient(tmp_path, i, cfg=cfg, seed=0)
        described.append(measure(tmp_path / f"{labels.name}.avi").descriptors)
    splits = pd.Series([cfg.split(i) for i in range(cfg.videos)])
    found = nearest_in_other_splits(np.stack(described), list("abcdefghij"), splits)
    assert found["Nearest"][:6].isna().all()
    assert found["Nearest"][6:].between(0.3, 0.9).all()


def unit(rng, *shape):
    x = rng.normal(size=(*shape, WIDTH))
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def test_the_nearest_frame_is_that_of_an_exhaustive_search():
    rng = np.random.default_rng(0)
    d = unit(rng, 40, 3)
    d[5], d[7, 1] = 0, 0  # nothing to see
    splits = pd.Series(rng.choice(["TRAIN", "VAL", "TEST"], 40))
    splits[5] = "VAL"
    names = [f"v{i}" for i in range(40)]
    d[np.flatnonzero(splits == "TEST")[0], 2] = d[np.flatnonzero(splits == "VAL")[-1], 0]
    found = nearest_in_other_splits(d, names, splits)
    order = {"TRAIN": 0, "VAL": 1, "TEST": 2}
    for i in range(40):
        others = [j for j in range(40) if order[splits[j]] < order[splits[i]] and d[j].any()]
        if not others or not d[i].any():
            assert np.isnan(found["Nearest"][i])
            assert found["NearestVideo"][i] is None
            continue
        best = {j: float((d[i] @ d[j].T).max()) for j in others}
        assert found["Nearest"][i] == pytest.approx(max(best.values()), abs=1e-6)
        assert best[int(found["NearestVideo"][i][1:])] == pytest.approx(
            max(best.values()), abs=1e-6
        )
        assert found["NearestSplit"][i] == splits[int(found["NearestVideo"][i][1:])]


def test_a_picture_of_nothing_is_like_nothing():
    grey = np.full((112, 112), 90, np.uint8)
    grey[::2, ::2] += 1
    assert not describe(grey).any()
    assert np.linalg.norm(describe(clip(0, 1)[0])) == pytest.approx(1)


def test_classes_are_counted_in_the_splits_that_have_them():
    classes = pd.Series(["a", "b", " a ", "", "a"])
    splits = pd.Series(["TRAIN", "TRAIN", "TRAIN", "VAL", "TEST"])
    rows = [tuple(row) for row in class_table(classes, splits).itertuples(index=False)]
    assert rows == [
        ("a", "TRAIN", 2, pytest.approx(2 / 3)),
        ("a", "TEST", 1, 1),
        ("b", "TRAIN", 1, pytest.approx(1 / 3)),
        ("b", "TEST", 0, 0),
    ]
    assert class_table(pd.Series(["", ""]), pd.Series(["TRAIN", "VAL"])).empty


def test_drift_of_known_samples():
    ef = pd.Series([*range(100), *range(50, 150), 7.0])
    splits = pd.Series(["TRAIN"] * 100 + ["VAL"] * 100 + ["TEST"])
    (row,) = drift_table(ef, splits, 0.01).itertuples(index=False)
    assert (row.Pair, row.KS) == ("TRAIN-VAL", 0.5)
    assert row.P < 1e-9
    assert row.BeyondChance == 0.5
    (row,) = drift_table(ef, splits, 1e-300).itertuples(index=False)
    assert row.BeyondChance == 0


def test_charts_say_their_numbers():
    drawn = histogram("TRAIN", np.array([12.0, 13.0, 61.0]), np.arange(0, 101, 5), "%")
    assert "3 videos, mean 28.7, sd 22.9 %" in drawn.said
    assert [words for *_, words in drawn.bars] == ["10-15 %: 2", "60-65 %: 1"]
    assert "0 videos" in histogram("VAL", np.array([]), np.arange(0, 101, 5), "%").said
    assert "PAH 3 (75%), non-PAH 1 (25%)" in shares("TRAIN", {"PAH": 3, "non-PAH": 1}).said


@pytest.mark.slow
def test_the_page_shows_splits_classes_and_lengths(tmp_path):
    folder = make(tmp_path / "ds", columns=[("Class", ["<b>", "b", "b", "b"])])
    page = gate(folder).page.read_text()
    assert page.count("<svg") == 3 + 3 + 1
    assert "&lt;b&gt; 1 (50%)" in page
    assert "TRAIN-VAL" not in page  # splits of one video are not compared
    assert not re.search(r"https?://|<script|<link|src=|@import", page)
