"""The tracings of a release: contours at end-diastole and end-systole, and volumes from them."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from echosyn.data.filelist import EF_TRACED, TRACINGS, VOLUMES
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json
from echosyn.segmentation.files import FILE, NONE, UNIT


def add_tracings(
    folder: Path, release: Path, table: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Copy VolumeTracings.csv into a release, and give its FileList the volumes.

    Args:
        folder: of the stage trace. release: where the files go. table: the FileList.

    Returns:
        the FileList with ESV, EDV and EFTraced, empty where a video was not traced; and for the
        manifest `videos`, how many were, and `volumes`, the unit. Where none were, the FileList as
        it is and, in place of the unit, the `reason`; nothing is copied.

    Raises:
        EchosynError: tracings of other videos.
    """
    if (folder / NONE).is_file():
        return table, {"videos": 0, **read_json(folder / NONE)}
    found = pd.read_csv(folder / FILE, dtype={"FileName": str})
    if list(found["FileName"]) != list(table["FileName"]):
        raise EchosynError(
            f"{folder / FILE} is not of the videos to release: run dvc repro, or the stage trace"
        )
    traced = int(found[EF_TRACED].notna().sum())
    if not traced:
        return table, {"videos": 0, "reason": f"none of the {len(table):,} videos could be traced"}
    shutil.copyfile(folder / TRACINGS, release / TRACINGS)
    columns = (*VOLUMES, EF_TRACED)
    facts = {"videos": traced, "volumes": found[UNIT].iloc[0]}
    return table.assign(**{c: found[c].to_numpy() for c in columns}), facts
