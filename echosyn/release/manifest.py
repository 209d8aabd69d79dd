"""The manifest of a release: what belongs to it, byte for byte, and what it was made from.

`manifest.json` names every other file of the release, but its own signature, with size and sha256.
Nothing in it depends on the time or the machine, so the same inputs give the same manifest.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from echosyn.data.filelist import COLUMNS, RELEASED, frame_phases, read_filelist
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import sha256_file

MANIFEST, PHASES = "manifest.json", "Phases.csv"
SIGNATURE = "manifest.json.sig"
ITSELF = {MANIFEST, SIGNATURE}  # what the table of files cannot hold
SCHEMA = 1


def file_table(folder: Path) -> dict[str, dict[str, Any]]:
    """`{relative name: {"sha256", "size"}}` of every file below `folder` that it can hold."""
    return {
        name: {"sha256": sha256_file(folder / name), "size": (folder / name).stat().st_size}
        for name in sorted(_names(folder) - ITSELF)
    }


def _names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a release folder.

    Raises:
        EchosynError: it is missing, damaged, or of a schema that this version does not know.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise EchosynError(f"{path}: cannot be read ({e.strerror}); is this a release?") from None
    except ValueError as e:
        raise EchosynError(f"{path}: not JSON ({e})") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise EchosynError(f"{path}: not a release manifest of schema {SCHEMA}")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(
        isinstance(entry, dict) and {"sha256", "size"} <= set(entry) for entry in files.values()
    ):
        raise EchosynError(f"{path}: 'files' does not give a sha256 and a size for every file")
    return manifest


def verify(folder: Path | str) -> list[str]:
    """What is wrong with a release folder, one line per problem; empty when it is as published.

    Compares every file with the manifest, both ways, and every row of FileList.csv with its video.
    """
    folder = Path(folder)
    try:
        files = read_manifest(folder)["files"]
    except EchosynError as e:
        return [str(e)]
    problems = []
    for name, expected in sorted(files.items()):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            problems.append(f"{name}: the manifest names a file outside the release")
            continue
        path = folder / name
        if path.is_symlink() or not path.is_file():
            problems.append(f"{name}: missing")
        elif path.stat().st_size != expected["size"]:
            size = path.stat().st_size
            problems.append(f"{name}: changed, {size} bytes instead of {expected['size']}")
        elif sha256_file(path) != expected["sha256"]:
            problems.append(f"{name}: changed, its sha256 is not the manifest's")
    problems += [
        f"{name}: not in the manifest" for name in sorted(_names(folder) - set(files) - ITSELF)
    ]
    return problems + _table_problems(folder)


def _table_problems(folder: Path) -> list[str]:
    try:
        table = read_filelist(folder / "FileList.csv", label="none")
    except EchosynError as e:
        return [str(e)]
    problems = []
    if about := [c for c in table.columns if c not in (*COLUMNS, *RELEASED)]:
        problems.append(f"FileList.csv: column {about[0]} is not one that a release may have")
    rows = set(table["FileName"])
    videos = {p.stem for p in (folder / "Videos").glob("*.avi")}
    problems += _phase_problems(folder / PHASES, table)
    problems += [f"FileList.csv: {name} has no video" for name in sorted(rows - videos)]
    problems += [f"Videos/{name}.avi: has no row in FileList.csv" for name in sorted(videos - rows)]
    return problems


def _phase_problems(path: Path, table: pd.DataFrame) -> list[str]:
    """Whether the table of phases is that of the FileList."""
    expected = frame_phases(table)
    if not path.is_file():
        return [f"{path.name}: missing, though FileList.csv has phases"] if len(expected) else []
    wanted = expected.to_csv(index=False, lineterminator="\n") if len(expected) else ""
    if path.read_bytes() == wanted.encode():
        return []
    return [f"{path.name}: not the phases that follow from HeartRate and Phase of FileList.csv"]
