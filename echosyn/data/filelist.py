"""FileList.csv, EchoNet's index of a dataset: one home for its columns, names and splits.

A dataset folder holds `FileList.csv` and `Videos/<FileName>.avi`. EF is in percent, ESV and EDV
in millilitres (in a release perhaps in pixels cubed, as its card says), FPS in frames per second,
FrameHeight and FrameWidth in pixels.
"""

import csv
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text
from echosyn.runtime.text import SAVE_CSV, kind_of, not_text, unreadable

COLUMNS = (
    "FileName",
    "EF",
    "ESV",
    "EDV",
    "FrameHeight",
    "FrameWidth",
    "FPS",
    "NumberOfFrames",
    "Split",
)
PATIENT = "Patient"  # optional: a pseudonym, so that splits can be checked by patient
CLASS = "Class"  # optional: what the video is a case of, such as PAH or non-PAH
ABOUT_PATIENT = ("Sex", "Age", "Weight", "Height")  # optional: text, years, kilograms, centimetres
# Of synthetic videos: what the generator was asked for and what a regressor measured in the video,
# percent, empty where there is none; and which of the two the column EF repeats.
EF_ASKED, EF_MEASURED = EF_TRUTH = ("EFAsked", "EFMeasured")
EF_KIND = "EFKind"
ASKED, MEASURED = EF_KINDS = ("asked", "measured")
EF_TRACED = "EFTraced"  # of a release: from ESV and EDV, which are those of its tracings
# Optional, of synthetic videos, as asked for: beats a minute, and beats from end-diastole to the
# first frame, from 0 to below 1.
HEART_RATE, PHASE = BEAT = ("HeartRate", "Phase")
# Follow the others, in this order, when present.
OPTIONAL = (PATIENT, CLASS, *ABOUT_PATIENT, *EF_TRUTH, EF_KIND, EF_TRACED, *BEAT)
DICOM = "DICOM"  # folder of the videos of a release that was packed as such
TRACINGS = "VolumeTracings.csv"  # beside a FileList: the ventricle in some frames
RELEASED = (CLASS, *EF_TRUTH, EF_KIND, EF_TRACED, *BEAT)  # those that a synthetic dataset may have
LABELS = ("ef", "class", "none")  # what every row of a FileList must state
SPLITS = ("TRAIN", "VAL", "TEST")
# Percent, about the mean and sd of EchoNet-Dynamic: networks count EF from and in them.
EF_CENTRE, EF_SCALE = 55.0, 12.0
VOLUMES = ("ESV", "EDV")
NUMBERS = ("EF", "ESV", "EDV", "FrameHeight", "FrameWidth", "FPS", "NumberOfFrames")
COUNTS = ("FrameHeight", "FrameWidth", "NumberOfFrames")
MEASURES = ("Age", "Weight", "Height")  # optional numbers
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Cells(NamedTuple):
    """A CSV file as text, one entry per row that is not blank."""

    table: pd.DataFrame  # str, columns as in the header; short rows end in "", long ones are cut
    lines: np.ndarray  # int (rows,), the line of the file, as an editor counts: the header is 1
    fields: np.ndarray  # int (rows,), the number of fields on that line


class Problem(NamedTuple):
    """What is wrong with a column of some rows of a FileList."""

    column: str
    rows: np.ndarray  # int, positions in the table
    why: str  # goes after the column's name and the value

    def of(self, value: object) -> str:
        """The problem of one row, whose cell holds `value`."""
        return f"{self.column} {str(value)!r} {self.why}"


def read_cells(path: Path | str, separator: str = ",") -> Cells:
    """Read a CSV file as text, without checking what its cells hold.

    A mark of the byte order and Windows' line ends are no part of any cell.

    Raises:
        EchosynError: the file is missing, not UTF-8 text, not CSV, or names a column twice.
    """
    path = Path(path)
    rows, lines, read = [], [], 0  # rows, the line on which each ends, lines read
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            reader = csv.reader(f, strict=True, delimiter=separator)
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
                read = reader.line_num
    except FileNotFoundError:
        raise EchosynError(f"{path} does not exist") from None
    except (IsADirectoryError, PermissionError) as e:
        raise unreadable(path, e) from None
    except UnicodeDecodeError:
        raise not_text(path, SAVE_CSV) from None
    except csv.Error as e:
        fix = "close the quote that opens there, or double those within a cell"
        raise EchosynError(f"{path}: line {read + 1} is not CSV ({e}): {fix}") from None
    if not rows:
        raise EchosynError(
            f"{path} is empty; its first line must name the columns: export it again"
        )
    header, *rows = rows
    if any("\0" in name for name in header) and kind_of(path) is not None:
        raise not_text(path, SAVE_CSV)
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise EchosynError(
            f"{path}: line {lines[0]}: the header names column '{twice}' twice: rename "
            "or remove one"
        )
    n = len(header)
    whole = [(row + [""] * n)[:n] for row in rows]
    table = pd.DataFrame(whole, columns=header, dtype=str)
    return Cells(table, np.array(lines[1:], int), np.array([len(row) for row in rows], int))


def to_numbers(cells: pd.Series) -> pd.Series:
    """Text cells as float; NaN where a cell is empty or not a finite number."""
    numbers = pd.to_numeric(cells.astype(str).str.strip(), errors="coerce").astype(float)
    return numbers.replace([np.inf, -np.inf], np.nan)


def check_rows(cells: pd.DataFrame, label: str = "ef") -> tuple[pd.DataFrame, list[Problem]]:
    """Type the columns of a FileList and find the rows that cannot be in one.

    Args:
        cells: FileName, Split and any of the other columns, text or numbers, "" where empty.
            What is not there is not checked (see `check_columns`).
        label: "ef" when EF must be present in every row, "class" when Class must, "none" when
            neither. ESV and EDV may always be empty: synthetic videos have none.

    Returns:
        a table with FileName without `.avi`, numbers as numbers (rows with a problem hold
        anything), and the problems, the most basic ones first.
    """
    if label not in LABELS:
        raise ValueError(f"label {label!r} is not one of {', '.join(LABELS)}")
    table = cells.copy()
    problems: list[Problem] = []

    def refuse(column: str, bad: pd.Series, why: str) -> None:
        rows = np.flatnonzero(bad.to_numpy(bool))
        if len(rows):
            problems.append(Problem(column, rows, why))

    names = cells["FileName"].astype(str).str.removesuffix(".avi")
    table["FileName"] = names
    unsafe = ~names.str.fullmatch(SAFE_NAME.pattern)
    refuse("FileName", unsafe, "must begin with a letter or digit; then also '.', '_' and '-'")
    problems += _repeated(names)
    refuse("Split", ~cells["Split"].isin(SPLITS), f"is not one of {', '.join(SPLITS)}")
    if label == "class":
        refuse(CLASS, cells[CLASS].astype(str).str.strip() == "", "is empty; it is the label")
    efs = (*EF_TRUTH, EF_TRACED)
    may_be_empty = (*VOLUMES, *MEASURES, *efs, *BEAT, *(() if label == "ef" else ("EF",)))
    for column in (name for name in (*NUMBERS, *MEASURES, *efs, *BEAT) if name in cells):
        table[column] = to_numbers(cells[column])
        empty = cells[column].astype(str).str.strip() == ""
        refuse(
            column,
            table[column].isna() & ~(empty & (column in may_be_empty)),
            "is not a finite number",
        )
    for column in (name for name in ("EF", *efs) if name in cells):
        wrong = (table[column] < 0) | (table[column] > 100)
        refuse(column, wrong, "is outside 0-100 percent")
    if EF_KIND in cells:
        known = cells[EF_KIND].isin(("", *EF_KINDS))
        refuse(EF_KIND, ~known, f"is not one of {', '.join(EF_KINDS)}")
    for column in (name for name in COUNTS if name in cells):
        wrong = (table[column] < 1) | (table[column] % 1 != 0)
        refuse(column, wrong & table[column].notna(), "is not a whole number of 1 or more")
    if "FPS" in cells:
        refuse("FPS", table["FPS"] <= 0, "is not above 0")
    for column in (name for name in (*MEASURES, *BEAT) if name in cells):
        refuse(column, table[column] < 0, "is below 0")
    return table[[name for name in (*COLUMNS, *OPTIONAL) if name in table]], problems


def _repeated(names: pd.Series) -> list[Problem]:
    """Rows whose video an earlier one names; file systems may not tell case apart."""
    lower = names.str.lower().reset_index(drop=True)
    again = np.flatnonzero(lower.duplicated(keep=False))
    problems = []
    for rows in lower[again].groupby(lower[again], sort=False).groups.values():
        first = int(rows[0])
        why = f"is the video of row {first + 1} ({names.iloc[first]!r}) too; keep one row"
        problems.append(Problem("FileName", np.array(rows[1:]), why))
    return problems


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `check_rows` without the rows that have problems: counts as whole numbers."""
    return table.astype(dict.fromkeys(COUNTS, int))


def check_columns(path: Path | str, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Raise EchosynError that names the first column of `needed` that the file does not have."""
    for column in needed:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1, cutoff=0.5)
            hint = f" (is '{near[0]}' meant?)" if near else ""
            other = next((s for s in ";\t|" if len(columns) == 1 and s in columns[0]), None)
            if other is not None:
                hint = f" (the columns are separated by {other!r}, not by commas)"
            raise EchosynError(
                f"{path}: column '{column}' is missing{hint}; found: {', '.join(columns)}"
            )


def read_filelist(path: Path | str, label: str = "ef") -> pd.DataFrame:
    """Read and check a FileList, rows in file order, FileName without `.avi`.

    Args:
        path: the CSV file.
        label: as in `check_rows`.

    Raises:
        EchosynError: naming the file, the line (as an editor counts, the header is line 1), the
            value and the fix: a missing column, a name that leaves the folder or repeats, a number
            that is not one, an EF outside 0-100, an unknown split, an empty label.
    """
    path = Path(path)
    cells = read_cells(path)
    text = cells.table
    check_columns(path, list(text.columns), [*COLUMNS, *([CLASS] if label == "class" else [])])
    if text.empty:
        raise EchosynError(f"{path}: no rows: only line 1 is there, which names the columns")

    def refuse(
        what: str, rows: np.ndarray, why: str, values: Sequence[object] | np.ndarray
    ) -> None:
        first = ", ".join(f"line {cells.lines[i]}: {str(values[i])!r}" for i in rows[:5])
        more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
        raise EchosynError(f"{path}: {what} {why}: {first}{more}")

    width = len(text.columns)
    ragged = np.flatnonzero(cells.fields != width)
    if len(ragged):
        refuse("number of fields", ragged, f"is not the header's {width}", cells.fields)
    table, problems = check_rows(text, label)
    for problem in problems:
        refuse(problem.column, problem.rows, problem.why, text[problem.column])
    return typed(table)


def write_filelist(path: Path | str, table: pd.DataFrame) -> None:
    """Write the EchoNet columns, and the optional ones present, in a fixed order and format."""
    write_text(path, table[_kept(table)].to_csv(index=False, lineterminator="\n"))


def _kept(table: pd.DataFrame) -> list[str]:
    return [*COLUMNS, *(name for name in OPTIONAL if name in table.columns)]


def asked_ef(table: pd.DataFrame) -> pd.Series:
    """The EF that was asked of the generator, percent, of each row of a synthetic FileList."""
    return table[EF_ASKED if EF_ASKED in table else "EF"]


def frame_phases(table: pd.DataFrame) -> pd.DataFrame:
    """FileName, Frame (from 0) and Phase (beats since end-diastole, 0 to below 1) of every frame of
    the videos whose HeartRate and Phase are known; no row where the FileList has neither.
    """
    if not set(BEAT) <= set(table):
        return pd.DataFrame()
    known = table[table[list(BEAT)].notna().all(axis=1)]
    counts = known["NumberOfFrames"].to_numpy(int)
    video = np.repeat(np.arange(len(known)), counts)
    frames = np.arange(len(video)) - np.repeat(np.cumsum(counts) - counts, counts)
    names, rate, phase, fps = (known[c].to_numpy()[video] for c in ("FileName", *BEAT, "FPS"))
    at = np.round(phase + rate / 60 / fps * frames, 4) % 1
    return pd.DataFrame({"FileName": names, "Frame": frames, PHASE: at})


def video_path(folder: Path | str, name: str) -> Path:
    """Where a dataset folder keeps the video of a FileName."""
    return Path(folder) / "Videos" / f"{name}.avi"


def dicom_path(folder: Path | str, name: str) -> Path:
    """Where a release that was packed as DICOM keeps it."""
    return Path(folder) / DICOM / f"{name}.dcm"
