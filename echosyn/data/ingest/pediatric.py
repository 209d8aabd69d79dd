"""EchoNet-Pediatric, one view of it: FileList.csv has folds for splits and no facts of frames.

    pediatric_echo_avi/pediatric_echo_avi/A4C/FileList.csv, VolumeTracings.csv, Videos/*.avi
    pediatric_echo_avi/pediatric_echo_avi/PSAX/...

FileList.csv: FileName (with .avi), EF, Sex, Age, Weight, Height, Split (a fold, 0 to 9).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echosyn.data.filelist import (
    CLASS,
    MEASURES,
    SPLITS,
    Problem,
    check_columns,
    check_rows,
    read_cells,
    to_numbers,
)
from echosyn.data.ingest.canonical import Plan
from echosyn.data.ingest.echonet import LIST, list_plan, the_list
from echosyn.data.ingest.found import holds, nearby
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

FOLDS = 10
VIEWS = ("A4C", "PSAX")


@dataclass(frozen=True)
class Options:
    """Which view, and which folds are held out."""

    view: str | None = setting(
        None, choices=VIEWS, help="folder of the view; null: the path is that folder"
    )
    val_fold: int = setting(8, lo=0, hi=FOLDS - 1, help="fold that becomes VAL")
    test_fold: int = setting(9, lo=0, hi=FOLDS - 1, help="fold that becomes TEST")
    offset: int = setting(
        0, lo=0, hi=FOLDS - 1, help="added to both folds, modulo 10: the turn of a cross-validation"
    )

    def check(self) -> str | None:
        if self.val_fold == self.test_fold:
            return f"val_fold and test_fold are both {self.val_fold}"
        return None

    def split(self, fold: int) -> str:
        """The split of a fold."""
        turned = (fold - self.offset) % FOLDS
        return {self.val_fold: "VAL", self.test_fold: "TEST"}.get(turned, "TRAIN")


def plan(raw: Path, label: str, options: Options) -> Plan:
    """The rows of a view's FileList.csv; see `echosyn.data.ingest.ingest`.

    Raises:
        EchosynError: the list is missing, is not a CSV file, or lacks a column.
    """
    raw = find_view(raw, options.view)
    cells = read_cells(raw / LIST)
    if {"ESV", "EDV", "FPS"} <= set(cells.table) and cells.table["Split"].isin(SPLITS).all():
        raise EchosynError(
            f"{raw / LIST}: its columns and splits are those of EchoNet-Dynamic, which has no "
            "folds: set source: echonet of the dataset"
        )
    needed = ["FileName", "Split", *{"ef": ["EF"], "class": [CLASS], "none": []}[label]]
    check_columns(raw / LIST, list(cells.table.columns), needed)
    text = cells.table.copy()
    folds = to_numbers(text["Split"])
    known = folds.isin(range(FOLDS))
    names = {fold: options.split(fold) for fold in range(FOLDS)}
    text["Split"] = folds.map(names).where(known, "")
    notes = []
    for column in (name for name in MEASURES if name in text):
        odd = (text[column].str.strip() != "") & ~(to_numbers(text[column]) >= 0)
        text.loc[odd, column] = ""
        if odd.any():
            first = int(np.flatnonzero(odd)[0])
            notes.append(
                f"{odd.sum()} cells of {column} are no numbers, the first on line "
                f"{cells.lines[first]} ({cells.table[column][first]!r}): left empty"
            )
    table, problems = check_rows(text, label)
    no_fold = np.flatnonzero(~known)
    if len(no_fold):
        problems.insert(0, Problem("Split", no_fold, f"is not a fold from 0 to {FOLDS - 1}"))
    return list_plan(raw, cells, table, problems, notes)


def find_view(raw: Path, view: str | None) -> Path:
    """The folder of a view, in the download or in its folder as unpacked.

    Raises:
        EchosynError: there is none.
    """
    inner = Path("pediatric_echo_avi")
    folders = (raw, raw / inner, raw / inner / inner)
    if view is None:
        views = [v for f in folders for v in VIEWS if (f / v / LIST).is_file()]
        if views and not (raw / LIST).is_file():
            raise EchosynError(
                f"{raw / LIST} does not exist, but {raw} holds {' and '.join(views)}: set the "
                f"option view: {views[0]} of the dataset"
            )
        return the_list(raw).parent
    for folder in folders:
        if (folder / view / LIST).is_file():
            return folder / view
    missing = f"{raw}: no {view}/{LIST} in it or in its pediatric_echo_avi"
    there = nearby(raw, f"{view}/{LIST}")
    if there is not None:
        fix = f"set `path` of the dataset to {there.parent.parent}"
        raise EchosynError(f"{missing}, but {there} is there: {fix}")
    if (raw / LIST).is_file():
        raise EchosynError(
            f"{missing}: it is the folder of a view itself: set its option view: null"
        )
    raise EchosynError(f"{missing}; {holds(raw)}")
