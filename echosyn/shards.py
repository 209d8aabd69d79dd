"""Resumable work in shards: each is whole or absent, so a killed stage loses at most one."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from echosyn.files import atomic_dir, fingerprint
from echosyn.progress import bar


def work_dir(root: Path, stage: str, subject: str, settings: Any, inputs: Iterable[Path]) -> Path:
    """Where a stage keeps what it can resume from, named by its settings and input bytes.

    Changed settings or inputs never meet the state of other ones.
    """
    folder = root / stage / subject / fingerprint(settings, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_shards(
    work: Path, items: int, shard_size: int, make: Callable[[range, Path], None], unit: str
) -> list[Path]:
    """Call `make(range of item indices, empty folder)` for each shard not yet there.

    Returns:
        the folders of all shards, in order.
    """
    ranges = [range(i, min(i + shard_size, items)) for i in range(0, items, shard_size)]
    folders = [work / f"shard-{k:05d}" for k in range(len(ranges))]
    done = sum(len(r) for r, f in zip(ranges, folders, strict=True) if f.is_dir())
    with bar(items, work.parent.parent.name, unit, initial=done) as progress:
        for indices, folder in zip(ranges, folders, strict=True):
            if not folder.is_dir():
                with atomic_dir(folder) as tmp:
                    make(indices, tmp)
                progress.update(len(indices))
    return folders


def gather(shards: Iterable[Path], pattern: str, out: Path) -> list[Path]:
    """Put the files of all shards that match `pattern` into `out`, as links where possible."""
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for shard in shards:
        for source in sorted(shard.glob(pattern)):
            target = out / source.name
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
            made.append(target)
    return made
