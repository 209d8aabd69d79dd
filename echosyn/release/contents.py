"""What of a file can be searched: its text, or the metadata of a picture or video."""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

EDGE = 1024  # bytes at either end of a binary file that are searched
CHUNK = 1 << 16  # bytes of a RIFF chunk beside frames and index that are searched
WEIGHTS = frozenset((
    ".bin", ".caffemodel", ".ckpt", ".gguf", ".ggml", ".h5", ".hdf5", ".joblib", ".keras",
    ".mar", ".mlmodel", ".msgpack", ".npy", ".npz", ".onnx", ".pb", ".pdparams", ".pickle",
    ".pkl", ".pt", ".pth", ".safetensors", ".t7", ".tflite", ".weights",
))  # fmt: skip
MAGIC = {
    "model weights or a pickle": re.compile(rb"\x80[\x02-\x05].|\x89HDF\r\n|GGUF|\x93NUMPY", re.S),
    "an archive, which is not looked into": re.compile(
        rb"PK[\x03\x05]|\x1f\x8b|BZh\d|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", re.S
    ),
}
# Kinds that a release may hold and whose metadata lie where they are searched.
MEDIA = re.compile(
    rb"RIFF....(AVI |WEBP)|\x89PNG\r\n\x1a\n|GIF8[79]a|\xff\xd8\xff|....ftyp|\x1a\x45\xdf\xa3", re.S
)
WIDE = re.compile(rb"(?:[\x20-\x7e]\x00){4,}")  # UTF-16 inside a binary file
SKIPPED = (b"movi", b"idx1")


@dataclass(frozen=True)
class Contents:
    """texts: what to search, the whole file first where it is text. refused: why not at all."""

    texts: tuple[str, ...] = ()
    is_text: bool = False
    refused: str | None = None


def contents(path: Path) -> Contents:
    """Read what can be searched of a file; a folder holds nothing of its own."""
    if path.is_symlink():
        return Contents((os.readlink(path),), refused="a link, which points out of the release")
    if path.is_dir():
        return Contents()
    if not path.is_file():
        return Contents(refused="not a plain file")
    suffix = path.suffix.casefold()
    with path.open("rb") as f:
        start = f.read(EDGE)
    weights = f"model weights, by its suffix {suffix}" if suffix in WEIGHTS else None
    if MEDIA.match(start) and weights is None:
        return Contents(tuple(_strings(part) for part in _metadata(path, start)))
    known = next((what for what, magic in MAGIC.items() if magic.match(start)), None)
    refused = weights or known or ("model weights (safetensors)" if _safetensors(start) else None)
    text = None if refused else _text(path.read_bytes())
    if text is not None:
        return Contents((text,), is_text=True)
    reason = refused or "a binary file of a kind that is not looked into"
    return Contents((_strings(start), _strings(_end(path))), refused=reason)


def _text(data: bytes) -> str | None:
    """The file as text, None where it is none."""
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _safetensors(start: bytes) -> bool:
    """Eight bytes of length, then a JSON object."""
    return len(start) > 9 and start[8:9] == b"{" and 1 < int.from_bytes(start[:8], "little") < 1e9


def _strings(data: bytes) -> str:
    """The bytes as characters one by one, and what in them is UTF-16."""
    wide = [found[0].decode("utf-16-le") for found in WIDE.finditer(data)]
    return "\n".join([data.decode("latin-1"), *wide])


def _metadata(path: Path, start: bytes) -> list[bytes]:
    """Both ends of the file, and in an AVI all that is neither frame nor index."""
    parts = [start, _end(path)]
    if start[:4] != b"RIFF" or start[8:12] != b"AVI ":
        return parts
    with path.open("rb") as f:
        f.seek(12)
        while len(header := f.read(12)) >= 8:
            name, size = struct.unpack("<4sI", header[:8])
            f.seek(8 - len(header), os.SEEK_CUR)
            if (header[8:12] if name == b"LIST" else name) not in SKIPPED:
                parts.append(f.read(min(size, CHUNK)))
                f.seek(-len(parts[-1]), os.SEEK_CUR)
            f.seek(size + size % 2, os.SEEK_CUR)
    return parts


def _end(path: Path) -> bytes:
    with path.open("rb") as f:
        f.seek(max(0, path.stat().st_size - EDGE))
        return f.read()
