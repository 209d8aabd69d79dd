"""Every check of every dataset, failing on the rows that it must fail on and on no other.

One list with a defect per row: a check that fails on a row that is not its own is found out too.
"""

import pytest
from gate_list import EF, ROWS, SPLIT, GoodList, failing

from echosyn.data.filelist import COLUMNS
from echosyn.validation.suites import load_suite, suite_names

# row, cells, the checks that must fail there, what must be shown of it
ROW_DEFECTS = [
    (0, {"FileName": "../a"}, {"file_name"}, "../a"),
    (2, {"FileName": "0x0000000000000003"}, {"unique_names"}, "line 4, 0x0000000000000003"),
    (3, {}, {"unique_names"}, "line 5, 0X0000000000000003"),
    (4, {"EF": "sixty"}, {"ef_number"}, "line 6, 0X0000000000000004: EF sixty"),
    (5, {"ESV": "nan"}, {"esv_number"}, "ESV nan"),
    (6, {"EDV": "1e999x"}, {"edv_number"}, "EDV 1e999x"),
    (7, {"FPS": "50fps"}, {"fps_number"}, "FPS 50fps"),
    (8, {"FrameHeight": "112.5"}, {"frame_height_number", "frame_height_true"}, "'112.5'"),
    (9, {"FrameWidth": "0"}, {"frame_width_number", "frame_width_true"}, "FrameWidth 0"),
    (10, {"NumberOfFrames": "-80"}, {"frames_number", "frames_true"}, "'-80'"),
    (11, {"EF": "140"}, {"ef_range", "ef_matches_volumes"}, "EF 140"),
    (12, {"EDV": "0", "ESV": "-1"}, {"edv_range", "esv_range"}, "EDV 0"),
    (13, {"EDV": "40", "ESV": "100", "EF": ""}, {"esv_below_edv", "ef_number"}, "ESV 100, EDV 40"),
    (14, {"ESV": ""}, {"esv_number", "volumes_paired"}, "ESV ''"),
    (15, {"EF": "75"}, {"ef_matches_volumes"}, "EF 75, EFFromVolumes 40, ESV 60, EDV 100"),
    (16, {"FPS": "0"}, {"fps_range", "fps_plausible", "fps_true"}, "FPS 0, MeasuredFPS 50"),
    (17, {"FPS": "900", "MeasuredFPS": 900.0}, {"fps_plausible"}, "FPS 900"),
    (18, {"Sex": "f?"}, {"sex_known"}, "Sex 'f?'"),
    (19, {"Age": "150"}, {"age_range"}, "Age 150"),
    (20, {"Weight": "0"}, {"weight_range"}, "Weight 0"),
    (21, {"Height": "1.4"}, {"body_height_range"}, "Height 1.4"),
    (22, {"Age": "old"}, {"age_number"}, "Age old"),
    (23, {"Weight": "heavy"}, {"weight_number"}, "Weight heavy"),
    (24, {"Height": "tall"}, {"body_height_number"}, "Height tall"),
    (25, {"VideoError": "truncated"}, {"readable"}, "VideoError truncated"),
    (26, {"MeasuredFrameHeight": 110.0}, {"frame_height_true", "frame_size"}, "112x110"),
    (27, {"MeasuredFrameWidth": 114.0}, {"frame_width_true", "frame_size"}, "114x112"),
    (28, {"MeasuredNumberOfFrames": 79.0}, {"frames_true"}, "Frames 80, MeasuredNumberOfFrames 79"),
    (29, {"MeasuredFPS": 50.6}, {"fps_true"}, "FPS 50, MeasuredFPS 50.6"),
    (30, {"NumberOfFrames": "1", "MeasuredNumberOfFrames": 1.0}, {"frames_several"}, "Frames 1"),
    (31, {"Contrast": 3.0}, {"not_blank"}, "Contrast 3"),
    (32, {"Motion": 0.0}, {"moves"}, "Motion 0"),
    (33, {"Nearest": 0.97}, {"near_copies"}, "VAL, Nearest 0.97, NearestVideo 0X0000000000000003"),
    (34, {"Sha256": "a"}, {"copies"}, "Split VAL, SameBytesAs 0X0000000000000022"),
    (35, {"Sha256": "a"}, {"copies"}, "line 37"),
    (36, {"Sha256": "b"}, {"copies", "copies_across_splits"}, "Split VAL"),
    (50, {"Sha256": "b"}, {"copies", "copies_across_splits"}, "Split TEST"),
    (37, {"Patient": ""}, {"patient_given"}, "Patient ''"),
    (38, {"Patient": "p"}, {"patient_splits"}, "Patient p, Split VAL"),
    (51, {"Patient": "p"}, {"patient_splits"}, "Patient p, Split TEST"),
    (39, {"Patient": "q"}, set(), ""),
    (40, {"Patient": "q"}, set(), ""),  # two videos of one patient in one split
]
TABLE_CHECKS = {"columns", "fields", "split_names", "split_counts", "all_listed", "ef_drift"}
OF_OTHER_FILES = {"units", "units_likely", "needs", "needs_soft"}  # test_scales, test_demands
CLASS_CHECKS = {"class_given", "class_in_every_split", "class_share"}
OF_RELEASES = {
    "ef_asked_number", "ef_asked_range", "ef_measured_number", "ef_measured_range", "ef_kind",
    "volumes_unclaimed", "heart_rate_number", "heart_rate_range", "phase_number", "phase_range",
}  # fmt: skip
OF_ONE_SOURCE = {"age_pediatric", "two_classes", "pseudonym_names", "pseudonym_patients"}


@pytest.fixture(scope="module")
def with_defects():
    data = GoodList()
    for row, cells, _, _ in ROW_DEFECTS:
        data.set(row, **cells)
    return data.judge("echonet")


@pytest.mark.slow
def test_a_good_list_passes_every_check():
    for source in ("echonet", "pediatric", "cardiacnet", "dicom"):
        outcomes = GoodList().judge(source, label="class")
        assert not failing(outcomes)
    tested = {c for *_, checks, _ in ROW_DEFECTS for c in checks}
    tested |= TABLE_CHECKS | CLASS_CHECKS | OF_OTHER_FILES
    assert tested == {c.name for c in load_suite("dataset").checks}
    every = {c.name for s in suite_names() if s != "latents" for c in load_suite(s).checks}
    assert every == tested | OF_ONE_SOURCE | OF_RELEASES


CHECKS_OF_ROWS = sorted({c for *_, checks, _ in ROW_DEFECTS for c in checks})


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS_OF_ROWS)
def test_a_check_fails_on_its_rows_and_on_no_other(with_defects, check):
    outcome = with_defects[check]
    mine = [d for d in ROW_DEFECTS if check in d[2]]
    assert outcome.failing == len(mine)
    lines = [int(e.split(",")[0].removeprefix("line ")) for e in outcome.examples]
    assert lines == sorted(row + 2 for row, *_ in mine)[:5]


def test_what_is_shown_of_each_row(with_defects):
    for row, _, checks, shown in ROW_DEFECTS:
        texts = [e for c in checks for e in with_defects[c].examples]
        assert not checks or any(shown in text for text in texts), (row, texts)


@pytest.mark.slow
def test_fields_and_split_names_and_counts_and_files():
    data = GoodList().set(5, Split="train")
    data.fields[7] -= 1
    data.extra_files = ["stray.avi", "sub/x.txt"]
    outcomes = data.judge("echonet")
    assert failing(outcomes) == {"fields", "split_names", "split_counts", "all_listed"}
    assert outcomes["fields"].examples == (f"line 9, 0X{7:016X}: Fields {data.fields[7]}",)
    assert outcomes["split_names"].examples == (f"line 7, 0X{5:016X}: Split train",)
    assert outcomes["split_counts"].examples == ("TRAIN: Rows 29, Expected 30",)
    assert outcomes["all_listed"].examples == ("stray.avi", "sub/x.txt")


@pytest.mark.slow
def test_columns_renamed_or_in_another_order():
    data = GoodList(())
    data.text = data.text.rename(columns={"FPS": "Fps"})
    outcomes = data.judge("echonet")
    assert failing(outcomes) == {"columns"}
    assert not {"fps_number", "fps_range", "fps_true"} & set(outcomes)
    data = GoodList(())
    data.text = data.text[[*COLUMNS[:1], "ESV", "EF", *COLUMNS[3:]]]
    assert failing(data.judge("echonet")) == {"columns"}


@pytest.mark.slow
def test_drift_is_found_with_its_statistic_and_chance():
    shifted = [f"{e + (25 if s == 'TEST' else 0):g}" for e, s in zip(EF, SPLIT, strict=True)]
    data = GoodList().all("EF", shifted).all("ESV", "").all("EDV", "")
    outcome = data.judge("table")["ef_drift"]
    assert outcome.warns
    assert [e.split(":")[0] for e in outcome.examples] == ["TRAIN-TEST", "VAL-TEST"]
    assert "KS 0.8" in outcome.examples[0]
    assert data.judge("table", drift=0.9)["ef_drift"].passed
    assert data.judge("table", drift_p=1e-12)["ef_drift"].passed


@pytest.mark.slow
def test_the_reference_defect():
    """EchoNet-Synthetic's lists: NumberOfFrames is the batch size, FrameHeight the frame count."""
    batch, frames = 256, 192
    data = GoodList(()).all("ESV", "").all("EDV", "")
    data.measured["MeasuredNumberOfFrames"] = float(frames)
    data.all("NumberOfFrames", f"{frames}")
    assert not failing(data.judge("release"))
    data.all("NumberOfFrames", f"{batch}").all("FrameHeight", f"{frames}")
    outcomes = data.judge("release")
    assert failing(outcomes) == {"frames_true", "frame_height_true"}
    assert all(outcomes[c].failing == ROWS and outcomes[c].stops for c in failing(outcomes))
    assert "NumberOfFrames 256, MeasuredNumberOfFrames 192" in outcomes["frames_true"].examples[0]
