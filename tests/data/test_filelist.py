import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn.data.filelist import (
    CLASS,
    COLUMNS,
    PATIENT,
    read_cells,
    read_filelist,
    write_filelist,
)
from echosyn.runtime.errors import EchosynError

HEADER = ",".join(COLUMNS)
ROW = "0X1,60.5,39.5,100,112,112,50,200,TRAIN"


def write(tmp_path, *lines, header=HEADER):
    path = tmp_path / "FileList.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_values_come_back_typed(tmp_path):
    table = read_filelist(write(tmp_path, "0X1.avi,60.5,39.5,100,112,112,50,200,TRAIN"))
    assert list(table.columns) == list(COLUMNS)
    assert table.iloc[0].tolist() == ["0X1", 60.5, 39.5, 100.0, 112, 112, 50.0, 200, "TRAIN"]
    assert table["NumberOfFrames"].dtype.kind == "i"


def test_columns_in_another_order_with_extras_and_patient(tmp_path):
    header = "Split,Note," + ",".join(COLUMNS[:-1]) + f",{PATIENT}"
    table = read_filelist(write(tmp_path, "VAL,x,a,60,40,100,112,112,50,9,p1", header=header))
    assert list(table.columns) == [*COLUMNS, PATIENT]
    assert table["Split"][0] == "VAL"
    assert table[PATIENT][0] == "p1"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("60.5", "140", ["EF", "line 2", "'140'", "0-100"]),
        ("60.5", "-0.1", ["EF", "'-0.1'"]),
        ("60.5", "sixty", ["EF", "'sixty'", "number"]),
        ("60.5", "nan", ["EF", "'nan'"]),
        ("60.5", "inf", ["EF", "'inf'"]),
        ("60.5", "", ["EF", "line 2"]),
        ("TRAIN", "train", ["Split", "'train'", "TRAIN, VAL, TEST"]),
        ("TRAIN", "", ["Split"]),
        ("0X1", "../0X1", ["FileName", "'../0X1'"]),
        ("0X1", "/etc/passwd", ["FileName"]),
        ("0X1", "..", ["FileName"]),
        ("0X1", "a b", ["FileName"]),
        ("0X1", "", ["FileName"]),
        (",112,112,", ",0,112,", ["FrameHeight", "'0'"]),
        (",112,112,", ",112,11.5,", ["FrameWidth", "'11.5'"]),
        (",200,", ",-3,", ["NumberOfFrames", "'-3'"]),
        (",50,", ",0,", ["FPS", "'0'"]),
        (",TRAIN", ",TRAIN,more", ["fields", "line 2", "10"]),
        (",200,TRAIN", ",200", ["fields", "line 2", "8"]),
    ],
)
def test_refuses_a_cell_by_line_and_value(tmp_path, old, new, named):
    with pytest.raises(EchosynError) as e:
        read_filelist(write(tmp_path, ROW.replace(old, new, 1)))
    for part in ["FileList.csv", *named]:
        assert part in str(e.value)


def test_line_numbers_are_those_of_the_file(tmp_path):
    path = write(tmp_path, ROW, "", "", ROW.replace("0X1", "0X2").replace("60.5", "101"))
    with pytest.raises(EchosynError, match="line 5: '101'"):
        read_filelist(path)


def test_lists_five_rows_and_counts_the_rest(tmp_path):
    rows = [ROW.replace("0X1", f"v{i}").replace("TRAIN", "train") for i in range(7)]
    with pytest.raises(EchosynError, match="line 6: 'train' and 2 more"):
        read_filelist(write(tmp_path, *rows))


@pytest.mark.parametrize("second", ["0X1", "0X1.avi", "0x1"])
def test_a_video_may_be_listed_once(tmp_path, second):
    with pytest.raises(EchosynError, match=f"line 3: '{second}'"):
        read_filelist(write(tmp_path, ROW, ROW.replace("0X1", second)))


def test_missing_column_names_the_likely_one(tmp_path):
    path = write(tmp_path, ROW, header=HEADER.replace("NumberOfFrames", "NumberFrames"))
    with pytest.raises(
        EchosynError, match=r"'NumberOfFrames' is missing \(is 'NumberFrames' meant"
    ):
        read_filelist(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (HEADER.encode() + b"\n", "no rows"),
        (b"\xff\xfe\x00", "UTF-8"),
        (HEADER.encode() + b'\n"a,1\n', "not CSV"),
        (b"FileName,EF,EF\na,1,2\n", "'EF' twice"),
    ],
)
def test_refuses_what_is_not_a_list(tmp_path, content, message):
    path = tmp_path / "FileList.csv"
    path.write_bytes(content)
    with pytest.raises(EchosynError, match=message):
        read_filelist(path)


def test_missing_file(tmp_path):
    with pytest.raises(EchosynError, match="does not exist"):
        read_filelist(tmp_path / "FileList.csv")


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "FileList.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n{ROW}\r\n".encode())
    assert read_filelist(path)["FileName"][0] == "0X1"


def test_volumes_may_be_empty_and_ef_only_without_a_label(tmp_path):
    synthetic = write(tmp_path, ROW.replace(",39.5,100,", ",,,"))
    assert read_filelist(synthetic)[["ESV", "EDV"]].isna().all(axis=None)
    bare = write(tmp_path, ROW.replace(",60.5,39.5,100,", ",,,,"))
    assert read_filelist(bare, label="none")["EF"].isna().all()
    with pytest.raises(EchosynError, match="EF is not a finite number"):
        read_filelist(bare)
    with pytest.raises(EchosynError, match="EF is outside"):
        read_filelist(write(tmp_path, ROW.replace("60.5", "140")), label="none")


def test_a_class_may_be_the_label(tmp_path):
    header = f"{HEADER},{CLASS}"
    bare = ROW.replace(",60.5,39.5,100,", ",,,,")
    table = read_filelist(write(tmp_path, f"{bare},PAH", header=header), label="class")
    assert table[CLASS][0] == "PAH"
    assert np.isnan(table["EF"][0])
    path = write(tmp_path, f"{bare},PAH", f"{bare.replace('0X1', '0X2')}, ", header=header)
    with pytest.raises(EchosynError, match="Class is empty; it is the label: line 3: ' '"):
        read_filelist(path, label="class")
    with pytest.raises(EchosynError, match="EF is not a finite number"):
        read_filelist(path)
    with pytest.raises(EchosynError, match="column 'Class' is missing"):
        read_filelist(write(tmp_path, bare), label="class")
    with pytest.raises(ValueError, match="label 'classes' is not one of"):
        read_filelist(path, label="classes")


def test_facts_about_the_patient_are_optional_numbers(tmp_path):
    header = f"{HEADER},Height,Sex,Weight,Age,{PATIENT}"
    second = ROW.replace("0X1", "0X2")
    path = write(tmp_path, f"{ROW},110.5,F,20,4,p1", f"{second},,,,,p2", header=header)
    table = read_filelist(path)
    assert list(table.columns) == [*COLUMNS, PATIENT, "Sex", "Age", "Weight", "Height"]
    assert table.loc[0, ["Sex", "Age", "Weight", "Height"]].tolist() == ["F", 4, 20, 110.5]
    assert table.loc[1, ["Age", "Weight", "Height"]].isna().all()
    write_filelist(tmp_path / "again.csv", table)
    assert read_filelist(tmp_path / "again.csv").equals(table)
    for bad, why in (("old", "is not a finite number"), ("-1", "is below 0")):
        with pytest.raises(EchosynError, match=f"Age {why}: line 2: '{bad}'"):
            read_filelist(write(tmp_path, f"{ROW},1,F,1,{bad},p", header=header))


@pytest.mark.parametrize(("mark", "named"), [(";", "';'"), ("\t", r"'\\t'"), ("|", r"'\|'")])
def test_another_separator_is_named(tmp_path, mark, named):
    path = write(tmp_path, ROW.replace(",", mark), header=HEADER.replace(",", mark))
    with pytest.raises(EchosynError, match=f"separated by {named}, not by commas"):
        read_filelist(path)
    assert len(read_cells(path, mark).table.columns) == len(COLUMNS)


def test_cells_keep_ragged_rows_for_the_gate(tmp_path):
    cells = read_cells(write(tmp_path, "a,1", f"{ROW},extra"))
    assert cells.fields.tolist() == [2, 10]
    assert cells.table.iloc[0].tolist() == ["a", "1", *[""] * 7]
    assert cells.table.iloc[1].tolist() == ROW.split(",")


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,12}", fullmatch=True)
finite = st.floats(0.001, 1e6)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(names, min_size=1, max_size=6, unique_by=str.lower), st.data())
def test_written_lists_come_back_exactly(tmp_path_factory, videos, data):
    n = len(videos)
    column = lambda s: data.draw(st.lists(s, min_size=n, max_size=n))  # noqa: E731
    table = pd.DataFrame(
        {
            "FileName": videos,
            "EF": column(st.floats(0, 100)),
            "ESV": column(finite),
            "EDV": column(finite),
            "FrameHeight": column(st.integers(1, 2000)),
            "FrameWidth": column(st.integers(1, 2000)),
            "FPS": column(finite),
            "NumberOfFrames": column(st.integers(1, 5000)),
            "Split": column(st.sampled_from(["TRAIN", "VAL", "TEST"])),
        }
    )
    path = tmp_path_factory.mktemp("list") / "FileList.csv"
    write_filelist(path, table)
    back = read_filelist(path)
    for name in COLUMNS:
        assert np.array_equal(back[name].to_numpy(), table[name].to_numpy()), name
