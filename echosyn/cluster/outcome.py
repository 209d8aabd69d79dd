"""What a search found, from the files of its trials: a table, a picture, the best, a patch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from echosyn.cluster.space import SearchConfig
from echosyn.cluster.trial import FAILED, LOST, history
from echosyn.project.config_patch import patch
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, read_json, write_text

BEST, SOFT = "#d9822b", "#8a8f98"


@dataclass(frozen=True)
class Outcome:
    """Where a search's trials are, and where what they found goes."""

    root: Path
    work: Path
    out: Path
    conf: Path
    stage: str
    name: str
    config: SearchConfig
    steps: int


def trial_state(folder: Path, steps: int) -> dict[str, Any]:
    """How far a trial came: status (complete, stopped early, failed), step, value, settings."""
    entries = history(folder)
    none: dict[str, Any] = {"step": 0, "value": float("nan"), "settings": {}}
    last = entries[-1] if entries else none
    state = {k: last[k] for k in ("step", "value", "settings")}
    if last["step"] < steps:
        for cause in (folder / FAILED, folder / LOST):
            if cause.is_file():
                return {**state, "status": "failed", "error": read_json(cause)["error"]}
    return {**state, "status": "complete" if last["step"] >= steps else "stopped early"}


def write_outcome(outcome: Outcome, started: list[dict[str, Any]]) -> tuple[str, dict[str, float]]:
    """Write the folder `outcome.out`: trials.csv, trials.png, best.yaml and, if the present
    settings were beaten, best.patch.

    Args:
        started: settings that each trial began with, the present ones first.

    Returns:
        text for the user, and final numbers.

    Raises:
        EchosynError: no trial came to its end; the message of the first that failed.
    """
    config, present = outcome.config, started[0]
    states = []
    for i, settings in enumerate(started):
        folder = outcome.work / "trials" / f"trial-{i:03d}"
        state = trial_state(folder, outcome.steps)
        states.append({**state, "trial": folder.name, "settings": state["settings"] or settings})
    complete = [s for s in states if s["status"] == "complete"]
    failed = [s for s in states if s["status"] == "failed"]
    if not complete:
        why = failed[0]["error"] if failed else "all were stopped"
        raise EchosynError(f"tune {outcome.name}: no trial came to its end: {why}")
    sign = 1 if config.mode == "min" else -1
    best = min(complete, key=lambda s: sign * s["value"])
    changes = {k: v for k, v in best["settings"].items() if v != present[k]}
    text = patch(outcome.root, outcome.conf, outcome.stage, changes)
    with atomic_dir(outcome.out) as tmp:
        rows = [
            {k: s[k] for k in ("trial", "status", "step", "value")} | s["settings"] for s in states
        ]
        pd.DataFrame(rows).to_csv(tmp / "trials.csv", index=False)
        _picture(outcome, states, best).savefig(tmp / "trials.png", dpi=150)
        write_text(tmp / "best.yaml", _yaml(outcome, best, present))
        if changes:
            write_text(tmp / "best.patch", text)
    numbers = {
        "tune/best_value": best["value"],
        "tune/trials": len(states),
        "tune/complete": len(complete),
        "tune/failed": len(failed),
    }
    if states[0]["status"] == "complete" and config.method == "asha":
        numbers["tune/present_value"] = states[0]["value"]
    return _text(outcome, states, best, changes, text), numbers


def _yaml(outcome: Outcome, best: dict[str, Any], present: dict[str, Any]) -> str:
    facts: dict[str, Any] = {
        "trial": best["trial"],
        outcome.config.metric: best["value"],
        "steps": best["step"],
        "settings": best["settings"],
        "present": present,
    }
    if outcome.config.method == "pbt":
        entries = history(outcome.work / "trials" / best["trial"])
        facts["history"] = [
            {k: e[k] for k in ("step", "value", "from", "settings")} for e in entries
        ]
    return yaml.safe_dump(facts, sort_keys=False, width=10**6)


def _text(
    outcome: Outcome,
    states: list[dict[str, Any]],
    best: dict[str, Any],
    changes: dict[str, Any],
    text: str,
) -> str:
    config = outcome.config
    counts = pd.Series([s["status"] for s in states]).value_counts()
    lines = [
        f"{outcome.name}: {len(states)} trials, "
        + ", ".join(f"{n} {status}" for status, n in counts.items()),
        f"best: {best['trial']}, {config.metric} {best['value']:.6g}",
    ]
    if config.method == "asha":
        first = states[0]
        lines.append(
            f"present settings: {config.metric} {first['value']:.6g} at step {first['step']}"
            f" ({first['status']})"
        )
    place = outcome.out.relative_to(outcome.root)
    if not changes:
        lines.append(f"the present settings are the best found; {place}/trials.csv has them all")
        return "\n".join(lines) + "\n"
    if config.method == "pbt":
        lines.append(
            "PBT changes settings on the way; the patch has the last ones of the best trial"
        )
    lines += ["", text, f"not applied. To apply: git apply {place}/best.patch"]
    return "\n".join(lines) + "\n"


def _picture(outcome: Outcome, states: list[dict[str, Any]], best: dict[str, Any]) -> Any:
    """The value of every trial against its steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for state in sorted(states, key=lambda s: s is best):
        entries = history(outcome.work / "trials" / state["trial"])
        colour, width = (BEST, 2.2) if state is best else (SOFT, 1.0)
        label = f"{state['trial']} (best)" if state is best else None
        x, y = [e["step"] for e in entries], [e["value"] for e in entries]
        axes.plot(x, y, color=colour, lw=width, marker=".", label=label)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(outcome.config.metric)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
