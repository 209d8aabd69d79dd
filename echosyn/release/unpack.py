"""Make a release of its pack again, byte for byte; see `echosyn.release.pack`."""

import hashlib
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from echosyn.data.filelist import DICOM, SAFE_NAME, read_filelist, video_path
from echosyn.data.video import map_videos
from echosyn.release.manifest import ITSELF, MANIFEST, is_own, leaves, read_manifest
from echosyn.release.pack import (
    SHARDS,
    SUMS,
    TABLES,
    Files,
    copy_files,
    copy_manifest,
    require_room,
    row_texts,
    video_name,
)
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, sha256_file
from echosyn.runtime.text import read_text

SUM = re.compile(r"([0-9a-f]{64})  (\S+)")
PART = re.compile(rf"{SHARDS}/(train|val|test)-\d{{5}}\.tar|{DICOM}/{SAFE_NAME.pattern}\.dcm")
# A member's type of these is a file; links, devices, folders and sparse files are not.
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)


def unpack(packed: Path | str, folder: Path | str) -> None:
    """Write the release of a pack to `folder`, whole or not at all.

    No name of an archive becomes a path: a member is written as the video of the row of
    FileList.csv that it belongs to, when its sha256 is the manifest's.

    Args:
        packed: what `pack` has written.
        folder: one that is not there yet.

    Raises:
        EchosynError: `packed` is no pack; a file or a member of a shard is missing, damaged, of
            another sha256, unknown to the manifest, a link or a device; `folder` exists, or the
            disk is too small.
    """
    packed, folder = Path(packed), Path(folder)
    sums = _read_sums(packed / SUMS)
    files = read_manifest(packed)["files"]
    folders = {p.as_posix() for name in files for p in PurePosixPath(name).parents}
    for name in files:
        if leaves(name) or name in folders:
            raise EchosynError(f"{packed / MANIFEST}: {name!r} is no name of a file in a release")
    require_room(folder, sum(entry["size"] for entry in files.values()))
    _check(packed, sums)
    with atomic_dir(folder) as partial:
        copy_manifest(packed, partial)
        copy_files(packed, partial, ["FileList.csv"] if "FileList.csv" in files else [], files)
        table = read_filelist(partial / "FileList.csv", label="none")
        rows = dict(zip(table["FileName"], row_texts(table), strict=True))
        rest = set(files) - {video_name(name) for name in rows} - {"FileList.csv"}
        copy_files(packed, partial, sorted(rest), files)
        (partial / "Videos").mkdir(exist_ok=True)
        parts = [name for name in sums if PART.fullmatch(name)]
        found: set[str] = set()
        for part, members in zip(
            parts,
            map_videos(
                lambda part: _unpack_part(packed / part, partial, rows, files),
                parts,
                "unpack",
                "files",
            ),
            strict=True,
        ):
            if twice := sorted(members & found):
                raise EchosynError(f"{packed / part}: {twice[0]} is in an earlier shard too")
            found |= members
        if missing := sorted({f"{n}.{kind}" for n in rows for kind in ("avi", "json")} - found):
            raise EchosynError(f"{packed}: {missing[0]} is in no shard ({len(missing)} missing)")


def _read_sums(path: Path) -> dict[str, str]:
    """Name to sha256 of SHA256SUMS."""
    try:
        lines = read_text(path).splitlines()
    except OSError as e:
        raise EchosynError(f"{path}: cannot be read ({e.strerror}); is this a pack?") from None
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = SUM.fullmatch(line)
        sha256, name = match.groups() if match else ("", "")
        known = name in (*ITSELF, *TABLES) or PART.fullmatch(name)
        if not known or name in sums:
            raise EchosynError(f"{path}: line {number} names no part of a pack: {line!r}")
        sums[name] = sha256
    if MANIFEST not in sums:
        raise EchosynError(f"{path}: no line of {MANIFEST}; fetch the pack again")
    return sums


def _check(packed: Path, sums: Mapping[str, str]) -> None:
    def problem(name: str) -> str | None:
        if not is_own(packed, name):
            return "missing, or no plain file"
        same = sha256_file(packed / name) == sums[name]
        return None if same else f"truncated or changed, its sha256 is not that of {SUMS}"

    names = sorted(sums)
    for name, wrong in zip(names, map_videos(problem, names, "check", "files"), strict=True):
        if wrong:
            raise EchosynError(f"{packed / name}: {wrong}; fetch it again")


def _unpack_part(part: Path, out: Path, rows: Mapping[str, str], files: Files) -> set[str]:
    """Write the videos of a shard or a DICOM file; the names of what a shard has or would have."""
    if part.suffix == ".tar":
        return _unpack_shard(part, out, rows, files)
    from echosyn.data.ingest.exported import read_exported

    name = part.stem
    if name not in rows:
        raise EchosynError(f"{part}: belongs to no row of FileList.csv")
    data = read_exported(part).avi or b""
    if hashlib.sha256(data).hexdigest() != files.get(video_name(name), {}).get("sha256"):
        raise EchosynError(f"{part}: not the video that {MANIFEST} has")
    video_path(out, name).write_bytes(data)
    return {f"{name}.avi", f"{name}.json"}


def _unpack_shard(shard: Path, out: Path, rows: Mapping[str, str], files: Files) -> set[str]:
    """Write the videos of a shard; the names of its members."""
    seen: set[str] = set()
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.name in seen:
                    raise EchosynError(f"{shard}: {member.name!r} is there twice")
                seen.add(member.name)
                _unpack_member(shard, archive, member, out, rows, files)
    except (tarfile.TarError, EOFError) as e:
        raise EchosynError(f"{shard}: truncated or damaged ({e}); fetch it again") from None
    return seen


def _unpack_member(
    shard: Path,
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    out: Path,
    rows: Mapping[str, str],
    files: Files,
) -> None:
    name, _, kind = member.name.rpartition(".")
    if member.type not in PLAIN or member.issparse():
        raise EchosynError(f"{shard}: {member.name!r} is a link, a device or no plain file")
    if name not in rows or kind not in ("avi", "json"):
        raise EchosynError(f"{shard}: {member.name!r} belongs to no row of FileList.csv")
    row, entry = rows[name].encode(), files.get(video_name(name))
    if entry is None:
        raise EchosynError(f"{shard}: {member.name!r} is not in the manifest")
    size = len(row) if kind == "json" else entry["size"]
    if member.size != size:
        raise EchosynError(f"{shard}: {member.name!r} has {member.size} bytes instead of {size}")
    data = archive.extractfile(member).read()  # type: ignore[union-attr]  # a plain file
    if kind == "json":
        if data != row:
            raise EchosynError(f"{shard}: {member.name!r} is not the row of FileList.csv")
    elif hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise EchosynError(f"{shard}: {member.name!r}: its sha256 is not the manifest's")
    else:
        video_path(out, name).write_bytes(data)
