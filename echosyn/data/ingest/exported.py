"""A release that was packed as DICOM (`echosyn releases pack --format dicom`), read back.

    FileList.csv  manifest.json  DICOM/<FileName>.dcm ...

Its frames are those of the release, bit by bit, so nothing is cut out of them: what leaves here is
a video whose SHA-256 is that of the manifest, and so a synthetic one.
"""

import hashlib
from pathlib import Path

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.uid import JPEGBaseline8Bit

from echosyn.data.filelist import (
    COLUMNS,
    DICOM,
    TRACINGS,
    check_columns,
    check_rows,
    dicom_path,
    read_cells,
    video_path,
)
from echosyn.data.ingest.canonical import Clip, Plan, SkipError
from echosyn.data.ingest.cine import open_cine
from echosyn.data.ingest.dicom_header import transfer_syntax
from echosyn.data.ingest.echonet import LIST, keep_tracings, row_items, row_reasons
from echosyn.data.video import avi
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json

MANIFEST = "manifest.json"
MAX_FRAMES = 100_000


def is_exported(raw: Path) -> bool:
    """Whether a folder is a release packed as DICOM."""
    return all((raw / name).exists() for name in (DICOM, LIST, MANIFEST))


def plan(raw: Path, label: str) -> Plan:
    """The rows of its FileList; see `echosyn.data.ingest.canonical`.

    Raises:
        EchosynError: FileList.csv is not a CSV file or lacks a column, or manifest.json is none of
            a release.
    """
    cells = read_cells(raw / LIST)
    check_columns(raw / LIST, list(cells.table.columns), COLUMNS)
    table, problems = check_rows(cells.table, label)
    try:
        known = {
            name: entry["sha256"] for name, entry in read_json(raw / MANIFEST)["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise EchosynError(f"{raw / MANIFEST}: not the manifest of a release") from None

    def source(i: int) -> str:
        return f"{LIST} line {cells.lines[i]} ({cells.table['FileName'][i]})"

    def clip(i: int) -> Clip:
        name = table["FileName"][i]
        found = read_exported(path := dicom_path(raw, name))
        own = known.get(video_path("", name).as_posix())
        if hashlib.sha256(found.avi or b"").hexdigest() != own:
            raise EchosynError(f"{path.name}: not the video that {MANIFEST} has")
        return found

    items, rejects = row_items(table, row_reasons(cells, problems, cells.table), source, clip)
    return Plan(
        items,
        rejects,
        finish=lambda out, written: keep_tracings(raw / TRACINGS, out / TRACINGS, written),
    )


def read_exported(path: Path) -> Clip:
    """A video of a pack: its frames, and the AVI that it was made from, to the last bit.

    Raises:
        EchosynError: the file is missing, damaged, or of another kind.
    """
    try:
        cine = open_cine(path, MAX_FRAMES)
        if transfer_syntax(cine.header) != JPEGBaseline8Bit:
            raise EchosynError(f"{path.name}: its frames are not stored as JPEG")
        with path.open("rb") as f:
            f.seek(cine.start)
            # A fragment of odd length has a byte after it, which no JPEG ends in.
            stored = generate_frames(f, number_of_frames=cine.count)
            jpegs = [frame.rstrip(b"\0") for frame in stored]
        file = avi(jpegs, cine.rows, cine.columns, cine.pace.fps)
        return Clip(np.stack(list(cine.frames())), cine.pace.fps, avi=file)
    except OSError as e:
        raise EchosynError(f"{path.name}: cannot be read ({e.strerror})") from None
    except SkipError as e:
        raise EchosynError(f"{path.name}: {e}") from None
