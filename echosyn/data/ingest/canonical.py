"""What every source becomes: grey 112x112 AVIs beside a FileList.csv.

An adapter says what there is to read (`Plan`); `write_dataset` reads it on all threads, writes it,
and keeps account of what could not be taken.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from echosyn.data.filelist import (
    CLASS,
    COLUMNS,
    OPTIONAL,
    SAFE_NAME,
    check_rows,
    typed,
    video_path,
    write_filelist,
)
from echosyn.data.ingest.fit import FRAME_SIZE, SquareFit, fit_video
from echosyn.data.video import map_videos, write_video
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text

# Columns that a source may state itself. They are kept as stated: whether they are true is the
# gate's question, not ours to mend silently. A source that does not state them gets what was read.
FACTS = ("FrameHeight", "FrameWidth", "FPS", "NumberOfFrames")


# What is noted of a video beside its row.
OWN = ("SourceHeight", "SourceWidth", "SourceAspect", "frames", "resized")
SKIPPED, NOTED = "skipped", "noted"


class SkipError(Exception):
    """The file is not what the adapter is for; the message says what it is instead."""


class Note(NamedTuple):
    """Something about a video that its user should know: what, and how it was there, or "" where
    there is no more to say and the number of such videos is enough."""

    what: str
    how: str = ""


UNEVEN = "not evenly spaced in time"
TURNED = Note("with an affine that turns or mirrors the picture: not followed, look at the videos")


@dataclass(frozen=True, eq=False)
class Clip:
    """A decoded video."""

    frames: np.ndarray  # uint8 (T, H, W), grey
    fps: float
    facts: Mapping[str, Any] = field(default_factory=dict)  # columns known only after reading
    notes: Sequence["Note"] = ()
    avi: bytes | None = None  # a canonical file of these very frames, to be kept as it is


@dataclass(frozen=True)
class Item:
    """One video that an adapter wants to make.

    `read` gives a Clip, or the path of an AVI that need not be changed but for its size: a
    canonical one is copied byte for byte. It raises EchosynError (the item is rejected with that
    text as the reason) or SkipError (it is listed as skipped).
    """

    source: str  # where it comes from, for messages: "FileList.csv line 7 (a.avi)", or a path
    name: str  # FileName; "" when `facts` of the clip give it
    row: Mapping[str, Any]  # columns of the FileList known beforehand
    read: Callable[[], Clip | Path]


@dataclass(frozen=True)
class Reject:
    """Something that was not taken, and why."""

    source: str
    reason: str
    outcome: str = "rejected"  # or "skipped": not what the adapter is for; "noted": taken


@dataclass(frozen=True)
class Plan:
    """What an adapter found in a raw folder.

    `finish(out, table)` writes what else belongs to the dataset, such as VolumeTracings.csv.
    `table` is the FileList with further columns: SourceHeight, SourceWidth and SourceAspect, size
    and pixels of the frames as they were read, and every fact of the clips that is no column of the
    FileList.
    """

    items: Sequence[Item]
    rejects: Sequence[Reject] = ()  # found before reading: bad rows, missing files
    notes: Sequence[str] = ()
    finish: Callable[[Path, pd.DataFrame], None] | None = None
    by_name: bool = (
        False  # rows sorted by FileName: the order of a hospital's files leaves no trace
    )


class LazyItems(Sequence[Item]):
    """Items made when they are asked for: a million of them take no memory."""

    def __init__(self, count: int, make: Callable[[int], Item]) -> None:
        self._numbers, self._make = range(count), make

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> Item:  # type: ignore[override]
        return self._make(self._numbers[number])

    def __iter__(self) -> Iterator[Item]:
        return map(self._make, self._numbers)


@dataclass(frozen=True)
class IngestOptions:
    """What a user decides about any source."""

    max_rejects: int = 0  # more are an error
    rejects: Path | None = None  # CSV of what was not taken: source, reason, outcome


@dataclass(frozen=True)
class IngestReport:
    """What was written, and in `notes` what was left out and why."""

    videos: int
    frames: int
    notes: tuple[str, ...] = ()
    rejected: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class _Made:
    """A video written under a temporary name."""

    source: str
    row: dict[str, Any]  # the FileList's columns, the clip's facts, and OWN
    part: Path
    notes: tuple[Note, ...]


def write_dataset(plan: Plan, out: Path, label: str, options: IngestOptions) -> IngestReport:
    """Read the items of a plan and write Videos/*.avi and FileList.csv into the empty `out`.

    Nothing is dropped silently: what fails to be read, has a row that `check_rows` refuses, or
    repeats a name (case aside) is listed in `options.rejects`, which is written even when this
    raises. It is not written to `out`: the names of a hospital's files do not travel with the data.

    Raises:
        EchosynError: more rejects than allowed, or no video at all.
    """
    (out / "Videos").mkdir()
    taken: dict[str, _Made] = {}  # FileName in lower case
    left: list[Reject] = list(plan.rejects)
    noted: list[tuple[str, Note]] = []  # with the source

    def make(number: int) -> _Made | Reject:
        return _make(plan.items[number], out / "Videos" / f".{number}")

    for made in map_videos(make, range(len(plan.items)), "ingest"):
        if isinstance(made, Reject):
            left.append(made)
        elif reject := _place(made, out, taken):
            left.append(reject)
        else:
            noted += [(made.source, note) for note in made.notes]
    table = _table(list(taken.values()), out, label, left)
    rejected = _account(left, noted, len(table), options)
    if plan.by_name:
        table = table.sort_values("FileName", ignore_index=True)
    write_filelist(out / "FileList.csv", table)
    if plan.finish is not None:
        plan.finish(out, table)
    notes = [*plan.notes, *_notes(left, noted, int(table["resized"].sum()))]
    frames = int(table["frames"].sum())
    return IngestReport(len(table), frames, tuple(notes), rejected, len(left) - rejected)


def _make(item: Item, part: Path) -> _Made | Reject:
    """Read, fit and write one item to `part`; failing to read makes a reject, to write an error."""
    try:
        read = item.read()
        facts: Mapping[str, Any] = {}
        notes: tuple[Note, ...] = ()
        if isinstance(read, Path):
            video = fit_video(read)
            notes = (Note(UNEVEN, video.note),) if video.note else ()
        else:
            facts, notes = read.facts, tuple(read.notes)
            video = SquareFit.of(read.frames).fit(read.frames, read.fps)
        row = {"FileName": item.name, **item.row, **facts}
        measured = (FRAME_SIZE, FRAME_SIZE, video.fps, video.count)
        row.update({k: v for k, v in zip(FACTS, measured, strict=True) if k not in row})
        listed = isinstance(read, Path) or read.avi is not None  # a file as a list describes it
        resized = listed and not video.square.identity
        if resized:
            for column, source in (("FrameHeight", "height"), ("FrameWidth", "width")):
                if row[column] == getattr(video.square, source):
                    row[column] = FRAME_SIZE
        square = video.square
        row |= dict(zip(OWN, (square.height, square.width, square.aspect), strict=False))
        if not SAFE_NAME.fullmatch(row["FileName"]):
            raise EchosynError(f"FileName {row['FileName']!r} is no name that a video can have")
        if isinstance(read, Path):
            data = read.read_bytes() if video.frames is None else None
        else:
            data = read.avi if square.identity else None
    except SkipError as e:
        return Reject(item.source, str(e), SKIPPED)
    except EchosynError as e:
        return Reject(item.source, str(e))
    except Exception as e:  # decoders raise whatever their library does
        return Reject(item.source, f"{type(e).__name__}: {e}")
    if data is None:
        assert video.frames is not None
        write_video(part, video.frames, video.fps)
    else:
        part.write_bytes(data)
    return _Made(item.source, row | {"frames": video.count, "resized": resized}, part, notes)


def _place(made: _Made, out: Path, taken: dict[str, _Made]) -> Reject | None:
    """Give a video its name, or say why it cannot have it."""
    name = made.row["FileName"]
    earlier = taken.setdefault(name.lower(), made)
    if earlier is made:
        made.part.replace(video_path(out, name))
        return None
    first = video_path(out, earlier.row["FileName"])
    same = first.read_bytes() == made.part.read_bytes()
    made.part.unlink()
    if same:
        return Reject(made.source, f"the same video as {earlier.source}", SKIPPED)
    return Reject(made.source, f"FileName {name!r} is already that of {earlier.source}")


def _table(made: list[_Made], out: Path, label: str, left: list[Reject]) -> pd.DataFrame:
    """The rows that may be in a FileList; the others go to `left`, and their videos."""
    columns = [*COLUMNS, *([CLASS] if label == "class" else [])]
    rows = pd.DataFrame([m.row for m in made], columns=None if made else [*columns, *OWN])
    for column in columns:
        if column not in rows:
            rows[column] = ""
    for column in (*COLUMNS, *OPTIONAL):
        if column in rows:
            rows[column] = rows[column].astype(object).where(rows[column].notna(), "")
    table, problems = check_rows(rows, label)
    bad: dict[int, str] = {}
    for problem in problems:
        for i in problem.rows:
            bad.setdefault(int(i), problem.of(rows[problem.column][i]))
    for i, reason in sorted(bad.items()):
        left.append(Reject(made[i].source, reason))
        video_path(out, made[i].row["FileName"]).unlink()
    table = table.join(rows[[c for c in rows if c not in table]])
    return typed(table.drop(index=list(bad)).reset_index(drop=True))


def _account(
    left: Sequence[Reject], noted: Sequence[tuple[str, Note]], written: int, options: IngestOptions
) -> int:
    """Write the table of what was not taken, or changed, and return the number of rejects; raise if
    too many."""
    where = ""
    if options.rejects is not None:
        cells = [(r.source, r.reason, r.outcome) for r in left]
        cells += [(source, f"{n.what}: {n.how}", NOTED) for source, n in noted if n.how]
        table = pd.DataFrame(cells, columns=["source", "reason", "outcome"])
        write_text(options.rejects, table.to_csv(index=False, lineterminator="\n"))
        where = f"; all are in {options.rejects}"
    rejects = [r for r in left if r.outcome == "rejected"]
    total = written + len(rejects)
    if len(rejects) > options.max_rejects:
        raise EchosynError(
            f"{len(rejects)} of {total} videos are rejected, max_rejects is {options.max_rejects}"
            f"{where}{_list(rejects)}\nRepair or remove them, or raise max_rejects of the dataset"
        )
    if not written:
        raise EchosynError(f"no video was found to ingest{where}{_list(left)}")
    return len(rejects)


def _list(left: Sequence[Reject]) -> str:
    more = f"\n  ... and {len(left) - 5} more" if len(left) > 5 else ""
    return "".join(f"\n  {r.source}: {r.reason}" for r in left[:5]) + more


def _notes(left: Sequence[Reject], noted: Sequence[tuple[str, Note]], resized: int) -> list[str]:
    notes = [f"{resized} videos were resized to {FRAME_SIZE}x{FRAME_SIZE}"] if resized else []
    for what in dict.fromkeys(note.what for _, note in noted):
        of_kind = [Reject(source, note.how, NOTED) for source, note in noted if note.what == what]
        explained = [reject for reject in of_kind if reject.reason]
        notes.append(f"{len(of_kind)} {what}" + (f":{_list(explained)}" if explained else ""))
    for outcome in ("rejected", SKIPPED):
        of_kind = [r for r in left if r.outcome == outcome]
        if of_kind:
            notes.append(f"{len(of_kind)} {outcome}:{_list(of_kind)}")
    return notes
