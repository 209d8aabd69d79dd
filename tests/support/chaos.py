"""The whole graph on a real cluster whose parts keep dying, against a run that nothing disturbed.

python tests/support/chaos.py [--minutes 6] [--seed 0] [--log docs/results/chaos.md]

Every few seconds kill -9 hits a training worker, a shard worker, a node (another one joins), the
stage (the driver), `dvc repro` itself, or the head with all nodes; whoever died is started again as
a user would: the same command. At the end the outputs must have the hashes of the undisturbed run,
MLflow one run a stage with every step once, and no process may be left over.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import psutil
from local_cluster import ENVIRONMENT, LocalCluster
from repro import ROOT, edit, environment, lock, new_project, run

sys.path.insert(0, str(ROOT))
from benchmarks.harness import machine

# Smoke sizes end before anything can be killed: longer trainings, more shards.
LONGER = {
    "train_vae": {"steps": 60, "batch": 4, "lr": 3e-3, "checkpoint_every": 3},
    "train_lidm": {"steps": 300, "batch": 4, "lr": 1e-3, "ema": 0.9, "checkpoint_every": 10},
    "train_lvdm": {"steps": 80, "batch": 2, "lr": 1e-3, "ema": 0.9, "checkpoint_every": 4},
    "train_reid": {"steps": 200, "batch": 6, "lr": 2e-3, "checkpoint_every": 10},
}
TARGET = "sample_videos@phantom"


def project_in(folder: Path, workers: int) -> Path:
    placement = {"workers": workers, "retries": 20}
    new_project(folder, cluster={"train": placement, "shards": {"workers": 2, "retries": 20}})
    for stage, loop in LONGER.items():
        edit(folder / "conf/smoke" / f"{stage}.yaml", loop={**loop, "validate_every": 20})
    edit(folder / "conf/smoke/sample_hearts.yaml", hearts=160, shard=8, steps=20)
    edit(folder / "conf/smoke/sample_videos.yaml", shard=1, steps=20)
    edit(folder / "conf/smoke/encode.yaml", shard=2)
    return folder


class Log:
    """Lines with the seconds since the start, on the screen and kept."""

    def __init__(self) -> None:
        self.start, self.lines = time.monotonic(), []

    def __call__(self, text: str) -> None:
        self.lines.append(f"{time.monotonic() - self.start:7.1f} s  {text}")
        print(self.lines[-1], flush=True)


class Repro:
    """`dvc repro` on a cluster, in a session of its own."""

    def __init__(self, project: Path, address: str) -> None:
        self.project = project
        env = {**environment(project), **ENVIRONMENT, "RAY_ADDRESS": address}
        self.output = (project.parent / "repro.log").open("a")
        self.process = subprocess.Popen(
            ["dvc", "repro", TARGET], cwd=project, env=env, stdout=self.output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def stage(self) -> psutil.Process | None:
        """The running stage, if one runs."""
        try:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                if any(a.startswith("pipelines.") for a in child.cmdline()):
                    return child
        except psutil.Error:
            pass
        return None

    def end(self) -> None:
        """Wait for what is left of its session: a stage follows a dead `dvc repro`."""
        self.process.wait()
        for _ in range(300):
            if not session_of(self.process.pid):
                return
            time.sleep(0.1)
        raise SystemExit(f"left over: {session_of(self.process.pid)}")


def session_of(leader: int) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:100])
        except (psutil.Error, ProcessLookupError):
            pass
    return found


def strike(rng: random.Random, cluster: LocalCluster, repro: Repro, log: Log) -> str | None:
    """Kill one thing that is there; what it was."""
    trainers, shards = cluster.processes("RayTrainWorker"), cluster.processes("_Worker.")
    stage = repro.stage()
    choices = ["node", "head", "dvc"]
    choices += ["stage"] * 2 * bool(stage)
    choices += ["training worker"] * 4 * bool(trainers) + ["shard worker"] * 4 * bool(shards)
    what = rng.choice(choices)
    during = " ".join(stage.cmdline()[-2:]) if stage else "between stages"
    log(f"kill -9 {what:16} during {during}")
    if what == "training worker":
        rng.choice(trainers).send_signal(signal.SIGKILL)
    elif what == "shard worker":
        rng.choice(shards).send_signal(signal.SIGKILL)
    elif what == "stage":
        stage.send_signal(signal.SIGKILL)
    elif what == "dvc":
        repro.process.send_signal(signal.SIGKILL)
    elif what == "node":
        cluster.kill_node(len(cluster.nodes) - 1)
        cluster.add_node()
    else:
        nodes = len(cluster.nodes)
        while cluster.nodes:
            cluster.kill_node(0)
        cluster.start_head()
        while len(cluster.nodes) < nodes:
            cluster.add_node()
    return what


def steps_logged_once(project: Path) -> tuple[int, int]:
    """Runs and steps in MLflow, each name and each step once."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("stages").experiment_id])
    names = [r.info.run_name for r in runs]
    assert len(names) == len(set(names)), f"more than one run of a stage: {sorted(names)}"
    assert all(r.info.status == "FINISHED" for r in runs), [r.info.status for r in runs]
    steps = 0
    for stage, loop in LONGER.items():
        (found,) = [r for r in runs if r.info.run_name.startswith(stage)]
        logged = [m.step for m in client.get_metric_history(found.info.run_id, "train/loss")]
        expected = {s for s in range(loop["steps"]) if s % 10 == 0}
        expected |= {
            s - 1 for s in range(1, loop["steps"] + 1) if s % loop["checkpoint_every"] == 0
        }
        expected.add(loop["steps"] - 1)
        assert sorted(logged) == sorted(expected), f"{stage}: {sorted(logged)}"
        steps += len(logged)
    return len(runs), steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=6, help="how long to go on killing")
    parser.add_argument("--every", type=float, default=12, help="mean seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="Markdown file for the log")
    args = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    rng, log = random.Random(args.seed), Log()
    folder = Path(tempfile.mkdtemp(prefix="chaos"))
    (folder / "calm").mkdir()
    (folder / "wild").mkdir()
    calm, wild = project_in(folder / "calm", 1), project_in(folder / "wild", 1)
    log("undisturbed run in one process")
    run(calm, "dvc", "repro", TARGET)
    log("the same on a cluster of three nodes, disturbed")
    killed: dict[str, int] = {}
    starts = 1
    with LocalCluster(nodes=3) as cluster:
        repro = Repro(wild, cluster.address)
        stop = time.monotonic() + 60 * args.minutes
        while True:
            time.sleep(rng.expovariate(1 / args.every) if time.monotonic() < stop else 1)
            if repro.process.poll() is None and time.monotonic() < stop:
                what = strike(rng, cluster, repro, log)
                killed[what] = killed.get(what, 0) + 1
            if repro.process.poll() is not None:
                repro.end()
                if repro.process.returncode == 0:
                    break
                log(f"dvc repro ended with {repro.process.returncode}; the same command again")
                repro, starts = Repro(wild, cluster.address), starts + 1
        log(f"done after {starts} starts of dvc repro")
        left = [p for name in ("RayTrainWorker", "_Worker.") for p in cluster.processes(name)]
        assert not left, f"workers left over: {left}"
    before, after = lock(calm), lock(wild)
    different = [path for path in before if before[path] != after.get(path)]
    assert not different, f"other bytes than undisturbed: {different}"
    runs, steps = steps_logged_once(wild)
    kills = ", ".join(f"{n} x {what}" for what, n in sorted(killed.items()))
    outcome = (
        f"Killed: {kills}. All {len(before)} outputs have the hashes of the undisturbed run; "
        f"MLflow has {runs} runs, one a stage, and {steps} training steps, each once; nothing was "
        "left over."
    )
    log(outcome)
    if args.log:
        command = f"python tests/support/chaos.py --minutes {args.minutes:g} --seed {args.seed}"
        text = [
            "# Chaos", "", f"{date.today()}, {machine()}. `make chaos`, which is `{command}`:",
            "see there what is killed. Trainings have one worker, so in-process bytes.", "",
            outcome, "", "```", *log.lines[:-1], "```", "",
        ]  # fmt: skip
        args.log.write_text("\n".join(text))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
