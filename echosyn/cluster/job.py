"""What a submitted job runs on the head node: look at the cluster, then `dvc repro`.

python -m echosyn.cluster.job [--force ...] [targets]
"""

import os
import signal
import subprocess
import sys

from echosyn.cluster.checks import check_nodes
from echosyn.cluster.connect import connect
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.process import end_with_parent, prepare, project_root


def main(arguments: list[str]) -> int:
    """Run `dvc repro arguments` after the checks; its exit status.

    A stop (SIGTERM) reaches the running stage, which saves what it has, while `dvc repro` and this
    process wait for it. Should this process be killed, the stage saves and ends too.
    """
    prepare()
    root = project_root().resolve()
    with connect(root) as ray:
        print(f"cluster: {check_nodes(ray, root)}", flush=True)
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    # Ray is shut down: no thread of it holds a lock when the child is forked.
    child = subprocess.Popen(
        command,
        cwd=root,
        start_new_session=True,
        preexec_fn=_outlast_stop,  # noqa: PLW1509
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.killpg(child.pid, signal.SIGTERM))
    status = child.wait()
    return 128 - status if status < 0 else status


def _outlast_stop() -> None:
    """In the child: DVC would end at SIGTERM and leave the stage alone; a stage listens anew."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent(signal.SIGKILL)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EchosynError as e:
        sys.exit(f"echosyn: {e}")
