"""One connection to the cluster per process, with errors in words."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from echosyn.cluster.settings import address
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.process import QUIET

# Read by Ray Train in its workers: stay in the project folder, whose paths are relative.
STAY = {"RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_V2_ENABLED": "1"}
# In a job of `echosyn submit`: workers get the environment below, not the job's.
OWN_ENVIRONMENT = {"RAY_OVERRIDE_JOB_RUNTIME_ENV": "1"}
INSTALL = "Ray is not installed here ({}): pip install -e '.[cluster]' -c constraints.txt"


def import_ray() -> Any:
    """The ray module.

    Raises:
        EchosynError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as e:
        raise EchosynError(INSTALL.format(e)) from e
    return ray


def worker_env(root: Path) -> dict[str, str]:
    """Environment of every worker: what a driver sets for itself does not reach them."""
    path = os.pathsep.join(p for p in (str(root), os.environ.get("PYTHONPATH", "")) if p)
    return {**QUIET, **STAY, "PYTHONPATH": path}


@contextmanager
def connect(root: Path, quiet: bool = False) -> Iterator[Any]:
    """Connect to the cluster at RAY_ADDRESS for the length of the block; yields the ray module.

    Inside another `connect` it is the same connection. quiet: what workers print stays there.

    Raises:
        EchosynError: no cluster there, another version of Ray or Python, or access refused.
    """
    where = address()
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    os.environ.update(STAY, **OWN_ENVIRONMENT)
    try:
        _knock(where or "")
        with _own_sigterm():
            ray.init(
                address=where,
                log_to_driver=not quiet,
                logging_level=logging.WARNING,
                runtime_env={"env_vars": worker_env(root)},
            )
    except Exception as e:
        raise _explained(e, where or "") from e
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def connect_here(root: Path, cpus: int) -> Iterator[Any]:
    """A Ray of this process's own on this machine, for the length of the block."""
    ray = import_ray()
    os.environ.update(STAY)
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            runtime_env={"env_vars": worker_env(root)},
        )
    except Exception as e:
        raise EchosynError(f"Ray does not start on this machine: {e}") from e
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's own answer to SIGTERM: ray.init sets one that skips all cleaning up."""
    own = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, own)


def _knock(where: str) -> None:
    """Raise OSError at once where nothing listens: Ray itself would try for two minutes."""
    host, colon, port = where.rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _explained(e: Exception, where: str) -> EchosynError:
    text = str(e).strip()
    first = text.splitlines()[0] if text else type(e).__name__
    if "ersion mismatch" in text:
        return EchosynError(
            f"the Ray cluster at {where} runs other versions: {' '.join(text.split())[:400]}. "
            "Start Ray on every node from the same environment"
        )
    if "uthentication" in type(e).__name__ or "oken" in first:
        return EchosynError(
            f"the Ray cluster at {where} refused access: {first}. Use its token "
            "(RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH; RAY_AUTH_MODE as on the cluster)"
        )
    if isinstance(e, OSError | RuntimeError | ValueError):
        return EchosynError(
            f"no Ray cluster answers at {where} ({first[:300]}). Is it up (`ray status`) and is "
            "RAY_ADDRESS right? Unset RAY_ADDRESS to run on this machine alone"
        )
    return EchosynError(f"cannot connect to the Ray cluster at {where}: {first[:300]}")
