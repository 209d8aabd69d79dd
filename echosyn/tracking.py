"""Runs in MLflow: one per stage execution, one per release. The only file that knows MLflow.

The store is `MLFLOW_TRACKING_URI`, or else `mlruns/mlflow.db` in the project (in the original
project when DVC runs a queued experiment elsewhere). MLflow is imported on the first run, so that
training code may import this module where MLflow is not installed.
"""

import dataclasses
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from echosyn import lineage
from echosyn.errors import EchosynError
from echosyn.files import fingerprint, read_json, write_json
from echosyn.runtime import state_root

STAGES = "stages"
RELEASES = "releases"
# Limits of one MLflow request.
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_VALUE = 5000


class Log(Protocol):
    """What a training loop needs of a run."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def resumed(self, step: int) -> None: ...

    def committing(self, step: int) -> AbstractContextManager: ...

    def flush(self) -> None: ...


class NullRun:
    """A run that records nothing."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def resumed(self, step: int) -> None:
        pass

    def committing(self, step: int) -> AbstractContextManager:
        return nullcontext()

    def flush(self) -> None:
        pass


class StageRun:
    """One open MLflow run. Pickles to the address of the store and the run's id, so that a worker
    process can log into the run that its driver created."""

    def __init__(self, uri: str, run_id: str, client: Any = None) -> None:
        self.uri = uri
        self.run_id = run_id
        self._client = client or _connect(uri)
        self._buffer: list[tuple[str, float, int, int]] = []

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return StageRun, (self.uri, self.run_id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the values of a step until the next `flush`."""
        now = time.time_ns() // 1_000_000
        self._buffer += [(key, float(value), now, step) for key, value in values.items()]

    def resumed(self, step: int) -> None:
        """Training goes on from a checkpoint of `step`; later steps were never sent."""

    @contextmanager
    def committing(self, step: int) -> Iterator[None]:
        """Around saving the checkpoint of `step`: what was logged so far is sent after it."""
        yield
        self.flush()

    def flush(self) -> None:
        """Send what `log` kept. Called right after a checkpoint was written, and only then: steps
        that a killed process repeats after its resume were never sent before."""
        from mlflow.entities import Metric

        with _clear_errors(self.uri):
            for i in range(0, len(self._buffer), MAX_METRICS):
                metrics = [Metric(*m) for m in self._buffer[i : i + MAX_METRICS]]
                self._client.log_batch(self.run_id, metrics=metrics)
        self._buffer.clear()

    def final(self, values: Mapping[str, float], path: Path | str) -> None:
        """Record a stage's final numbers in MLflow and, the same ones, as flat JSON at `path`."""
        numbers = {k: v.item() if hasattr(v, "item") else v for k, v in values.items()}
        with _clear_errors(self.uri):
            known = self._client.get_run(self.run_id).data.metrics
        self.log(0, {k: v for k, v in numbers.items() if known.get(k) != float(v)})
        self.flush()
        write_json(path, numbers)

    def tag(self, name: str, value: str) -> None:
        with _clear_errors(self.uri):
            self._client.set_tag(self.run_id, name, str(value)[:MAX_VALUE])

    def output(self, path: Path | str) -> None:
        """Tag the run with the md5 that DVC will record for an output just written."""
        self.tag(f"md5:{Path(path).as_posix()}", lineage.dvc_md5(Path(path)))

    def artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Keep a copy of a file, or of a folder's content, with the run."""
        send = self._client.log_artifacts if Path(path).is_dir() else self._client.log_artifact
        with _clear_errors(self.uri):
            send(self.run_id, str(path), folder)

    def figure(self, fig: Any, name: str) -> None:
        """Keep a matplotlib figure with the run, as `name` (its ending gives the format)."""
        with _clear_errors(self.uri):
            self._client.log_figure(self.run_id, fig, name)

    def _end(self, status: str) -> None:
        with _clear_errors(self.uri):
            self._client.set_terminated(self.run_id, status)


@contextmanager
def _closing(run: StageRun) -> Iterator[StageRun]:
    """End the run with the outcome of the block."""
    try:
        yield run
        run.flush()
        run._end("FINISHED")
    except KeyboardInterrupt:
        with suppress(EchosynError):  # why it ended matters more than a lost connection
            run._end("KILLED")
        raise
    except BaseException as e:
        with suppress(EchosynError):
            run.tag("error", f"{type(e).__name__}: {e}")
            run._end("FAILED")
        raise


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
        resume_dir: folder of the stage's resumable state. The run's id is kept there, so that a
            stage that was killed and started again continues the same run.

    An exception ends the run as FAILED with its message as the tag `error`, an interrupt as KILLED.

    Raises:
        EchosynError: the tracking store cannot be reached.
    """
    values = dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else dict(settings)
    tags = {
        "stage": stage,
        "subject": subject,
        "params_hash": fingerprint(values),
        **lineage.project(),
        **{f"md5:{path}": md5 for path, md5 in lineage.inputs(inputs).items()},
    }
    uri = tracking_uri()
    client = _connect(uri)
    note = resume_dir / "run.json" if resume_dir else None
    with _clear_errors(uri):
        run_id = _resumable(client, note, tags["params_hash"])
        if run_id is None:
            experiment = _experiment(client, uri, STAGES)
            run_id = _create(client, experiment, f"{stage}/{subject}", values, tags)
            if note:
                write_json(note, {"run_id": run_id, "params_hash": tags["params_hash"]})
    with _closing(StageRun(uri, run_id, client)) as run:
        yield run


def release_run(
    *,
    name: str,
    version: str,
    digest: str,
    metrics: Mapping[str, float],
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    artifacts: Path,
) -> str:
    """Record a release in the experiment `releases`; two of them compare side by side in the UI.

    Args:
        digest: sha256 of the manifest. The same release is recorded once: a second call finds it.
        artifacts: a folder whose content is kept with the run.

    Returns:
        the id of the run.

    Raises:
        EchosynError: the tracking store cannot be reached.
    """
    uri = tracking_uri()
    client = _connect(uri)
    with _clear_errors(uri):
        experiment = _experiment(client, uri, RELEASES)
        earlier = client.search_runs(
            [experiment],
            f"tags.manifest_sha256 = '{digest}' and status = 'FINISHED'",
            max_results=1,
        )
        if earlier:
            return earlier[0].info.run_id
        identity = {"release": f"{name}@v{version}", "manifest_sha256": digest}
        all_tags = {**lineage.project(), **tags, **identity}
        run_id = _create(client, experiment, identity["release"], params, all_tags)
    with _closing(StageRun(uri, run_id, client)) as run:
        run.log(0, metrics)
        run.artifact(artifacts)
    return run_id


def tracking_uri() -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI, else the project's own SQLite store."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    return uri or f"sqlite:///{state_root().parent.resolve() / 'mlruns' / 'mlflow.db'}"


def _connect(uri: str) -> Any:
    """A client of the store, which is created when it does not exist yet."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as e:
        raise EchosynError(
            f"MLflow is not installed ({e}): make install, or train with NullRun"
        ) from e
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with _clear_errors(uri), _creation_lock(uri), _short_retries():
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        for name in (STAGES, RELEASES):
            _experiment(client, uri, name)
    return client


def _experiment(client: Any, uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        # The UI then opens the table of runs, not its pages about language models.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return client.create_experiment(name, _artifact_location(uri), tags=kind)
    if found.lifecycle_stage != "active":
        raise EchosynError(
            f"the MLflow experiment '{name}' in {uri} was deleted: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return found.experiment_id


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


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
        raise EchosynError(f"cannot open the tracking store {uri}: {e}") from e
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _short_retries() -> Iterator[None]:
    """A wrong address should fail in seconds; a server that restarts later is waited for."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    given = os.environ.get(name)
    os.environ[name] = given or "1"
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]


@contextmanager
def _clear_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow, its database layer or its HTTP layer raise into one clear message."""
    try:
        yield
    except (EchosynError, TypeError, AttributeError):
        raise
    except Exception as e:
        layer = type(e).__module__.partition(".")[0]
        if layer not in ("mlflow", "sqlalchemy", "requests", "urllib3", "sqlite3", "alembic"):
            raise
        message = f"the MLflow tracking store {uri} failed: {str(e).strip().splitlines()[0][:300]}"
        message = re.sub(r"//[^@/\s]*@", "//***@", message)  # an address may hold a password
        raise EchosynError(
            f"{message}\n"
            "Check MLFLOW_TRACKING_URI, or unset it to use mlruns/mlflow.db of the project."
        ) from e


def _create(
    client: Any, experiment: str, name: str, params: Mapping[str, Any], tags: dict[str, str]
) -> str:
    from mlflow.entities import Param

    run = client.create_run(experiment, run_name=name, tags=tags)
    flat = lineage.flatten(params)
    texts = {k: v if isinstance(v, str) else json.dumps(v, default=str) for k, v in flat.items()}
    logged = [Param(key, text[:MAX_VALUE]) for key, text in texts.items()]
    for i in range(0, len(logged), MAX_PARAMS):
        client.log_batch(run.info.run_id, params=logged[i : i + MAX_PARAMS])
    return run.info.run_id


def _resumable(client: Any, note: Path | None, params_hash: str) -> str | None:
    """The run that `note` names, opened again, if the store still has it with these settings."""
    from mlflow.exceptions import MlflowException

    if note is None or not note.exists():
        return None
    kept = read_json(note)
    if kept["params_hash"] != params_hash:
        return None
    try:
        run = client.get_run(kept["run_id"])
    except MlflowException as e:
        if e.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    if run.info.lifecycle_stage != "active":
        return None
    client.update_run(run.info.run_id, status="RUNNING")
    if "error" in run.data.tags:
        client.delete_tag(run.info.run_id, "error")
    return run.info.run_id
