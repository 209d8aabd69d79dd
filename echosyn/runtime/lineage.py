"""Where a result came from: DVC's hashes, read from dvc.lock or computed as DVC computes them, and
the state of the project around it.

Reads dvc.lock as plain YAML, so that a machine without DVC can answer too.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from echosyn.runtime.config import read_yaml
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.process import cores

OUTCOMES = ("metrics", "curves", "dvc.lock")  # what a run leaves for git


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.lock: its command, md5 by path of what it read and wrote, values by
    parameter file."""

    name: str
    cmd: str = ""
    deps: dict[str, str] = field(default_factory=dict)
    outs: dict[str, str] = field(default_factory=dict)
    params: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_lock(root: Path) -> list[Stage]:
    """The stages of `root`/dvc.lock; none when there is no such file.

    Raises:
        EchosynError: dvc.lock is not YAML, or not in the layout that DVC 3 writes.
    """
    path = root / "dvc.lock"
    if not path.exists():
        return []
    entries = read_yaml(path).get("stages") or {}
    try:
        return [
            Stage(
                name,
                str(entry.get("cmd") or ""),
                _hashes(entry.get("deps")),
                _hashes(entry.get("outs")),
                dict(entry.get("params") or {}),
            )
            for name, entry in entries.items()
        ]
    except (AttributeError, KeyError, TypeError) as e:
        raise EchosynError(
            f"{path}: not a lock file that DVC 3 writes ({e!r}): restore it, or remove it and run "
            "dvc repro"
        ) from None


def _hashes(entries: list[dict] | None) -> dict[str, str]:
    return {entry["path"]: entry["md5"] for entry in entries or [] if entry.get("md5")}


def produced(stages: Iterable[Stage]) -> dict[str, str]:
    """md5 by path of everything that some stage wrote."""
    return {path: md5 for stage in stages for path, md5 in stage.outs.items()}


def ancestors(stages: Iterable[Stage], targets: Iterable[str]) -> list[Stage]:
    """The stages that `targets` (paths) were made by, however far back, in the order of the lock.

    A file inside a stage's output, and a folder that holds one, count as made by that stage.

    Raises:
        EchosynError: no stage wrote one of the targets.
    """
    stages = list(stages)
    seen: set[str] = set()

    def visit(path: str) -> bool:
        makers = [stage for stage in stages if any(_overlap(path, out) for out in stage.outs)]
        for maker in makers:
            if maker.name not in seen:
                seen.add(maker.name)
                for dep in maker.deps:
                    visit(dep)
        return bool(makers)

    for target in targets:
        if not visit(target):
            raise EchosynError(f"dvc.lock records no stage that wrote {target}: run dvc repro")
    return [stage for stage in stages if stage.name in seen]


def _overlap(a: str, b: str) -> bool:
    return a == b or a.startswith(f"{b}/") or b.startswith(f"{a}/")


def dvc_md5(path: Path) -> str:
    """The md5 that DVC 3 records for a file, or for a folder (with its `.dir` ending)."""
    if path.is_file():
        return _file_md5(path)
    files = sorted((p.relative_to(path).as_posix(), p) for p in path.rglob("*") if p.is_file())
    with ThreadPoolExecutor(cores()) as pool:  # hashing lets other threads run
        hashes = list(pool.map(_file_md5, [p for _, p in files]))
    listing = [{"md5": md5, "relpath": n} for (n, _), md5 in zip(files, hashes, strict=True)]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def _file_md5(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "md5").hexdigest()


def inputs(paths: Iterable[Path | str]) -> dict[str, str]:
    """md5 by path. Under DVC its lock file vouches for them; in a stage run by hand they are
    hashed. A path that is unknown, or does not exist, is left out."""
    names = [Path(p).as_posix() for p in paths]
    if os.environ.get("DVC_STAGE"):
        known = produced(read_lock(Path.cwd()))
        return {name: known[name] for name in names if name in known}
    return {name: dvc_md5(Path(name)) for name in names if Path(name).exists()}


def project() -> dict[str, str]:
    """Scale, DVC experiment, and git commit: `+dirty` with uncommitted changes, outcomes aside,
    `unknown` where git does not keep this project, as in an unpacked archive.

    Read from the working directory, which is a stage's project folder.
    """
    facts = {}
    if Path("params.yaml").is_file():
        facts["scale"] = str(read_yaml(Path("params.yaml")).get("scale"))
    if os.environ.get("DVC_EXP_NAME"):
        facts["dvc_experiment"] = os.environ["DVC_EXP_NAME"]
    # An archive may lie within a repository of something else, whose commit says nothing.
    commit = _git("ls-files", "params.yaml") and _git("rev-parse", "HEAD")
    sources = (".", *(f":(exclude){name}" for name in OUTCOMES))
    if commit and _git("status", "--porcelain", "--untracked-files=no", "--", *sources):
        commit += "+dirty"
    facts["git_commit"] = commit or "unknown"
    return facts


def _git(*command: str) -> str:
    """Output of a git command in the working directory; empty outside a repository.

    Git may read a repository of another user's here: who runs a stage runs this folder's code.
    """
    trust = f"safe.directory={Path.cwd().resolve()}"
    try:
        done = subprocess.run(
            ["git", "-c", trust, *command], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level, keys joined by '.'."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
