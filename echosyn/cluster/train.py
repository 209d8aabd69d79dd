"""The training loop on several processes of a cluster: Ray Train places, Accelerate shares."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from echosyn.cluster.connect import connect
from echosyn.cluster.settings import Placement
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json, write_json
from echosyn.runtime.process import deferred_stop

RAY_STATE = "ray"  # folder of Ray Train's own records inside the work folder
FAILED = "failed.json"
RUNNING, STOP = "running", "stop"  # marks: the workers train; they shall save at once
PATIENCE = 45.0  # seconds for a checkpoint when asked to stop, less than whoever stops us waits


def train_on_cluster(
    task: Any,
    cfg: Any,
    seed: int,
    work: Path,
    log: Any,
    name: str,
    root: Path,
    placement: Placement,
) -> None:
    """Run `echosyn.training.loop.fit` on the cluster until `work` holds the last checkpoint.

    A lost worker, or a node about to be taken away, costs no more than the steps since the last
    checkpoint: the workers start again and resume. Ctrl-C and SIGTERM let them save first.
    Arguments are those of `fit`.

    Raises:
        EchosynError: what training raised, or workers lost more often than `placement.retries`.
    """
    with connect(root) as ray:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        work = work.resolve()
        for mark in (FAILED, RUNNING, STOP):
            (work / mark).unlink(missing_ok=True)
        # Ray resumes silently from records of the same name; our checkpoints are what counts.
        shutil.rmtree(work / RAY_STATE, ignore_errors=True)
        workers: Any = placement.workers or 1
        if placement.min_workers:
            workers = (placement.min_workers, workers)
        resources: dict[str, float] = {"CPU": placement.cpus}
        if placement.gpus:
            resources["GPU"] = placement.gpus
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "root": str(root),
                "threads": placement.cpus,
                "work": str(work),
                "fit": ray.cloudpickle.dumps((task, cfg, seed, work, log, name)),
            },
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=placement.gpus > 0,
                resources_per_worker=resources,
                accelerator_type=placement.accelerator,
            ),
            run_config=RunConfig(
                name=work.name,
                storage_path=str(work / RAY_STATE),
                failure_config=FailureConfig(max_failures=placement.retries),
            ),
        )
        try:
            _until_asked_to_stop(trainer.fit, work)
        except Exception as e:
            _raise_own(work)
            if isinstance(e, ray.train.TrainingFailedError | ray.exceptions.RayError):
                reason = str(e).strip().splitlines()
                raise EchosynError(
                    f"{name}: workers failed more than {placement.retries} times: "
                    f"{reason[-1] if reason else e!r}. The last checkpoint stays; the same "
                    "command continues from it"
                ) from e
            raise
        _raise_own(work)


def _until_asked_to_stop(run: Callable[[], object], work: Path) -> None:
    """Run, in a thread, so that signals stay ours: Ray would end the process without saving."""
    raised: list[BaseException] = []

    def body() -> None:
        try:
            run()
        except BaseException as e:
            raised.append(e)

    thread = threading.Thread(target=body, daemon=True)
    with deferred_stop() as asked:
        thread.start()
        while thread.is_alive() and not asked():
            thread.join(0.2)
        if thread.is_alive():
            _await_checkpoint(work, thread)
            raise KeyboardInterrupt
    if raised:
        raise raised[0]


def _await_checkpoint(work: Path, thread: threading.Thread) -> None:
    """Tell the workers to save, and wait until they have, if they train at all."""
    if not (work / RUNNING).exists():
        return
    before = {p.name for p in work.glob("checkpoint-*")}
    (work / STOP).touch()
    deadline = time.monotonic() + PATIENCE
    while thread.is_alive() and {p.name for p in work.glob("checkpoint-*")} <= before:
        if time.monotonic() > deadline:
            print(f"echosyn: no checkpoint within {PATIENCE:g} s; stopping", file=sys.stderr)
            return
        time.sleep(0.1)


def _raise_own(work: Path) -> None:
    """Raise the message that a worker left, if one did."""
    if (work / FAILED).is_file():
        raise EchosynError(read_json(work / FAILED)["error"])


def _worker(config: dict[str, Any]) -> None:
    """One process of the group; runs in the folder of the project."""
    import ray.train
    from ray import cloudpickle

    root, shared = Path(config["root"]), Path(config["work"])
    failed = shared / FAILED
    if not (root / "params.yaml").is_file():
        raise RuntimeError(f"{os.uname().nodename} does not see the project folder {root}")
    if failed.is_file():
        return  # a retry after an error that retrying cannot mend
    os.chdir(root)
    from echosyn.runtime.device import set_threads
    from echosyn.tracking import NullRun
    from echosyn.training.loop import fit

    set_threads(config["threads"])
    task, cfg, seed, work, log, name = cloudpickle.loads(config["fit"])
    if ray.train.get_context().get_world_rank() != 0:
        log = NullRun()

    def notice() -> bool:
        return ray.train.get_preemption_info() is not None or (shared / STOP).exists()

    try:
        (shared / RUNNING).touch()
        fit(task, cfg, seed, work, log, name, notice)
    except EchosynError as e:
        write_json(failed, {"error": str(e)})
        raise
