"""What a gate looks at: FileList.csv as written, joined with what the videos themselves hold."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.data.filelist import NUMBERS, PATIENT, SAFE_NAME, SPLITS, Cells, read_cells, to_numbers
from echosyn.data.filelist import video_path as path_of
from echosyn.data.video import map_videos, probe
from echosyn.errors import EchosynError
from echosyn.files import sha256_file

# FileList column -> column that holds the same fact, measured on the file
MEASURED = {
    "FrameHeight": "MeasuredFrameHeight",
    "FrameWidth": "MeasuredFrameWidth",
    "FPS": "MeasuredFPS",
    "NumberOfFrames": "MeasuredNumberOfFrames",
}


@dataclass(frozen=True)
class Tables:
    """Row i of `text` and of `values` is the same row of FileList.csv.

    text: the cells as written, columns as in the file.
    values: Line, FileName, Name, Fields, Split, the numbers, the MEASURED columns, Sha256,
        VideoError, EFFromVolumes, EFDifference, FPSDifference, CopySplits, SameBytesAs and, with
        a Patient column, Patient and PatientSplits.
    splits: Split, Rows, Expected (NaN where nothing is expected).
    files: File, Listed: what lies in Videos/.
    """

    text: pd.DataFrame
    values: pd.DataFrame
    splits: pd.DataFrame
    files: pd.DataFrame


def read_tables(folder: Path, counts: dict[str, int] | None = None) -> Tables:
    """Measure a dataset folder, decoding every listed video once.

    Raises:
        EchosynError: FileList.csv is missing, has no rows or is not a CSV file at all.
    """
    cells = read_cells(folder / "FileList.csv")
    if cells.table.empty:
        raise EchosynError(f"{folder / 'FileList.csv'}: no rows")
    names = file_names(cells)
    measured = pd.DataFrame(list(map_videos(lambda name: _measure(folder, name), names, "measure")))
    videos = folder / "Videos"
    found = sorted(f.relative_to(videos).as_posix() for f in videos.rglob("*") if not f.is_dir())
    return join(cells, measured, found, counts)


def file_names(cells: Cells) -> list[str]:
    """FileName of every row without `.avi`; empty where the list has no such column."""
    if "FileName" not in cells.table:
        return [""] * len(cells.table)
    return list(cells.table["FileName"].str.removesuffix(".avi"))


def _measure(folder: Path, name: str) -> dict:
    # A name that could leave the folder is for the FileName expectation to report, not to open.
    if not SAFE_NAME.fullmatch(name):
        return {"VideoError": None}
    path = path_of(folder, name)
    try:
        facts = probe(path)
    except EchosynError as e:
        return {"VideoError": str(e).removeprefix(f"{path}: ")}
    return {
        "MeasuredFrameHeight": facts.height,
        "MeasuredFrameWidth": facts.width,
        "MeasuredFPS": facts.fps,
        "MeasuredNumberOfFrames": facts.frames,
        "Sha256": sha256_file(path),
    }


def join(
    cells: Cells, measured: pd.DataFrame, found: list[str], counts: dict[str, int] | None = None
) -> Tables:
    """Put a FileList's cells and what was measured of each row's video side by side.

    Args:
        measured: MEASURED columns, Sha256 and VideoError, one row per row of the list; a column
            may be absent when no row has it.
        found: names of the files in Videos/.
        counts: rows expected per split.
    """
    text = cells.table
    values = pd.DataFrame({"Line": cells.lines, "FileName": file_names(cells)})
    values["Name"] = values["FileName"].str.lower()
    values["Fields"] = cells.fields
    for column in NUMBERS:
        values[column] = to_numbers(text[column]) if column in text else np.nan
    for column in MEASURED.values():
        values[column] = measured[column].astype(float) if column in measured else np.nan
    for column in ("Sha256", "VideoError"):
        values[column] = measured[column].astype(object) if column in measured else None
        values[column] = values[column].where(values[column].notna(), None)
    diastole = values["EDV"].where(values["EDV"] > 0)
    values["EFFromVolumes"] = 100 * (diastole - values["ESV"]) / diastole
    values["EFDifference"] = (values["EF"] - values["EFFromVolumes"]).abs()
    values["FPSDifference"] = (values["FPS"] - values["MeasuredFPS"]).abs()
    values["Split"] = text.get("Split", "")
    by_bytes = values.groupby("Sha256")
    values["CopySplits"] = by_bytes["Split"].transform("nunique")
    values["SameBytesAs"] = by_bytes["FileName"].transform("first")
    if PATIENT in text:
        values[PATIENT] = text[PATIENT].where(text[PATIENT].str.strip() != "", None)
        values["PatientSplits"] = values.groupby(PATIENT)["Split"].transform("nunique")
    rows = values["Split"].value_counts()
    splits = pd.DataFrame(
        {
            "Split": SPLITS,
            "Rows": [float(rows.get(s, 0)) for s in SPLITS],
            "Expected": [float((counts or {}).get(s, np.nan)) for s in SPLITS],
        }
    )
    listed = {f"{name}.avi" for name in values["FileName"]}
    files = pd.DataFrame({"File": found, "Listed": [f in listed for f in found]})
    return Tables(text, values, splits, files)


def videos_digest(values: pd.DataFrame) -> str:
    """SHA-256 over the names and hashes of the listed videos."""
    lines = sorted(f"{n} {h}\n" for n, h in zip(values["FileName"], values["Sha256"], strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
