"""What each arm of the EF comparison sees, by name, by protocol and by seed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn.data.filelist import COLUMNS, video_path, write_filelist
from echosyn.data.frames import FrameSet
from echosyn.data.video import write_video
from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError
from echosyn.training.arms import ARMS, Arm, choose, more_arms, parse_arm, subset
from echosyn.training.ef import EfTask, TrainEfConfig
from echosyn.training.ef_arms import EfArms

CONF = {
    "model": {"widths": [4], "blocks": [1], "stem_width": 4, "stem_stride": 4, "in_channels": 1},
    "loop": {"steps": 1, "batch": 2, "lr": 1.0e-3, "precision": "fp32"},
    "frames": 4,
    "test_clips": 1,
}


def frames(n, prefix, val=0):
    data = np.zeros((2 * n, 16, 16), np.uint8)
    splits = ["VAL"] * val + ["TRAIN"] * (n - val)
    names = [f"{prefix}{i}" for i in range(n)]
    table = pd.DataFrame({"FileName": names, "EF": 50.0, "Split": splits})
    return FrameSet(data, table, 2 * np.arange(n), np.full(n, 2), 16.0)


def names(sets):
    return [list(s.table["FileName"]) for s in sets]


@pytest.mark.parametrize(
    ("name", "arm"),
    [
        *((a, Arm(a, a)) for a in ARMS),
        (
            "real_plus_synthetic_150",
            Arm("real_plus_synthetic_150", "real_plus_synthetic", ratio_percent=150),
        ),
        ("few_real_5", Arm("few_real_5", "few_real", real_percent=5)),
        (
            "few_real_5_plus_synthetic",
            Arm("few_real_5_plus_synthetic", "real_plus_synthetic", real_percent=5),
        ),
        ("real_from_dynamic", Arm("real_from_dynamic", "real", start="dynamic")),
        (
            "synthetic_relabelled_from_ped_a4c",
            Arm("synthetic_relabelled_from_ped_a4c", "synthetic_relabelled", start="ped_a4c"),
        ),
    ],
)
def test_a_name_says_what_an_arm_is(name, arm):
    assert parse_arm(name) == arm


@pytest.mark.parametrize(
    "name",
    ["fake", "few_real", "few_real_0", "few_real_100", "real_plus_synthetic_0", "real_from_",
     "few_real_5_plus", "real_from_a_from_b", "real_plus_synthetic_x"],
)  # fmt: skip
def test_other_names_are_refused(name):
    with pytest.raises(EchosynError, match=f"arm '{name}' is not one of real, "):
        parse_arm(name)


def test_arms_that_select_on_real_videos_of_another_kind_are_labelled_so():
    assert [parse_arm(a).label("strict") for a in ARMS] == list(ARMS)
    assert [parse_arm(a).label("reference") for a in ARMS] == [
        "real", "reconstructed_reference", "synthetic_reference",
        "synthetic_relabelled_reference", "real_plus_synthetic_reference",
    ]  # fmt: skip
    assert parse_arm("few_real_10").label("reference") == "few_real_10"


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.data(), st.integers(0, 9))
def test_a_smaller_draw_is_part_of_a_larger_one(n, data, seed):
    few = data.draw(st.integers(1, n))
    many = data.draw(st.integers(few, n))
    (small,), (large,) = (names([subset(frames(n, "v"), k, seed)]) for k in (few, many))
    assert len(small) == few
    assert set(small) <= set(large)
    assert large == sorted(large, key=lambda v: int(v[1:]))
    assert [small] == names([subset(frames(n, "v"), few, seed)])


def test_ratios_and_shares_are_of_the_real_videos():
    real, synthetic = frames(50, "r", val=10), frames(60, "s", val=20)

    def chosen(name, split, seed=0):
        return names(choose(parse_arm(name), real, synthetic, split, seed))

    assert [len(s) for s in chosen("real_plus_synthetic_50", "TRAIN")] == [40, 20]
    assert [len(s) for s in chosen("real_plus_synthetic_50", "VAL")] == [10, 5]
    assert [len(s) for s in chosen("few_real_10_plus_synthetic", "TRAIN")] == [4, 40]
    assert [len(s) for s in chosen("few_real_10_plus_synthetic", "VAL")] == [2, 20]
    few = [names(choose(parse_arm("few_real_10"), real, None, "TRAIN", s))[0] for s in range(4)]
    assert all(len(s) == 4 for s in few)
    assert len({tuple(s) for s in few}) > 1, "seeds differ in their few videos"
    alone = names(choose(parse_arm("few_real_10"), real, None, "TRAIN", 0))[0]
    assert chosen("few_real_10_plus_synthetic", "TRAIN")[0] == alone, "the curve adds, only"
    with pytest.raises(
        EchosynError, match="150 % of 40 real TRAIN videos: 60 videos asked for, 40"
    ):
        chosen("real_plus_synthetic_150", "TRAIN")


@pytest.mark.parametrize(("share", "counted"), [(0.0, 4), (0.05, 4), (0.5, 40), (0.75, 120)])
def test_few_real_videos_are_repeated_until_they_have_their_share_of_training(share, counted):
    real, synthetic = frames(50, "r", val=10), frames(60, "s", val=20)
    arm = parse_arm("few_real_10_plus_synthetic")
    few, many = names(choose(arm, real, synthetic, "TRAIN", 0, share))
    once = names(choose(arm, real, synthetic, "TRAIN", 0))[0]
    assert (len(few), len(many)) == (counted, 40)
    assert {v: few.count(v) for v in few} == dict.fromkeys(once, counted // 4)
    assert [len(s) for s in choose(arm, real, synthetic, "VAL", 0, share)] == [2, 20]
    none = names(choose(arm, frames(0, "r"), synthetic, "TRAIN", 0, share))
    assert [len(s) for s in none] == [0, 40], "no real video, nothing to repeat"
    all_real = names(choose(parse_arm("real_plus_synthetic_50"), real, synthetic, "TRAIN", 0, 0.5))
    assert [len(s) for s in all_real] == [40, 20], "real videos that are more are not left out"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"start": "x", "arms": ["few_real_10", "few_real_10"]}, "stands there twice"),
        ({"start": "x", "arms": ["real"]}, "'real' is always trained"),
        ({"start": "x", "arms": ["real_from_y"]}, "starts from 'y', but start is 'x'"),
        ({"start": "x", "arms": ["few"]}, "arm 'few' is not one of"),
        ({"arms": []}, "setting 'start' is missing"),
    ],
)
def test_entries_of_ef_arms_are_checked(entry, said):
    with pytest.raises(EchosynError, match=r"params.yaml: ef_arms.a: .*" + said):
        more_arms({"ef_arms": {"a": entry}}, "a")
    assert more_arms({"ef_arms": {"a": entry}}, "b") == ()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Real, reconstructed and synthetic videos of six, four TRAIN and two VAL each."""
    rng = np.random.default_rng(0)
    for folder in ("data/train/a", "reconstructions/train/a", "samples/a"):
        made = tmp_path / folder
        (made / "Videos").mkdir(parents=True)
        rows = []
        for i in range(6):
            name, split = f"{folder[0]}{i}", "VAL" if i < 2 else "TRAIN"
            clip = rng.integers(0, 255, (6, 16, 16), np.uint8)
            write_video(video_path(made, name), clip, 16.0)
            rows.append((name, 40.0 + i, 60 - i, 100.0, 16, 16, 16.0, 6, split))
        write_filelist(made / "FileList.csv", pd.DataFrame(rows, columns=list(COLUMNS)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def prepared(project, arm, protocol="strict", seed=0):
    (project / "conf/smoke").mkdir(parents=True, exist_ok=True)
    (project / "conf/smoke/train_ef.yaml").write_text(yaml.safe_dump(CONF))
    knobs = {"scale": "smoke", "seed": seed, "train_ef": {"protocol": protocol}}
    (project / "params.yaml").write_text(yaml.safe_dump(knobs))
    params = Params(Path())
    cfg = params.stage("train_ef", TrainEfConfig)
    task, inputs = EfArms(params, cfg, "a", project / "frames").prepare(arm)
    videos = [{s.table["FileName"][v] for s, v in some} for some in (task.train, task.val)]
    return task, [p.as_posix() for p in inputs], *videos


@pytest.mark.parametrize("arm", ["synthetic", "reconstructed"])
def test_strict_arms_open_no_real_video(project, arm):
    for video in (project / "data/train/a/Videos").iterdir():
        video.unlink()
    _, inputs, train, val = prepared(project, arm)
    letter = "s" if arm == "synthetic" else "r"
    assert train | val == {f"{letter}{i}" for i in range(6)}
    assert val == {f"{letter}{i}" for i in range(2)}
    assert "data/train/a" not in inputs


def test_the_reference_protocol_selects_on_real_videos_and_trains_on_none(project):
    _, inputs, train, val = prepared(project, "synthetic", "reference")
    assert train == {f"s{i}" for i in range(2, 6)}
    assert val == {"d0", "d1"}
    assert "data/train/a" in inputs
    _, _, train, val = prepared(project, "real_plus_synthetic", "reference")
    assert val == {"d0", "d1"}
    assert {n[0] for n in train} == {"d", "s"}
    _, _, _, val = prepared(project, "real_plus_synthetic", "strict")
    assert val == {"d0", "d1", "s0", "s1"}


def test_relabelled_arms_carry_what_the_teacher_measures_and_name_it_as_input(project):
    task = prepared(project, "real")[0]
    assert isinstance(task, EfTask)
    model = task.build().eval()
    model.save(project / "models/ef/a/real/seed0")
    task, inputs, train, _ = prepared(project, "synthetic_relabelled")
    assert inputs == ["samples/a", "models/ef/a/real"]
    labels = {round(float(s.ef[v]), 3) for s, v in task.train}
    assert not labels & {40.0 + i for i in range(6)}
    assert len(train) == 4
    task, inputs, _, _ = prepared(project, "synthetic_from_a")
    assert task.start is not None
    assert inputs == ["samples/a", "models/ef/a/real"], "every seed's start is an input"
