"""`dvc repro` as a job of a cluster: submit, follow, list, stop."""

import asyncio
import logging
import os
import shlex
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from echosyn.cluster.connect import import_ray
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.process import QUIET

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
DETACHED = 3  # exit status of a submit that stopped looking while the job goes on
# Time for a stage to save its work when a job is stopped, in seconds.
GRACE = "60"

NO_JOBS_SERVER = (
    "answers, but is no jobs server: that is the head's dashboard port, 8265 by default, and needs "
    "ray[default] on the head"
)


@dataclass(frozen=True)
class Job:
    """One job of the cluster: seconds since 1970, and None where it has not come to that."""

    id: str
    status: str
    targets: str
    start: float | None
    end: float | None
    exit_code: int | None


def jobs_address(given: str | None) -> str:
    """Address of the jobs server: `given`, else RAY_API_SERVER_ADDRESS.

    Raises:
        EchosynError: none, or the address of something else.
    """
    address = given or os.environ.get("RAY_API_SERVER_ADDRESS", "")
    where = "--address" if given else "RAY_API_SERVER_ADDRESS"
    if not address:
        raise EchosynError(
            "no cluster given: --address http://HEAD:8265, or set RAY_API_SERVER_ADDRESS. To run "
            "on this machine alone: dvc repro"
        )
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        host = parts.hostname or "HEAD"
        host = "HEAD" if host == "auto" else host
        raise EchosynError(
            f"{where} {address}: the jobs server is wanted, http://{host}:8265 by default, not "
            "the cluster's own port or a Ray Client"
        )
    return address.rstrip("/")


class Jobs:
    """The jobs server of a cluster.

    Raises:
        EchosynError: by every method, when the server does not answer as one.
    """

    def __init__(self, address: str) -> None:
        ray = import_ray()
        self.address = address
        try:
            from ray.dashboard.modules.job import sdk
            from ray.job_submission import JobSubmissionClient
        except ImportError as e:
            raise EchosynError(
                f"the jobs client is not installed ({e}): pip install -e '.[cluster]' "
                "-c constraints.txt"
            ) from e
        sdk.logger.setLevel(logging.WARNING)
        _knock(address)
        try:
            self.client = JobSubmissionClient(address)
            theirs = self.client._server_ray_version  # get_version() is that of the protocol
        except ConnectionError as e:
            raise EchosynError(f"{address} {NO_JOBS_SERVER}") from e
        except Exception as e:
            raise self._explained(e) from e
        if theirs != ray.__version__:
            raise EchosynError(
                f"the cluster at {address} runs Ray {theirs}, this machine {ray.__version__}: "
                "install the same version on both (constraints.txt)"
            )

    def submit(self, project: Path, arguments: list[str]) -> str:
        """Start `dvc repro arguments` in the folder `project` of the head node; the job's id."""
        folder = shlex.quote(str(project))
        missing = f"echosyn: no folder {project} on the head node; --project names it as seen there"
        command = (
            f"cd {folder} 2>/dev/null || {{ echo {shlex.quote(missing)}; exit 1; }}; "
            "python=.venv/bin/python; [ -x $python ] || python=python; "
            f"exec $python -m echosyn.cluster.job {shlex.join(arguments)}"
        )
        variables = {**QUIET, "PYTHONUNBUFFERED": "1", "RAY_JOB_STOP_WAIT_TIME_S": GRACE}
        for name in ("ECHOSYN_THREADS", "MLFLOW_TRACKING_URI"):
            if os.environ.get(name):
                variables[name] = os.environ[name]
        if urlsplit(variables.get("MLFLOW_TRACKING_URI", "")).password:
            raise EchosynError(
                "MLFLOW_TRACKING_URI holds a password, which everybody who sees the cluster's jobs "
                "could read: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where Ray "
                "is started, and an address without them here"
            )
        patience = 4  # times 15 s, the server's own
        while True:
            try:
                return self.client.submit_job(
                    entrypoint=command,
                    runtime_env={"env_vars": variables},
                    metadata={"echosyn": " ".join(arguments) or "all"},
                )
            except Exception as e:
                patience -= 1
                if "No available agent" not in str(e) or not patience:
                    raise self._explained(e) from e
                print("the head is still starting; waiting for it", file=sys.stderr)

    def get(self, job: str) -> Job:
        try:
            return _job(self.client.get_job_info(job))
        except Exception as e:
            raise self._explained(e, job) from e

    def all(self) -> list[Job]:
        """Jobs that were submitted, newest first."""
        try:
            found = [j for j in self.client.list_jobs() if j.submission_id]
        except Exception as e:
            raise self._explained(e) from e
        return sorted(map(_job, found), key=lambda j: j.start or 0, reverse=True)

    def logs(self, job: str) -> str:
        try:
            return self.client.get_job_logs(job)
        except Exception as e:
            raise self._explained(e, job) from e

    def follow(self, job: str) -> Job:
        """Print what the job prints until it has ended, across lost connections; the ended job."""
        self.get(job)  # an unknown one is said at once
        shown = _Shown()
        while True:
            # Apart from the main thread, where asyncio would take Ctrl-C for itself.
            tail = threading.Thread(target=self._tail_once, args=(job, shown), daemon=True)
            tail.start()
            while tail.is_alive():
                tail.join(0.2)
            state = self._patiently(job)
            if state.status in ENDED:
                shown.upto(self.logs(job))  # what came between the last chunk and the end
                return state
            time.sleep(1)

    def _tail_once(self, job: str, shown: "_Shown") -> None:
        # A lost connection shows at the next question.
        with suppress(OSError, RuntimeError, EchosynError):
            asyncio.run(self._tail(job, shown))

    async def _tail(self, job: str, shown: "_Shown") -> None:
        text = ""
        async for chunk in self.client.tail_job_logs(job):  # from the job's beginning
            text += chunk
            shown.upto(text)

    def _patiently(self, job: str, seconds: float = 60.0) -> Job:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.get(job)
            except EchosynError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(2)

    def stop(self, job: str) -> Job:
        """End a job and wait until it has; a stage gets the time to save its work."""
        try:
            self.client.stop_job(job)
        except Exception as e:
            raise self._explained(e, job) from e
        deadline = time.monotonic() + 2 * int(GRACE)
        while (state := self._patiently(job)).status not in ENDED:
            if time.monotonic() > deadline:
                raise EchosynError(f"{job} is still {state.status} after {2 * int(GRACE)} s")
            time.sleep(0.5)
        return state

    def _explained(self, e: Exception, job: str = "") -> EchosynError:
        text = str(e)
        if job and "does not exist" in text:
            return EchosynError(f"no job {job} on {self.address}: `echosyn jobs` lists them")
        if "uthentication" in type(e).__name__ or "401" in text or "403" in text:
            return EchosynError(
                f"{self.address} refused access: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH as on the cluster"
            )
        if isinstance(e, ConnectionError):
            return EchosynError(f"{self.address} does not answer any more: {text[:200]}")
        if "404" in text or "JSON" in text or "Expecting value" in text or "HTTP" in text:
            return EchosynError(f"{self.address} {NO_JOBS_SERVER}")
        return EchosynError(f"the jobs server {self.address} failed: {text[:300] or e!r}")


class _Shown:
    """What of a growing text was printed, so that no line is printed twice."""

    def __init__(self) -> None:
        self.length = 0

    def upto(self, text: str) -> None:
        sys.stdout.write(text[self.length :])
        sys.stdout.flush()
        self.length = max(self.length, len(text))


def _job(details: Any) -> Job:
    status = getattr(details.status, "value", details.status)
    return Job(
        details.submission_id,
        str(status),
        (details.metadata or {}).get("echosyn", details.entrypoint),
        details.start_time / 1000 if details.start_time else None,
        details.end_time / 1000 if details.end_time else None,
        details.driver_exit_code,
    )


def _knock(address: str) -> None:
    """Tell apart what does not answer from what answers wrongly."""
    import socket

    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=5).close()
    except ConnectionRefusedError:
        raise EchosynError(
            f"nothing listens at {address}. Is the head up, and with a jobs server? It needs "
            "ray[default], and `ray start --head` without --include-dashboard=false; from another "
            "machine it is reached through a tunnel: ssh -L 8265:localhost:8265 HEAD"
        ) from None
    except OSError as e:
        raise EchosynError(f"{address} cannot be reached: {e}") from None


def exit_status(job: Job) -> int:
    """Exit status of a command that waited for a job: the job's own; 130 for a stopped one."""
    if job.status == "SUCCEEDED":
        return 0
    return 130 if job.status == "STOPPED" else job.exit_code or 1
