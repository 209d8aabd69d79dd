"""Loss curves as files: what training saw at which step and after how many seconds."""

import csv
import io
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text

FOLDER = "curves"  # of the project; a stage's are in curves/<stage>/<subject>
FILE = "curve.jsonl"
KINDS = ("train", "val")
FIRST, LAST = ("step", "samples", "seconds"), "loss"


class Curve:
    """Rows of a training in its work folder; a resumed one goes on where the checkpoint is.

    Args:
        work: the training's folder. step: of the checkpoint it goes on from, 0 for none: rows of
            later steps are forgotten, since those steps are done again.
    """

    def __init__(self, work: Path, step: int) -> None:
        self.path = work / FILE
        rows = [row for row in _read(self.path) if row["step"] < step]
        self.rows, self._before = rows, rows[-1]["seconds"] if rows else 0.0
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Of training so far, those of earlier processes included."""
        return self._before + time.perf_counter() - self._start

    def add(self, step: int, samples: int, values: Mapping[str, float]) -> None:
        """Keep a step's values, all of them named train/... or all val/..."""
        kind = next(iter(values)).split("/")[0]
        row = {"kind": kind, "step": step, "samples": samples, "seconds": round(self.seconds, 3)}
        self.rows.append({**row, **{k.removeprefix(f"{kind}/"): v for k, v in values.items()}})

    def save(self) -> None:
        """To be called with every checkpoint."""
        write_text(self.path, "".join(f"{json.dumps(row)}\n" for row in self.rows))


class Pace:
    """Steps per second, without the time spent in `paused`."""

    def __init__(self, step: int) -> None:
        self._step, self._since = step, time.perf_counter()

    def rate(self, step: int) -> float:
        """Since the last call, now that so many steps are done."""
        now = time.perf_counter()
        rate = (step - self._step) / (now - self._since)
        self._step, self._since = step, now
        return rate

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start


def write_curves(work: Path, out: Path) -> None:
    """out/train.csv and out/val.csv of a finished training: step, samples, seconds, ..., loss.

    The loss comes last: it is what `dvc plots` draws when nothing else is asked. Where nothing
    was trained the tables have no rows.
    """
    rows = _read(work / FILE)
    for kind in KINDS:
        own = [{k: v for k, v in row.items() if k != "kind"} for row in rows if row["kind"] == kind]
        write_text(out / f"{kind}.csv", _table(own))


def _read(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as e:
        raise EchosynError(f"{path} is damaged; remove {path.parent} to start over: {e}") from e


def _table(rows: list[dict]) -> str:
    names = list(dict.fromkeys(key for row in rows for key in row))
    between = [n for n in names if n not in (*FIRST, LAST)]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FIRST, *between, LAST], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
