"""FileList.csv, EchoNet's index of a dataset: one home for its columns, names and splits.

A dataset folder holds `FileList.csv` and `Videos/<FileName>.avi`. EF is in percent, ESV and EDV
in millilitres, FPS in frames per second, FrameHeight and FrameWidth in pixels.
"""

import csv
import difflib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from echosyn.errors import EchosynError
from echosyn.files import write_text

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
OPTIONAL = (PATIENT, CLASS)  # columns that follow the others, in this order, when present
SPLITS = ("TRAIN", "VAL", "TEST")
VOLUMES = ("ESV", "EDV")
NUMBERS = ("EF", "ESV", "EDV", "FrameHeight", "FrameWidth", "FPS", "NumberOfFrames")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Cells(NamedTuple):
    """A CSV file as text, one entry per row that is not blank."""

    table: pd.DataFrame  # str, columns as in the header; short rows end in "", long ones are cut
    lines: np.ndarray  # int (rows,), the line of the file, as an editor counts: the header is 1
    fields: np.ndarray  # int (rows,), the number of fields on that line


def read_cells(path: Path | str) -> Cells:
    """Read a CSV file as text, without judging what its cells hold.

    Raises:
        EchosynError: the file is missing, not UTF-8 text, not CSV, or names a column twice.
    """
    path = Path(path)
    rows, lines = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            reader = csv.reader(f, strict=True)
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except FileNotFoundError:
        raise EchosynError(f"{path} does not exist") from None
    except UnicodeDecodeError as e:
        raise EchosynError(f"{path} is not UTF-8 text: {e}") from None
    except csv.Error as e:
        raise EchosynError(f"{path}: line {len(lines) + 1} is not CSV: {e}") from None
    if not rows:
        raise EchosynError(f"{path} is empty; its first line must name the columns")
    header, *rows = rows
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise EchosynError(f"{path}: the header names column '{twice}' twice")
    n = len(header)
    whole = [(row + [""] * n)[:n] for row in rows]
    table = pd.DataFrame(whole, columns=header, dtype=str)
    return Cells(table, np.array(lines[1:], int), np.array([len(row) for row in rows], int))


def to_numbers(cells: pd.Series) -> pd.Series:
    """Text cells as float; NaN where a cell is empty or not a finite number."""
    numbers = pd.to_numeric(cells.str.strip(), errors="coerce").astype(float)
    return numbers.replace([np.inf, -np.inf], np.nan)


def read_filelist(path: Path | str, label: str = "ef") -> pd.DataFrame:
    """Read and check a FileList, rows in file order, FileName without `.avi`.

    Args:
        path: the CSV file.
        label: "ef" when EF must be present in every row, "none" when it may be empty. ESV and EDV
            may always be empty: synthetic videos have none.

    Raises:
        EchosynError: naming the file, the line (as an editor counts, the header is line 1), the
            value and the fix: a missing column, a name that leaves the folder or repeats, a number
            that is not one, an EF outside 0-100, an unknown split.
    """
    path = Path(path)
    cells = read_cells(path)
    text = cells.table
    for column in COLUMNS:
        if column not in text.columns:
            near = difflib.get_close_matches(column, text.columns, n=1, cutoff=0.5)
            hint = f" (is '{near[0]}' meant?)" if near else ""
            raise EchosynError(
                f"{path}: column '{column}' is missing{hint}; found: {', '.join(text.columns)}"
            )
    if text.empty:
        raise EchosynError(f"{path}: no rows")

    def refuse(what: str, bad: pd.Series | np.ndarray, why: str, values: object = None) -> None:
        rows = np.flatnonzero(np.asarray(bad, bool))
        if len(rows) == 0:
            return
        shown = text[what] if values is None else values
        first = ", ".join(f"line {cells.lines[i]}: {str(shown[i])!r}" for i in rows[:5])
        more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
        raise EchosynError(f"{path}: {what} {why}: {first}{more}")

    width = len(text.columns)
    refuse("number of fields", cells.fields != width, f"is not the header's {width}", cells.fields)
    table = text.copy()
    table["FileName"] = text["FileName"].str.removesuffix(".avi")
    unsafe = ~table["FileName"].str.fullmatch(SAFE_NAME.pattern)
    refuse("FileName", unsafe, "must begin with a letter or digit; then also '.', '_' and '-'")
    refuse("FileName", table["FileName"].str.lower().duplicated(), "names an earlier row's video")
    refuse("Split", ~text["Split"].isin(SPLITS), f"is not one of {', '.join(SPLITS)}")
    for column in NUMBERS:
        optional = column in VOLUMES or (label == "none" and column == "EF")
        table[column] = to_numbers(text[column])
        empty = text[column].str.strip() == ""
        refuse(column, table[column].isna() & ~(empty & optional), "is not a finite number")
    refuse("EF", (table["EF"] < 0) | (table["EF"] > 100), "is outside 0-100 percent")
    for column in ("FrameHeight", "FrameWidth", "NumberOfFrames"):
        wrong = (table[column] < 1) | (table[column] % 1 != 0)
        refuse(column, wrong, "is not a whole number of 1 or more")
        table[column] = table[column].astype(int)
    refuse("FPS", table["FPS"] <= 0, "is not above 0")
    return table[_kept(table)]


def write_filelist(path: Path | str, table: pd.DataFrame) -> None:
    """Write the EchoNet columns, and the optional ones present, in a fixed order and format."""
    write_text(path, table[_kept(table)].to_csv(index=False, lineterminator="\n"))


def _kept(table: pd.DataFrame) -> list[str]:
    return [*COLUMNS, *(name for name in OPTIONAL if name in table.columns)]


def video_path(folder: Path | str, name: str) -> Path:
    """Where a dataset folder keeps the video of a FileName."""
    return Path(folder) / "Videos" / f"{name}.avi"
