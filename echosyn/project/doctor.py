"""What a new user needs to know of a machine before an hour goes by: `echosyn doctor`."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.runtime.process import threads

if TYPE_CHECKING:
    from echosyn.arithmetic.trust import ProbeResult

GIB = 1 << 30
MEMORY, DISK = 4.0, 5.0  # GiB that the demo wants
MARKS = {"ok": "ok  ", "warn": "warn", "bad": "BAD "}


@dataclass(frozen=True)
class Finding:
    """One line: `state` is ok, warn or bad; bad is what stops a run."""

    state: str
    what: str
    text: str

    def __str__(self) -> str:
        return f"{MARKS[self.state]}  {self.what:<13} {self.text}"


def examine_machine(root: Path, index: bool = True) -> Iterator[Finding]:
    """All but the arithmetic, quickest first. `index`: whether to ask the index of packages."""
    yield _python()
    yield _git(root)
    yield _cores()
    yield _memory()
    yield _disk(root)
    yield _folder(root)
    yield from _versions(root / "constraints.txt")
    yield _gpu()
    if index:
        yield _index()


def examine_arithmetic(root: Path, anew: bool = False) -> Iterator[Finding]:
    """Every network of the project at its scale: its operations in the precision that its settings
    ask for against double precision, and, where they are not right, in fp32.

    Args:
        anew: check again what was checked on this machine before.

    Raises:
        EchosynError: params.yaml or a conf file is wrong.
    """
    from echosyn.arithmetic.trust import cache_folder, described, examine_all
    from echosyn.project.rehearsal import rehearsal
    from echosyn.runtime.config import Params
    from echosyn.runtime.device import pick_device, pick_precision

    device, params = pick_device(), Params(root)
    yield Finding("ok", "arithmetic", f"of {described(device)}; kept in {cache_folder()}")
    with rehearsal(params) as parts:
        jobs = [(part.probe, pick_precision(part.precision)) for part in parts]
        for part, v in zip(parts, examine_all(jobs, device, anew), strict=True):
            if v.right:
                yield Finding("ok", "", _said(part.stage, v))
                continue
            full = v
            if v.precision != "fp32":
                yield Finding("warn", "", f"{_said(part.stage, v)}; fp32 is used instead")
                full = next(examine_all([(part.probe, "fp32")], device, anew))
            if full.right:
                yield Finding("ok", "", _said(part.stage, full))
            else:
                yield Finding("bad", "", f"{_said(part.stage, full)}; nothing can be trained here")


def _said(stage: str, v: "ProbeResult") -> str:
    if v.right:
        more = f", {len(v.beyond)} could not be compared" if v.beyond else ""
        text = f"{v.checked} operations right, to {v.error:.1e}{more}"
    else:
        text = v.reason
    return f"{stage}, {v.what}, {v.precision}: {text}"


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if version.startswith("3.11."):
        return Finding("ok", "Python", f"{version}, {sys.executable}")
    return Finding("warn", "Python", f"{version}; Echosyn is tested with 3.11")


def _git(root: Path) -> Finding:
    git = shutil.which("git")
    if git is None:
        text = "not found: make tells DVC to do without, and no release names its commit"
        return Finding("warn", "git", text)
    version = subprocess.run([git, "--version"], capture_output=True, text=True, check=False)
    name = version.stdout.strip().removeprefix("git version ")
    inside = subprocess.run(
        [git, "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if inside.returncode:
        why = inside.stderr.strip().splitlines()[:1] or ["no commit"]
        return Finding("warn", "git", f"{name}, but {root} is no repository of it: {why[0]}")
    return Finding("ok", "git", f"{name}, commit {inside.stdout.strip()[:10]}")


def _cores() -> Finding:
    used, there = threads(), os.cpu_count() or 1
    return Finding("ok", "cores", f"{there}, of which a process uses {used} (ECHOSYN_THREADS)")


def available_memory() -> int:
    """Bytes that this process may use: of the machine, or of its control group."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [pages]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path(file).read_text()))
    return min(limits)


def _memory() -> Finding:
    gib = available_memory() / GIB
    if gib < MEMORY:
        return Finding("warn", "memory", f"{gib:.1f} GiB; the demo wants {MEMORY:.0f}")
    return Finding("ok", "memory", f"{gib:.1f} GiB")


def _disk(root: Path) -> Finding:
    gib = shutil.disk_usage(root).free / GIB
    if gib < DISK:
        return Finding("warn", "disk", f"{gib:.1f} GiB free; the demo wants {DISK:.0f}")
    return Finding("ok", "disk", f"{gib:.1f} GiB free")


def _folder(root: Path) -> Finding:
    """Written, renamed and locked, as stages, DVC and MLflow's SQLite do."""
    import fcntl

    try:
        with tempfile.TemporaryDirectory(prefix=".echosyn-doctor-", dir=root) as folder:
            a, b = Path(folder) / "a", Path(folder) / "b"
            with a.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            a.replace(b)
    except OSError as e:
        return Finding("bad", "folder", f"{root} cannot be written and locked: {e}")
    return Finding("ok", "folder", f"{root} can be written and locked")


def _versions(constraints: Path) -> Iterator[Finding]:
    """What is installed against constraints.txt, the set that is tested."""
    if not constraints.is_file():
        yield Finding("warn", "versions", f"no {constraints}: nothing to compare them with")
        return
    other, count = [], 0
    for line in constraints.read_text().splitlines():
        name, _, wanted = line.partition("#")[0].strip().partition("==")
        if not wanted:
            continue
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        count += 1
        if found.partition("+")[0] != wanted.partition("+")[0]:
            other.append(f"{name} {found} (tested: {wanted})")
    if other:
        text = f"{', '.join(other[:6])}{', ...' * (len(other) > 6)}: make install"
        yield Finding("warn", "versions", text)
    else:
        yield Finding("ok", "versions", f"{count} packages as in constraints.txt")


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("ok", "GPU", "none; everything runs on the CPU")
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    names = [f"{c.name}, {c.total_memory / GIB:.0f} GiB" for c in cards]
    return Finding("ok", "GPU", "; ".join(names))


def _index() -> Finding:
    command = [sys.executable, "-m", "pip", "index", "versions", "pip", "--timeout", "5"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    except subprocess.TimeoutExpired:
        return Finding("warn", "index", "the index of packages did not answer in 40 s")
    if asked.returncode:
        why = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
        return Finding(
            "warn", "index", f"of packages not reached; only `make install` needs it: {why}"
        )
    return Finding("ok", "index", "of packages was reached")
