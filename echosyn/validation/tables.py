"""What a gate looks at: FileList.csv as written, joined with what the videos themselves hold."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.data.filelist import (
    BEAT,
    CLASS,
    EF_TRACED,
    EF_TRUTH,
    MEASURES,
    NUMBERS,
    PATIENT,
    SAFE_NAME,
    SPLITS,
    TRACINGS,
    VOLUMES,
    Cells,
    read_cells,
    to_numbers,
)
from echosyn.data.filelist import video_path as path_of
from echosyn.data.video import map_videos
from echosyn.runtime.errors import EchosynError
from echosyn.validation.demands import Demands, needs_table
from echosyn.validation.scales import scale_table, tracing_scale
from echosyn.validation.splits import class_table, drift_table, nearest_in_other_splits
from echosyn.validation.videos import FRAMES, WIDTH, measure

# FileList column -> column that holds the same fact, measured on the file
MEASURED = {
    "FrameHeight": "MeasuredFrameHeight",
    "FrameWidth": "MeasuredFrameWidth",
    "FPS": "MeasuredFPS",
    "NumberOfFrames": "MeasuredNumberOfFrames",
}
FACTS = (*MEASURED.values(), "Contrast", "Motion")


@dataclass(frozen=True)
class Table:
    """A table that checks look at. where: what a person finds row i by, such as its line."""

    frame: pd.DataFrame
    where: Callable[[int], str]


Tables = Mapping[str, Table]


def by_columns(frame: pd.DataFrame, *columns: str) -> Table:
    """A table whose rows are found by the values of some of its columns."""
    return Table(frame, lambda i: ", ".join(str(frame[c].iloc[i]) for c in columns))


def read_tables(
    folder: Path,
    counts: Mapping[str, int] | None = None,
    drift_p: float = 0.01,
    source: str = "dataset",
    demands: Demands | None = None,
) -> Tables:
    """Measure a dataset folder, decoding every listed video once; see `join`.

    Raises:
        EchosynError: FileList.csv is missing, has no rows or is not a CSV file at all.
    """
    cells = read_cells(folder / "FileList.csv")
    if cells.table.empty:
        raise EchosynError(f"{folder / 'FileList.csv'}: no rows")
    names = file_names(cells)
    descriptors = np.zeros((len(names), len(FRAMES), WIDTH), np.float32)
    rows = []
    for i, (facts, described) in enumerate(
        map_videos(lambda name: _measure(folder, name), names, "measure")
    ):
        rows.append(facts)
        if described is not None:
            descriptors[i] = described
    videos = folder / "Videos"
    found = sorted(f.relative_to(videos).as_posix() for f in videos.rglob("*") if not f.is_dir())
    split = cells.table.get("Split", pd.Series("", cells.table.index))
    nearest = nearest_in_other_splits(descriptors, names, split)
    measured = pd.concat([pd.DataFrame(rows), nearest], axis=1)
    tracings = tracing_scale(folder / TRACINGS)
    return join(cells, measured, found, counts, drift_p, source, tracings, demands)


def file_names(cells: Cells) -> list[str]:
    """FileName of every row without `.avi`; empty where the list has no such column."""
    if "FileName" not in cells.table:
        return [""] * len(cells.table)
    return list(cells.table["FileName"].str.removesuffix(".avi"))


def _measure(folder: Path, name: str) -> tuple[dict, np.ndarray | None]:
    # A name that could leave the folder is for the FileName expectation to report, not to open.
    if not SAFE_NAME.fullmatch(name):
        return {"VideoError": None}, None
    path = path_of(folder, name)
    try:
        facts = measure(path)
    except EchosynError as e:
        return {"VideoError": str(e).removeprefix(f"{path}: ")}, None
    return {
        "MeasuredFrameHeight": facts.height,
        "MeasuredFrameWidth": facts.width,
        "MeasuredFPS": facts.fps,
        "MeasuredNumberOfFrames": facts.frames,
        "Sha256": facts.sha256,
        "Contrast": facts.contrast,
        "Motion": facts.motion,
    }, facts.descriptors


def join(
    cells: Cells,
    measured: pd.DataFrame,
    found: Sequence[str],
    counts: Mapping[str, int] | None = None,
    drift_p: float = 0.01,
    source: str = "dataset",
    tracings: pd.DataFrame | None = None,
    demands: Demands | None = None,
) -> Tables:
    """Put a FileList's cells and what was measured of each row's video side by side.

    Row i of `text` and of `values` is the same row of FileList.csv.

    - text: the cells as written, columns as in the file.
    - values: Line, FileName, Name, Fields, Split, what columns of the file say as numbers, what
      was measured of the videos, and what follows from both. A column of the file that is absent
      is absent here, with what would follow from it.
    - counts: Split, Rows, Expected (NaN where nothing is expected).
    - files: File, Listed: what lies in Videos/.
    - scales, scales_likely: see `echosyn.validation.scales`.
    - needs, needs_soft: see `echosyn.validation.demands`.
    - classes, class_names, drift: see `echosyn.validation.splits`; without rows when there is no
      column Class, or no EF.

    Args:
        measured: FACTS, Sha256, VideoError and the columns of `nearest_in_other_splits`, one row
            per row of the list; a column may be absent when no row has it.
        found: names of the files in Videos/.
        counts: rows expected per split.
        drift_p: chance below which a difference between splits is taken for one.
        source: of the dataset, whose settings messages name.
        tracings: the row of `tracing_scale`.
        demands: what later stages need; None: nothing is asked.
    """
    text = cells.table
    split = text.get("Split", pd.Series("", text.index))
    values = pd.DataFrame({"Line": cells.lines, "FileName": file_names(cells)})
    values["Name"] = values["FileName"].str.lower()
    values["Fields"] = cells.fields
    values["Split"] = split
    _add_measured(values, measured)
    _add_numbers(values, text)
    _add_people(values, text)
    ef = values.get("EF", pd.Series(np.nan, values.index))
    classes = class_table(text.get(CLASS, pd.Series("", text.index)), split)
    listed = {f"{name}.avi" for name in values["FileName"]}
    files = pd.DataFrame({"File": found, "Listed": [f in listed for f in found]})

    scales = pd.concat(
        [scale_table(values, source), *([] if tracings is None else [tracings])], ignore_index=True
    )

    needs = needs_table(values, text, demands)

    def line(i: int) -> str:
        return f"line {values['Line'].iloc[i]}, {values['FileName'].iloc[i]}"

    return {
        "text": Table(text, line),
        "values": Table(values, line),
        "counts": by_columns(_count(split, counts or {}), "Split"),
        "files": by_columns(files, "File"),
        "classes": by_columns(classes, "Class", "Split"),
        "class_names": by_columns(classes[["Class"]].drop_duplicates(), "Class"),
        **_by_sureness("scales", "scales_likely", scales),
        **_by_sureness("needs", "needs_soft", needs),
        "drift": by_columns(drift_table(ef, split, drift_p), "Pair"),
    }


def _by_sureness(sure: str, other: str, frame: pd.DataFrame) -> dict[str, Table]:
    """Rows that are sure and the others, each found by what it says."""
    mask = frame["Sure"].astype(bool)
    parts = {sure: frame[mask], other: frame[~mask]}
    return {n: by_columns(part.reset_index(drop=True), "Says") for n, part in parts.items()}


def _count(split: pd.Series, expected: Mapping[str, int]) -> pd.DataFrame:
    rows = split.value_counts()
    return pd.DataFrame(
        {
            "Split": SPLITS,
            "Rows": [float(rows.get(s, 0)) for s in SPLITS],
            "Expected": [float(expected.get(s, np.nan)) for s in SPLITS],
        }
    )


def _add_measured(values: pd.DataFrame, measured: pd.DataFrame) -> None:
    for column in (*FACTS, "Nearest"):
        values[column] = measured[column].astype(float) if column in measured else np.nan
    for column in ("Sha256", "VideoError", "NearestVideo", "NearestSplit"):
        values[column] = measured[column].astype(object) if column in measured else None
        values[column] = values[column].where(values[column].notna(), None)
    known = values["MeasuredFrameWidth"].notna()
    sizes = [
        f"{w:.0f}x{h:.0f}"
        for w, h in zip(values["MeasuredFrameWidth"], values["MeasuredFrameHeight"], strict=True)
    ]
    values["MeasuredSize"] = pd.Series(sizes, values.index, object).where(known, None)
    by_bytes = values.groupby("Sha256")
    values["CopySplits"] = by_bytes["Split"].transform("nunique")
    values["Copies"] = by_bytes["FileName"].transform("size")
    values["SameBytesAs"] = by_bytes["FileName"].transform("first")


def _add_numbers(values: pd.DataFrame, text: pd.DataFrame) -> None:
    for column in (
        c for c in (*NUMBERS, *MEASURES, *EF_TRUTH, EF_TRACED, *BEAT) if c in text.columns
    ):
        values[column] = to_numbers(text[column])
    if "FPS" in values:
        values["FPSDifference"] = (values["FPS"] - values["MeasuredFPS"]).abs()
    if not set(VOLUMES) <= set(values.columns):
        return
    written = [text[v].str.strip() for v in VOLUMES]
    values["VolumesText"] = written[0] + written[1]
    values["VolumesGiven"] = sum((w != "").astype(float) for w in written)
    if "EF" in values:
        diastole = values["EDV"].where(values["EDV"] > 0)
        values["EFFromVolumes"] = 100 * (diastole - values["ESV"]) / diastole
        stated = values.get(EF_TRACED, values["EF"]).fillna(values["EF"])
        values["EFDifference"] = (stated - values["EFFromVolumes"]).abs()


def _add_people(values: pd.DataFrame, text: pd.DataFrame) -> None:
    if PATIENT in text:
        values[PATIENT] = text[PATIENT].where(text[PATIENT].str.strip() != "", None)
        values["PatientSplits"] = values.groupby(PATIENT)["Split"].transform("nunique")


def videos_digest(values: pd.DataFrame) -> str:
    """SHA-256 over the names and hashes of the listed videos."""
    lines = sorted(f"{n} {h}\n" for n, h in zip(values["FileName"], values["Sha256"], strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
