"""What every training stage does around the loop: state, MLflow run, output, final numbers."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from echosyn.cluster import fit
from echosyn.device import autocast, pick_device
from echosyn.files import atomic_dir
from echosyn.runtime import state_root
from echosyn.shards import finish, work_dir
from echosyn.tracking import stage_run
from echosyn.training.loop import Task


def train(
    stage: str,
    subject: str,
    cfg: Any,
    seed: int,
    task: Task,
    inputs: list[Path],
    out: Path,
    save: Callable[[nn.Module, Path], None],
    measure: Callable[[nn.Module], dict[str, float]],
) -> None:
    """Fit `task`, resuming a killed run; write the model with `save`, then log `measure`."""
    settings = {**dataclasses.asdict(cfg), "seed": seed}
    work = work_dir(state_root(), stage, subject, settings, inputs)
    with stage_run(stage, subject, settings, inputs, work) as run:
        model = fit(task, cfg.loop, seed, work, run, f"{stage} {subject}", stage)
        with torch.no_grad(), autocast(pick_device(), cfg.loop.precision):
            numbers = measure(model)
        with atomic_dir(out) as tmp:
            save(model, tmp)
        run.output(out)
        run.final(numbers, Path(f"metrics/{stage}/{subject}.json"))
    finish(work)
