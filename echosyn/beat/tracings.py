"""Tracings of the left ventricle from VolumeTracings.csv, and their areas."""

from pathlib import Path

import numpy as np

from echosyn.data.filelist import read_cells, to_numbers
from echosyn.runtime.errors import EchosynError

CHORDS = ("X1", "Y1", "X2", "Y2")  # EchoNet-Dynamic: the long axis, then chords across it
POINTS = ("X", "Y")  # EchoNet-Pediatric: the contour


def read_tracings(path: Path) -> dict[str, dict[int, np.ndarray]]:
    """The rows of each traced frame: FileName -> frame of the file -> lines X1, Y1, X2, Y2 (N, 4),
    the long axis first, or points X, Y of the contour (N, 2), in pixels.

    Nothing for a file that does not exist. A video with other than two traced frames or more is
    left out: end-diastole and end-systole are distinguished by their areas.

    Raises:
        EchosynError: the file has neither EchoNet's columns nor EchoNet-Pediatric's, or a cell that
            is no number.
    """
    if not path.is_file():
        return {}
    cells = read_cells(path)
    table = cells.table
    columns = next((c for c in (CHORDS, POINTS) if set(c) <= set(table)), None)
    if columns is None or not {"FileName", "Frame"} <= set(table):
        raise EchosynError(
            f"{path}: expected columns FileName, Frame and {', '.join(CHORDS)} or "
            f"{', '.join(POINTS)}; found {', '.join(table)}: correct its first line, then "
            "ingest again"
        )
    # EchoNet-Pediatric's "No Systolic" stands for a frame that was not traced.
    untraced = table["Frame"].str.strip().str.lower().str.startswith("no ")
    lines, table = cells.lines[~untraced], table[~untraced].reset_index(drop=True)
    for column in ("Frame", *columns):
        numbers = to_numbers(table[column])
        if (wrong := numbers.isna()).any():
            row = int(np.flatnonzero(wrong)[0])
            raise EchosynError(
                f"{path}: line {lines[row]}: {column} {table[column][row]!r} is no finite "
                "number: correct or remove that line in the raw dataset and ingest again"
            )
        table[column] = numbers
    traced: dict[str, dict[int, np.ndarray]] = {}
    for (name, frame), rows in table.groupby(["FileName", "Frame"], sort=False):
        found = traced.setdefault(str(name).removesuffix(".avi"), {})
        found[int(frame)] = rows[list(columns)].to_numpy(np.float64)
    return {name: found for name, found in traced.items() if len(found) >= 2}


def traced_areas(path: Path) -> dict[str, dict[int, float]]:
    """Area of each traced frame of `read_tracings`, pixels squared."""
    return {
        name: {
            frame: _between_chords(rows) if rows.shape[1] == len(CHORDS) else _inside(rows)
            for frame, rows in found.items()
        }
        for name, found in read_tracings(path).items()
    }


def _between_chords(lines: np.ndarray) -> float:
    """The long axis times the mean chord."""
    lengths = np.hypot(lines[:, 0] - lines[:, 2], lines[:, 1] - lines[:, 3])
    return float(lengths[0] * lengths[1:].mean()) if len(lengths) > 1 else 0.0


def _inside(points: np.ndarray) -> float:
    """Of a polygon, by the shoelace formula."""
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
