"""Writing that is whole or absent, and hashing that does not depend on time or place."""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def _temporary(path: Path) -> Path:
    # Machines that share a folder may share a process id.
    return path.with_name(f".{path.name}.partial-{platform.node()}-{os.getpid()}")


def abandoned(partial: Path) -> bool:
    """Whether a temporary file is of a process of this machine that has ended."""
    node, _, pid = partial.name.rpartition(".partial-")[2].rpartition("-")
    if node != platform.node() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        pass
    return False


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` under a temporary name, flush it to disk, then rename it to `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = _temporary(path)
    try:
        with tmp.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Sorted keys, two-space indent, newline at the end; refuses NaN, which JSON cannot hold."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())


@contextmanager
def atomic_dir(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary sibling of `path`; on success it replaces `path`.

    On an exception, a full disk included, the temporary folder is removed and `path` keeps what
    it held before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = _temporary(path)
    for partial in path.parent.glob(f".{path.name}.partial-*"):
        if partial == tmp or abandoned(partial):  # others may be at work on theirs
            shutil.rmtree(partial, ignore_errors=True)
    tmp.mkdir()
    try:
        yield tmp
        if path.exists():
            shutil.rmtree(path)
        tmp.replace(path)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def sha256_file(path: Path | str) -> str:
    with Path(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest(settings: Any, inputs: Iterable[Path | str] = ()) -> str:
    """16 hex digits that change when the settings or the bytes of any input change.

    A folder counts as the relative names and contents of its files, so the place it lies in does
    not matter. `settings` must be JSON-serialisable.
    """
    h = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for root in map(Path, inputs):
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
        for f in files:
            h.update(f"{f.relative_to(root)}\0{sha256_file(f)}\n".encode())
    return h.hexdigest()[:16]
