"""A release of a few small videos, without the pipeline before it."""

from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.data.filelist import COLUMNS, frame_phases, video_path, write_filelist
from echosyn.data.video import write_video
from echosyn.release.manifest import MANIFEST, PHASES, SCHEMA, file_table
from echosyn.runtime.files import write_json, write_text

SPLITS = ("TRAIN", "VAL", "TEST")


def tiny_release(
    folder: Path, names: list[str], frames: int = 9, side: int = 16, phases: bool = True
) -> Path:
    """Random videos, EF 30 and upwards, splits in turn; volumes are empty."""
    rng = np.random.default_rng(len(names))
    rows = []
    for i, name in enumerate(names):
        video = rng.integers(0, 255, (frames, side, side), np.uint8)
        write_video(video_path(folder, name), video, 16.0)
        rows.append((name, 30.5 + i, np.nan, np.nan, side, side, 16.0, frames, SPLITS[i % 3]))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if phases:
        table = table.assign(HeartRate=[60.0 + i for i in range(len(names))], Phase=0.25)
        write_text(folder / PHASES, frame_phases(table).to_csv(index=False, lineterminator="\n"))
    write_filelist(folder / "FileList.csv", table)
    write_text(folder / "README.md", "# tiny 1.0.0\n")
    return sign(folder)


def sign(folder: Path) -> Path:
    """Give a release the manifest of what is in it."""
    files = file_table(folder)
    write_json(
        folder / MANIFEST, {"schema": SCHEMA, "name": "tiny", "version": "1.0.0", "files": files}
    )
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
