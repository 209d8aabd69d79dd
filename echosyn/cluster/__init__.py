"""Stages on a Ray cluster when RAY_ADDRESS is set, else in this process. The only package that
knows Ray, which is not imported unless there is an address.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from echosyn.cluster.settings import address, cluster_config
from echosyn.runtime.process import project_root
from echosyn.runtime.shards import Make, plan_shards
from echosyn.runtime.shards import run_shards as run_here

__all__ = ["fit", "map_rows", "run_shards"]
VALUES = "values.npy"


def run_shards(
    work: Path,
    items: int,
    size: int,
    worker: Callable[[], Make],
    stage: str,
    unit: str,
    label: str = "",
) -> list[Path]:
    """Do the work on `items` items in shards of `size`, on the cluster if there is one.

    Args:
        work: folder of the shards (echosyn.runtime.shards.work_dir).
        worker: prepares (loads models) and returns what makes a shard. Called once per process that
            works; it takes along what it closes over, so close over settings and paths.
        stage: whose placement in section `cluster` of params.yaml it is.
        unit, label: of the progress bar.

    Returns:
        the folders of all shards, in order.
    """
    shards, name = plan_shards(work, items, size), f"{stage} {label}".strip()
    if address() is None:
        return run_here(shards, worker, name, unit)
    from echosyn.cluster.pool import map_shards

    root = project_root().resolve()
    map_shards(shards, worker, name, unit, root, cluster_config(root).placement("shards", stage))
    return [s.folder for s in shards]


def map_rows(
    work: Path,
    size: int,
    stage: str,
    unit: str,
    name: str,
    items: int,
    worker: Callable[[], Callable[[range], np.ndarray]],
) -> np.ndarray:
    """Arrays computed from items, end to end in the order of the items.

    Args:
        name: of this computation among those of the stage.
        worker: as of `run_shards`; returns what maps a range of items to an array.
    """

    def saving() -> Make:
        compute = worker()
        return lambda rows, folder: np.save(folder / VALUES, compute(rows))

    folders = run_shards(work / name, items, size, saving, stage, unit, name)
    return np.concatenate([np.load(f / VALUES) for f in folders])


def fit(task: Any, cfg: Any, seed: int, work: Path, log: Any, name: str, stage: str) -> Any:
    """echosyn.training.loop.fit, its steps done by the workers of the cluster if there is one."""
    from echosyn.training.loop import fit as fit_here

    if address() is not None:
        from echosyn.cluster.train import train_on_cluster

        root = project_root().resolve()
        placement = cluster_config(root).placement("train", stage)
        train_on_cluster(task, cfg, seed, work, log, name, root, placement)
    return fit_here(task, cfg, seed, work, log, name)  # finds the last checkpoint, or trains
