"""Metric rows per second that one MLflow server takes over HTTP, and what one training run sends.

Ours: the way tracking sends, requests of 1,000 rows. Baseline: `log_metric`, one request per row.
Both with 1 and with 4 clients, each a process with a run of its own; rates count from the first
client's start to the last one's end, after one warm-up request each. Every row must be in the store
afterwards. The server keeps its rows in a new SQLite file, or where --store says.

python -m benchmarks.mlflow_load [--workers 4] [--store postgresql+psycopg2://user@host/database]
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Empty

import numpy as np
import yaml

from benchmarks.harness import conclude, disagree
from echosyn.runtime.process import prepare
from echosyn.tracking.store import MAX_METRICS, STAGES, Store

ROOT = Path(__file__).parents[1]
# What training logs of a diffusion model at each logged step.
KEYS = ("train/loss", "train/grad_norm", "train/lr")
CLIENTS = (1, 4)
SINGLE_ROWS = 200  # of each client that sends them one by one
START = 180.0  # seconds that a server may take to start on an empty database
BEGAN_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Sent:
    """One client's requests: when the first began and the last ended, and the seconds of each."""

    run: str
    start: float
    end: float
    latencies: list[float]


@contextmanager
def server(store: str, workers: int, folder: Path) -> Iterator[str]:
    """A tracking server of its own process group; yields its address."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", str(workers), "--backend-store-uri", store),
        *("--default-artifact-root", (folder / "artifacts").as_uri()),
    ]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    address = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("w+") as log:
        process = subprocess.Popen(
            command, env=env, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
        try:
            deadline = time.monotonic() + START
            while not _answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    sys.exit(f"the MLflow server did not start: {log.read()[-2000:]}")
                time.sleep(0.2)
            yield address
        finally:
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def rows_of(first: int, count: int) -> list[list]:
    """Rows first .. first + count of a training run's log, as its outbox holds them."""
    log = []
    for i in range(first, first + count):
        step, key = divmod(i, len(KEYS))
        log.append([KEYS[key], repr(1 / (1 + i)), BEGAN_MS + step, step])
    return log


def client(address: str, name: str, rows: int, batch: int, ready: Barrier, sent: Queue) -> None:
    """Open a run and send it `batch` warm-up rows, then `rows` more, in requests of `batch`."""
    store = Store(address)
    tag = uuid.uuid4().hex
    facts = {"experiment": STAGES, "name": name, "unique": ("load", tag), "tags": {}, "params": {}}
    run, start, _ = store.create({**facts, "start_time": BEGAN_MS}, None)

    def send(first: int) -> None:
        part = rows_of(first, batch)
        if batch == 1:
            key, value, at, step = part[0]
            store.client.log_metric(run, key, float(value), at, step)
        else:
            store.send(run, {"kind": "metrics", "rows": part}, Path(), start)

    send(0)
    ready.wait()
    latencies, began = [], time.time()
    for first in range(batch, batch + rows, batch):
        before = time.perf_counter()
        send(first)
        latencies.append(time.perf_counter() - before)
    sent.put(Sent(run, began, time.time(), latencies))


def load(address: str, clients: int, rows: int, batch: int) -> tuple[float, list[float]]:
    """Rows per second that all clients together get in, and the seconds of every request."""
    context = get_context("spawn")
    ready, queue = context.Barrier(clients, timeout=120), context.Queue()
    processes = [
        context.Process(
            target=client, args=(address, f"client {i}", rows, batch, ready, queue), daemon=True
        )
        for i in range(clients)
    ]
    for p in processes:
        p.start()
    results: list[Sent] = []
    while len(results) < clients:
        with suppress(Empty):
            results.append(queue.get(timeout=1))
        if any(p.exitcode for p in processes):
            sys.exit("a client failed; its error is above")
    for p in processes:
        p.join()
    for result in results:
        check(address, result.run, batch + rows)
    span = max(r.end for r in results) - min(r.start for r in results)
    return clients * rows / span, [x for r in results for x in r.latencies]


def check(address: str, run: str, rows: int) -> None:
    """End the benchmark unless the run holds exactly the first `rows` rows of the log."""
    store = Store(address).client
    wanted = {(key, step): float(value) for key, value, _, step in rows_of(0, rows)}
    history = [m for key in KEYS for m in store.get_metric_history(run, key)]
    kept = {(m.key, m.step): m.value for m in history}
    if len(history) != rows or kept != wanted:
        disagree(f"{len(history)} rows are in the store of {rows} that were sent")


def training_rows() -> tuple[int, int]:
    """Rows that the LVDM of scale `paper` logs in training, and its optimizer steps."""
    from echosyn.training.loop import LOG_EVERY, LoopConfig

    cfg = LoopConfig(**yaml.safe_load((ROOT / "conf/paper/train_lvdm.yaml").read_text())["loop"])
    logged = {*range(0, cfg.steps, LOG_EVERY), cfg.steps - 1}
    logged |= set(range(cfg.checkpoint_every - 1, cfg.steps, cfg.checkpoint_every))
    validated = {cfg.steps - 1, *range(cfg.validate_every - 1, cfg.steps, cfg.validate_every)}
    return len(KEYS) * len(logged) + len(validated), cfg.steps


def main() -> None:
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000, help="of each client, in batches")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--store", help="the server's database (default: a new SQLite file)")
    args = parser.parse_args()
    rates = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        database = folder / "mlflow.db"
        with server(args.store or f"sqlite:///{database}", args.workers, folder) as address:
            before = database.stat().st_size if not args.store else 0
            print(f"{'':24}{'rows/s':>9} {'ms/request: median':>19} {'p95':>8} {'max':>8}")
            for clients in CLIENTS:
                for batch, rows in ((1, SINGLE_ROWS), (MAX_METRICS, args.rows)):
                    rate, latencies = load(address, clients, rows, batch)
                    rates[clients, batch] = rate
                    ms = 1000 * np.quantile(latencies, [0.5, 0.95, 1.0])
                    label = f"{clients} client{'s' * (clients > 1)}, {batch:,} a request"
                    print(f"{label:24}{rate:9,.0f} {ms[0]:19.1f} {ms[1]:8.1f} {ms[2]:8.1f}")
            if not args.store:
                sent = sum(CLIENTS) * (SINGLE_ROWS + 1 + args.rows + MAX_METRICS)
                grown = (database.stat().st_size - before) / sent
                print(f"the SQLite file grew by {grown:.0f} bytes a row")
    ours, baseline = rates[CLIENTS[-1], MAX_METRICS], rates[CLIENTS[-1], 1]
    rows, steps = training_rows()
    print(
        f"a training run of {steps:,} steps sends {rows:,} rows: {rows / ours:.0f} s of this server"
    )
    print("every row that was sent is in the store, once")
    conclude("mlflow_load", ours=ours, baseline=baseline, unit="rows/s", n=CLIENTS[-1] * args.rows)


if __name__ == "__main__":
    main()
