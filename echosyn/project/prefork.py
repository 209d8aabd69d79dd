"""Stages that need not import for seconds: each is forked from a process that has.

Stages stay what they are, processes with their own arguments, folder, environment, output and exit
status, and import this project's modules themselves; only what they import of others is there
already. `python` in FOLDER/bin asks for one for `-m pipelines.STAGE`; until the process has
imported, and for everything else, it is the real one. Linux only.

python -m echosyn.project.prefork, with a listening socket as standard input: import, then fork what
is asked for.
"""

import ast
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from echosyn.runtime.files import write_text
from echosyn.runtime.process import STAND_IN, end_with_parent, prepare

HERE = Path(__file__)
SIZE, CREDENTIALS = struct.Struct("!I"), struct.Struct("3i")
READY = "ready"  # file in the folder, once everything is imported
WITHIN = "ECHOSYN_PREFORK"  # its folder, in the environment of what may ask it
# Our own modules are those of the project that asks; the others no stage needs.
NOT_IMPORTED = {"datasets", "dvc", "echosyn", "gto", "nibabel", "pipelines", "pydicom", "ray"}
# What others import at their first use.
AT_FIRST_USE = (
    "mlflow.store.db.utils",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking",
    "torch._dynamo",
)


@contextmanager
def prefork(folder: Path, env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Within the block there is such a process in `folder`; yields what the environment of those
    who may ask it has, over `env`; nothing where this process is itself within such a block, or
    not on Linux."""
    if WITHIN in os.environ or sys.platform != "linux":
        yield {}
        return
    process = start(folder, env)
    try:
        yield asking(folder, os.environ.get("PATH", os.defpath))
    finally:
        stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def asking(folder: Path, path: str) -> dict[str, str]:
    """What the environment has of those who may ask the process in `folder`; `path`: their PATH."""
    folder = folder.absolute()
    return {"PATH": os.pathsep.join([str(folder / "bin"), path]), WITHIN: str(folder)}


def start(folder: Path, env: Mapping[str, str]) -> subprocess.Popen:
    """Make FOLDER/bin/python and the process that it asks; `env`: over this process's own."""
    folder = folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin/python"
    words = (sys.executable, HERE.with_name("prefork_client.py"), folder, sys.executable)
    python.write_text('#!/bin/sh\nexec "{}" -IS "{}" "{}" "{}" "$@"\n'.format(*words))
    python.chmod(0o755)
    own = {**os.environ, **env, WITHIN: str(folder)}
    own.pop("PYTHONDONTWRITEBYTECODE", None)  # read when Python starts, so not of who asks
    place = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener, (folder / "log").open("w") as log:
        listener.bind(f"/proc/self/fd/{place}/socket")  # an address is a hundred letters at most
        listener.listen(64)
        os.close(place)
        return subprocess.Popen(
            [sys.executable, "-m", __name__], env=own, stdin=listener.fileno(), stdout=log,
            stderr=log, start_new_session=True, preexec_fn=end_with_parent,  # noqa: PLW1509
        )  # fmt: skip


def stop(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def imports() -> list[tuple[str, tuple[str, ...]]]:
    """What this project's modules import of others, at module level or inside functions."""
    found: set[tuple[str, tuple[str, ...]]] = set()
    root = HERE.parents[2]
    for file in [*root.glob("echosyn/**/*.py"), *root.glob("pipelines/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add((node.module, tuple(a.name for a in node.names)))
            elif isinstance(node, ast.Import):
                found |= {(a.name, ()) for a in node.names}
    return sorted(f for f in found if f[0].split(".")[0] not in NOT_IMPORTED)


def import_all() -> None:
    for module, names in [*imports(), *((m, ()) for m in AT_FIRST_USE)]:
        with contextlib.suppress(ImportError):  # optional, as it is for the code
            imported = importlib.import_module(module)
            for name in names:  # some packages import when asked for a name
                getattr(imported, name, None)
    if threading.active_count() > 1:
        raise RuntimeError("an import started a thread, which forks would not have")
    gc.freeze()


def serve() -> tuple[list[str], str, dict[str, str], int]:
    """Fork for each client; returns what it asks for, in the process that shall do it."""
    with socket.socket(fileno=0) as listener:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                break
            client.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, descriptors, *_ = socket.recv_fds(client, SIZE.size, 3)
    with client.makefile("rb") as rest:
        arguments, folder, environment, umask = json.loads(rest.read(*SIZE.unpack(head)))
    asker = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    environment[STAND_IN] = str(CREDENTIALS.unpack(asker)[0])
    stage = os.fork()
    if stage:
        watch(client, stage)
        os._exit(0)
    os.setsid()
    client.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    return arguments, folder, environment, umask


def watch(client: socket.socket, stage: int) -> None:
    """Hand on the status of the stage when it has ended, and to it the signals of its client; when
    that has ended, the stage is asked to."""
    end_with_parent(signal.SIGKILL)
    ended = os.pidfd_open(stage)
    listening = [client.fileno()]
    while ended not in select.select([*listening, ended], [], [])[0]:
        number = client.recv(1)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(stage, number[0] if number else signal.SIGTERM)
        if not number:
            listening = []
    code = os.waitstatus_to_exitcode(os.waitpid(stage, 0)[1])
    with contextlib.suppress(OSError):
        client.send(bytes([code if code >= 0 else 128 - code]))


def main() -> None:
    prepare()
    import_all()
    write_text(Path(os.environ[WITHIN]) / READY, "")
    arguments, folder, environment, umask = serve()
    for name in [m for m in sys.modules if m.split(".")[0] == "echosyn"]:
        del sys.modules[name]
    sys.modules["numpy"].random.seed()  # as in a process of its own; others see to it themselves
    os.chdir(folder)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [folder, *filter(None, given), *(p for p in sys.path if p)]
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
