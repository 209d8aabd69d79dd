"""Fits the project folder to where it lies: it may have been moved or copied after a run, or have
come without git. `make` runs it before anything else, with the Python of .venv:

python -m echosyn.runtime.place
"""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

VENV = Path(".venv")
LONGEST = 127  # bytes of a first line that Linux reads
# How an installed command begins: through sh for a Python with spaces in its path, else plainly.
THROUGH_SH = rb"#!/bin/sh\n'''exec' \"?(?P<quoted>[^\"\n]+?)\"? \"\$0\" \"\$@\"\n' '''"
FIRST = re.compile(rb"\A(?:" + THROUGH_SH + rb"|#!(?P<plain>/[^\n]*))")


def mend_venv(root: Path) -> Path | None:
    """Let the commands of .venv run in `root` when they were installed elsewhere; where that was.

    They begin with the whole path of their Python: after a move they do not start, and in a copy
    they run what lies in the first folder.
    """
    bin_ = root / VENV / "bin"
    pip = bin_ / "pip"  # the last to be changed, so that an interrupted mending is done again
    python = _python(pip.read_bytes()) if pip.is_file() else None
    if python is None or not python.parent.match(f"{VENV}/bin"):
        return None
    if python.parent.resolve() == bin_.resolve():
        return None
    old = python.parents[2]
    for pattern in ("__editable__*", "*.dist-info/direct_url.json"):
        for path in (root / VENV).glob(f"lib/python*/site-packages/{pattern}"):
            text = path.read_bytes()
            for was, now in zip(_spellings(old), _spellings(root), strict=True):
                text = now.join(re.split(re.escape(was) + rb"(?=[/'\"\n]|\Z)", text))
            _write(path, text)
    # Writes `activate` and its kin anew.
    subprocess.run([bin_ / "python", "-m", "venv", "--without-pip", root / VENV], check=True)
    for path in sorted(bin_.iterdir(), key=lambda p: p == pip):
        if path.is_file() and not path.is_symlink():
            _write(path, _command(path.read_bytes(), old / VENV / "bin", bin_))
    return old


def _python(command: bytes) -> Path | None:
    """The Python that an installed command begins with."""
    found = FIRST.match(command)
    return Path(os.fsdecode(found["plain"] or found["quoted"])) if found else None


def _command(content: bytes, old: Path, new: Path) -> bytes:
    """An installed command with the Python of the folder `new` where it had that of `old`."""
    python = _python(content)
    if python is None or python.parent != old:
        return content
    line = f"#!{new / python.name}"
    if " " in line or len(os.fsencode(line)) > LONGEST:
        line = f"#!/bin/sh\n'''exec' \"{line[2:]}\" \"$0\" \"$@\"\n' '''"
    return FIRST.sub(lambda _: os.fsencode(line), content)


def _spellings(path: Path) -> tuple[bytes, bytes]:
    """As it stands in JSON, and within a Python string or a .pth file."""
    return path.as_uri().encode(), os.fsencode(repr(str(path))[1:-1])


def _write(path: Path, content: bytes) -> None:
    if path.read_bytes() != content:
        path.write_bytes(content)


def mend_store(file: Path) -> str | None:
    """Let the project's own MLflow store look for pictures beside itself; where it looked before.

    MLflow keeps the whole address of every run's files, and would go on writing to the old place.
    """
    if not file.is_file():
        return None
    try:
        with closing(sqlite3.connect(file, timeout=60)) as store, store:
            found = store.execute(
                "SELECT artifact_location FROM experiments WHERE name IN ('stages', 'releases')"
            ).fetchall()
            ends = [where.removesuffix("/artifacts") for (where,) in found if where]
            old = next((where for where in ends if where != file.parent.as_uri()), None)
            if old is None or not old.startswith("file:///"):
                return None
            plain = unquote(urlsplit(old).path)
            # MLflow's own first experiment has a plain path.
            for was, now in ((old, file.parent.as_uri()), (plain, str(file.parent))):
                for table, column in (("experiments", "artifact_location"),
                                      ("runs", "artifact_uri")):  # fmt: skip
                    store.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE substr({column}, 1, ?) = ?",
                        (now, len(was) + 1, len(was) + 1, f"{was}/"),
                    )
            return plain
    except sqlite3.DatabaseError:
        return None  # damaged or of another kind: who opens it next says so


def mend_dvc(root: Path) -> bool:
    """Let DVC work in a folder that no git repository holds; whether it had to be set so."""
    local = root / ".dvc/config.local"
    if any((folder / ".git").exists() for folder in (root, *root.parents)):
        return False
    if local.is_file() and "no_scm" in local.read_text():
        return False
    command = [sys.executable, "-m", "dvc", "config", "--quiet", "--local", "core.no_scm", "true"]
    subprocess.run(command, cwd=root, check=True)
    return True


def main() -> None:
    root = Path.cwd()
    if old := mend_venv(root):
        print(f"this folder was {old}: the commands in .venv now run here")
    if elsewhere := mend_store(root / "mlruns/mlflow.db"):
        print(f"mlruns/mlflow.db looked for pictures in {elsewhere}: now it does here")
    if mend_dvc(root):
        print(
            "no git keeps this folder: DVC knows it from .dvc/config.local, and runs are recorded "
            "with git_commit 'unknown'"
        )


if __name__ == "__main__":
    main()
