"""The published networks of FID, IS and FVD: where they come from, and that a file is one of them.

Nothing is fetched unless `echosyn weights fetch` is run. A file is read only after its size and
hash were found to be those of the published one, wherever it lies.
"""

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from echosyn.runtime.errors import EchosynError
from echosyn.runtime.process import cache_root
from echosyn.runtime.progress import bar

PUBLISHED = "published"  # the setting that means: the file in the cache
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 20


@dataclass(frozen=True)
class Weights:
    """A published file.

    bytes: its size; kind, digest: "sha256", or "git" for git's blob hash (sha1 of a header that
    gives the size, and the content), and its hex value; urls: tried in order.
    """

    file: str
    bytes: int
    kind: str
    digest: str
    urls: tuple[str, ...]
    licence: str
    use: str


KNOWN = {
    "inception": Weights(
        file="pt_inception-2015-12-05-6726825d.pth",
        bytes=95_628_359,
        kind="sha256",
        digest="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        urls=(
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
        ),
        licence="Apache-2.0",
        use="FID, IS",
    ),
    "i3d": Weights(
        file="i3d_rgb_scratch.ckpt.data-00000-of-00001",
        bytes=50_818_176,
        kind="git",
        digest="fa7df95674dbf3579e7fccd954e51e706b4734c1",
        urls=(
            "https://raw.githubusercontent.com/google-deepmind/kinetics-i3d/"
            "0667e889a5904b4dc122e0ded4c332f49f8df42c/data/checkpoints/rgb_scratch/"
            "model.ckpt.data-00000-of-00001",
        ),
        licence="Apache-2.0",
        use="FVD",
    ),
}


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/echosyn/weights`, or the same under ~/.cache."""
    return cache_root() / "weights"


def cached(name: str) -> Path:
    """Where `fetch` puts a file, and where one may be put by hand."""
    return cache_folder() / known(name).file


def known(name: str) -> Weights:
    if name not in KNOWN:
        raise EchosynError(f"no published weights are called '{name}'; known: {', '.join(KNOWN)}")
    return KNOWN[name]


def locate(name: str, where: Path | str = PUBLISHED) -> Path:
    """The file of `name`, found to be the published one byte by byte.

    Args:
        where: "published" for the cache, else the path of the file.

    Raises:
        EchosynError: the file is missing or is not the published one.
    """
    wanted = known(name)
    path = cached(name) if str(where) == PUBLISHED else Path(where)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is missing"
        raise EchosynError(
            f"{path}: the weights of {wanted.use} ({name}) {what}; run `echosyn weights fetch "
            f"{name}` where there is a network, or give the path of {wanted.file}"
        )
    if wrong := damage(wanted, path):
        raise EchosynError(
            f"{path}: not the published weights of {wanted.use} ({name}): {wrong}; remove the file "
            f"and run `echosyn weights fetch {name}`"
        )
    return path


def damage(wanted: Weights, path: Path) -> str | None:
    """What tells a file from the published one; None when nothing does."""
    size = path.stat().st_size
    if size != wanted.bytes:
        return f"{size:,} bytes, expected {wanted.bytes:,}"
    found = _digest(wanted, path)
    if found != wanted.digest:
        return f"{_label(wanted)} {found}, expected {wanted.digest}"
    return None


def state(name: str) -> str:
    """Of the file in the cache: "here", "not fetched" or "damaged"."""
    path = cached(name)
    if not path.is_file():
        return "not fetched"
    return "damaged" if damage(known(name), path) else "here"


def fetch(name: str) -> Path:
    """Download a published file into the cache, unless it is there; it gets its name once verified.

    Raises:
        EchosynError: no source could be reached, or each sent something else.
    """
    wanted, target = known(name), cached(name)
    if target.is_file() and damage(wanted, target) is None:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise EchosynError(
            f"{target.parent}: {e.strerror}; set XDG_CACHE_HOME to a folder that can be written"
        ) from None
    part = target.with_name(f".{target.name}.partial-{os.getpid()}")
    failures = []
    for url in wanted.urls:
        try:
            _download(url, part, wanted.bytes, name)
            wrong = damage(wanted, part)
            if wrong is None:
                part.replace(target)
                return target
            failures.append(f"{url}: {wrong}")
        except (OSError, http.client.HTTPException, ValueError) as e:
            failures.append(f"{url}: {e or type(e).__name__}")
        finally:
            part.unlink(missing_ok=True)
    raise EchosynError(
        f"could not fetch {name}: {'; '.join(failures)}. Without a network, download it elsewhere "
        f"and put it at {target} ({wanted.bytes:,} bytes, {_label(wanted)} {wanted.digest})"
    )


def _download(url: str, part: Path, size: int, name: str) -> None:
    with (
        urllib.request.urlopen(url, timeout=TIMEOUT) as answer,
        part.open("wb") as out,
        bar(size >> 20, f"fetch {name}", "MiB") as progress,
    ):
        done = 0
        # One byte too many is enough to know that this is another file.
        while done <= size and (block := answer.read(BLOCK)):
            out.write(block)
            done += len(block)
            progress.update((done >> 20) - progress.n)
        out.flush()
        os.fsync(out.fileno())


def _digest(wanted: Weights, path: Path) -> str:
    make: Callable = hashlib.sha256
    if wanted.kind == "git":
        header = b"blob %d\0" % wanted.bytes

        def make() -> "hashlib._Hash":
            return hashlib.sha1(header, usedforsecurity=False)

    with path.open("rb") as f:
        return hashlib.file_digest(f, make).hexdigest()


def _label(wanted: Weights) -> str:
    return "git blob" if wanted.kind == "git" else wanted.kind
