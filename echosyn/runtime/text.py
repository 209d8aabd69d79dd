"""Text files that a person wrote: UTF-8, or a message that says what they are instead."""

import codecs
from pathlib import Path

import yaml

from echosyn.runtime.errors import EchosynError

AROUND = 12  # bytes shown on either side of one that is not UTF-8
SAVE = "save it as UTF-8 text"
SAVE_CSV = "save it as CSV UTF-8"
UTF16 = "UTF-16 text (Excel calls it 'Unicode text')"
# How a file begins, and what it then is; the longer beginning first.
KINDS = {
    codecs.BOM_UTF32_LE: "UTF-32 text",
    codecs.BOM_UTF32_BE: "UTF-32 text",
    codecs.BOM_UTF16_LE: UTF16,
    codecs.BOM_UTF16_BE: UTF16,
    b"PK\x03\x04": "a zip file (an Excel workbook is one)",
    b"\xd0\xcf\x11\xe0": "an Excel or Word file of the old kind",
    b"\x1f\x8b": "a file compressed with gzip",
}


def read_text(path: Path, fix: str = SAVE) -> str:
    """A text file, line ends as '\\n'; a mark of the byte order is no part of it.

    Args:
        fix: what to do with one that is not UTF-8, for the message.

    Raises:
        EchosynError: it is not UTF-8 text, or cannot be read.
        FileNotFoundError: there is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (IsADirectoryError, PermissionError) as e:
        raise unreadable(path, e) from None
    except UnicodeDecodeError:
        raise not_text(path, fix) from None
    if "\0" in text and kind_of(path) is not None:
        raise not_text(path, fix)
    return text


def unreadable(path: Path, e: OSError) -> EchosynError:
    """The error of a file that is there and cannot be opened."""
    if isinstance(e, IsADirectoryError):
        return EchosynError(f"{path} is a folder, but a file is wanted there: move the folder away")
    return EchosynError(f"{path} cannot be read by this user ({e.strerror}): chmod u+r {path}")


def kind_of(path: Path) -> str | None:
    """What a file is that is not UTF-8 text, by its first bytes; None where they do not say."""
    with path.open("rb") as f:
        start = f.read(1024)
    known = next((kind for begin, kind in KINDS.items() if start.startswith(begin)), None)
    if known is None and 3 * start.count(0) >= len(start) > 1:  # every other byte is 0
        return UTF16
    return known


def not_text(path: Path, fix: str = SAVE) -> EchosynError:
    """The error of a file that is not UTF-8 text: what it is, or its first line that is not."""
    kind = kind_of(path)
    if kind is not None:
        return EchosynError(f"{path} is {kind}, not UTF-8 text: {fix}")
    data = path.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError as e:
        lines = data[: e.start + 1].splitlines()
        before, after = lines[-1][-AROUND - 1 :], data[e.start + 1 :].splitlines()
        shown = before + (after[0][:AROUND] if after else b"")
        return EchosynError(
            f"{path}: line {len(lines)} is not UTF-8 text: byte 0x{data[e.start]:02x} in "
            f"{shown!r}: {fix}"
        )
    return EchosynError(f"{path} changed while it was read: run the same command again")


def yaml_problem(e: yaml.YAMLError, text: str) -> str:
    """What is wrong with the text of a YAML file, and on which line, in one line."""
    if isinstance(e, yaml.MarkedYAMLError) and e.problem_mark is not None:
        problem = ", ".join(part for part in (e.context, e.problem) if part)
        tab = "; indent with spaces, not with tabs" if "\\t" in problem else ""
        return f"line {e.problem_mark.line + 1} is not valid YAML: {problem}{tab}"
    if isinstance(e, yaml.reader.ReaderError):
        line = text.count("\n", 0, e.position) + 1
        return f"line {line} is not valid YAML: character {e.character:#x}: remove it"
    return f"not valid YAML: {e}"
