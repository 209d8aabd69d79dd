"""EchoNet-Pediatric, CardiacNet, folders with a CSV file, and what all sources share."""

import numpy as np
import pandas as pd
import pytest
from echonet_layout import clip, edit, make
from hypothesis import given, settings
from hypothesis import strategies as st
from source_layouts import cardiacnet, pediatric

from echosyn.data.filelist import SAFE_NAME, read_cells, read_filelist, video_path
from echosyn.data.ingest import ingest
from echosyn.data.ingest.canonical import Clip, IngestOptions, Item, Plan, SkipError, write_dataset
from echosyn.data.ingest.names import file_names, plain_path
from echosyn.data.ingest.pediatric import Options as Pediatric
from echosyn.data.ingest.pseudonym import make_key
from echosyn.data.ingest.splits import Shares, split_patients
from echosyn.data.ingest.table import Options as Table
from echosyn.data.video import read_video, write_video
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError


def listed(out, label="ef"):
    return read_filelist(out / "FileList.csv", label)


def rejected(path):
    return read_cells(path).table.to_dict("records")


# ---- EchoNet-Pediatric


def test_pediatric_folds_become_splits_and_facts_come_from_the_videos(tmp_path):
    raw = pediatric(tmp_path / "raw", range(10))
    report = ingest("pediatric", raw, tmp_path / "out", "ef", {"view": "A4C"})
    assert (report.videos, report.frames) == (10, 39)
    table = listed(tmp_path / "out")
    assert list(table["FileName"]) == [f"CR{i}-{i}" for i in range(10)]
    assert list(table["Split"]) == ["TRAIN"] * 8 + ["VAL", "TEST"]
    assert list(table["NumberOfFrames"]) == [3 + i % 3 for i in range(10)]
    assert (table["FPS"] == 40).all()
    assert (table[["FrameHeight", "FrameWidth"]] == 112).all(axis=None)
    assert list(table["EF"]) == [60.5 + i for i in range(10)]
    assert list(table["Sex"]) == list("MF" * 5)
    assert list(table["Age"]) == list(range(10))
    assert list(table["Weight"]) == [10.5 + i for i in range(10)]
    assert list(table["Height"]) == [80 + i for i in range(10)]
    inner = raw / "pediatric_echo_avi" / "pediatric_echo_avi" / "A4C"
    for part in ("Videos/CR3-3.avi", "VolumeTracings.csv"):
        assert (tmp_path / "out" / part).read_bytes() == (inner / part).read_bytes()


def test_pediatric_takes_the_path_of_a_view_too(tmp_path):
    raw = pediatric(tmp_path / "raw", [0, 8, 9], view="PSAX")
    inner = raw / "pediatric_echo_avi" / "pediatric_echo_avi" / "PSAX"
    assert ingest("pediatric", inner, tmp_path / "out", "ef").videos == 3
    with pytest.raises(EchosynError, match=r"no A4C/FileList\.csv"):
        ingest("pediatric", raw, tmp_path / "out", "ef", {"view": "A4C"})


def test_ten_turns_test_every_fold_once():
    turns = [build(Pediatric, {"offset": k}, "here") for k in range(10)]
    assert [[t.split(f) for f in range(10)].count("TRAIN") for t in turns] == [8] * 10
    for split in ("VAL", "TEST"):
        assert sorted(f for t in turns for f in range(10) if t.split(f) == split) == [*range(10)]
    assert build(Pediatric, {"offset": 1}, "here").split(0) == "TEST"
    with pytest.raises(EchosynError, match="both 3"):
        build(Pediatric, {"val_fold": 3, "test_fold": 3}, "here")


def test_pediatric_rejects_bad_rows_and_keeps_odd_measures_empty(tmp_path):
    rows = [
        "FileName,EF,Sex,Age,Weight,Height,Split",
        "CR0-0.avi,60,M,5,20.5,110,0",
        "CR1-1.avi,61,F,ten,,x,10",
        "CR2-2.avi,62,F,ten,,-4,8",
        "missing.avi,50,F,1,1,1,1",
    ]
    raw = pediatric(tmp_path / "raw", range(3), rows=rows)
    rejects = tmp_path / "rejects.csv"
    report = ingest(
        "pediatric", raw, tmp_path / "out", "ef", {"view": "A4C"}, max_rejects=2, rejects=rejects
    )
    assert (report.videos, report.rejected) == (2, 2)
    assert "2 cells of Age are no numbers, the first on line 3 ('ten'): left empty" in report.notes
    bad = rejected(rejects)
    assert bad[0]["source"] == "FileList.csv line 3 (CR1-1.avi)"
    assert bad[0]["reason"] == "Split '10' is not a fold from 0 to 9"
    assert "the video does not exist" in bad[1]["reason"]
    table = listed(tmp_path / "out")
    assert table.loc[1, ["Age", "Weight", "Height"]].isna().all()


def test_tracings_of_points_move_with_resized_videos(tmp_path):
    raw = pediatric(tmp_path / "raw", [0, 8, 9])
    inner = raw / "pediatric_echo_avi" / "pediatric_echo_avi" / "A4C"
    write_video(inner / "Videos" / "CR0-0.avi", clip(1, 4, 168, 224), 40)
    ingest("pediatric", inner, tmp_path / "out", "ef")
    table = read_cells(tmp_path / "out" / "VolumeTracings.csv").table
    assert table.loc[0, ["X", "Y", "Frame"]].tolist() == ["5.2500", "24.1250", "1"]
    assert table.loc[1, "Frame"] == "No Systolic"


# ---- CardiacNet


def test_cardiacnet_has_classes_and_splits_by_patient(tmp_path):
    raw = cardiacnet(tmp_path / "raw", pah=10, normal=5)
    report = ingest("cardiacnet", raw, tmp_path / "out", "class")
    assert (report.videos, report.rejected) == (17, 0)
    assert report.notes[0] == "4 files of masks are not used"
    table = listed(tmp_path / "out", "class")
    assert table["Class"].value_counts().to_dict() == {"PAH": 11, "non-PAH": 6}
    assert set(table[table["Class"] == "PAH"]["Split"]) == {"TRAIN", "VAL", "TEST"}
    assert set(table[table["Class"] == "non-PAH"]["Split"]) == {"TRAIN", "VAL", "TEST"}
    assert table["EF"].isna().all()
    assert (table["FPS"] == 32).all()
    assert "PAH_111_PHI01" in set(table["FileName"])
    assert table.set_index("FileName")["Patient"]["PAH_111_PHI01"] == "PAH-111"
    row = table.set_index("FileName").loc["PAH_001"]
    assert row["NumberOfFrames"] == 5
    frames, _ = read_video(video_path(tmp_path / "out", "PAH_001"))
    assert np.abs(frames[:, 14:98].mean() - clip(301, 5, 60, 80).mean()) < 2
    again = tmp_path / "again"
    ingest("cardiacnet", raw, again, "class")
    assert (again / "FileList.csv").read_bytes() == (tmp_path / "out/FileList.csv").read_bytes()
    ingest("cardiacnet", raw, tmp_path / "other", "class", {"split": {"seed": 1}})
    assert not listed(tmp_path / "other", "class")["Split"].equals(table["Split"])


def test_cardiacnet_clips_are_resampled(tmp_path):
    frames = np.stack([np.full((112, 112), 20 * i, np.uint8) for i in range(12)])
    for name in ("ASD", "None_ASD"):
        folder = tmp_path / "raw" / name / "007"
        folder.mkdir(parents=True)
        write_video(folder / "a.avi", frames, 64)
        write_video(folder / "b.avi", frames, 32)
        (folder / "notes.txt").write_text("hello")
    rejects = tmp_path / "rejects.csv"
    report = ingest(
        "cardiacnet", tmp_path / "raw", tmp_path / "out", "class", {"task": "ASD"}, rejects=rejects
    )
    assert (report.videos, report.skipped) == (4, 2)
    assert {r["outcome"] for r in rejected(rejects)} == {"skipped"}
    table = listed(tmp_path / "out", "class").set_index("FileName")
    assert table["NumberOfFrames"].to_dict() == {
        "ASD_007_a": 6,
        "ASD_007_b": 12,
        "non-ASD_007_a": 6,
        "non-ASD_007_b": 12,
    }
    assert table["Patient"].nunique() == 2
    slow, fps = read_video(video_path(tmp_path / "out", "ASD_007_a"))
    assert fps == 32
    assert slow.mean((1, 2)) == pytest.approx([0, 40, 80, 120, 160, 200], abs=2)
    kept = {"task": "ASD", "fps": None}
    ingest("cardiacnet", tmp_path / "raw", tmp_path / "kept", "class", kept)
    assert sorted(listed(tmp_path / "kept", "class")["FPS"]) == [32, 32, 64, 64]


def test_cardiacnet_needs_both_classes_and_no_ef(tmp_path):
    raw = cardiacnet(tmp_path / "raw", 2, 2)
    with pytest.raises(EchosynError, match="no folder 'ASD'"):
        ingest("cardiacnet", raw, tmp_path / "out", "class", {"task": "ASD"})
    with pytest.raises(EchosynError, match="set 'label: class'"):
        ingest("cardiacnet", raw, tmp_path / "out", "ef")
    (raw / "CardiacNet-X" / "pah").mkdir(parents=True)
    with pytest.raises(EchosynError, match="several folders are named 'PAH'"):
        ingest("cardiacnet", raw, tmp_path / "out", "class")


# ---- A folder and a CSV file

COLUMNS = {"file": "Path", "ef": "LVEF (%)", "patient": "MRN"}


def folder(root, lines, header="Path;MRN;LVEF (%)", names=("a", "b", "c", "d")):
    """Clips sub/<name>.avi and labels.csv."""
    (root / "sub").mkdir(parents=True)
    for i, name in enumerate(names):
        write_video(root / "sub" / f"{name}.avi", clip(i, 3, 64, 80), 25)
    (root / "labels.csv").write_bytes(("﻿" + "\r\n".join([header, *lines])).encode())
    return root


def take(raw, out, label="ef", max_rejects=0, rejects=None, **options):
    settings = {"csv": "labels.csv", "columns": COLUMNS, "separator": ";", "decimal": ","}
    merged = {**settings, **options}
    return ingest("table", raw, out, label, merged, max_rejects, rejects)


def test_a_table_with_its_own_names_separator_and_decimals(tmp_path):
    lines = ["sub/a.avi;900;55,6", "sub\\b.avi;901;60", "./sub/c.avi;900;41,25"]
    raw = folder(tmp_path / "raw", lines)
    report = take(raw, tmp_path / "out")
    assert (report.videos, report.frames) == (3, 9)
    table = listed(tmp_path / "out")
    assert list(table["FileName"]) == ["sub_a", "sub_b", "sub_c"]
    assert list(table["EF"]) == [55.6, 60, 41.25]
    assert list(table["Patient"]) == ["P000001", "P000002", "P000001"]
    assert table["Split"][0] == table["Split"][2]
    assert (table["FPS"] == 25).all()
    assert read_video(video_path(tmp_path / "out", "sub_a"))[0].shape == (3, 112, 112)
    for file in (tmp_path / "out").rglob("*.*"):
        assert b"900" not in file.read_bytes() or file.suffix in (".avi", ".sha256")


def test_columns_of_the_filelists_own_names_do_not_get_in_the_way(tmp_path):
    header = "Split;EF;Path;LVEF (%);FileName"
    raw = folder(tmp_path / "raw", ["?;text;sub/a.avi;50,5;x", "?;;sub/b.avi;60;x"], header)
    report = take(raw, tmp_path / "out", columns={"file": "Path", "ef": "LVEF (%)"})
    assert report.notes[0] == "no column of patients: every video is split as one of its own"
    table = listed(tmp_path / "out")
    assert list(table["EF"]) == [50.5, 60]
    assert list(table["FileName"]) == ["sub_a", "sub_b"]


def test_units_splits_classes_and_numbers_for_names(tmp_path):
    header = "Path,f,esv,edv,set,kind,sex,age,kg,m"
    lines = [
        "a,0.5,0.05,0.1,Training,PAH,F,18,60,1.7",
        "b,0.25,0.075,0.1,dev,none,M,30,70,",
        "c,0.75,0.025,0.1,TEST,PAH,M,42,80,1.8",
    ]
    columns = {
        "file": "Path", "ef": "f", "esv": "esv", "edv": "edv", "split": "set", "class": "kind",
        "sex": "sex", "age": "age", "weight": "kg", "height": "m",
    }  # fmt: skip
    options = {
        "separator": ",", "decimal": ".", "videos": "sub", "suffix": ".avi", "names": "number",
        "units": {"ef": "fraction", "esv": "l", "edv": "l", "age": "months", "height": "m"},
    }  # fmt: skip
    raw = folder(tmp_path / "raw", lines, header)
    take(raw, tmp_path / "out", columns=columns, **options)
    table = listed(tmp_path / "out", "class")
    assert list(table["FileName"]) == ["v0000001", "v0000002", "v0000003"]
    assert list(table["EF"]) == [50, 25, 75]
    assert list(table["ESV"]) == [50, 75, 25]
    assert list(table["EDV"]) == [100, 100, 100]
    assert list(table["Split"]) == ["TRAIN", "VAL", "TEST"]
    assert list(table["Class"]) == ["PAH", "none", "PAH"]
    assert list(table["Age"]) == [1.5, 2.5, 3.5]
    assert list(table["Height"].fillna(0)) == [170, 0, 180]


def test_splits_are_by_patient_and_by_class(tmp_path):
    lines = [f"sub/{n}.avi;{i // 2};{'x' if i < 20 else 'y'}" for i, n in enumerate(NAMES)]
    raw = folder(tmp_path / "raw", lines, "Path;MRN;kind", NAMES)
    columns = {"file": "Path", "patient": "MRN", "class": "kind"}
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    take(raw, tmp_path / "out", "class", columns=columns, split=shares)
    table = listed(tmp_path / "out", "class")
    assert (table.groupby("Patient")["Split"].nunique() == 1).all()
    counts = table.groupby(["Class", "Split"])["Patient"].nunique()
    assert counts.to_dict() == {
        ("x", "TEST"): 2, ("x", "TRAIN"): 6, ("x", "VAL"): 2,
        ("y", "TEST"): 1, ("y", "TRAIN"): 3, ("y", "VAL"): 1,
    }  # fmt: skip


NAMES = [f"n{i:02d}" for i in range(30)]


def test_patients_under_a_key(tmp_path):
    raw = folder(tmp_path / "raw", ["sub/a.avi;900;50", "sub/b.avi; 900 ;51", "sub/c.avi;7;52"])
    key = make_key(tmp_path / "keys" / "p.key")
    take(raw, tmp_path / "out", key=str(key))
    patients = list(listed(tmp_path / "out")["Patient"])
    assert patients[0] == patients[1] != patients[2]
    assert all(p.startswith("P") and len(p) == 17 for p in patients)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("sub/b.avi;1;55.6", "EF '55.6' is not a finite number"),
        ("sub/b.avi;1;1.055,6", "EF '1.055,6' is not a finite number"),
        ("sub/b.avi;1;", "EF '' is not a finite number"),
        ("sub/b.avi;1;-3", "EF '-3' is outside 0-100"),
        ("sub/b.avi;1;nan", "EF 'nan' is not a finite number"),
        ("sub/b.avi;1;inf", "EF 'inf' is not a finite number"),
        ("sub/b.avi;1;1e999", "EF '1e999' is not a finite number"),
        ("sub/b.avi;;50", "Patient '' is empty"),
        ("sub/b.avi;1", "2 fields, the header has 3"),
        ("sub/b.avi;1;50;more", "4 fields, the header has 3"),
        ("sub/a.avi;1;50", "FileName 'sub/a.avi' is the video of line 2 ('sub/a.avi') too"),
        ("./sub//a.avi;1;50", "'./sub//a.avi' is the video of line 2 ('sub/a.avi') too"),
        ("../raw/sub/b.avi;1;50", "is no path within the folder"),
        ("/etc/passwd;1;50", "is no path within the folder"),
        ("C:\\b.avi;1;50", "is no path within the folder"),
        ("~/b.avi;1;50", "is no path within the folder"),
        ("sub\\..\\..\\b.avi;1;50", "is no path within the folder"),
        (";1;50", "is no path within the folder"),
        ("sub/none.avi;1;50", "the video does not exist"),
        ("sub;1;50", "the video does not exist"),
    ],
)
def test_a_bad_row_is_rejected_by_line_and_value(tmp_path, line, reason):
    raw = folder(tmp_path / "raw", ["sub/a.avi;1;50", line])
    rejects = tmp_path / "rejects.csv"
    report = take(raw, tmp_path / "out", max_rejects=1, rejects=rejects)
    assert report.videos == 1
    row = rejected(rejects)[0]
    assert row["source"].startswith("labels.csv line 3 (")
    assert reason in row["reason"]
    with pytest.raises(EchosynError, match=r"1 of 2 videos are rejected, max_rejects is 0"):
        take(raw, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"ef": "EF"}}, "'file' is missing"),
        ({"columns": {"file": "a", "eff": "b"}}, "'eff' is not one of file, ef"),
        ({"columns": {"file": "a", "ef": "a"}}, "'a' is named twice"),
        ({"columns": {"file": "a"}, "units": {"ef": "permille"}}, "may be in percent, fraction"),
        ({"columns": {"file": "a"}, "units": {"sex": "m"}}, "may be in no unit"),
        ({"columns": {"file": "a"}, "decimal": ","}, "are both ','"),
        ({"columns": {"file": "a"}, "split": {"train": 0.5}}, "add to 0.7, not to 1"),
        ({"columns": {"file": "a"}, "split_names": {"x": "train"}}, "'train' is not one of TRAIN"),
        ({}, "setting 'columns' is missing"),
        ({"columns": {"file": "a"}, "seperator": ";"}, "did you mean 'separator'"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(EchosynError, match=message):
        build(Table, options, "params.yaml: datasets.x.options")


def test_a_table_that_does_not_fit_the_options(tmp_path):
    raw = folder(tmp_path / "raw", ["sub/a.avi;1;50"])
    with pytest.raises(EchosynError, match=r"'LVEF \(%\)' is missing|separated by ';'"):
        take(raw, tmp_path / "out", separator=",", decimal=".")
    with pytest.raises(EchosynError, match=r"'LVEF' is missing \(is 'LVEF \(%\)' meant\?\)"):
        take(raw, tmp_path / "out", columns={"file": "Path", "ef": "LVEF"})
    with pytest.raises(EchosynError, match="label: class needs an entry 'class'"):
        take(raw, tmp_path / "out", "class")
    with pytest.raises(EchosynError, match="does not exist"):
        take(raw, tmp_path / "out", csv="none.csv")


# ---- Splits


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.sampled_from("ab"), min_size=1, max_size=60),
    st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (1, 0, 0), (0.5, 0.5, 0)]),
    st.integers(0, 3),
)
def test_patients_are_dealt_out_whole(classes, shares, seed):
    dealt = split_patients(classes, Shares(*shares, seed))
    backwards = split_patients(dict(reversed(classes.items())), Shares(*shares, seed))
    assert dealt == backwards
    assert set(dealt) == set(classes)
    wanted = dict(zip(("TRAIN", "VAL", "TEST"), shares, strict=True))
    for name in set(classes.values()):
        mine = [dealt[p] for p in classes if classes[p] == name]
        for split, share in wanted.items():
            assert abs(mine.count(split) - share * len(mine)) <= 2
            assert share > 0 or split not in mine
            if share and len(mine) >= sum(s > 0 for s in shares):
                assert split in mine


# ---- What all sources share


def plan_of(*reads, names=None, **more):
    names = names or [f"v{i}" for i in range(len(reads))]
    row = {"EF": 50, "Split": "TRAIN"}
    return Plan([Item(f"item {n}", n, row, r) for n, r in zip(names, reads, strict=True)], **more)


def frames_of(seed=0, size=(112, 112)):
    return lambda: Clip(clip(seed, 3, *size), 30.0)


def failing(error):
    def read():
        raise error

    return read


def written(tmp_path, plan, max_rejects=9, label="ef"):
    out = tmp_path / "out"
    out.mkdir()
    rejects = tmp_path / "rejects.csv"
    report = write_dataset(plan, out, label, IngestOptions(max_rejects, rejects))
    return report, out, rejected(rejects)


@pytest.mark.parametrize(
    ("read", "reason", "outcome"),
    [
        (failing(EchosynError("no good")), "no good", "rejected"),
        (failing(SkipError("a still")), "a still", "skipped"),
        (failing(KeyError("Rows")), "KeyError: 'Rows'", "rejected"),
        (failing(RecursionError("deep")), "RecursionError: deep", "rejected"),
        (lambda: Clip(np.zeros((0, 112, 112), np.uint8), 30), "no frames", "rejected"),
        (lambda: Clip(np.zeros((2, 9, 99), np.uint8), 30), "frames of 99x9 pixels", "rejected"),
        (lambda: Clip(clip(0, 2), 0.0), "frame rate 0.0", "rejected"),
        (lambda: Clip(clip(0, 2), float("nan")), "frame rate nan", "rejected"),
        (lambda: Clip(clip(0, 2).astype(float), 30), "expected uint8", "rejected"),
        (lambda: Clip(clip(0, 2), 30, {"FileName": "../x"}), "no name that a video", "rejected"),
        (lambda: Clip(clip(0, 2), 30, {"EF": 200}), "EF '200' is outside 0-100", "rejected"),
        (lambda: Clip(clip(0, 2), 30, {"Split": "?"}), "Split '?' is not one of", "rejected"),
    ],
)
def test_what_cannot_be_taken_is_listed(tmp_path, read, reason, outcome):
    report, out, rows = written(tmp_path, plan_of(frames_of(), read, frames_of(1)))
    assert report.videos == 2
    assert (report.rejected, report.skipped) == ((1, 0) if outcome == "rejected" else (0, 1))
    assert rows[0]["source"] == "item v1"
    assert reason in rows[0]["reason"]
    assert rows[0]["outcome"] == outcome
    assert sorted(f.name for f in (out / "Videos").iterdir()) == ["v0.avi", "v2.avi"]
    assert any(reason in note for note in report.notes)


def test_too_many_rejects_name_the_first_five_and_the_table(tmp_path):
    plan = plan_of(*[failing(EchosynError(f"bad {i}")) for i in range(7)], frames_of())
    with pytest.raises(EchosynError) as e:
        written(tmp_path, plan, max_rejects=6)
    for part in ("7 of 8 videos", "max_rejects is 6", "bad 4", "and 2 more", "rejects.csv"):
        assert part in str(e.value)
    assert "bad 5" not in str(e.value)
    assert len(rejected(tmp_path / "rejects.csv")) == 7


def test_no_video_at_all_is_an_error(tmp_path):
    with pytest.raises(EchosynError, match=r"no video was found(.|\n)*a still"):
        written(tmp_path, plan_of(failing(SkipError("a still"))))


def test_a_name_is_given_once_case_aside(tmp_path):
    plan = plan_of(
        frames_of(0), frames_of(0), frames_of(1), frames_of(2), names=["a", "A", "a", "b"]
    )
    report, out, rows = written(tmp_path, plan)
    assert (report.videos, report.rejected, report.skipped) == (2, 1, 1)
    assert [r["reason"] for r in rows] == [
        "the same video as item a",
        "FileName 'a' is already that of item a",
    ]
    assert sorted(f.name for f in (out / "Videos").iterdir()) == ["a.avi", "b.avi"]


def test_the_account_does_not_depend_on_threads(tmp_path, monkeypatch):
    reads = [frames_of(i) if i % 3 else failing(EchosynError(f"bad {i}")) for i in range(30)]
    names = [f"v{i % 20}" for i in range(30)]
    results = []
    for threads in ("1", "4"):
        monkeypatch.setenv("ECHOSYN_THREADS", threads)
        folder = tmp_path / threads
        folder.mkdir()
        report, out, rows = written(folder, plan_of(*reads, names=names), max_rejects=30)
        files = {f.name: f.read_bytes() for f in out.rglob("*.*")}
        results.append((report, rows, files))
    assert results[0] == results[1]
    assert results[0][0].videos == 17
    assert len(results[0][1]) == 13


def test_rows_may_be_sorted_by_name_and_facts_reach_the_end(tmp_path):
    seen = []

    def finish(out, table):
        seen.extend(table[["FileName", "note", "SourceHeight", "SourceWidth"]].values.tolist())

    reads = [
        lambda: Clip(clip(0, 3, 56, 40), 30, {"FileName": "z", "note": 1}),
        lambda: Clip(clip(1, 3), 30, {"FileName": "a", "note": 2}),
    ]
    plan = plan_of(*reads, names=["", ""], finish=finish, by_name=True)
    _, out, rows = written(tmp_path, plan)
    assert seen == [["a", 2, 112, 112], ["z", 1, 56, 40]]
    assert rows == []
    assert list(listed(out).columns)[-1] == "Split"


def test_a_full_disk_is_no_reject(tmp_path, monkeypatch):
    def full(path, frames, fps):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("echosyn.data.ingest.canonical.write_video", full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path, plan_of(frames_of()))


def test_label_class_needs_a_class_in_every_row(tmp_path):
    raw = make(tmp_path / "raw", columns=[("Class", ["x", "", "y", "x"])])
    edit(raw, 2, ",60.0,", ",,")
    rejects = tmp_path / "rejects.csv"
    report = ingest("echonet", raw, tmp_path / "out", "class", max_rejects=1, rejects=rejects)
    assert report.videos == 3
    assert rejected(rejects)[0]["reason"] == "Class '' is empty; it is the label"
    assert pd.isna(listed(tmp_path / "out", "class")["EF"][0])
    with pytest.raises(EchosynError, match="column 'Class' is missing"):
        ingest("echonet", make(tmp_path / "bare"), tmp_path / "no", "class")


# ---- Names


CLEANED = {
    "another alphabet": ["患者一.avi", "患者二.avi", "心臓.avi"],
    "suffix": ["a.avi", "a.mp4"],
    "version": ["a.v1", "a.v2"],
    "case": ["a.avi", "A.avi"],
    "folder": ["a/b.avi", "a_b.avi"],
    "blank": ["a b.avi", "a_b.avi", "a-b.avi"],
    "accent": ["Müller.avi", "Mäller.avi"],
}


@pytest.mark.parametrize("paths", CLEANED.values(), ids=CLEANED)
def test_distinct_names_stay_distinct_in_any_order(paths):
    names = file_names(paths)
    assert len({name.lower() for name in names}) == len(paths)
    assert all(SAFE_NAME.fullmatch(name) for name in names)
    assert file_names(paths[::-1]) == names[::-1]
    assert file_names([*paths, paths[0]])[-1] == names[0]


@given(st.lists(st.text(max_size=8), max_size=6, unique=True))
def test_any_names_are_safe_and_alike_only_where_paths_are(stems):
    paths = [f"{stem}.avi" for stem in stems]
    plain = {plain_path(p) for p in paths}
    names = file_names(paths)
    assert all(SAFE_NAME.fullmatch(name) for name in names)
    assert len({name.lower() for name in names}) == len(plain)


def test_videos_named_in_another_alphabet_are_taken(tmp_path):
    names = ("患者一", "患者二", "Ärzte")
    lines = [f"sub/{name}.avi;{i};50" for i, name in enumerate(names)]
    raw = folder(tmp_path / "raw", lines, names=names)
    take(raw, tmp_path / "out")
    listed_names = listed(tmp_path / "out")["FileName"].tolist()
    assert len(set(listed_names)) == 3
    assert (tmp_path / "out/Videos" / f"{listed_names[0]}.avi").is_file()


def test_an_accent_spelt_two_ways_finds_its_file(tmp_path):
    raw = folder(tmp_path / "raw", ["sub/Mu\u0308ller.avi;1;50"], names=("M\u00fcller",))
    assert take(raw, tmp_path / "out").videos == 1


@pytest.mark.parametrize(
    ("one", "other"), [("mrn7", "MRN7"), ("0007", "7"), ("7.0", "7"), ("MRN 7", "mrn7")]
)
def test_patients_written_two_ways_are_named_as_written(tmp_path, one, other):
    lines = [f"sub/a.avi;{one};50", f"sub/b.avi;{other};50", "sub/c.avi;8;50"]
    notes = take(folder(tmp_path / "raw", lines), tmp_path / "out").notes
    (note,) = [n for n in notes if "differ by" in n]
    assert f"{one!r} and {other!r}" in note
    assert "column 'MRN'" in note
