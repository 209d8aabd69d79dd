"""Shards on the workers of a cluster: each done once, elsewhere when its worker is lost."""

import os
import platform
import sys
from collections import deque
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from echosyn.cluster.connect import connect
from echosyn.cluster.settings import Placement
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.progress import bar
from echosyn.runtime.shards import Make, Shard

PATIENCE = 60.0  # seconds without any worker before saying what is waited for
TORCH = version("torch")


def map_shards(
    shards: list[Shard],
    worker: Callable[[], Make],
    name: str,
    unit: str,
    root: Path,
    placement: Placement,
) -> None:
    """Do every shard that is not done on the cluster's workers.

    A shard's bytes depend on its items alone, so neither the number of workers nor a retry changes
    them. Workers write to the project folder, which the nodes share.

    Args:
        worker: called once in every worker process; what it closes over is sent there.

    Raises:
        EchosynError: what a shard raised; or a shard whose worker was lost more often than
            `placement.retries`; or workers that cannot start.
    """
    left = [s for s in shards if not s.done]
    if not left:
        return
    total, todo = (sum(len(s.indices) for s in some) for some in (shards, left))
    with connect(root) as ray, bar(total, name, unit, initial=total - todo) as progress:
        pool = _Pool(ray, worker, root, placement, name, len(left))
        try:
            for shard in pool.run(left):
                progress.update(len(shard.indices))
        finally:
            pool.close()


class _Worker:
    """Lives in a process of the cluster, with the models that shards need."""

    def prepare(self, root: str, payload: bytes, threads: int, torch_version: str) -> None:
        """Apart from `__init__`, whose errors Ray does not hand on as they are."""
        from ray import cloudpickle

        if not Path(root, "params.yaml").is_file():
            raise EchosynError(
                f"node {platform.node()} does not see the project folder {root}: it must lie on a "
                "file system that all nodes share under the same path"
            )
        if torch_version != TORCH:
            raise EchosynError(
                f"node {platform.node()} has torch {TORCH}, the driver {torch_version}: start Ray "
                "on every node from the same environment"
            )
        os.chdir(root)
        from echosyn.runtime.device import set_threads

        set_threads(threads)
        self.make: Make = cloudpickle.loads(payload)()

    def run(self, shard: Shard) -> None:
        shard.run(self.make)


class _Pool:
    """Workers that come and go; shards go to whoever is free."""

    def __init__(
        self,
        ray: Any,
        worker: Callable[[], Make],
        root: Path,
        placement: Placement,
        name: str,
        most: int,
    ) -> None:
        self.ray, self.placement, self.name = ray, placement, name
        payload = ray.put(ray.cloudpickle.dumps(worker))
        options = {
            "num_cpus": placement.cpus,
            "num_gpus": placement.gpus,
            "accelerator_type": placement.accelerator,
        }
        self.actor = ray.remote(_Worker).options(**options)
        self.task = (str(root), payload, placement.cpus, TORCH)
        self.size = min(most, placement.workers or _that_fit(ray, placement))
        self.busy: dict[Any, tuple[Any, Shard | None]] = {}  # result: its worker and shard

    def run(self, shards: list[Shard]) -> Any:
        """Yield shards as they are done."""
        queue, lost = deque(shards), dict.fromkeys((s.folder for s in shards), 0)
        unstarted = finished = 0
        for _ in range(self.size):
            self._add()
        waited_for = False
        while finished < len(shards):  # workers that never came are not waited for
            done, _ = self.ray.wait(list(self.busy), timeout=PATIENCE)
            if not done and not waited_for and all(s is None for _, s in self.busy.values()):
                waited_for = True
                print(self._waiting(), file=sys.stderr)
            for result in done:
                worker, shard = self.busy.pop(result)
                try:
                    self.ray.get(result)
                except self.ray.exceptions.RayActorError as e:
                    if shard is None:
                        unstarted += 1
                        if unstarted > self.placement.retries + self.size:
                            raise EchosynError(f"{self.name}: workers do not start: {e}") from e
                    else:
                        lost[shard.folder] += 1
                        if lost[shard.folder] > self.placement.retries:
                            raise EchosynError(self._given_up(shard, e)) from e
                        queue.appendleft(shard)
                    print(f"{self.name}: a worker was lost, its work goes on", file=sys.stderr)
                    if queue:
                        self._add()
                    continue
                except self.ray.exceptions.RayTaskError as e:
                    raise _cause(e) from e
                if queue:
                    following = queue.popleft()
                    self.busy[worker.run.remote(following)] = (worker, following)
                else:
                    self.ray.kill(worker)
                if shard is not None:
                    finished += 1
                    yield shard

    def close(self) -> None:
        """End all workers, whatever they do."""
        for worker, _ in self.busy.values():
            self.ray.kill(worker)

    def _add(self) -> None:
        worker = self.actor.remote()
        self.busy[worker.prepare.remote(*self.task)] = (worker, None)

    def _waiting(self) -> str:
        p, has = self.placement, self.ray.cluster_resources()
        kind = f" of type {p.accelerator}" if p.accelerator else ""
        return (
            f"{self.name}: waiting for a worker with {p.cpus} CPU and {p.gpus:g} GPU{kind}; the "
            f"cluster has {has.get('CPU', 0):g} CPU and {has.get('GPU', 0):g} GPU in all. Add "
            "nodes, or lower section `cluster` of params.yaml"
        )

    def _given_up(self, shard: Shard, e: Exception) -> str:
        items = f"{shard.indices.start}..{shard.indices.stop - 1}"
        reason = str(e).strip().splitlines()
        return (
            f"{self.name}: the worker with items {items} was lost "
            f"{self.placement.retries + 1} times, last: {reason[-1] if reason else e!r}. What is "
            "done is kept; out of memory? Lower the stage's batch, or give workers more"
        )


def _that_fit(ray: Any, placement: Placement) -> int:
    """Workers for which the cluster has resources now, at least one."""
    has = ray.cluster_resources()
    fit = has.get("CPU", 0) // placement.cpus
    if placement.gpus:
        fit = min(fit, has.get("GPU", 0) // placement.gpus)
    return max(int(fit), 1)


def _cause(e: Any) -> BaseException:
    """What was raised in the worker: our own message as it is, anything else with its trace."""
    return e.cause if isinstance(e.cause, EchosynError) else e
