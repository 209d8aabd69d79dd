"""Calls to MLflow, and what their failures mean. Only this file and `catalog` know MLflow, and
`echosyn.runtime.place` the tables of its SQLite store."""

import json
import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from echosyn.runtime import lineage
from echosyn.runtime.errors import EchosynError
from echosyn.tracking import catalog
from echosyn.tracking.outbox import decoded
from echosyn.tracking.release import COST, HEADLINES, VIEW

STAGES = "stages"
RELEASES = "releases"
OUTBOX = "echosyn.outbox"  # tag that names the outbox a run came from
# Limits of one MLflow request.
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_VALUE = 5000
# What SQLite says of a file that is no database of ours, or one that was cut or overwritten.
DAMAGE = (
    "file is not a database",
    "malformed",
    "unsupported file format",
    "file is encrypted",
    "no such table",
)
LAYERS = ("mlflow", "sqlalchemy", "requests", "urllib3", "sqlite3", "alembic")


class NoAnswerError(Exception):
    """The server cannot be reached now, or is not able to answer: try again later."""


class DamagedError(NoAnswerError):
    """The SQLite file of the store is no database any more: it must be moved aside first."""

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(f"{shown_file(file)} is damaged ({why})")
        self.file = file


class NeverError(Exception):
    """The server refuses this operation and will do so again."""


class RunGoneError(Exception):
    """The run that an outbox continues is not in the store any more."""


class Store:
    """A tracking store, opened on first use.

    Every method raises NoAnswerError when trying later may help (DamagedError once the user has
    moved the file aside), NeverError when this operation is
    refused for good, and EchosynError for what the user must mend (address, login, MLflow itself).
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: Any = None

    @property
    def client(self) -> Any:
        if self._client is None:
            self._client = _connect(self.uri)
        return self._client

    @property
    def _stages(self) -> str:
        return experiment_id(self.client, self.uri, STAGES)

    def create(self, facts: Mapping[str, Any], parent: str | None) -> tuple[str, int, str] | None:
        """The run of an outbox: the one that is there, or a new one.

        Returns:
            its id, its start in milliseconds, and its status; None where it must be there
            (`existing`) and is not.
        """
        with self.failures():
            experiment = experiment_id(self.client, self.uri, facts["experiment"])
            name, value = facts["unique"]
            found = self.client.search_runs(
                [experiment], f"tags.`{name}` = '{value}'", max_results=1
            )
            if found:
                info = found[0].info
                return info.run_id, info.start_time, info.status
            if facts.get("existing"):
                return None
            tags = {**facts["tags"], name: value}
            if parent:
                tags["mlflow.parentRunId"] = parent
            start, hours = facts["start_time"], None
            if made_of := facts.get("made_of"):
                known = catalog.history(self.client, self._stages, made_of)
                start, hours = known or (start, None)
            run = self.client.create_run(experiment, start, tags, facts["name"])
            self._params(run.info.run_id, facts["params"])
            if hours is not None:
                self.client.log_metric(run.info.run_id, COST, hours, start, 0)
        return run.info.run_id, start, "RUNNING"

    def _params(self, run_id: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        flat = lineage.flatten(params)
        texts = {
            k: v if isinstance(v, str) else json.dumps(v, default=str) for k, v in flat.items()
        }
        logged = [Param(key, text[:MAX_VALUE]) for key, text in texts.items()]
        for i in range(0, len(logged), MAX_PARAMS):
            self.client.log_batch(run_id, params=logged[i : i + MAX_PARAMS])

    def send(self, run_id: str, operation: Mapping[str, Any], folder: Path, start: int) -> None:
        """Carry out one operation of the outbox in `folder`; twice is the same as once."""
        from mlflow.entities import Metric

        with self.failures():
            match operation["kind"]:
                case "metrics":
                    # The store keeps one of equal (name, value, time, step): resending is harmless.
                    rows = decoded(operation["rows"])
                    metrics = [Metric(k, v, start if t is None else t, s) for k, v, t, s in rows]
                    for i in range(0, len(metrics), MAX_METRICS):
                        self.client.log_batch(run_id, metrics=metrics[i : i + MAX_METRICS])
                case "tag":
                    self.client.set_tag(run_id, operation["name"], operation["value"][:MAX_VALUE])
                case "artifact":
                    source = str(folder / operation["path"])
                    self.client.log_artifacts(run_id, source, operation["folder"])
                case "dataset":
                    catalog.log_dataset(self.client, run_id, operation["dataset"])
                case "model":
                    catalog.log_model(self.client, run_id, self._stages, operation["model"])
                case "alias":
                    catalog.set_alias(self.client, operation["models"], operation["alias"],
                                      operation["given"])  # fmt: skip
                case "reopen":
                    self._reopen(run_id)
                case "end" if operation["time"] is not None:  # else it had ended before
                    # Not before the start, though the clock was set back between two processes.
                    at = max(operation["time"], start)
                    self.client.set_terminated(run_id, operation["status"], at)

    def _reopen(self, run_id: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(run_id)
        except MlflowException as e:
            if e.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise RunGoneError from e
            raise
        if run.info.lifecycle_stage != "active":
            raise RunGoneError
        self.client.update_run(run_id, status="RUNNING")
        if "error" in run.data.tags:
            self.client.delete_tag(run_id, "error")

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Sort what MLflow, its database layer or its HTTP layer raise by what can be done."""
        try:
            yield
        except (EchosynError, RunGoneError, TypeError, AttributeError):
            raise
        except Exception as e:
            layer = type(e).__module__.partition(".")[0]
            if layer not in LAYERS and not isinstance(e, OSError):
                raise
            text = str(e).strip().splitlines()[0][:200] if str(e).strip() else repr(e)
            message = re.sub(r"//[^@/\s]*@", "//***@", f"{shown(self.uri)} failed: {text}")
            file = _sqlite_file(self.uri)
            if file is not None and any(sign in str(e) for sign in DAMAGE):
                raise DamagedError(file, text) from e
            kind = _meaning(e)
            if kind is EchosynError:
                fix = _fix(self.uri, file, text)
                raise EchosynError(f"the MLflow tracking store {message}\n{fix}") from e
            raise kind(message) from e


def _fix(uri: str, file: Path | None, text: str) -> str:
    """What the user can do about a store that does not take our records, in one sentence."""
    if file is None:
        return (
            "Check MLFLOW_TRACKING_URI and its login (MLFLOW_TRACKING_USERNAME, "
            "MLFLOW_TRACKING_PASSWORD), or unset it to use mlruns/mlflow.db of the project."
        )
    if "schema" in text or "revision" in text:
        return (
            f"Another version of MLflow made it: bring it up to date (mlflow db upgrade {uri}), or "
            f"move it aside ({move_aside(file)})."
        )
    return (
        f"Let this user write {shown_file(file)} and its folder, or set MLFLOW_TRACKING_URI to "
        "another store."
    )


def move_aside(file: Path) -> str:
    """The command that moves a store's file out of the way and keeps it."""
    name = shown_file(file)
    return f"mv {shlex.quote(name)} {shlex.quote(name + '.damaged')}"


def shown_file(file: Path) -> str:
    """A store's file as a user would name it here."""
    here = Path.cwd().resolve()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _meaning(e: Exception) -> type[Exception]:
    text, layer = str(e), type(e).__module__.partition(".")[0]
    code = re.search(r"error code (\d{3})", text)
    status = int(code.group(1)) if code else 0
    name = getattr(e, "error_code", "")
    if status in (401, 403) or name in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return EchosynError
    if status >= 500 or status in (408, 429) or name in ("TEMPORARILY_UNAVAILABLE", "ABORTED"):
        return NoAnswerError
    if "database is locked" in text or "failed with exception" in text:
        return NoAnswerError
    if layer in ("requests", "urllib3") or isinstance(e, ConnectionError | TimeoutError):
        return NoAnswerError
    if layer in ("sqlalchemy", "sqlite3", "alembic") or "unsupported URI" in text:
        return EchosynError
    if name == "INTERNAL_ERROR" and "sqlite3" not in text:
        return NoAnswerError
    return EchosynError if "sqlite3" in text or isinstance(e, OSError) else NeverError


def shown(uri: str) -> str:
    """An address without its password."""
    return re.sub(r"//[^@/\s]*@", "//***@", uri)


def _connect(uri: str) -> Any:
    """A client of the store, which is created when it does not exist yet."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # The sender tries again itself, and says so.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }.items():
        os.environ.setdefault(name, value)
    if _sqlite_file(uri) is not None:
        # No connection stays open: a damaged file that is moved aside is let go of.
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as e:
        raise EchosynError(
            f"MLflow is not installed ({e}): make install, or train with NullRun"
        ) from e
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with Store(uri).failures(), _creation_lock(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        for name in (STAGES, RELEASES):
            experiment_id(client, uri, name)
    return client


def experiment_id(client: Any, uri: str, name: str) -> str:
    """Id of an experiment, which is created when it does not exist yet."""
    found = client.get_experiment_by_name(name)
    # The UI then opens the table of runs, not its pages about language models.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    if name == RELEASES:
        tags |= [catalog.view_tag(VIEW, list(HEADLINES), COST)]
    if found is None:
        return client.create_experiment(name, _artifact_location(uri), tags=tags)
    if found.lifecycle_stage != "active":
        raise EchosynError(
            f"the MLflow experiment '{name}' in {shown(uri)} was deleted: restore it with "
            f"MLFLOW_TRACKING_URI={shlex.quote(shown(uri))} mlflow experiments restore "
            f"--experiment-id {found.experiment_id}"
        )
    for key, value in tags.items():
        if found.tags.get(key) != value:  # the store of an earlier version
            client.set_experiment_tag(found.experiment_id, key, value)
    return found.experiment_id


def _sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store; None of any other."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).resolve()


def _artifact_location(uri: str) -> str | None:
    """Absolute beside a SQLite file, where MLflow would use the working directory; else the
    store's own choice."""
    file = _sqlite_file(uri)
    return (file.parent / "artifacts").as_uri() if file else None


@contextmanager
def _creation_lock(uri: str) -> Iterator[None]:
    """One process at a time: several that open a fresh SQLite store at once crash in MLflow."""
    file = _sqlite_file(uri)
    if file is None:
        yield
        return
    from filelock import FileLock

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.with_suffix(".lock"), timeout=300)
        lock.acquire()
    except (OSError, TimeoutError) as e:
        raise EchosynError(
            f"cannot open the tracking store {shown_file(file)}: {e}\n{_fix(uri, file, str(e))}"
        ) from e
    try:
        yield
    finally:
        lock.release()
