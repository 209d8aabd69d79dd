"""The manifest of a release: what belongs to it, byte for byte, and what it was made from.

`manifest.json` names every other file of the release, but its own signature, with size and sha256.
Nothing in it depends on the time or the machine, so the same inputs give the same manifest.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from echosyn import __version__
from echosyn.data.filelist import COLUMNS, RELEASED, frame_phases, read_filelist
from echosyn.data.video import map_videos
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import sha256_file

MANIFEST, PHASES = "manifest.json", "Phases.csv"
SIGNATURE = "manifest.json.sig"
ITSELF = {MANIFEST, SIGNATURE}  # what the table of files cannot hold
SCHEMA = 1
VIDEOS_AT_ONCE = 256  # whose phases are made at a time


def file_table(folder: Path) -> dict[str, dict[str, Any]]:
    """`{relative name: {"sha256", "size"}}` of every file below `folder` that it can hold."""
    names = sorted(names_below(folder) - ITSELF)
    hashes = map_videos(lambda name: sha256_file(folder / name), names, "hash", "files")
    return {
        name: {"sha256": sha256, "size": (folder / name).stat().st_size}
        for name, sha256 in zip(names, hashes, strict=True)
    }


def names_below(folder: Path) -> set[str]:
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
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and isinstance(entry.get("size"), int)
        for entry in files.values()
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
    links = {name for name in names_below(folder) if (folder / name).is_symlink()}
    problems = [f"{name}: a link, not a file of the release" for name in sorted(links)]
    problems += filter(
        None,
        map_videos(
            lambda name: file_problem(folder, name, files[name]),
            sorted(set(files) - links),
            "verify",
            "files",
        ),
    )
    problems += unlisted(folder, files.keys() | links)
    return problems if links else problems + _table_problems(folder)


def file_problem(folder: Path, name: str, expected: Mapping[str, Any]) -> str | None:
    """What is wrong with a file that the manifest names; None when it is as published."""
    if leaves(name):
        return f"{name}: the manifest names a file outside the release"
    if not is_own(folder, name):
        return f"{name}: missing"
    path = folder / name
    if (size := path.stat().st_size) != expected["size"]:
        return f"{name}: changed, {size} bytes instead of {expected['size']}"
    if sha256_file(path) != expected["sha256"]:
        return f"{name}: changed, its sha256 is not the manifest's"
    return None


def is_own(folder: Path, name: str) -> bool:
    """Whether a folder has a file of that name, reached by no link within it."""
    path = folder / name
    return path.is_file() and path.resolve() == folder.resolve() / name


def leaves(name: str) -> bool:
    """Whether a name is none of a file below a folder."""
    path = PurePosixPath(name)
    odd = "\\" in name or not name.isprintable() or path.as_posix() != name
    return odd or path.is_absolute() or ".." in path.parts or not path.name


def unlisted(folder: Path, files: Collection[str]) -> list[str]:
    """A problem for every file of a release that its manifest does not name."""
    extra = names_below(folder) - set(files) - ITSELF
    return [f"{name}: not in the manifest" for name in sorted(extra)]


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
    if not path.is_file():
        some = any(_phase_texts(table))
        return [f"{path.name}: missing, though FileList.csv has phases"] if some else []
    with path.open("rb") as f:
        same = all(f.read(len(text)) == text for text in _phase_texts(table)) and not f.read(1)
    if same:
        return []
    return [f"{path.name}: not the phases that follow from HeartRate and Phase of FileList.csv"]


def _phase_texts(table: pd.DataFrame) -> Iterator[bytes]:
    """The table of phases as a file holds it, some videos at a time: it has a row per frame."""
    header = True
    for start in range(0, len(table), VIDEOS_AT_ONCE):
        phases = frame_phases(table[start : start + VIDEOS_AT_ONCE])
        if len(phases):
            yield phases.to_csv(index=False, header=header, lineterminator="\n").encode()
            header = False
