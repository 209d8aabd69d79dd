"""What every training stage does around the loop: state, MLflow run, output, final numbers.

`fit` is echosyn.cluster.fit: where the loop runs is not this package's to know.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from echosyn.runtime.device import pick_device
from echosyn.runtime.files import atomic_dir
from echosyn.runtime.process import state_root
from echosyn.runtime.shards import finish, work_dir
from echosyn.tracking import Log, StageRun, nested_run, stage_run
from echosyn.training.curve import FOLDER, write_curves
from echosyn.training.loop import LoopConfig, M, Task

# The model that a task ends with; of task, loop, seed, work folder, log, title and stage.
Fit = Callable[[Any, LoopConfig, int, Path, Log, str, str], Any]


def train(
    fit: Fit,
    stage: str,
    subject: str,
    cfg: Any,
    seed: int,
    task: Task[M],
    inputs: list[Path],
    out: Path,
    save: Callable[[M, Path], None],
    measure: Callable[[M], dict[str, float]],
    as_built: bool = False,
    draw: Callable[[Path], None] | None = None,
    first: Callable[[StageRun, Path], None] | None = None,
) -> None:
    """Fit `task`, resuming a killed run; write the model with `save`, then log `measure`.

    Args:
        as_built: do not fit: the task builds a model that was trained elsewhere.
        draw: given a folder, puts pictures there of the model that now is at `out`; they are kept
            with the run.
        first: done before `task` is fitted, given the run and the folder of what can be resumed.
    """
    settings = {**dataclasses.asdict(cfg), "seed": seed}
    work = work_dir(state_root(), stage, subject, settings, inputs)
    with stage_run(stage, subject, settings, inputs, work) as run:
        if first is not None:
            first(run, work)
        if as_built:
            model = task.build().to(pick_device()).eval()
        else:
            model = fit(task, cfg.loop, seed, work, run, f"{stage} {subject}", stage)
        numbers = _measured(measure, model)
        with atomic_dir(out) as tmp:
            save(model, tmp)
        run.output(out)
        write_curves(work, Path(FOLDER) / stage / subject)
        if draw is not None:
            with tempfile.TemporaryDirectory() as tmp:
                draw(Path(tmp))
                run.artifact(tmp, "pictures")
        run.final(numbers, Path(f"metrics/{stage}/{subject}.json"))
    finish(work)


def train_seeds(
    fit: Fit,
    stage: str,
    subject: str,
    cfg: Any,
    seed: int,
    tasks: Mapping[str, Callable[[int, int], Task[M]]],
    inputs: list[Path],
    out: Path,
    save: Callable[[M, Path], None],
    measure: Callable[[str, Task[M], M], dict[str, float]],
) -> None:
    """Fit each of `tasks`, by name, `cfg.seeds` times, and write the models to out/<name>/seed<k>.

    Every training is a run nested in the stage's and resumes by itself; the stage's numbers are
    means over seeds, with their standard deviations (`_seed_sd`).

    Args:
        tasks: make the task from k and its seed, `seed` + k. The name "" stands for `out` itself.
        measure: numbers of a fitted task; for all names together they must not share keys.
    """
    settings = {**dataclasses.asdict(cfg), "seed": seed}
    work = work_dir(state_root(), stage, subject, settings, inputs)
    with stage_run(stage, subject, settings, inputs, work) as run:
        numbers: dict[str, list[float]] = {}
        with atomic_dir(out) as tmp:
            for name, k in product(tasks, range(cfg.seeds)):
                part = Path(name) / f"seed{k}"
                task, title = tasks[name](k, seed + k), f"{stage} {subject} {part}"
                with nested_run(run, f"{stage}/{subject}/{part}", {"seed": seed + k}) as log:
                    model = fit(task, cfg.loop, seed + k, work / part, log, title, stage)
                    made = _measured(partial(measure, name, task), model)
                    log.final(made, work / part / "final.json")
                save(model, tmp / part)
                for key, value in made.items():
                    numbers.setdefault(key, []).append(value)
        run.output(out)
        means = {key: float(np.mean(values)) for key, values in numbers.items()}
        if cfg.seeds > 1:
            means |= {f"{k}_seed_sd": float(np.std(v, ddof=1)) for k, v in numbers.items()}
        run.final(means, Path(f"metrics/{stage}/{subject}.json"))
    finish(work)


def _measured(measure: Callable[[M], dict[str, float]], model: M) -> dict[str, float]:
    """In full precision, so that no number of a model depends on what it was trained in."""
    with torch.no_grad():
        return measure(model)
