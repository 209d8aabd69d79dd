"""A release must name no patient: the last look at its files before it goes out.

Every file name, text file and header of a picture or video is searched for every real FileName and
Patient (as whole tokens, in any case, with or without extension), for absolute paths and for the
user and machine it was made on. Tables of similarities and model weights are refused, and so are
files of a kind that cannot be looked into.

A name that could stand in any text by chance (under 6 characters, without a digit, or of fewer
than 10 digits and nothing else) is not searched for as a token: it is compared with whole cells of
CSV files, whole strings of JSON files and whole file names, but not with the number columns of a
FileList.
"""

import contextlib
import csv
import getpass
import html
import io
import json
import platform
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from echosyn.data.filelist import BEAT, EF_TRUTH, NUMBERS, PATIENT, read_filelist
from echosyn.release.contents import Contents, contents
from echosyn.runtime.errors import EchosynError

SHORTEST, DIGITS = 6, 10  # characters of a name that is searched for as a token; if all digits
TABLE = 3  # values of a score in a JSON file, beyond which they are a table
LOCAL = "LOCAL ONLY"  # what pages say that show patients
SHOWN = 5  # findings in the message
RUN = re.compile(r"[^\W_]+")  # letters and digits; anything else ends a token
NUMBER_COLUMNS = frozenset(name.casefold() for name in (*NUMBERS, *EF_TRUTH, *BEAT))
# Columns and keys that hold one raw score or one real neighbour per item.
SCORES = re.compile(r"similarit|nearest|neighbou?r|accepted|(^|[_ ])(score|distance|ncc)s?($|[_ ])")
PLACES = {
    "an absolute path": re.compile(
        r"(?<![\w.:/<\\+~-])/[A-Za-z0-9_.@+~-]*[A-Za-z0-9_](?:/[A-Za-z0-9_.@+~-]+)+"
    ),
    "a path in a home folder": re.compile(r"(?<![\w./~])~[\w.-]*/[\w.]"),
    "a Windows path": re.compile(r"(?<![A-Za-z0-9])[A-Za-z]:[\\/]{1,2}[\w.$-]|\\\\[\w.-]+\\+[\w$]"),
    "a storage address": re.compile(
        r"\b(?:s3|gs|gcs|azure|abfss?|hdfs|file|ssh|sftp|smb|nfs|dvc|sqlite)://", re.IGNORECASE
    ),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
BASE64 = re.compile(
    r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]+"
    r"|-----BEGIN SSH SIGNATURE-----[A-Za-z0-9+/=\s]+-----END SSH SIGNATURE-----"
)
# Accounts and machines called so are not a person; as words they stand in any text.
COMMON = frozenset((
    "admin", "administrator", "build", "builder", "docker", "echosyn", "guest", "home", "host",
    "jenkins", "jovyan", "local", "localhost", "node", "nobody", "release", "root", "runner",
    "server", "synthetic", "test", "tests", "ubuntu", "user", "users", "video", "videos",
    "worker", "workspace",
))  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What is wrong with a file, by its name below the release folder."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def real_names(real: Path, label: str) -> frozenset[str]:
    """Every FileName and Patient of a real dataset folder; `label` as for `read_filelist`."""
    table = read_filelist(real / "FileList.csv", label)
    names = set(table["FileName"])
    if PATIENT in table.columns:
        names |= set(table[PATIENT].astype(str))
    return frozenset(names - {""})


def local_people() -> frozenset[str]:
    """This user's and this machine's names, but those that are common or plain words."""
    found = set()
    # A container may run as a number that has neither a home nor a name.
    with contextlib.suppress(RuntimeError):
        found.add(Path.home().name)
    with contextlib.suppress(KeyError, OSError):
        found.add(getpass.getuser())
    host = platform.node()
    if re.search(r"[\d.-]", host):  # "phantom" is also a word, "ws-017" is not
        found.add(host)
    return frozenset(n for n in found if len(n) > 3 and n.casefold() not in COMMON)


def refuse_leaks(
    folder: Path, names: Collection[str], people: Collection[str] | None = None
) -> None:
    """Raise EchosynError with the first findings of `find_leaks`, if there are any."""
    findings = find_leaks(folder, names, people)
    if findings:
        more = f"\nand {len(findings) - SHOWN} more" if len(findings) > SHOWN else ""
        listed = "\n".join(map(str, findings[:SHOWN]))
        raise EchosynError(
            f"{folder} must not be released, {len(findings)} finding(s):\n{listed}{more}\n"
            "remove them where they come from and release again"
        )


def find_leaks(
    folder: Path, names: Collection[str], people: Collection[str] | None = None
) -> list[Finding]:
    """All that could name a patient, in order of the files.

    Args:
        folder: a release.
        names: FileNames (with or without extension) and patients of the real dataset.
        people: names of users and machines; None: those of this one (`local_people`).

    Pictures and videos are searched in their metadata and in their first and last kilobyte, not
    in what they show. Raises EchosynError when there is no such folder or no name to search for.
    """
    if not folder.is_dir():
        raise EchosynError(f"{folder}: no such folder; there is nothing to check for leaks")
    if not names:
        raise EchosynError(f"{folder}: no real name was given to search for: a check of nothing")
    search = Search(names)
    staff = Search(local_people() if people is None else people, shortest=1)
    findings: dict[Finding, None] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found = contents(path)
        parts = PurePosixPath(name).parts
        whole = [*parts, *(PurePosixPath(part).stem for part in parts)]
        for what in [*_file(name, whole, search, staff), *_inside(found, name, search, staff)]:
            findings[Finding(name, what)] = None
    return list(findings)


class Search:
    """Finds any of many names in a text in time that does not grow with their number."""

    def __init__(self, names: Iterable[str], shortest: int = SHORTEST) -> None:
        self.cells: set[str] = set()  # every name, for whole cells
        self.tokens: set[str] = set()
        self.lengths: dict[str, set[int]] = {}  # of the names that begin with this run
        for given in names:
            for name in _spellings(str(given).strip().casefold()):
                self.cells.add(name)
                runs = list(RUN.finditer(name))
                if runs and not _common(name, shortest):
                    # Punctuation around a name delimits a token anyway.
                    token = name[runs[0].start() : runs[-1].end()]
                    self.tokens.add(token)
                    self.lengths.setdefault(runs[0][0], set()).add(len(token))

    def tokens_in(self, text: str) -> set[str]:
        """The names that stand in the text as whole tokens."""
        text = text.casefold()
        found = set()
        for run in RUN.finditer(text):
            for length in self.lengths.get(run[0], ()):
                start, end = run.start(), run.start() + length
                if text[start:end] in self.tokens and not RUN.match(text, end):
                    found.add(text[start:end])
        return found

    def cells_in(self, cells: Iterable[str]) -> set[str]:
        """The names that are the whole of a cell."""
        return self.cells & {cell.strip().casefold() for cell in cells}


def _spellings(name: str) -> Iterator[str]:
    """A name with and without its extension, and EchoNet's without its 0x."""
    for one in {name, re.sub(r"\.(avi|mp4|dcm|nii|nii\.gz|png|jpe?g|npy|npz|pt)$", "", name)}:
        if one:
            yield one
        if re.fullmatch(r"0x[0-9a-f]{10,}", one):
            yield one[2:]


def _common(name: str, shortest: int) -> bool:
    """Whether a text may hold this by chance."""
    letters = "".join(RUN.findall(name))
    if len(name) < shortest or shortest < SHORTEST:
        return len(name) < shortest
    return not any(map(str.isdigit, name)) or (letters.isdigit() and len(letters) < DIGITS)


def _file(name: str, parts: Sequence[str], search: Search, staff: Search) -> Iterator[str]:
    """What is wrong with a file's name."""
    for found in sorted(search.tokens_in(name) | search.cells_in(parts)):
        yield f"its name holds the real name {found!r}"
    for found in sorted(staff.tokens_in(name)):
        yield f"its name holds the user or machine {found!r}"
    if PurePosixPath(name).name.startswith("local_"):
        yield "its name says that it stays local"


def _inside(found: Contents, name: str, search: Search, staff: Search) -> Iterator[str]:
    """What is wrong with what a file holds."""
    if found.refused:
        yield found.refused
    for text in found.texts:
        for real in sorted(search.tokens_in(text)):
            yield f"holds the real name {real!r}"
        for person in sorted(staff.tokens_in(text)):
            yield f"holds the user or machine {person!r}"
        if LOCAL in text:
            yield f"says of itself that it is {LOCAL}"
    if not found.is_text:
        return
    (text,) = found.texts
    suffix = PurePosixPath(name).suffix.casefold()
    if suffix in (".json", ".jsonl", ".ndjson"):
        yield from _json(text, suffix != ".json", search, staff)
        return
    yield from _places(text)
    if suffix in (".csv", ".tsv"):
        yield from _table(text, "\t" if suffix == ".tsv" else ",", search)
    plain = html.unescape(text) if "&" in text else text
    if plain != text:
        yield from (f"holds the real name {real!r}" for real in sorted(search.tokens_in(plain)))


def _places(text: str) -> Iterator[str]:
    """The first place of each kind; base64 of a picture or a signature is not text."""
    text = BASE64.sub("", text)
    for what, pattern in PLACES.items():
        place = pattern.search(text)
        if place:
            rest = re.match(r"[^\s\"'<>,]*", text[place.end() : place.end() + 60])
            yield f"holds {what}: {place[0] + (rest[0] if rest else '')!r}"


def _table(text: str, delimiter: str, search: Search) -> Iterator[str]:
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error as e:
        yield f"not CSV, though it is called so ({e})"
        return
    header = [cell.strip().casefold() for cell in rows[0]] if rows else []
    for column in header:
        if SCORES.search(column):
            yield f"a table of scores: column {column!r}"
    numeric = {i for i, column in enumerate(header) if column in NUMBER_COLUMNS}
    cells = {cell for row in rows for i, cell in enumerate(row) if i not in numeric}
    for real in sorted(search.cells_in(cells)):
        yield f"a cell is the real name {real!r}"


def _json(text: str, lines: bool, search: Search, staff: Search) -> Iterator[str]:
    try:
        values = [json.loads(t) for t in (text.splitlines() if lines else [text]) if t.strip()]
    except ValueError:
        yield "not JSON, though it is called so"
        yield from _places(text)
        return
    strings: set[str] = set()
    keys: dict[str, int] = {}  # score-like keys and how many values they hold
    for value in values:
        _walk(value, strings, keys)
    for key, count in sorted(keys.items()):
        if count > TABLE:
            yield f"a table of scores: {count} values of {key!r}"
    # Escapes may hide a name from the search in the raw text.
    joined = "\n".join(sorted(strings))
    yield from _places(joined)
    for real in sorted(search.cells_in(strings) | search.tokens_in(joined)):
        yield f"a string is or holds the real name {real!r}"
    for person in sorted(staff.tokens_in(joined)):
        yield f"holds the user or machine {person!r}"


def _walk(value: Any, strings: set[str], keys: dict[str, int]) -> None:
    """Collect all strings, and for each key that looks like a score the number of its values."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            strings.add(one)
        elif isinstance(one, list):
            stack.extend(one)
        elif isinstance(one, dict):
            strings.update(one)
            stack.extend(one.values())
            for key, held in one.items():
                if SCORES.search(key.casefold().rpartition("/")[2]):
                    size = len(held) if isinstance(held, list | dict) else 1
                    keys[key] = keys.get(key, 0) + size
