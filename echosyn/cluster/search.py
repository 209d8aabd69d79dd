"""`echosyn tune`: search for better settings of a training stage with Ray Tune.

Trials run on the cluster at RAY_ADDRESS, or on this machine. The outcome is a table, a picture and
a patch of the settings' files in tuning/<name>; nothing is changed by itself. The same command
after an interruption goes on; finished, it prints its result again.
"""

import dataclasses
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from echosyn.cluster.connect import connect, connect_here
from echosyn.cluster.models import MODELS
from echosyn.cluster.outcome import Outcome, trial_state, write_outcome
from echosyn.cluster.settings import Placement, address, cluster_config
from echosyn.cluster.space import (
    Range,
    SearchConfig,
    check_space,
    draws,
    present_values,
    read_space,
)
from echosyn.cluster.trial import FAILED, LOST, Plan, run_trial
from echosyn.runtime.code import code_digest
from echosyn.runtime.config import Params, build
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_json
from echosyn.runtime.process import state_root, threads
from echosyn.runtime.progress import bar
from echosyn.runtime.shards import work_dir
from echosyn.tracking import stage_run

DONE = "done.json"
SET_BY_SEARCH = "the search sets it for all trials alike"
FIXED_LOOP = ("steps", "validate_every", "checkpoint_every", "select", "precision")
EXAMPLE = "{method: asha, trials: 8, space: {loop.lr: {log: [3.0e-4, 3.0e-3]}}}"


def search(root: Path, model: str, subject: tuple[str, ...]) -> str:
    """Run a search to its end and write tuning/<name>; returns what to show.

    Raises:
        EchosynError: settings that are refused, or no trial that came to its end.
    """
    wanted = MODELS[model].subject
    if len(subject) != len(wanted):
        raise EchosynError(f"echosyn tune {' '.join([model, *(f'<{w}>' for w in wanted)])}")
    params = Params(root)
    stage, cls = MODELS[model].stage, MODELS[model].settings_class
    values, where = params.settings(stage)
    base: Any = build(cls, values, where)
    config, space = _search_settings(params, model, values)
    steps = config.steps or base.loop.steps
    every = config.every or max(1, steps // 10)
    if every > steps:
        raise EchosynError(f"params.yaml: tune.{model}: every {every} is above the {steps} steps")
    inputs = _inputs(model, base, subject)
    settings = {
        **dataclasses.asdict(base),
        "seed": params.seed,
        "code": code_digest(stage),
        "search": {**dataclasses.asdict(config), "steps": steps, "every": every},
    }
    name = "-".join([model, *subject])
    work = work_dir(state_root().resolve(), "tune", name, settings, inputs)
    out = root / "tuning" / name
    outcome = Outcome(root, work, out, params.conf(stage), stage, name, config, steps)
    started = draws(space, present_values(base, list(space)), config.trials, config.seed)
    if (work / DONE).is_file():
        return write_outcome(outcome, started)[0]
    placement = cluster_config(root).placement("train", stage)
    plan = Plan(
        root, work, model, subject, values, where, params.seed, placement.cpus, every, steps,
        config.metric, config.mode, config.method == "pbt",
    )  # fmt: skip
    for trial in started:
        plan.config(trial)  # refuses before anything runs
    with stage_run("tune", name, settings, inputs, work) as run:
        plan = dataclasses.replace(plan, parent=run)
        _run(plan, config, space, started, placement, name)
        text, numbers = write_outcome(outcome, started)
        run.final(numbers, out / "summary.json")
        run.artifact(out)
    for weights in [*(work / "trials").glob("*/checkpoint-*"), *(work / "trials").glob("*/kept")]:
        shutil.rmtree(weights)
    shutil.rmtree(work / "ray", ignore_errors=True)
    write_json(work / DONE, numbers)
    return text


def _search_settings(
    params: Params, model: str, values: dict[str, Any]
) -> tuple[SearchConfig, dict[str, Range]]:
    """Section tune.<model> of params.yaml, checked against the stage's settings."""
    where = f"params.yaml: tune.{model}"
    section = (params.raw.get("tune") or {}).get(model)
    if not section:
        raise EchosynError(f"{where}: no such section; for instance {model}: {EXAMPLE}")
    config = build(SearchConfig, section, where)
    space = read_space(config.space, f"{where}.space")
    entry = MODELS[model]
    fixed = dict.fromkeys(entry.fixed, "it changes what validation measures")
    fixed |= {f"loop.{key}": SET_BY_SEARCH for key in FIXED_LOOP}
    if config.method == "pbt":
        fixed["model"] = "a trial takes over the weights of others (method: pbt)"
    check_space(space, values, entry.settings_class, fixed, f"{where}.space")
    return config, space


def _inputs(model: str, base: Any, subject: tuple[str, ...]) -> list[Path]:
    """Folders that the stage reads, named as it names them; says so when they are not made yet."""
    try:
        _, inputs = MODELS[model].prepare(Params(Path()), base, *subject)
    except (EchosynError, FileNotFoundError) as e:
        stage = MODELS[model].stage
        raise EchosynError(
            f"{e}. If that is not made yet, `dvc repro` makes it: run it for {stage} first"
        ) from e
    return inputs


def _run(
    plan: Plan,
    config: SearchConfig,
    space: dict[str, Range],
    started: list[dict[str, Any]],
    placement: Placement,
    name: str,
) -> None:
    """Let Ray Tune run the trials; what they find is in their folders."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial is named below
    # Ray's own tables and records: what there is to know is in the trials' folders.
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(len(started))  # PBT must know all of them
    where = connect(plan.root, quiet=True) if address() else connect_here(plan.root, threads())
    with where:
        from ray import tune

        from echosyn.cluster.schedulers import make_scheduler

        shutil.rmtree(plan.work / "ray", ignore_errors=True)
        for lost in (plan.work / "trials").glob(f"*/{LOST}"):
            lost.unlink()
        resources = {"cpu": placement.cpus, "gpu": placement.gpus}
        if placement.accelerator:
            resources[f"accelerator_type:{placement.accelerator}"] = 0.001
        starts = [{"name": f"trial-{i:03d}", "settings": s} for i, s in enumerate(started)]
        shown = _shown(plan, len(starts), name)
        tune.Tuner(
            tune.with_resources(tune.with_parameters(_trainable, plan=plan), resources),
            param_space={"start": tune.grid_search(starts)},
            tune_config=tune.TuneConfig(
                metric="value",
                mode=config.mode,
                scheduler=make_scheduler(config, space, every=plan.every, steps=plan.steps),
                max_concurrent_trials=config.concurrent,
                reuse_actors=True,  # a process costs seconds
                trial_name_creator=lambda trial: trial.config["start"]["name"],
                trial_dirname_creator=lambda trial: trial.config["start"]["name"],
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(plan.work),
                failure_config=tune.FailureConfig(max_failures=placement.retries),
                callbacks=[shown],
                verbose=0,
            ),
        ).fit()
    if len(shown.ended) < len(starts):  # Ray Tune takes Ctrl-C for itself
        raise KeyboardInterrupt


def _trainable(config: dict[str, Any], plan: Plan) -> None:
    """What Ray calls in a worker: one trial, reporting with a pointer to its checkpoint."""
    import json
    import tempfile

    from ray import tune

    name = tune.get_context().get_trial_name()
    start, checkpoint = None, tune.get_checkpoint()
    if checkpoint and plan.pbt:
        with checkpoint.as_directory() as folder:
            start = tuple(json.loads((Path(folder) / "pointer.json").read_text()))

    def report(step: int, value: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "pointer.json").write_text(json.dumps([name, step]))
            tune.report({"step": step, "value": value}, checkpoint=tune.Checkpoint(folder))

    run_trial(plan, name, config["start"]["settings"], start, report)


def _shown(plan: Plan, trials: int, name: str) -> Any:
    """Tune's callback that shows how far trials are, and ends their MLflow runs. The bar counts
    the steps that a stopped trial was spared as done.
    """
    from ray import tune

    class Shown(tune.Callback):
        def __init__(self) -> None:
            self.ended: set[str] = set()
            self.reached: dict[str, int] = {}
            self.progress = bar(trials * plan.steps, f"tune {name}", "step")

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            self._reach(str(trial), result["step"])

        def _reach(self, key: str, step: int) -> None:
            before = self.reached.get(key, 0)
            self.reached[key] = max(before, min(step, plan.steps))
            self.progress.update(self.reached[key] - before)

        def on_trial_complete(
            self, iteration: int, trials: list[Any], trial: Any, **_: Any
        ) -> None:
            self._end(trial, "FINISHED")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self._end(trial, "FAILED")

        def _end(self, trial: Any, status: str) -> None:
            key = str(trial)
            if status == "FAILED":
                write_json(plan.folder(key) / LOST, {"error": "its worker was lost too often"})
            state = trial_state(plan.folder(key), plan.steps)
            settings = state["settings"] or trial.config["start"]["settings"]
            shown = " ".join(f"{k}={v}" for k, v in settings.items())
            said = state.get("error", f"{plan.metric} {state['value']:.6g}")
            print(f"{key} {state['status']} at step {state['step']}: {said} ({shown})", flush=True)
            if not (plan.folder(key) / FAILED).is_file():
                run = plan.run(key, trial.config["start"]["settings"])
                run.tag("outcome", state["status"])
                run.end(status)
            self.ended.add(key)
            self._reach(key, plan.steps)
            if len(self.ended) == trials:
                self.progress.close()

    return Shown()
