"""Sources in EchoNet layout: FileList.csv, Videos/*.avi and perhaps VolumeTracings.csv.

Videos that already have the canonical size are copied byte for byte. What FileList.csv says of
them is kept as it says it: whether it is true is the gate's question, not ours to mend silently.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.data.filelist import (
    CLASS,
    COLUMNS,
    TRACINGS,
    Cells,
    Problem,
    check_columns,
    check_rows,
    read_cells,
    to_numbers,
    video_path,
)
from echosyn.data.ingest.canonical import Clip, Item, LazyItems, Plan, Reject
from echosyn.data.ingest.fit import SquareFit
from echosyn.data.ingest.found import holds, nearby
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text

LIST = "FileList.csv"
LVH = "MeasurementsList.csv"  # of EchoNet-LVH
SOURCE = ("SourceHeight", "SourceWidth", "SourceAspect")


@dataclass(frozen=True)
class Options:
    """EchoNet-Dynamic needs no settings."""


def plan(raw: Path, label: str, options: Options) -> Plan:
    """The rows of FileList.csv as they are; see `echosyn.data.ingest.ingest`.

    Raises:
        EchosynError: FileList.csv is missing, is not a CSV file, or lacks a column.
    """
    cells = read_cells(the_list(raw))
    if {"ESV", "EDV", "FPS"}.isdisjoint(cells.table) and {"Sex", "Age"} <= set(cells.table):
        raise EchosynError(
            f"{raw / LIST}: its columns ({', '.join(cells.table)}) are those of EchoNet-Pediatric: "
            "set source: pediatric of the dataset"
        )
    needed = [*COLUMNS, *([CLASS] if label == "class" else [])]
    check_columns(raw / LIST, list(cells.table.columns), needed)
    table, problems = check_rows(cells.table, label)
    return list_plan(raw, cells, table, problems)


def the_list(raw: Path) -> Path:
    """FileList.csv of a raw folder.

    Raises:
        EchosynError: it is not there, naming what is instead.
    """
    path = raw / LIST
    if path.is_file():
        return path
    if (raw / LVH).is_file():
        raise EchosynError(
            f"{path} does not exist; {LVH} does: this is EchoNet-LVH, which has no EF; its videos "
            "are read with source: table"
        )
    named = [f.name for f in sorted(raw.iterdir()) if f.stem.lower() == Path(LIST).stem.lower()]
    if named:
        raise EchosynError(f"{path} does not exist, but {named[0]} does: save it as {LIST}")
    there = nearby(raw, LIST)
    if there is not None:
        source = "source: pediatric and " if there.parent.name in ("A4C", "PSAX") else ""
        raise EchosynError(
            f"{path} does not exist, but {there} does: set {source}`path` of the dataset to "
            f"{there.parent}"
        )
    raise EchosynError(f"{path} does not exist; {holds(raw)}")


def list_plan(
    raw: Path,
    cells: Cells,
    table: pd.DataFrame,
    problems: Sequence[Problem],
    notes: Sequence[str] = (),
) -> Plan:
    """A plan of the videos that a FileList names, in Videos/.

    Args:
        cells: the list as text, for messages.
        table: its rows as they shall be in the canonical one.
        problems: rows that are no good, to be rejected.
        notes: what else to tell.
    """

    def source(i: int) -> str:
        return f"{LIST} line {cells.lines[i]} ({cells.table['FileName'][i]})"

    def video(i: int) -> Path:
        return video_path(raw, table["FileName"][i])

    def finish(out: Path, written: pd.DataFrame) -> None:
        keep_tracings(raw / TRACINGS, out / TRACINGS, written)

    reasons = row_reasons(cells, problems, cells.table)
    items, rejects = row_items(table, reasons, source, video)
    return Plan(items, rejects, [*notes, *_unlisted(raw, table)], finish)


def row_reasons(cells: Cells, problems: Sequence[Problem], shown: pd.DataFrame) -> dict[int, str]:
    """What is wrong with the rows of a list that are no good: row -> reason.

    Args:
        shown: the values to quote, by the columns that the problems name.
    """
    width = len(cells.table.columns)
    ragged = np.flatnonzero(cells.fields != width)
    reasons = {int(i): f"{cells.fields[i]} fields, the header has {width}" for i in ragged}
    for problem in problems:
        for i in problem.rows:
            reasons.setdefault(int(i), problem.of(shown[problem.column][i]))
    return reasons


def row_items(
    table: pd.DataFrame,
    reasons: Mapping[int, str],
    source: Callable[[int], str],
    video: Callable[[int], Clip | Path],
) -> tuple[LazyItems, list[Reject]]:
    """An item for every row of a FileList, and a reject for those with a reason against them."""
    good = [i for i in range(len(table)) if i not in reasons]
    columns = {name: table[name].to_numpy() for name in table}

    def item(number: int) -> Item:
        i = good[number]
        row = {name: values[i] for name, values in columns.items()}
        return Item(source(i), row["FileName"], row, lambda: video(i))

    rejects = [Reject(source(i), reason) for i, reason in sorted(reasons.items())]
    return LazyItems(len(good), item), rejects


def keep_tracings(source: Path, target: Path, table: pd.DataFrame) -> None:
    """Copy the tracings; move those of resized videos with their frames.

    Args:
        table: the FileList with SourceHeight, SourceWidth and SourceAspect, as `Plan.finish` gets
            it.
    """
    if not source.is_file():
        return
    fits = {
        name: fit
        for name, *source in table[["FileName", *SOURCE]].itertuples(index=False)
        if not (fit := SquareFit(*source)).identity
    }
    if not fits:
        shutil.copyfile(source, target)
        return
    lines = read_cells(source).table
    pairs = [("X", "Y")] if "X" in lines else [("X1", "Y1"), ("X2", "Y2")]
    check_columns(source, list(lines.columns), ["FileName", *(c for pair in pairs for c in pair)])
    fit = lines["FileName"].str.removesuffix(".avi").map(fits)
    moved = fit.notna()
    for pair in pairs:
        cells = zip(fit[moved], *(to_numbers(lines[c][moved]) for c in pair), strict=True)
        points = np.array([f.point(x, y) for f, x, y in cells]).reshape(-1, 2)
        for axis, values in zip(pair, points.T, strict=True):
            lines.loc[moved, axis] = [f"{v:.4f}" if np.isfinite(v) else "" for v in values]
    write_text(target, lines.to_csv(index=False, lineterminator="\n"))


def _unlisted(raw: Path, table: pd.DataFrame) -> list[str]:
    folder = raw / "Videos"
    if not folder.is_dir():
        raise EchosynError(f"{folder}: the folder of the videos does not exist; {holds(raw)}")
    listed = {f"{name}.avi" for name in table["FileName"]}
    unlisted = sorted(f.name for f in folder.iterdir() if f.name not in listed)
    if not unlisted:
        return []
    return [f"{len(unlisted)} files in {folder} are not in {LIST}, {unlisted[0]} first: left out"]
