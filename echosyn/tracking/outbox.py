"""What a run has to tell, on disk until the tracking server has it. Knows nothing of MLflow.

An outbox is a folder with `run.json` (who the run is) and one file per operation, each written
whole and named by the time, so that any process that sees the folder may write and one sends in
order. Metrics of a training step are first *pending*: they count once the checkpoint that contains
the step exists, because a killed process repeats the steps after its last checkpoint.
"""

import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echosyn.runtime.files import atomic_dir, read_json, write_json

OWN_STORE = Path("mlruns/mlflow.db")
RUN, FILES, REFUSED = "run.json", "files", "refused"
Row = tuple[str, float, int | None, int]  # name, value, milliseconds (None: the run's start), step


@dataclass(frozen=True)
class Outbox:
    """The outbox in `folder`, whose name is its key."""

    folder: Path

    @classmethod
    def create(cls, root: Path, key: str, facts: Mapping[str, Any]) -> "Outbox":
        """A new outbox of that key, or the one that is there already."""
        folder = root / key
        if not (folder / RUN).is_file():
            with atomic_dir(folder) as tmp:
                write_json(tmp / RUN, dict(facts))
        return cls(folder)

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def exists(self) -> bool:
        return (self.folder / RUN).is_file()

    @property
    def facts(self) -> dict[str, Any]:
        return read_json(self.folder / RUN)

    @property
    def uri(self) -> str:
        """The tracking store's address; of the project's own store, where the project lies now."""
        return self.facts.get("uri") or own_store(self.folder.parent)

    def learn(self, **facts: Any) -> dict[str, Any]:
        """Change facts; returns all of them."""
        changed = {**self.facts, **facts}
        write_json(self.folder / RUN, changed)
        return changed

    def operations(self) -> list[Path]:
        """Files of what is to be sent, oldest first."""
        return sorted(self.folder.glob("[0-9]*.json"))

    def add(self, kind: str, **content: Any) -> None:
        """Append an operation."""
        write_json(self.folder / self._next(), {"kind": kind, **content})

    def add_metrics(self, rows: list[Row]) -> None:
        self.add("metrics", rows=_encoded(rows))

    def add_file(self, source: Path, folder: str | None) -> None:
        """Append a copy of a file, or of a folder's content, to be kept with the run."""
        place = Path(FILES) / uuid.uuid4().hex
        with atomic_dir(self.folder / place) as tmp:
            if source.is_dir():
                shutil.copytree(source, tmp, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, tmp / source.name)
        self.add("artifact", path=str(place), folder=folder)

    def hold(self, step: int, rows: list[Row]) -> None:
        """Keep metrics pending until the checkpoint of `step` exists."""
        content = {"kind": "metrics", "rows": _encoded(rows)}
        write_json(self.folder / f"pending-{step:010d}.json", content)

    def settle(self, step: int) -> None:
        """A checkpoint of `step` exists and none after it: send what it contains, drop the rest."""
        for path in sorted(self.folder.glob("pending-*.json")):
            if int(path.stem.removeprefix("pending-")) <= step:
                path.rename(self.folder / self._next())
            else:
                path.unlink()

    def _next(self) -> str:
        """A name after all that are there, also when the clock was set back since."""
        waiting = self.operations()
        last = int(waiting[-1].name.partition("-")[0]) if waiting else 0
        return f"{max(time.time_ns(), last + 1):020d}-{uuid.uuid4().hex[:8]}.json"

    def refuse(self, operation: Path) -> Path:
        """Put an operation that the server will never take out of the way."""
        kept = self.folder / REFUSED / operation.name
        kept.parent.mkdir(exist_ok=True)
        return operation.rename(kept)

    def done(self, operation: Path) -> None:
        """The server has it."""
        content = read_json(operation)
        operation.unlink()
        if content["kind"] == "artifact":
            shutil.rmtree(self.folder / content["path"], ignore_errors=True)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def own_store(root: Path) -> str:
    """Address of the store of the project whose outboxes are in `root`, <project>/.echosyn/outbox.

    "sqlite:///" and the path of its file, in which '%' and '?' have a meaning of their own.
    """
    file = str(root.parents[1] / OWN_STORE)
    return "sqlite:///" + file.replace("%", "%25").replace("?", "%3F")


def outboxes(root: Path) -> list[Outbox]:
    """All outboxes under `root`, oldest first."""
    found = []
    for path in root.glob(f"[!.]*/{RUN}"):
        with suppress(FileNotFoundError):  # another process has just sent and removed it
            found.append((read_json(path)["start_time"], path.parent.name, Outbox(path.parent)))
    return [outbox for *_, outbox in sorted(found, key=lambda entry: entry[:2])]


def _encoded(rows: list[Row]) -> list[list]:
    # JSON has no NaN, which a loss on an empty split is.
    return [[key, repr(value), at, step] for key, value, at, step in rows]


def decoded(rows: list[list]) -> list[Row]:
    return [(key, float(value), at, step) for key, value, at, step in rows]
