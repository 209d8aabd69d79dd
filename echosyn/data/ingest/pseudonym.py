"""Keyed pseudonyms: the same patient gets the same name, and only who holds the key can tell whose.

A patient number has so few values that a plain hash of it can be reversed by trying them all. An
HMAC cannot, without its key, which therefore lies in a file of the user's, outside the project.

    python -m echosyn.data.ingest.new_key ~/.echosyn/pseudonym.key
"""

import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from echosyn.data.filelist import SPLITS
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.text import kind_of

LEAST_BYTES = 32
# What marks a folder whose files are versioned, shared or published.
PROJECT_MARKS = (".git", ".dvc", "dvc.yaml", "params.yaml")
MAKE = "make one with: python -m echosyn.data.ingest.new_key "


@dataclass(frozen=True)
class Pseudonymiser:
    """Turns identifiers into pseudonyms under one key, which it never shows."""

    key: bytes = field(repr=False)

    def digits(self, kind: str, identifier: bytes) -> str:
        """16 hex digits of HMAC-SHA256; `kind` keeps patients and videos apart."""
        message = kind.encode() + b"\0" + identifier
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()[:16].upper()

    def patient(self, number: str) -> str:
        """Pseudonym of a patient number; case and spaces around or within do not matter.

        Raises:
            EchosynError: the number is empty.
        """
        normal = "".join(number.split()).upper()
        if not normal:
            raise EchosynError("no patient number")
        return "P" + self.digits("patient", normal.encode())


def read_key(path: Path | str, raw: Path) -> Pseudonymiser:
    """The pseudonymiser of a key file: 64 or more hex digits, readable by its owner alone.

    Args:
        path: the file; `~` is the home folder.
        raw: the dataset's folder, where the key may not lie either.

    Raises:
        EchosynError: the file is missing, lies in a project or beside the data, may be read by
            others, or holds no good key. No message shows what it holds.
    """
    file = _expanded(path)
    if not file.is_file():
        raise EchosynError(f"{file}: the key does not exist; {MAKE}{file}")
    file = file.resolve()
    _refuse_place(file, raw)
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise EchosynError(
            f"{file}: the key can be used by others (mode {mode:o}); run: chmod 600 {file}"
        )
    try:
        key = bytes.fromhex(file.read_text("utf-8-sig"))
    except OSError as e:
        raise EchosynError(
            f"{file}: the key cannot be read ({e.strerror}); run: chmod 600 {file}"
        ) from None
    except ValueError:
        kind = kind_of(file)
        fix = f"restore it from your copy (another changes every pseudonym), or {MAKE}<new file>"
        if kind is not None:
            fix = f"it is {kind}: save it as plain text"
        raise EchosynError(f"{file}: the key is not hex digits alone: {fix}") from None
    if len(key) < LEAST_BYTES:
        raise EchosynError(
            f"{file}: the key is too short: {len(key)} bytes, {LEAST_BYTES} or more are needed; "
            f"{MAKE}<new file>"
        )
    if len(set(key)) < LEAST_BYTES // 4:
        raise EchosynError(f"{file}: the key repeats itself, so it can be guessed; {MAKE}<file>")
    return Pseudonymiser(key)


def make_key(path: Path | str) -> Path:
    """Write a new random key, readable by its owner alone.

    Raises:
        EchosynError: the file exists (another key gives other pseudonyms), or lies in a project.
    """
    file = _expanded(path).absolute()
    _refuse_place(file, None)
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as e:
        raise EchosynError(f"{file.parent}: cannot be made for the key: {e.strerror}") from None
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise EchosynError(
            f"{file}: a key is there already, and another would change every pseudonym; "
            "keep it, or name another file"
        ) from None
    except OSError as e:
        raise EchosynError(f"{file}: the key cannot be written: {e.strerror}") from None
    with os.fdopen(handle, "w") as f:
        f.write(secrets.token_hex(LEAST_BYTES) + "\n")
    return file


def _expanded(path: Path | str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise EchosynError(
            f"{path}: this user has no home folder; set HOME, or name the key's whole path"
        ) from None


def _refuse_place(file: Path, raw: Path | None) -> None:
    for folder in file.resolve().parents:
        if raw is not None and folder == raw.resolve():
            raise EchosynError(f"{file}: the key lies with the data that it protects; move it")
        mark = next((m for m in PROJECT_MARKS if (folder / m).exists()), None)
        if mark is not None:
            raise EchosynError(
                f"{file}: the key lies inside a project ({folder} holds {mark}) and could be "
                "published with it; keep it elsewhere, such as ~/.echosyn/pseudonym.key"
            )


def split_of(pseudonym: str, shares: tuple[float, float, float], seed: int) -> str:
    """TRAIN, VAL or TEST by a draw that depends on the pseudonym and the seed alone.

    A patient therefore stays where it is when others are added or leave; in return the shares
    (of TRAIN, VAL, TEST, adding to 1) are met on average, not exactly.
    """
    digest = hashlib.sha256(f"split/{seed}/{pseudonym}".encode()).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    train, val, _ = shares
    return SPLITS[int(draw >= train) + int(draw >= train + val)]
