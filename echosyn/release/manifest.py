"""The manifest of a release: what belongs to it, byte for byte, and what it was made from.

`manifest.json` names every other file of the release, but its own signature, with size and sha256.
Nothing in it depends on the time or the machine, so the same inputs give the same manifest.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from echosyn import __version__
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
    """Every file and every link, to a folder too, whose files are then another folder's."""
    return {
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_symlink() or not p.is_dir()
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a release folder.

    Raises:
        EchosynError: it is missing, or as `parse_manifest`.
    """
    path = folder / MANIFEST
    try:
        return parse_manifest(path.read_bytes(), str(path))
    except OSError as e:
        raise EchosynError(f"{path}: cannot be read ({e.strerror}); is this a release?") from None


def parse_manifest(text: bytes, where: str) -> dict[str, Any]:
    """The manifest that `text` is. `where` it comes from, for the message.

    Raises:
        EchosynError: it is damaged, or of a schema that this version does not know.
    """
    try:
        manifest = json.loads(text)
    except ValueError as e:
        raise EchosynError(f"{where}: not JSON ({e})") from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise EchosynError(
            f"{where}: schema {schema}, and echosyn {__version__} reads up to {SCHEMA}: it needs "
            f"{manifest.get('generator')} or later"
        )
    if schema != SCHEMA:
        raise EchosynError(f"{where}: not a release manifest of schema {SCHEMA}")
    if not all(isinstance(manifest.get(key), str) for key in ("name", "version")):
        raise EchosynError(f"{where}: no name and version")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(
        isinstance(entry, dict) and {"sha256", "size"} <= set(entry) for entry in files.values()
    ):
        raise EchosynError(f"{where}: 'files' does not give a sha256 and a size for every file")
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
    there = _names(folder)
    links = {name for name in there if (folder / name).is_symlink()}
    problems = [f"{name}: a link, not a file of the release" for name in sorted(links)]
    for name, expected in sorted(files.items()):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            problems.append(f"{name}: the manifest names a file outside the release")
            continue
        path = folder / name
        if name in links:
            continue
        if name not in there or not path.is_file():
            problems.append(f"{name}: missing")
        elif path.stat().st_size != expected["size"]:
            size = path.stat().st_size
            problems.append(f"{name}: changed, {size} bytes instead of {expected['size']}")
        elif sha256_file(path) != expected["sha256"]:
            problems.append(f"{name}: changed, its sha256 is not the manifest's")
    problems += [
        f"{name}: not in the manifest" for name in sorted(there - set(files) - links - ITSELF)
    ]
    return problems if links else problems + _table_problems(folder)


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
