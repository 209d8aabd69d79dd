"""Resumable work in shards: each is whole or absent, so a killed stage loses at most one."""

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echosyn.runtime.code import code_digest
from echosyn.runtime.files import atomic_dir, digest, sha256_file, write_text
from echosyn.runtime.progress import bar

FINISHED = "finished"
# Fills an empty folder with the results of some items.
Make = Callable[[range, Path], None]


@dataclass(frozen=True)
class Shard:
    """Items `indices` of a stage's work, and the folder that holds their results when done."""

    indices: range
    folder: Path

    @property
    def done(self) -> bool:
        return self.folder.is_dir()

    def run(self, make: Make) -> None:
        """Do the work, unless it is done."""
        if not self.done:
            with atomic_dir(self.folder) as tmp:
                make(self.indices, tmp)


def work_dir(root: Path, stage: str, subject: str, settings: Any, inputs: Iterable[Path]) -> Path:
    """Where a stage keeps what it can resume from, named by its code, settings and input bytes.

    Changed code, settings or inputs never meet the state of other ones. What `finish` marked is
    removed here, when the next stage starts: until DVC has recorded a stage's outputs, a kill makes
    it run the stage again, which then finds everything done.
    """
    folder = root / stage / subject / digest([settings, code_digest(stage)], inputs)
    for mark in root.glob(f"*/*/*/{FINISHED}"):
        if mark.parent != folder or _recorded_since(mark):
            shutil.rmtree(mark.parent, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def finish(work: Path) -> None:
    """Mark a stage's state as no longer needed once DVC has recorded its outputs."""
    write_text(work / FINISHED, _lock())


def _recorded_since(mark: Path) -> bool:
    """Whether DVC has changed its lock since: then the same stage runs because it shall. Seen by
    content, since the clock may have been set in between."""
    return mark.read_text() != _lock()


def _lock() -> str:
    lock = Path("dvc.lock")
    return sha256_file(lock) if lock.is_file() else ""


def plan_shards(work: Path, items: int, size: int) -> list[Shard]:
    """The work on `items` items cut into shards of `size`, the last one smaller."""
    ranges = [range(i, min(i + size, items)) for i in range(0, items, size)]
    return [Shard(r, work / f"shard-{k:05d}") for k, r in enumerate(ranges)]


def run_shards(shards: list[Shard], worker: Callable[[], Make], name: str, unit: str) -> list[Path]:
    """Do what is not yet done, one shard after the other.

    Args:
        worker: prepares (loads models) and returns what makes a shard; not called when nothing is
            left to do.
        name, unit: shown with the progress bar.

    Returns:
        the folders of all shards, in order.
    """
    left = [s for s in shards if not s.done]
    total, todo = (sum(len(s.indices) for s in some) for some in (shards, left))
    if left:
        make = worker()
        with bar(total, name, unit, initial=total - todo) as progress:
            for shard in left:
                shard.run(make)
                progress.update(len(shard.indices))
    return [s.folder for s in shards]


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
