"""A real Ray cluster of several nodes on this machine: each node a raylet in its own process group.

Stops everything it started, also when a test fails; never touches another cluster.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).parent / "ray")
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Notice a dead node in seconds instead of half a minute: what was killed refuses at once. What
    # is only slow, as all is on a busy machine, has the time to answer and to start.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_worker_register_timeout_seconds": "600",
    # Each driver would find idle processes for all CPUs, most of which nothing here ever uses.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_worker_niceness": "0",  # at Ray's 15, what else is busy leaves workers next to nothing
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5",
    "ECHOSYN_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # The plain one, which does not replace itself by its last command.
    "SHELL": "/bin/sh",
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class LocalCluster:
    """`nodes` raylets of `cpus` CPUs each, the first with the head; use as a context manager.

    jobs: also start the jobs server (`jobs_address`).
    """

    def __init__(self, nodes=2, cpus=1, jobs=False, **environment):
        self.cpus, self.jobs = cpus, jobs
        self.environment = {**os.environ, **ENVIRONMENT, **environment}
        self.environment.pop("RAY_ADDRESS", None)
        # As in an activated environment: jobs run the `python` found there.
        self.environment["PATH"] = f"{Path(RAY).parent}{os.pathsep}{os.environ['PATH']}"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
        self.nodes = []
        self.start_head()
        for _ in range(nodes - 1):
            self.add_node()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def start_head(self):
        dashboard = ["--include-dashboard=false"]
        if self.jobs:
            self.jobs_port = free_port()
            self.jobs_address = f"http://127.0.0.1:{self.jobs_port}"
            dashboard = ["--include-dashboard=true", f"--dashboard-port={self.jobs_port}"]
        self.nodes.insert(
            0, self._start("--head", f"--port={self.port}", f"--temp-dir={self.folder}", *dashboard)
        )
        self._until(lambda: self._answers(self.port), "the head")
        if self.jobs:
            self._until(lambda: self._answers(self.jobs_port), "the jobs server")

    def add_node(self, inside=()):
        """One more raylet; `inside` is a command that runs the command after it elsewhere."""
        options = (
            f"--address={self.address}", f"--node-name=node{len(self.nodes)}",
            "--include-log-monitor=false",  # the head's reads the logs of this machine
        )  # fmt: skip
        self.nodes.append(self._start(*options, inside=inside))
        self._until_known()

    def _until_known(self):
        """Wait until the cluster knows which of its nodes are alive."""
        command = [sys.executable, "-c", AWAIT, self.address, str(len(self.nodes))]
        with subprocess.Popen(command, env=self.environment, stderr=subprocess.DEVNULL) as alive:
            try:
                self._until(lambda: alive.poll() == 0, "a node")
            finally:
                alive.kill()

    def drain(self, index, seconds):
        """Tell the cluster that a node will be taken away, as a cloud does before preemption."""
        code = DRAIN.format(address=self.address, name=f"node{index}", seconds=seconds)
        subprocess.run([sys.executable, "-c", code], env=self.environment, check=True)

    def lose_node(self, index):
        """kill -9 a node, and wait until the cluster gives it nothing more to do."""
        self.kill_node(index)
        self._until_known()

    def kill_node(self, index):
        """kill -9 a node with all of its processes."""
        _kill_group(self.nodes.pop(index))

    def kill_head(self):
        self.kill_node(0)

    def processes(self, name):
        """Ray worker processes of this cluster whose title contains `name`."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline())
                if title.startswith("ray::") and name in title and self._mine(process):
                    found.append(process)
        return found

    def close(self):
        while self.nodes:
            _kill_group(self.nodes.pop())
        shutil.rmtree(self.folder, ignore_errors=True)

    def _mine(self, process):
        groups = {n.pid for n in self.nodes}
        return any(_session(p) in groups for p in (process, *process.parents()))

    def _start(self, *options, inside=()):
        start = ["start", "--block", f"--num-cpus={self.cpus}", "--num-gpus=0"]
        agent = f"--dashboard-agent-listen-port={free_port()}"  # one each, on one machine
        command = [*inside, RAY, *start, agent, *options]
        log = (self.folder / f"node-{time.time_ns()}.log").open("w")
        return subprocess.Popen(
            [*command, "--disable-usage-stats", "--object-store-memory=150000000"],
            env=self.environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    def _answers(self, port):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    def _until(self, ready, what):
        deadline = time.monotonic() + 300
        while not ready():
            dead = [n for n in self.nodes if n.poll() is not None]
            if dead or time.monotonic() > deadline:
                logs = "".join(p.read_text()[-2000:] for p in self.folder.glob("node-*.log"))
                self.close()
                raise RuntimeError(f"{what} of the cluster did not come up:\n{logs}")
            time.sleep(0.1)


DRAIN = """
import time
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
client = GcsClient(address="{address}")
(node,) = [i for i, n in client.get_all_node_info(timeout=60).items() if n.node_name == "{name}"]
ok, why = client.drain_node(
    node.hex(), DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, "taken away",
    int((time.time() + {seconds}) * 1000),
)
assert ok, why
"""
AWAIT = """
import contextlib, sys, time
from ray._raylet import GcsClient
alive = 0
while alive != int(sys.argv[2]):
    time.sleep(0.1)
    with contextlib.suppress(Exception):  # asked anew, until this process is ended
        nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=60)
        alive = sum(n.state == 0 for n in nodes.values())
"""


def _session(process):
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(process.pid)


def _kill_group(node):
    """End all processes of a node's session: workers have groups of their own."""
    members = [p for p in psutil.process_iter() if _session(p) == node.pid]
    for process in members:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(members, timeout=120)
    node.wait(timeout=120)
