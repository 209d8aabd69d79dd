"""FileNames from the names that files have, and patients' numbers that are nearly the same.

A FileName is letters, digits, '.', '_' and '-'. What else a file's name holds is replaced; names
that become alike by it get a few digits of their own, so that distinct files stay distinct.
"""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

DIGITS = 8  # of a hash: two of a thousand alike names are the same once in ten thousand datasets
ODD = re.compile(r"[^A-Za-z0-9._-]")
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,4}$")


def plain_path(path: str) -> str:
    """A path as a file system that tells nothing else apart has it: without './', composed."""
    return unicodedata.normalize("NFC", re.sub(r"^(\./)+", "", re.sub(r"/(\./|/)+", "/", path)))


def as_stored(path: Path) -> Path:
    """The path as its file system spells accents, where another spelling of it is there."""
    if path.exists():
        return path
    spelt = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((p for p in spelt if p.exists()), path)


def file_names(paths: Sequence[str], stems: Sequence[str] | None = None) -> list[str]:
    """The FileName of each path: its stem, folders and odd characters as '_'.

    Paths whose names would differ by nothing, or by case alone, get digits of a hash of the whole
    path, whatever else is there and in whatever order. The same path gives the same name.

    Args:
        stems: what stands for each path; None: the path without its suffix.
    """
    whole = [plain_path(path) for path in paths]
    kept = [SUFFIX.sub("", p) for p in whole] if stems is None else stems
    names = [ODD.sub("_", stem) for stem in kept]
    names = [name if re.match(r"[A-Za-z0-9]", name) else f"v{name}" for name in names]
    sharing = defaultdict(set)
    for name, path in zip(names, whole, strict=True):
        sharing[name.lower()].add(path)
    return [
        name if len(sharing[name.lower()]) == 1 else f"{name}-{_digits(path)}"
        for name, path in zip(names, whole, strict=True)
    ]


def _digits(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:DIGITS]


def bare_number(patient: str) -> str:
    """A patient's number without what clerks and spreadsheets add or lose: case, blanks, leading
    zeros, and '.0' at its end."""
    return re.sub(r"\.0+$", "", "".join(patient.split()).casefold()).lstrip("0")


def nearly_alike(patients: Iterable[str]) -> list[list[str]]:
    """Groups of different numbers that have the same bare number, in order of appearance."""
    groups: dict[str, dict[str, None]] = {}
    for patient in patients:
        groups.setdefault(bare_number(patient), {})[patient] = None
    return [list(group) for group in groups.values() if len(group) > 1]
