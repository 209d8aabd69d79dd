"""Stages that need not import for seconds: each is forked from a process that has.

Stages stay what they are, processes with their own arguments, folder, environment, output and exit
status, and import this project's modules themselves; only what they import of others is there
already. `python` in FOLDER/bin asks for one for `-m pipelines.STAGE`; else it is the real one.

python warm.py, with a listening socket as standard input: import, then fork what is asked for.
"""

import ast
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

from echosyn.runtime.process import QUIET, end_with_parent

HERE = Path(__file__)
SIZE = struct.Struct("!I")
# Our own modules are those of the project that asks; the others no stage of a test needs.
NOT_WARMED = {"dvc", "echosyn", "nibabel", "pipelines", "pydicom", "ray"}
# What others import at their first use.
AT_FIRST_USE = (
    "mlflow.store.db.utils",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking",
    "torch._dynamo",
)


def start(folder):
    """Make FOLDER/bin/python and the process that it asks."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin/python"
    words = (sys.executable, HERE.with_name("warm_client.py"), folder, sys.executable)
    python.write_text('#!/bin/sh\nexec "{}" -IS "{}" "{}" "{}" "$@"\n'.format(*words))
    python.chmod(0o755)
    own = {**os.environ, **QUIET, "OMP_NUM_THREADS": "1"}
    own.pop("PYTHONDONTWRITEBYTECODE", None)  # read when Python starts, so not of who asks
    place = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener, (folder / "log").open("w") as log:
        listener.bind(f"/proc/self/fd/{place}/socket")  # an address is a hundred letters at most
        listener.listen(64)
        os.close(place)
        return subprocess.Popen(
            [sys.executable, HERE], env=own, stdin=listener, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=end_with_parent,  # noqa: PLW1509
        )  # fmt: skip


def stop(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def imports():
    """What this project's modules import of others, at module level or inside functions."""
    found = set()
    root = HERE.parents[2]
    for file in [*root.glob("echosyn/**/*.py"), *root.glob("pipelines/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add((node.module, tuple(a.name for a in node.names)))
            elif isinstance(node, ast.Import):
                found |= {(a.name, ()) for a in node.names}
    return sorted(f for f in found if f[0].split(".")[0] not in NOT_WARMED)


def warm():
    for module, names in [*imports(), *((m, ()) for m in AT_FIRST_USE)]:
        with contextlib.suppress(ImportError):  # optional, as it is for the code
            imported = importlib.import_module(module)
            for name in names:  # some packages import when asked for a name
                getattr(imported, name, None)
    if threading.active_count() > 1:
        raise RuntimeError("an import started a thread, which forks would not have")
    gc.freeze()


def serve():
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
        asked = json.loads(rest.read(*SIZE.unpack(head)))
    stage = os.fork()
    if stage:
        watch(client, stage)
        os._exit(0)
    client.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    return asked


def watch(client, stage):
    """Hand on the status of the stage when it has ended; end it when its client has."""
    end_with_parent(signal.SIGKILL)
    ended = os.pidfd_open(stage)
    if ended not in select.select([client, ended], [], [])[0]:
        os.kill(stage, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(stage, 0)[1])
    with contextlib.suppress(OSError):
        client.send(bytes([code if code >= 0 else 128 - code]))


def main():
    own = [p for p in sys.path if p != str(HERE.parent)]
    warm()
    arguments, folder, environment, umask = serve()
    for name in [m for m in sys.modules if m.split(".")[0] == "echosyn"]:
        del sys.modules[name]
    sys.modules["numpy"].random.seed()  # as in a process of its own; others see to it themselves
    os.chdir(folder)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [folder, *filter(None, given), *own]
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
