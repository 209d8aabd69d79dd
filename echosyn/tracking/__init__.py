"""Runs in MLflow: one per stage execution, one per release, nested ones per trial of a search.

The store is `MLFLOW_TRACKING_URI`, or else `mlruns/mlflow.db` in the project (in the original
project when DVC runs a queued experiment elsewhere). Everything that is logged goes to an outbox on
disk first and is sent from there by the process that opened the run, so that neither a dead server
nor a killed worker loses or doubles a step, and workers need no access to the server. MLflow is
imported on the first run, so that training code may import this package where it is not installed.
"""

import dataclasses
import math
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from echosyn.runtime import lineage
from echosyn.runtime.code import code_digest
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import digest, read_json, write_json
from echosyn.runtime.place import mend_store
from echosyn.runtime.process import state_root
from echosyn.tracking import release
from echosyn.tracking.outbox import OWN_STORE, Outbox, Row, outboxes, own_store
from echosyn.tracking.sender import PAUSE, Sender
from echosyn.tracking.store import OUTBOX, RELEASES, STAGES
from echosyn.tracking.usage import sampling

__all__ = [
    "CARRIED",
    "RELEASES",
    "STAGES",
    "Log",
    "NullRun",
    "StageRun",
    "carry",
    "nested_run",
    "recorded_release",
    "release_run",
    "stage_run",
    "sync",
    "tracking_uri",
    "trial_run",
]


_START = time.time_ns() - time.monotonic_ns()


CARRIED = "ECHOSYN_RECORDS_CARRIED"  # set where another process sends the records


class Log(Protocol):
    """What a training loop needs of a run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the values of a step."""

    def resumed(self, step: int) -> None:
        """Training goes on from a checkpoint of `step` (0: none)."""

    def committing(self, step: int) -> AbstractContextManager:
        """Around saving the checkpoint of `step`: what was logged counts once it is saved."""


class NullRun:
    """A run that records nothing."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def resumed(self, step: int) -> None:
        pass

    def committing(self, step: int) -> AbstractContextManager:
        return nullcontext()


class StageRun:
    """One open run. Pickles to the address of its outbox: a worker that shares the project folder
    logs into the run that its driver opened, by writing files only."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._buffer: list[Row] = []

    def __reduce__(self) -> tuple[type, tuple[Outbox]]:
        return StageRun, (self.outbox,)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the values of a step until they are committed or flushed."""
        now = _milliseconds()
        self._buffer += [(key, float(value), now, step) for key, value in values.items()]

    def resumed(self, step: int) -> None:
        """Training goes on from a checkpoint of `step` (0: none): values that were logged before it
        are sent, later ones forgotten, because their steps will be done again."""
        self.outbox.settle(step)

    @contextmanager
    def committing(self, step: int) -> Iterator[None]:
        """Around saving the checkpoint of `step`. Killed before it is saved, what was logged since
        the last one is forgotten; killed after, it is sent by whoever resumes."""
        if self._buffer:
            self.outbox.hold(step, self._buffer)
        yield
        self._buffer.clear()
        self.outbox.settle(step)

    def flush(self) -> None:
        """What was logged counts."""
        if self._buffer:
            self.outbox.add_metrics(self._buffer)
            self._buffer.clear()

    def final(self, values: Mapping[str, float | str], path: Path | str) -> None:
        """Record a stage's final numbers in MLflow and, the same ones, as flat JSON at `path`.

        Text (how a number was measured) becomes a tag of the same name.

        Raises:
            EchosynError: a number is not finite.
        """
        values = {k: v.item() if hasattr(v, "item") else v for k, v in values.items()}
        numbers = {k: v for k, v in values.items() if not isinstance(v, str)}
        if wrong := [key for key, value in numbers.items() if not math.isfinite(value)]:
            raise EchosynError(
                f"{path}: {', '.join(wrong)}: {numbers[wrong[0]]}, which is no measurement; is a "
                "split of the dataset empty, or too small for it?"
            )
        # At the time of the run's start, so that a stage killed after this repeats itself exactly.
        self.outbox.add_metrics([(key, float(value), None, 0) for key, value in numbers.items()])
        for key in values.keys() - numbers.keys():
            self.tag(key, str(values[key]))
        write_json(path, values)

    def tag(self, name: str, value: str) -> None:
        self.outbox.add("tag", name=name, value=str(value))

    def output(self, path: Path | str) -> None:
        """Tag the run with the md5 that DVC will record for an output just written."""
        self.tag(f"md5:{Path(path).as_posix()}", lineage.dvc_md5(Path(path)))

    def artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Keep a copy of a file, or of a folder's content, with the run."""
        self.outbox.add_file(Path(path), folder)

    def figure(self, fig: Any, name: str) -> None:
        """Keep a matplotlib figure with the run, as `name` (its ending gives the format)."""
        with tempfile.TemporaryDirectory() as folder:
            fig.savefig(Path(folder) / name)
            self.artifact(Path(folder) / name)

    def end(self, status: str) -> None:
        """FINISHED, KILLED or FAILED. Of the latter two, only what was committed or flushed counts:
        whoever resumes does the rest again."""
        if status == "FINISHED":
            self.flush()
        self.outbox.add("end", status=status, time=_milliseconds())


@contextmanager
def _closing(run: StageRun) -> Iterator[StageRun]:
    """End the run with the outcome of the block, and send what is left."""
    try:
        yield run
        run.end("FINISHED")
    except KeyboardInterrupt:
        run.end("KILLED")
        raise
    except BaseException as e:
        run.tag("error", f"{type(e).__name__}: {e}")
        run.end("FAILED")
        raise
    finally:
        left = 0 if _carried() else _sender(_root()).deliver_family(run.outbox)
        if left:
            print(
                f"echosyn: {left} records of this run wait in {run.outbox.folder}: the next stage "
                "sends them once the tracking store takes them, or `echosyn sync` does",
                file=sys.stderr,
            )


@contextmanager
def stage_run(
    stage: str,
    subject: str,
    settings: Any,
    inputs: Iterable[Path | str] = (),
    resume_dir: Path | None = None,
) -> Iterator[StageRun]:
    """Open the MLflow run `stage/subject` in the experiment `stages`; close it with its outcome.

    Args:
        stage: the stage's name. subject: the dataset or model it works on.
        settings: the stage's settings, a dataclass or a mapping; logged flat as parameters.
        inputs: files and folders, relative to the project, whose md5 the run carries as tags.
        resume_dir: folder of the stage's resumable state. The run's key is kept there, so that a
            stage that was killed and started again continues the same run.

    An exception ends the run as FAILED with its message as the tag `error`, an interrupt as KILLED.

    Raises:
        EchosynError: the tracking store refuses us. One that does not answer is warned of, once.
    """
    typed = dataclasses.is_dataclass(settings) and not isinstance(settings, type)
    values = dataclasses.asdict(settings) if typed else dict(settings)
    tags = {
        "stage": stage,
        "subject": subject,
        "params_hash": digest(values),
        "code": code_digest(stage),
        **lineage.project(),
        **{f"md5:{path}": md5 for path, md5 in lineage.inputs(inputs).items()},
    }
    note = resume_dir / "run.json" if resume_dir else None
    outbox = _continued(note, tags["params_hash"])
    if outbox is None:
        key = f"{stage}-{subject}-{uuid.uuid4().hex[:12]}"
        facts = _facts(STAGES, f"{stage}/{subject}", values, tags, (OUTBOX, key))
        if resume_dir:
            # Relative, as the project may be moved before what waits is sent.
            facts["resume_dir"] = os.path.relpath(resume_dir.resolve(), _root())
        outbox = Outbox.create(_root(), key, facts)
        if note:
            write_json(note, {"outbox": key, "params_hash": tags["params_hash"]})
    if not _carried():
        _sender(_root()).first_contact(outbox)
    start = outbox.facts["start_time"]
    with _closing(StageRun(outbox)) as run, sampling(outbox.add_metrics, start):
        yield run


def trial_run(parent: StageRun, name: str, settings: Mapping[str, Any], key: str) -> StageRun:
    """A run nested in `parent`, for instance a trial of a search.

    The same `key` continues the same run, so a trial that starts again has one. Works in any
    process that shares the project folder; the process that opened `parent` sends it. End it with
    `end`.
    """
    root = parent.outbox.folder.parent
    above = parent.outbox.facts
    full = f"{parent.outbox.key}-{key}"
    facts = _facts(above["experiment"], name, settings, {}, (OUTBOX, full))
    facts |= {"uri": above.get("uri"), "parent": parent.outbox.key}
    fresh = not (root / full).is_dir()
    outbox = Outbox.create(root, full, facts)
    if not fresh:
        outbox.add("reopen")
    return StageRun(outbox)


@contextmanager
def nested_run(parent: StageRun, name: str, settings: Mapping[str, Any]) -> Iterator[StageRun]:
    """A part of a stage's work as a run nested in the stage's; closed with its outcome."""
    with _closing(trial_run(parent, name, settings, name.replace("/", "-"))) as run:
        yield run


def release_run(manifest: Mapping[str, Any], dataset: str, digest: str, artifacts: Path) -> str:
    """Record a release in the experiment `releases`; two of them compare side by side in the UI.

    The run begins when the first of the stages did that made the release, and has their hours, the
    numbers to compare first under names that last (HEADLINES), all numbers of the manifest, the
    datasets and the models.

    Args:
        dataset: its name in params.yaml. digest: sha256 of the manifest. The same release is
            recorded once: a second call finds it.
        artifacts: a folder whose content is kept with the run.

    Returns:
        the id of the run; empty while the tracking server does not answer.

    Raises:
        EchosynError: the tracking store refuses us.
    """
    identity = {"release": f"{manifest['name']}@v{manifest['version']}", "manifest_sha256": digest}
    made_of = {**manifest["lineage"]["data"], **manifest["lineage"]["models"]}
    tags = {**{f"md5:{k}": v for k, v in made_of.items()}, **manifest["protocol"]}
    all_tags = {**lineage.project(), **tags, **identity}
    unique = ("manifest_sha256", digest)
    facts = _facts(RELEASES, identity["release"], manifest["params"], all_tags, unique)
    facts |= {"once": True, "made_of": made_of}
    outbox = Outbox.create(_root(), f"release-{digest[:16]}", facts)
    sender = _sender(_root())
    if not _carried():
        sender.first_contact(outbox)
    if outbox.exists and not outbox.facts.get("ended"):
        with _closing(StageRun(outbox)) as run:
            numbers = {**manifest["metrics"], **release.headlines(manifest["metrics"])}
            run.outbox.add_metrics([(k, float(v), None, 0) for k, v in numbers.items()])
            for entry in release.datasets(manifest, dataset, digest):
                run.outbox.add("dataset", dataset=entry)
            for entry in release.models(manifest):
                run.outbox.add("model", model=entry)
            run.artifact(artifacts)
    return sender.run_ids.get(outbox.key, "")


@contextmanager
def recorded_release(name: str, digest: str) -> Iterator[StageRun]:
    """The run that `release_run` recorded, to add to; its outcome and its hours stay as they are.
    Where the store has no such run a line on standard error says so, and nothing is added.

    Args:
        name: for that line. digest: sha256 of the manifest.

    Raises:
        EchosynError: the tracking store refuses us.
    """
    key = f"release-{digest[:16]}-{uuid.uuid4().hex[:8]}"
    facts = {**_facts(RELEASES, name, {}, {}, ("manifest_sha256", digest)), "existing": True}
    hidden = Outbox.create(_root(), f".{key}", facts)  # from senders, until it is whole
    try:
        yield StageRun(hidden)
        hidden.add("end", status="FINISHED", time=None)
        outbox = Outbox(hidden.folder.rename(_root() / key))
    finally:
        hidden.remove()
    if not _carried():
        _sender(_root()).first_contact(outbox)


def carry(until: Callable[[], bool]) -> int:
    """Send what any process leaves in the project's outboxes, until asked to stop and all is sent
    or nothing answers; the operations left over.

    Processes that have `CARRIED` in their environment leave the sending to this one: each is spared
    the import of MLflow and its opening of the store.

    Raises:
        EchosynError: the tracking store refuses us.
    """
    root = _root()
    sender = _sender(root)
    known: set[str] = set()
    while not until():
        for outbox in outboxes(root):
            if outbox.key not in known:
                known.add(outbox.key)
                sender.first_contact(outbox)  # and its thread goes on with it
        time.sleep(PAUSE)
    return sync(root)[1]


def _carried() -> bool:
    return bool(os.environ.get(CARRIED))


def sync(root: Path | None = None) -> tuple[int, int]:
    """Send everything that waits under `root` (the project's outboxes by default).

    Returns:
        operations sent, and operations still waiting (a line on standard error says why).
    """
    root = root or _root()
    sender, waiting = _sender(root), 0
    for outbox in outboxes(root):
        waiting += len(outbox.operations())
        sender.first_contact(outbox)
        sender.deliver(outbox)
    sender.round()
    left = sum(len(outbox.operations()) for outbox in outboxes(root))
    return waiting - left, left


def tracking_uri() -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI, else the project's own SQLite store."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    return uri or own_store(_root())


def _root() -> Path:
    return state_root().resolve() / "outbox"


@cache
def _sender(root: Path) -> Sender:
    mend_store(root.parents[1] / OWN_STORE)  # when the project was moved since its last run
    return Sender(root)


def _facts(
    experiment: str,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    unique: tuple[str, str],
) -> dict[str, Any]:
    """What the run of an outbox is; `unique` is the tag by which it is found again."""
    return {
        "uri": os.environ.get("MLFLOW_TRACKING_URI"),  # none: the project's own
        "experiment": experiment,
        "name": name,
        "params": dict(params),
        "tags": dict(tags),
        "unique": list(unique),
        "start_time": _milliseconds(),
    }


def _continued(note: Path | None, params_hash: str) -> Outbox | None:
    """The outbox that `note` names, opened again, if it is of these settings and this store."""
    if note is None or not note.exists():
        return None
    kept = read_json(note)
    outbox = Outbox(_root() / kept.get("outbox", "none"))
    if kept["params_hash"] != params_hash or not outbox.exists:
        return None
    if outbox.uri != tracking_uri():
        return None
    outbox.add("reopen")
    return outbox


def _milliseconds() -> int:
    """The time of day as of this process's start, and what has passed since: a run's duration is
    right though the clock was set meanwhile."""
    return (_START + time.monotonic_ns()) // 1_000_000
