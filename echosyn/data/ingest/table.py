"""A folder of videos and a CSV file about them, with columns of any names.

The options say which column is what:

    options:
      csv: labels.csv
      columns: {file: Path, ef: "LVEF (%)", patient: MRN}
      separator: ";"
      decimal: ","
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from echosyn.data.filelist import (
    CLASS,
    PATIENT,
    SPLITS,
    Problem,
    check_columns,
    check_rows,
    read_cells,
    to_numbers,
)
from echosyn.data.ingest.canonical import Plan
from echosyn.data.ingest.echonet import row_items, row_reasons
from echosyn.data.ingest.names import as_stored, file_names, nearly_alike, plain_path
from echosyn.data.ingest.pseudonym import read_key
from echosyn.data.ingest.splits import Shares, split_patients
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

COLUMN = {
    "file": "FileName",
    "ef": "EF",
    "esv": "ESV",
    "edv": "EDV",
    "split": "Split",
    "patient": PATIENT,
    "class": CLASS,
    "sex": "Sex",
    "age": "Age",
    "weight": "Weight",
    "height": "Height",
}
VOLUME = {"ml": 1.0, "ul": 1e-3, "cl": 10.0, "l": 1e3}
# What a value in the unit is in the FileList's own, which comes first.
UNITS = {
    "ef": {"percent": 1.0, "fraction": 100.0},
    "esv": VOLUME,
    "edv": VOLUME,
    "age": {"years": 1.0, "months": 1 / 12, "days": 1 / 365.25},
    "weight": {"kg": 1.0, "g": 1e-3, "lb": 0.45359237},
    "height": {"cm": 1.0, "m": 100.0, "mm": 0.1, "in": 2.54},
}
SPLIT_NAMES = {
    "train": "TRAIN", "training": "TRAIN", "val": "VAL", "valid": "VAL", "validation": "VAL",
    "dev": "VAL", "test": "TEST", "testing": "TEST",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How to read the CSV file."""

    columns: dict[str, str] = setting(
        help="what -> the column's name; file is needed, others are ef, esv, edv, split, patient, "
        "class, sex, age, weight, height"
    )
    csv: str = setting("FileList.csv", help="the CSV file, in the dataset's folder")
    videos: str = setting(".", help="folder that the file column starts from")
    suffix: str = setting("", help="what to add to a file's name, such as .avi")
    separator: str = setting(",", choices=(",", ";", "\t", "|"), help="between cells")
    decimal: str = setting(".", choices=(".", ","), help="mark of decimals")
    units: dict[str, str] | None = setting(
        None, help="what -> unit, such as {ef: fraction, esv: ul, age: months, height: m}"
    )
    split_names: dict[str, str] | None = setting(
        None, choices=SPLITS, help="a value of the split column -> TRAIN, VAL or TEST"
    )
    split: Shares = setting(Shares(), help="of patients, when there is no split column")
    names: str = setting(
        "file", choices=("file", "number"), help="FileName: after the file, or v0000001 by line"
    )
    key: str | None = setting(
        None, help="file of the key that makes pseudonyms of patients; null: they are numbered"
    )

    def check(self) -> str | None:
        if "file" not in self.columns:
            return "columns: 'file' is missing: the column that names the video"
        for what in self.columns:
            if what not in COLUMN:
                return f"columns: {what!r} is not one of {', '.join(COLUMN)}"
        for what, unit in (self.units or {}).items():
            if unit not in UNITS.get(what, {}):
                known = ", ".join(UNITS.get(what, {})) or "no unit"
                return f"units: {what}: {unit!r}; it may be in {known}"
        for name, count in Counter(self.columns.values()).items():
            if count > 1:
                return f"columns: {name!r} is named twice"
        if self.separator == self.decimal:
            return "separator and decimal are both ','"
        return None


def plan(raw: Path, label: str, options: Options) -> Plan:
    """The rows of the CSV file; see `echosyn.data.ingest.ingest`.

    Raises:
        EchosynError: the file is missing, is not a CSV file or lacks a column, or no column is
            named for the label.
    """
    file = raw / options.csv
    if label != "none" and label not in options.columns:
        raise EchosynError(f"{file}: label: {label} needs an entry '{label}' in columns")
    cells = read_cells(file, options.separator)
    check_columns(file, list(cells.table.columns), list(options.columns.values()))
    if cells.table.empty:
        raise EchosynError(f"{file}: no rows")
    # The columns by the FileList's names, values as they are in the file.
    text = cells.table[list(options.columns.values())]
    text = text.set_axis([COLUMN[what] for what in options.columns], axis=1)
    table, problems = _canonical(text, cells.lines, raw, options)
    table, more = check_rows(table, label)
    reasons = row_reasons(cells, [*problems, *more], text)
    paths = _paths(text) + options.suffix

    def source(i: int) -> str:
        return f"{file.name} line {cells.lines[i]} ({text['FileName'][i]})"

    def video(i: int) -> Path:
        return as_stored(raw / options.videos / paths[i])

    items, rejects = row_items(table, reasons, source, video)
    return Plan(items, rejects, _notes(text, options))


def _notes(text: pd.DataFrame, options: Options) -> list[str]:
    if {"patient", "split"}.isdisjoint(options.columns):
        return ["no column of patients: every video is split as one of its own"]
    alike = nearly_alike(text[PATIENT].str.strip()) if "patient" in options.columns else []
    if not alike:
        return []
    shown = "; ".join(" and ".join(map(repr, group)) for group in alike[:5])
    more = f"; and {len(alike) - 5} more" if len(alike) > 5 else ""
    return [
        f"{len(alike)} groups of patients in column '{options.columns['patient']}' differ by case, "
        f"blanks, leading zeros or '.0' alone: {shown}{more}. They are taken as different people, "
        "who may be in different splits: write each person one way"
    ]


def _canonical(
    text: pd.DataFrame, lines: np.ndarray, raw: Path, options: Options
) -> tuple[pd.DataFrame, list[Problem]]:
    """The rows in the FileList's terms, and what is wrong with them that it cannot express."""
    table = text.copy()
    problems = []
    paths = _paths(text)
    outside = ~paths.map(_is_inside)
    problems.append(Problem("FileName", np.flatnonzero(outside), "is no path within the folder"))
    problems += _twice(paths, text["FileName"], lines)
    names = pd.Series(file_names(list(paths)), index=paths.index)
    numbers = pd.Series([f"v{i + 1:07d}" for i in range(len(names))], index=names.index)
    table["FileName"] = names if options.names == "file" else numbers
    for what in (w for w in options.columns if w in UNITS):
        unit = (options.units or {}).get(what, next(iter(UNITS[what])))
        table[COLUMN[what]] = _numbers(text[COLUMN[what]], options.decimal, UNITS[what][unit])
    if "patient" in options.columns:
        none = text[PATIENT].str.strip() == ""
        problems.append(Problem(PATIENT, np.flatnonzero(none), "is empty"))
        table[PATIENT] = _pseudonyms(text[PATIENT].str.strip(), raw, options.key)
    if "split" in options.columns:
        mapping = options.split_names or SPLIT_NAMES
        given = text["Split"].str.strip()
        known = given.map(mapping) if options.split_names else given.str.lower().map(mapping)
        table["Split"] = known.fillna("")
        unknown = np.flatnonzero(known.isna())
        problems.append(Problem("Split", unknown, f"is not one of {', '.join(mapping)}"))
    else:
        people = table[PATIENT] if "patient" in options.columns else table["FileName"]
        classes = text[CLASS].str.strip() if "class" in options.columns else [""] * len(people)
        dealt = split_patients(dict(zip(people, classes, strict=True)), options.split)
        table["Split"] = people.map(dealt)
    return table, [p for p in problems if len(p.rows)]


def _is_inside(path: str) -> bool:
    """Whether a path of a cell stays in its folder: relative, without '..' or a drive."""
    parts = PurePosixPath(path).parts
    absolute = path.startswith(("/", "~")) or re.match(r"[A-Za-z]:", path) is not None
    return bool(parts) and not absolute and ".." not in parts and "\0" not in path


def _paths(text: pd.DataFrame) -> pd.Series:
    return text["FileName"].str.strip().str.replace("\\", "/")


def _twice(paths: pd.Series, written: pd.Series, lines: np.ndarray) -> list[Problem]:
    """Rows that name the very video of an earlier one."""
    plain = paths.map(plain_path)
    problems, again = [], np.flatnonzero(plain.duplicated(keep=False))
    for rows in plain[again].groupby(plain[again], sort=False).groups.values():
        first = int(rows[0])
        why = f"is the video of line {lines[first]} ({written[first]!r}) too; keep one row"
        problems.append(Problem("FileName", np.array(rows[1:]), why))
    return problems


def _numbers(cells: pd.Series, decimal: str, factor: float) -> pd.Series:
    """Cells in the FileList's unit; "" where empty, NaN where they are no number."""
    text = cells.str.strip()
    if decimal == ",":
        # A point would be the mark of thousands here and of decimals elsewhere: not guessed.
        text = text.mask(text.str.contains(".", regex=False), "?").str.replace(",", ".")
    return (to_numbers(text) * factor).astype(object).mask(text == "", "")


def _pseudonyms(patients: pd.Series, raw: Path, key: str | None) -> pd.Series:
    if key is None:
        numbers = {p: f"P{i + 1:06d}" for i, p in enumerate(dict.fromkeys(patients))}
        return patients.map(numbers)
    pseudonymiser = read_key(key, raw)
    known = {p: pseudonymiser.patient(p) if p else "" for p in dict.fromkeys(patients)}
    return patients.map(known)
