"""A project of one's own: the code at this commit, with git and DVC set up to be shared.

The project is a clone of the checkout, so that its commits say which code made its numbers, and
later code comes by `git pull`. Where the checkout has no git, it is a copy.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir
from echosyn.runtime.lineage import OUTCOMES

UPSTREAM, STORAGE = "echosyn", "storage"  # names of the git remote and of the DVC remote
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True)
class Started:
    """What was made: the folder, the commit of the code (empty without git), notes for the user."""

    folder: Path
    code: str
    notes: tuple[str, ...]


def start_project(folder: Path, remote: str | None = None, root: Path | None = None) -> Started:
    """Make `folder` a project: code, git, DVC, and where DVC keeps what is too large for git.

    Args:
        remote: a folder that all who work on it can reach, or an address as `dvc remote add` takes
            it (s3://..., ssh://...).
        root: the checkout of Echosyn (default: the one this is run from).

    Raises:
        EchosynError: `folder` is there and not empty, Echosyn is not run from a checkout, or git
            or DVC refuse, with what they said.
    """
    folder, root = folder.resolve(), (root or Path(__file__).parents[2]).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EchosynError(f"{folder} is there and not empty: choose another folder")
    if not (root / "dvc.yaml").is_file():
        raise EchosynError(
            f"{root}: Echosyn's code lies here without its graph (dvc.yaml), which a project "
            "needs: run this from a checkout"
        )
    if folder.is_relative_to(root):
        raise EchosynError(f"{folder} lies inside the checkout {root}: choose a folder beside it")
    where = _where(remote)
    notes: list[str] = []
    with atomic_dir(folder) as tmp:
        code = _clone(root, tmp, notes) if (root / ".git").exists() else _copy(root, tmp)
        if where:
            _dvc(tmp, "remote", "add", "--default", "--force", STORAGE, where)
        _git(tmp, "add", "--all")
        said = f"Start {folder.name}" + (f" from Echosyn {code[:12]}" if code else "")
        _git(tmp, "commit", "--quiet", "--allow-empty", "--message", said)
    return Started(folder, code, tuple(notes))


def next_steps(started: Started, remote: str | None) -> str:
    """What to type now."""
    lines = [f"{started.folder} is a project of its own", *(f"note: {n}" for n in started.notes)]
    storage = [] if remote else [
        f"dvc remote add --default {STORAGE} WHERE   # a shared folder or address, for data",
    ]  # fmt: skip
    return "\n".join([
        *lines, "",
        f"cd {started.folder}",
        "make install",
        *storage,
        "# name your dataset in params.yaml (docs/sources/README.md), then",
        "make demo",
        'git add --all && git commit -m "first run" && dvc push',
        "",
        "docs/teamwork.md goes on from there; `git pull echosyn main` brings later code.",
    ])  # fmt: skip


def _where(remote: str | None) -> str | None:
    """A remote as DVC takes it: a folder by its whole path, for any clone on this machine."""
    if remote is None or SCHEME.match(remote):
        return remote
    return str(Path(remote).expanduser().resolve())


def _clone(root: Path, tmp: Path, notes: list[str]) -> str:
    """A clone whose upstream is where the checkout itself came from; the commit."""
    if _git(root, "status", "--porcelain", "--untracked-files=no"):
        notes.append(f"changes in {root} that are not committed are not in it")
    origin = _git(root, "remote", "get-url", "origin", ok=False) or str(root)
    if not SCHEME.match(origin) and Path(root / origin).exists():
        origin = str((root / origin).resolve())
    _git(tmp.parent, "clone", "--quiet", "--no-hardlinks", "--origin", UPSTREAM, root, tmp)
    _git(tmp, "remote", "set-url", UPSTREAM, origin)
    return _git(tmp, "rev-parse", "HEAD")


def _copy(root: Path, tmp: Path) -> str:
    """What git would keep of a folder without git, but for what a run leaves."""
    _git(tmp, "init", "--quiet")
    sources = (".", *(f":(exclude){name}" for name in OUTCOMES))
    _git(root, f"--git-dir={tmp / '.git'}", f"--work-tree={root}", "add", "--all", "--", *sources)
    _git(tmp, "checkout-index", "--all")
    return ""


def _git(folder: Path, *command: object, ok: bool = True) -> str:
    return _run(folder, "git", *command, ok=ok)


def _dvc(folder: Path, *command: object) -> str:
    return _run(folder, sys.executable, "-m", "dvc", *command, "--quiet")


def _run(folder: Path, *command: object, ok: bool = True) -> str:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise EchosynError(f"{words[0]}: not found, and a project needs it") from None
    if done.returncode and ok:
        said = " ".join((done.stderr or done.stdout).split())
        raise EchosynError(f"`{' '.join(words)}` failed: {said}")
    return done.stdout.strip() if done.returncode == 0 else ""
