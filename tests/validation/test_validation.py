import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from echonet_layout import edit, make
from html_page import problems
from test_ingest import REAL

from echosyn.data.filelist import COLUMNS, read_cells
from echosyn.data.ingest import ingest
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json, sha256_file
from echosyn.validation import ValidateConfig, run_gate
from echosyn.validation.engine import evaluate
from echosyn.validation.gate import dataset_checks
from echosyn.validation.suites import load_suite
from echosyn.validation.tables import join

HEADER = ",".join(COLUMNS)


def gate(folder, kind="raw", label="ef", counts=None, source="echonet", **config):
    base = folder.parent / "gates"
    passed, docs = base / f"{folder.name}.json", base / "docs" / folder.name
    settings = ValidateConfig(**config)
    result = run_gate(
        kind, folder, label, settings, passed=passed, docs=docs, counts=counts, source=source
    )
    return result, passed


def failures(result):
    """What fails, by title, and the message a user reads."""
    with pytest.raises(EchosynError) as e:
        result.require()
    return {o.check.name for o in result.failed}, str(e.value)


def warnings(result):
    return {o.check.name for o in result.warned}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make(tmp_path_factory.mktemp("raw") / "data")


@pytest.fixture
def folder(template, tmp_path):
    return Path(shutil.copytree(template, tmp_path / "ds"))


@pytest.mark.slow
def test_a_good_dataset_passes_with_the_same_bytes_each_time(folder, tmp_path):
    result, passed = gate(folder, counts={"TRAIN": 2, "VAL": 1, "TEST": 1})
    result.require()
    first = passed.read_bytes()
    content = read_json(passed)
    assert content["filelist_sha256"] == sha256_file(folder / "FileList.csv")
    assert content["splits"] == {"TRAIN": 2, "VAL": 1, "TEST": 1}
    assert (content["rows"], content["frames"]) == (4, 22)
    assert set(content) == {
        "gate", "label", "rows", "frames", "splits", "filelist_sha256", "videos_sha256"
    }  # fmt: skip
    assert result.metrics()["gate/expectations"] == len(result.outcomes) > 30
    assert str(tmp_path) not in first.decode()
    moved = folder.rename(tmp_path / "moved")
    _, again = gate(moved, counts={"TRAIN": 2, "VAL": 1, "TEST": 1}, ef_tolerance=2.0)
    assert again.read_bytes() == first
    edit(moved, 2, "60.0", "140")
    gate(moved)
    assert not again.exists()


@pytest.mark.slow
def test_the_page_is_offline_and_the_data_docs_are_kept(folder):
    result, _ = gate(folder)
    page = result.page.read_text()
    assert result.page.name == "index-offline.html"
    assert "Passed: all" in page
    assert problems(page) == []
    assert not re.search(r"https?://|<script|src=", page)
    assert (result.page.parent / "index.html").is_file()
    assert list(result.page.parent.rglob("validations/**/*.html"))


@pytest.mark.slow
def test_the_reference_defect_is_caught(folder):
    """EchoNet-Synthetic's lists carry the batch size as NumberOfFrames and the frame count as
    FrameHeight."""
    edit(folder, 2, "112,112,50,4,", "4,112,50,256,")
    edit(folder, 3, "112,112,50,5,", "5,112,50,256,")
    result, passed = gate(folder)
    names, message = failures(result)
    assert names == {"frame_height_true", "frames_true"}
    assert "line 2, v0: NumberOfFrames 256, MeasuredNumberOfFrames 4" in message
    assert "line 3, v1: FrameHeight 5, MeasuredFrameHeight 112" in message
    assert not passed.exists()


# Each defect: line, cell, what it becomes, the check that must fail, what must be shown.
@pytest.mark.slow
@pytest.mark.parametrize(
    "defects",
    [
        [
            (2, "60.0", "140", "ef_range", "line 2, v0: EF 140"),
            (3, "60.0", "sixty", "ef_number", "line 3, v1: EF sixty"),
            (4, "60.0", "", "ef_number", "line 4, v2: EF ''"),
            (
                5,
                "60.0",
                "62.0",
                "ef_matches_volumes",
                "line 5, v3: EF 62, EFFromVolumes 60, ESV 40, EDV 100",
            ),
        ],
        [
            (2, "40.0,100.0", "100.0,40.0", "esv_below_edv", "v0: ESV 100, EDV 40"),
            (3, "100.0", "0", "edv_range", "v1: EDV 0"),
            (4, "40.0", "", "esv_number", "v2: ESV ''"),
            (5, ",50,", ",30,", "fps_true", "v3: FPS 30, MeasuredFPS 50"),
        ],
        [
            (2, "v0", "../v0", "file_name", "line 2, ../v0"),
            (3, "TRAIN", "train", "split_names", "line 3, v1: Split train"),
            (4, ",6,", ",6.5,", "frames_number", "Frames '6.5'"),
            (5, ",112,50", ",111,50", "frame_width_true", "v3: FrameWidth 111"),
        ],
        [
            (3, "v1", "V0", "unique_names", "line 3, V0"),
            (4, "VAL", "VAL,more", "fields", "v2: Fields 10"),
            (5, "v3", "gone", "readable", "does not exist"),
        ],
        [
            (
                1,
                "FPS",
                "Fps",
                "columns",
                "found: FileName, EF, ESV, EDV, FrameHeight, FrameWidth, Fps",
            )
        ],
        [(1, "EF,ESV", "ESV,EF", "columns", "expected: FileName, EF, ESV")],
    ],
)
def test_each_defect_is_named_with_its_row_and_value(folder, defects):
    for line, old, new, *_ in defects:
        edit(folder, line, old, new)
    result, passed = gate(folder)
    names, message = failures(result)
    assert not passed.exists()
    page = unescape(result.page.read_text())
    for *_, check, shown in defects:
        assert check in names
        assert shown in message
        assert shown in page


@pytest.mark.slow
def test_damaged_unlisted_and_shared_videos(folder):
    videos = folder / "Videos"
    shutil.copy(videos / "v0.avi", videos / "v3.avi")  # TRAIN and TEST
    edit(folder, 5, ",7,", ",4,")
    (videos / "v2.avi").write_bytes((videos / "v2.avi").read_bytes()[:-2000])
    (videos / "extra.avi").write_bytes(b"x")
    names, message = failures(gate(folder)[0])
    assert names == {"readable", "all_listed", "copies_across_splits", "near_copies"}
    assert "line 4, v2: VideoError 'truncated" in message
    assert "    extra.avi" in message
    assert "line 5, v3: Split TEST, SameBytesAs v0" in message


@pytest.mark.slow
def test_a_copy_within_a_split_is_no_leak(folder):
    shutil.copy(folder / "Videos" / "v0.avi", folder / "Videos" / "v1.avi")
    edit(folder, 3, ",5,", ",4,")
    gate(folder)[0].require()


@pytest.mark.slow
def test_patients_may_not_cross_splits(tmp_path):
    whole = make(tmp_path / "whole", columns=[("Patient", ["p", "p", "q", ""])])
    gate(whole)[0].require()
    mixed = make(tmp_path / "mixed", columns=[("Patient", ["p", "q", "p", ""])])
    names, message = failures(gate(mixed)[0])
    assert names == {"patient_splits"}
    assert "line 4, v2: Patient p, Split VAL" in message


@pytest.mark.slow
def test_split_counts(folder):
    names, message = failures(gate(folder, counts={"TRAIN": 3})[0])
    assert names == {"split_counts"}
    assert "TRAIN: Rows 2, Expected 3" in message


@pytest.mark.slow
def test_release_and_unlabelled_lists_have_no_volumes(folder):
    for line in range(2, 6):
        edit(folder, line, ",40.0,100.0,", ",,,")
    gate(folder, kind="release")[0].require()
    assert "esv_number" in failures(gate(folder)[0])[0]
    edit(folder, 2, "60.0", "")
    assert failures(gate(folder, kind="release")[0])[0] == {"ef_number"}
    gate(folder, label="none")[0].require()


@pytest.mark.slow
def test_tolerances(folder):
    edit(folder, 2, "60.0", "61.5")
    edit(folder, 3, ",50,", ",51,")
    assert len(failures(gate(folder)[0])[0]) == 2
    gate(folder, ef_tolerance=1.5, fps_tolerance=1.0)[0].require()


@pytest.mark.parametrize("text", ["", HEADER + "\n"])
def test_no_rows(folder, text):
    (folder / "FileList.csv").write_text(text)
    with pytest.raises(EchosynError, match=r"FileList\.csv"):
        gate(folder)


@pytest.mark.slow
def test_many_failures_show_five_and_the_count(tmp_path):
    rows = "".join(f"v{i},140,40,100,112,112,50,9,TEST\n" for i in range(12))
    folder = tmp_path / "ds"
    (folder / "Videos").mkdir(parents=True)
    (folder / "FileList.csv").write_text(f"{HEADER}\n{rows}")
    message = failures(gate(folder)[0])[1]
    assert "- EF lies in 0-100 percent [ef_range]: 12 of 12 fail" in message
    assert "line 6, v4: EF 140\n    and 7 more" in message


@pytest.mark.slow
def test_a_hundred_thousand_rows(tmp_path):
    n = 100_000
    path = tmp_path / "FileList.csv"
    rows = (f"v{i},60.0,40.0,100.0,112,112,50,9,TRAIN" for i in range(n))
    path.write_text("\n".join([HEADER, *rows, ""]))
    cells = read_cells(path)
    facts = {"MeasuredFrameHeight": 112, "MeasuredFrameWidth": 112, "MeasuredFPS": 50.0}
    facts |= {"Contrast": 200.0, "Motion": 4.0}
    measured = pd.DataFrame({**facts, "Sha256": np.arange(n).astype(str)})
    measured["MeasuredNumberOfFrames"] = 9
    measured.loc[n - 1, "MeasuredNumberOfFrames"] = 8
    tables = join(cells, measured, [f"v{i}.avi" for i in range(n)])
    checks = dataset_checks(load_suite("echonet"), tables, "ef", ValidateConfig())
    failed = [o for o in evaluate(checks, tables, tmp_path / "docs", "many") if not o.passed]
    assert [o.check.name for o in failed] == ["frames_true"]
    assert failed[0].failing == 1
    assert failed[0].examples[0].startswith(f"line {n + 1}, v{n - 1}: ")


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="no real echocardiograms on this machine")
def test_real_clips_pass(tmp_path):
    ingest("echonet", REAL, tmp_path / "real", "ef")
    result, passed = gate(tmp_path / "real", counts={"TRAIN": 4, "VAL": 1, "TEST": 1})
    result.require()
    assert passed.exists()
