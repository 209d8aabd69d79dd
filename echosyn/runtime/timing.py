"""Where the seconds of a stage go: until its modules are loaded, reading files, and the rest.

A stage that DVC runs leaves them in .echosyn/seconds/<stage>.json, a record of this machine that
nothing depends on.
"""

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from echosyn.runtime.files import read_json, write_json
from echosyn.runtime.process import state_root


@dataclass(frozen=True)
class Seconds:
    """Of one run of a stage. wall: of its process; cpu: of all its threads and children; dvc: what
    DVC spent around it, hashing and locking; peak_mib: most memory that one process
    held, with what it shares with the one that it was forked from.
    """

    wall: float
    start_up: float
    reading: float
    cpu: float
    peak_mib: float
    dvc: float = 0.0

    @property
    def computing(self) -> float:
        return max(self.wall - self.start_up - self.reading, 0.0)


class _Clock:
    def __init__(self) -> None:
        self.began = time.monotonic() - _age()
        self.loaded: float | None = None
        self.reading = 0.0
        self.lock = threading.Lock()


def _age() -> float:
    """Seconds since this process began, by the system's own count; 0 where it has none."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(time.clock_gettime(time.CLOCK_BOOTTIME) - began, 0.0)
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0


_clock = _Clock()


def loaded() -> None:
    """The modules are imported and work begins; the first call counts."""
    if _clock.loaded is None:
        _clock.loaded = time.monotonic()


@contextmanager
def reading() -> Iterator[None]:
    """Around waiting for files."""
    start = time.monotonic()
    try:
        yield
    finally:
        with _clock.lock:
            _clock.reading += time.monotonic() - start


def spent() -> Seconds:
    """By this process so far."""
    now = time.monotonic()
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Seconds(
        wall=round(now - _clock.began, 2),
        start_up=round((_clock.loaded or now) - _clock.began, 2),
        reading=round(_clock.reading, 2),
        cpu=round(sum(p.ru_utime + p.ru_stime for p in parts), 2),
        peak_mib=round(max(p.ru_maxrss for p in parts) / 1024),
    )


def folder() -> Path:
    return state_root() / "seconds"


def keep(stage: str) -> None:
    """Record what this process spent on a stage."""
    folder().mkdir(parents=True, exist_ok=True)
    write_json(folder() / f"{stage}.json", asdict(spent()))


def note_dvc(folder: Path, stage: str, seconds: float) -> None:
    """Add what DVC spent around a stage to its record."""
    path = folder / f"{stage}.json"
    write_json(path, {**read_json(path), "dvc": round(seconds, 2)})


def kept(root: Path) -> dict[str, Seconds]:
    """What each stage took when it last ran, by DVC's name of it, in the order in which they ended;
    damaged records are left out."""
    found = {}
    for path in sorted(root.glob("*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name)):
        try:
            found[path.stem] = Seconds(**read_json(path))
        except (TypeError, ValueError):
            continue
    return found
