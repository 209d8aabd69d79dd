"""Pack a release for bulk users: its videos in a few large archives, its tables in Parquet.

A pack holds

    shards/train-00000.tar ...         WebDataset: <FileName>.avi and <FileName>.json, its row
    FileList.parquet, Phases.parquet   the tables, typed
    SHA256SUMS                         of these and the manifest, as `sha256sum -c` reads it

and all else of the release as it is. The same release gives the same bytes, and
`echosyn.release.unpack` makes the release again. `echosyn.release.dicom` packs it as DICOM.
"""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import csv, parquet

from echosyn.data.filelist import DICOM, SPLITS, read_filelist, video_path
from echosyn.data.video import map_videos
from echosyn.release.manifest import (
    ITSELF,
    MANIFEST,
    PHASES,
    file_problem,
    is_own,
    leaves,
    read_manifest,
    unlisted,
)
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, sha256_file, write_text

SUMS, SHARDS = "SHA256SUMS", "shards"
TABLES = ("FileList.parquet", "Phases.parquet")
SHARD_BYTES = 256 * 10**6
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)  # of an archive
Files = Mapping[str, Mapping[str, Any]]  # of a manifest


@dataclass(frozen=True)
class Packing:
    """A pack that is being written; `sums` is what SHA256SUMS will hold."""

    folder: Path  # the release
    out: Path  # of the pack, under a temporary name
    manifest: Mapping[str, Any]
    table: pd.DataFrame
    sums: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> Files:
        return self.manifest["files"]

    def video(self, name: str) -> bytes:
        """The video of a FileName, which is that of the manifest."""
        return _read(self.folder, video_name(name), self.files)


@contextmanager
def packing(folder: Path, out: Path) -> Iterator[Packing]:
    """Write all of a release but its videos to `out`, and SHA256SUMS when what else is to be there
    has been written; whole or not at all.

    Raises:
        EchosynError: as `pack`.
    """
    manifest = read_manifest(folder)
    files = manifest["files"]
    table = read_filelist(folder / "FileList.csv", label="none")
    videos = _videos(folder, table, files)
    if folder.resolve() in out.resolve().parents:
        raise EchosynError(f"{out} lies in the release that is to be packed: name another folder")
    require_room(out, sum(entry["size"] for entry in files.values()))
    with atomic_dir(out) as partial:
        copy_files(folder, partial, sorted(set(files) - set(videos.values())), files)
        copy_manifest(folder, partial)
        work = Packing(folder, partial, manifest, table)
        yield work
        sums = work.sums
        for name in (*ITSELF, *TABLES):
            if (partial / name).is_file():
                sums[name] = sha256_file(partial / name)
        write_text(partial / SUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def pack(folder: Path | str, out: Path | str, shard_bytes: int = SHARD_BYTES) -> list[str]:
    """Write the pack of a release to `out`, whole or not at all.

    Every byte that is packed is compared with the manifest. Shards hold one split each, in the
    order of FileList.csv.

    Args:
        folder: a release.
        out: a folder that is not there yet, outside `folder`.
        shard_bytes: largest size of a shard; one that holds a single larger video is larger.

    Returns:
        the names of the shards.

    Raises:
        EchosynError: the release is not as its manifest has it, a FileName holds a dot, `out`
            exists, or the disk is too small.
    """
    with packing(Path(folder), Path(out)) as work:
        _write_tables(work.table, work.out)
        (work.out / SHARDS).mkdir()
        rows = dict(zip(work.table["FileName"], row_texts(work.table), strict=True))
        shards = _plan(work.table, rows, work.files, shard_bytes)
        made = map_videos(
            lambda shard: _write_shard(work, work.out / shard, shards[shard], rows),
            list(shards),
            "pack",
            "shards",
        )
        work.sums.update(zip(shards, made, strict=True))
    return list(shards)


def require_room(out: Path, size: int) -> None:
    """Raise EchosynError when `out` exists or its disk has not `size` bytes left."""
    if out.exists():
        raise EchosynError(f"{out} exists already: name a folder that is not there yet")
    there = next(p for p in out.resolve().parents if p.exists())
    if (free := shutil.disk_usage(there).free) < size:
        raise EchosynError(
            f"{out} needs {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free on its disk"
        )


def copy_manifest(source: Path, target: Path) -> None:
    """The manifest, and its signature where it has one."""
    for name in ITSELF:
        if name == MANIFEST or is_own(source, name):
            shutil.copyfile(source / name, target / name)


def copy_files(source: Path, target: Path, names: list[str], files: Files) -> None:
    """Copy files of a release that are as the manifest has them; the first that is not raises."""
    for name in names:
        if problem := file_problem(source, name, files[name]):
            raise EchosynError(f"{source}: {problem}")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def row_texts(table: pd.DataFrame) -> Iterator[str]:
    """Each row of a FileList as a JSON object, null where a cell is empty."""
    rows = table.astype(object).where(table.notna(), None)
    return (json.dumps(row, allow_nan=False) for row in rows.to_dict("records"))


def video_name(name: str) -> str:
    """What the manifest calls the video of a FileName."""
    return video_path("", name).as_posix()


def _videos(folder: Path, table: pd.DataFrame, files: Files) -> dict[str, str]:
    """FileName to the manifest's name of its video. Raises on what cannot be packed."""
    packed = {*ITSELF, SUMS, *TABLES}
    problems = [
        f"{name}: no name that a pack can hold"
        for name in files
        if leaves(name) or name in packed or name.split("/")[0] in (SHARDS, DICOM)
    ]
    videos = {name: video_name(name) for name in table["FileName"]}
    problems += [
        f"FileList.csv: {name} holds a dot: WebDataset and EchoNet's loader would take what "
        "follows it for the kind of the file; rename the video"
        for name in videos
        if "." in name
    ]
    problems += [f"{video}: not in the manifest" for video in videos.values() if video not in files]
    if problems := problems + unlisted(folder, files):
        raise EchosynError(f"{folder}: " + "\n".join(problems))
    return videos


def _plan(
    table: pd.DataFrame, rows: Mapping[str, str], files: Files, shard_bytes: int
) -> dict[str, list[str]]:
    """The FileNames of each shard."""
    shards: dict[str, list[str]] = {}
    for split in SPLITS:
        names: list[str] = []
        size, count = len(END), 0
        for name in table["FileName"][table["Split"] == split]:
            parts = ("avi", files[video_name(name)]["size"]), ("json", len(rows[name].encode()))
            more = sum(len(_header(f"{name}.{kind}", n)) + n + -n % BLOCK for kind, n in parts)
            if not names or size + more > shard_bytes:
                names, size = [], len(END)
                shards[f"{SHARDS}/{split.lower()}-{count:05d}.tar"] = names
                count += 1
            names.append(name)
            size += more
    return shards


def _header(name: str, size: int) -> bytes:
    """The tar header of a file: of nobody, from 1970."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def _write_shard(work: Packing, path: Path, names: list[str], rows: Mapping[str, str]) -> str:
    """Write a shard; its sha256."""
    whole = hashlib.sha256()
    with path.open("wb") as f:

        def put(data: bytes) -> None:
            f.write(data)
            whole.update(data)

        for name in names:
            video, row = work.video(name), rows[name].encode()
            for kind, data in (("avi", video), ("json", row)):
                put(_header(f"{name}.{kind}", len(data)))
                put(data)
                put(bytes(-len(data) % BLOCK))
        put(END)
    return whole.hexdigest()


def _read(folder: Path, name: str, files: Files) -> bytes:
    """A file's bytes, which are those of the manifest."""
    if not is_own(folder, name):
        raise EchosynError(f"{folder}: {name}: missing")
    data = (folder / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != files[name]["sha256"]:
        raise EchosynError(f"{folder}: {name}: changed, its sha256 is not the manifest's")
    return data


def _write_tables(table: pd.DataFrame, out: Path) -> None:
    """Parquet of the FileList, and of the phases if `out` holds any, block by block."""
    listed = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    parquet.write_table(listed, out / TABLES[0])
    if (out / PHASES).is_file():
        types = {"FileName": pa.string(), "Frame": pa.int64(), "Phase": pa.float64()}
        blocks = csv.open_csv(  # read ahead, so that large blocks take up memory
            out / PHASES,
            csv.ReadOptions(use_threads=False, block_size=1 << 18),
            convert_options=csv.ConvertOptions(column_types=types),
        )
        with parquet.ParquetWriter(out / TABLES[1], blocks.schema) as writer:
            for block in blocks:
                writer.write_batch(block)
