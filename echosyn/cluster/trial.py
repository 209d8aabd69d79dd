"""One trial of a search: a training run that reports, and what it leaves for a resume.

A trial's folder holds `history.json`, one entry per comparison. A search that starts again after
its driver died runs the same trials from the beginning in the eyes of Ray Tune; what is in the
history is reported again at once and only the rest is trained, so the schedulers decide as they
did.
"""

import math
import os
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echosyn.cluster.models import MODELS
from echosyn.cluster.space import changed
from echosyn.runtime.config import Params, build
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, read_json, write_json
from echosyn.tracking import StageRun, trial_run

HISTORY, LINEAGE, KEPT = "history.json", "lineage.json", "kept"
FAILED, LOST = "failed.json", "lost.json"  # by an error of its own; with its worker


@dataclass(frozen=True)
class Plan:
    """What every trial of a search shares; travels to the workers."""

    root: Path
    work: Path
    model: str
    subject: tuple[str, ...]
    values: dict[str, Any]
    where: str
    seed: int
    threads: int
    every: int
    steps: int
    metric: str
    mode: str
    pbt: bool
    parent: StageRun | None = None

    def config(self, settings: Mapping[str, Any]) -> Any:
        """The stage's settings with those of a trial, and what makes trials comparable."""
        loop = {
            "loop.steps": self.steps,
            "loop.validate_every": self.every,
            "loop.checkpoint_every": self.every,
            "loop.select": "last",
        }
        values = changed(self.values, {**settings, **loop})
        return build(MODELS[self.model].settings_class, values, self.where)

    def folder(self, name: str) -> Path:
        return self.work / "trials" / name

    def run(self, name: str, settings: Mapping[str, Any]) -> StageRun:
        """The MLflow run of a trial, nested in the search's."""
        assert self.parent is not None
        return trial_run(self.parent, name, settings, name)


def history(folder: Path) -> list[dict[str, Any]]:
    """Comparisons of a trial so far: step, value, settings, and the checkpoint started from."""
    path = folder / HISTORY
    return read_json(path) if path.is_file() else []


def run_trial(
    plan: Plan,
    name: str,
    settings: dict[str, Any],
    start: tuple[str, int] | None,
    report: Callable[[int, float], None],
) -> None:
    """Train one trial to its end, or until `report` does not return.

    Args:
        start: trial and step of the checkpoint to start from (PBT), None for the trial's own.
        report: given step and value at every comparison.
    """
    os.chdir(plan.root)
    from echosyn.runtime.device import set_threads

    set_threads(plan.threads)
    folder = plan.folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    origin = list(start or (name, 0))
    worst = math.inf if plan.mode == "min" else -math.inf
    done = _replay(folder, settings, origin, plan.pbt, report)
    if done["failed"]:
        report(done["step"] + plan.every, worst)
    if done["failed"] or done["step"] >= plan.steps:
        return
    if plan.pbt:
        _take_over(plan, folder, settings, done["from"])
    run = plan.run(name, settings)
    if plan.pbt:
        numbers = {k: v for k, v in settings.items() if isinstance(v, int | float)}
        run.log(done["step"], {f"settings/{k}": float(v) for k, v in numbers.items()})
    try:
        cfg = plan.config(settings)
        task, _ = MODELS[plan.model].prepare(Params(plan.root), cfg, *plan.subject)
        from echosyn.training.loop import fit

        log = _Reporting(plan, name, settings, done["from"], run, report)
        fit(task, cfg.loop, plan.seed, folder, log, name)
    except Exception as e:
        # Trying again cannot mend it: the trial ends, the search goes on.
        traceback.print_exc()
        error = str(e) if isinstance(e, EchosynError) else f"{type(e).__name__}: {e}"
        write_json(folder / FAILED, {"error": error, "settings": settings})
        run.tag("error", error)
        run.end("FAILED")
        report(done["step"] + plan.every, worst)


def _replay(
    folder: Path,
    settings: dict[str, Any],
    origin: list,
    pbt: bool,
    report: Callable[[int, float], None],
) -> dict[str, Any]:
    """Report again what is known of these settings from this start.

    Returns:
        step: where training goes on; from: the checkpoint it goes on from; failed: whether the
        trial failed there.
    """
    step = origin[1]
    for entry in history(folder):
        follows = entry["step"] > step and (not pbt or entry["from"] == origin)
        if follows and entry["settings"] == settings:
            report(entry["step"], entry["value"])
            step = entry["step"]
            origin = [folder.name, step]
    failed = folder / FAILED
    stuck = failed.is_file() and read_json(failed)["settings"] == settings
    return {"step": step, "from": origin, "failed": stuck}


def _take_over(plan: Plan, folder: Path, settings: dict[str, Any], origin: list) -> None:
    """Make `folder` go on from the checkpoint of `origin` with these settings."""
    lineage = {"settings": settings, "from": origin}
    if (folder / LINEAGE).is_file() and read_json(folder / LINEAGE) == lineage:
        return
    (folder / LINEAGE).unlink(missing_ok=True)
    for old in folder.glob("checkpoint-*"):
        shutil.rmtree(old)
    donor, step = origin
    if step:
        name = f"checkpoint-{step:08d}"
        _link(plan.folder(donor) / KEPT / name, folder / name)
    write_json(folder / LINEAGE, lineage)


def _link(source: Path, target: Path) -> None:
    if not target.is_dir():
        with atomic_dir(target) as tmp:
            shutil.copytree(source, tmp, copy_function=_hard_link, dirs_exist_ok=True)


def _hard_link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class _Reporting:
    """The trial's MLflow run as the loop's log, which also reports after each checkpoint."""

    def __init__(
        self,
        plan: Plan,
        name: str,
        settings: dict[str, Any],
        origin: list,
        run: StageRun,
        report: Callable[[int, float], None],
    ) -> None:
        self.plan, self.folder, self.settings, self.origin = (
            plan,
            plan.folder(name),
            settings,
            origin,
        )
        self.run, self.report = run, report
        self.measured: dict[str, float] = {}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(step, values)
        self.measured |= {k: v for k, v in values.items() if k.startswith("val/")}

    def resumed(self, step: int) -> None:
        self.run.resumed(step)

    @contextmanager
    def committing(self, step: int) -> Iterator[None]:
        with self.run.committing(step):
            yield
        if not self.measured:
            return
        value = self.measured.get(self.plan.metric, math.nan)
        if not math.isfinite(value):
            raise EchosynError(
                f"metric {self.plan.metric} is {value:g} at step {step}; measured are "
                f"{', '.join(sorted(self.measured))}. Is the VAL split empty?"
            )
        self.measured.clear()
        if self.plan.pbt:
            self._keep(step)
        entry = {"step": step, "value": value, "settings": self.settings, "from": self.origin}
        write_json(self.folder / HISTORY, [*history(self.folder), entry])
        self.origin = [self.folder.name, step]
        if self.plan.pbt:
            write_json(self.folder / LINEAGE, {"settings": self.settings, "from": self.origin})
        self.report(step, value)

    def _keep(self, step: int) -> None:
        """Keep the checkpoints of the last two comparisons: others may start from them."""
        kept = self.folder / KEPT
        name = f"checkpoint-{step:08d}"
        _link(self.folder / name, kept / name)
        oldest = f"checkpoint-{step - self.plan.every:08d}"
        for old in kept.glob("checkpoint-*"):
            if old.name < oldest:
                with suppress(OSError):
                    shutil.rmtree(old)
