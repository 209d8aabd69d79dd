"""What a submitted job runs on the head node: look at the cluster, then `dvc repro`.

python -m echosyn.cluster.job [--force ...] [targets]
"""

import signal
import subprocess
import sys

from echosyn.cluster.checks import check_nodes
from echosyn.cluster.connect import connect
from echosyn.errors import EchosynError
from echosyn.runtime import end_with_parent, prepare, project_root


def main(arguments: list[str]) -> int:
    """Run `dvc repro arguments` after the checks; its exit status.

    A stop (SIGTERM) is passed on, so that the running stage saves what it has. Should this process
    be killed, `dvc repro` and with it the stage are told to end too.
    """
    prepare()
    root = project_root().resolve()
    with connect(root) as ray:
        print(f"cluster: {check_nodes(ray, root)}", flush=True)
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    # Ray is shut down: no thread of it holds a lock when the child is forked.
    child = subprocess.Popen(command, cwd=root, preexec_fn=end_with_parent)  # noqa: PLW1509
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _: child.send_signal(n))
    status = child.wait()
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EchosynError as e:
        sys.exit(f"echosyn: {e}")
