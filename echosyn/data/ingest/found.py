"""What a raw folder holds where it does not hold what a source reads; for messages."""

import difflib
from pathlib import Path

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".gz", ".7z", ".rar")
SHOWN = 5  # names


def holds(folder: Path) -> str:
    """Its first names, or the archive that is to be unpacked: "it holds ..."."""
    names = sorted(f.name for f in folder.iterdir() if not f.name.startswith("."))
    if not names:
        return "the folder is empty"
    packed = next((name for name in names if name.lower().endswith(ARCHIVES)), None)
    if packed is not None:
        return f"it holds {packed}: unpack that"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"it holds {', '.join(names[:SHOWN])}{more}"


def nearby(folder: Path, name: str) -> Path | None:
    """`name` one to three levels below a folder, else in one of the two folders above it."""
    for pattern in (f"*/{name}", f"*/*/{name}", f"*/*/*/{name}"):
        if below := sorted(folder.glob(pattern)):
            return below[0]
    above = [parent / name for parent in folder.parents[:2]]
    return next((path for path in above if path.exists()), None)


def no_folder(raw: Path) -> str:
    """Why there is no raw folder at this path, and what to do."""
    where = f"{raw}: the raw dataset's folder does not exist"
    if raw.is_file():
        fix = "unpack it, and set" if raw.name.lower().endswith(ARCHIVES) else "set"
        return f"{where}: this is a file: {fix} `path` of the dataset to the folder"
    packed = [raw.with_name(f"{raw.name}{suffix}") for suffix in ARCHIVES]
    beside = next((file.name for file in packed if file.is_file()), None)
    if beside is not None:
        return f"{where}, but {beside} beside it does: unpack that"
    fix = "put the dataset there, or set `path` of the dataset in params.yaml"
    if not raw.parent.is_dir():
        return f"{where}: {fix}"
    names = sorted(f.name for f in raw.parent.iterdir() if f.is_dir())
    near = difflib.get_close_matches(raw.name, names, n=1)
    return f"{where}{f' (is {near[0]!r} meant?)' if near else ''}: {fix}"
