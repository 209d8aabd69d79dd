"""Tell two classes of real videos apart: classifiers of real, of synthetic and of both videos.

python -m pipelines.classify pah

Cross-validated by patient. Writes metrics/classify/<name>.json, and under classification/<name>
every prediction and the ROC curves.
"""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from echosyn.runtime.config import Params
    from echosyn.tracking import Log
    from echosyn.training.classify import ClassifyConfig, Job
    from echosyn.training.folds import ClassifyTask, Labelled


def read_settings(params: "Params", name: str) -> "tuple[ClassifyTask, ClassifyConfig]":
    """A task of section `classify`, and the sizes of its scale.

    Raises:
        EchosynError: no such task, or a dataset that is not generated.
    """
    from echosyn.runtime.config import build, read_yaml
    from echosyn.runtime.errors import EchosynError
    from echosyn.training.classify import ClassifyConfig
    from echosyn.training.folds import ClassifyTask

    entries = params.raw.get("classify") or {}
    if not isinstance(entries, dict):
        raise EchosynError(f"params.yaml: classify: expected 'name: entry', found {entries!r}")
    if name not in entries:
        raise EchosynError(f"params.yaml: no '{name}' under classify; known: {list(entries)}")
    task = build(ClassifyTask, entries[name], f"params.yaml: classify.{name}")
    generated = params.raw.get("generate") or []
    if task.dataset not in generated:
        raise EchosynError(
            f"params.yaml: classify.{name}: dataset {task.dataset!r} has no synthetic videos: it "
            f"is not under generate ({', '.join(map(str, generated))})"
        )
    conf = params.conf("classify")
    return task, build(ClassifyConfig, read_yaml(conf), str(conf.relative_to(params.root)))


@dataclass(frozen=True)
class _Named:
    """A run's log, its values under the name of the model they are of."""

    run: "Log"
    name: str

    def log(self, step: int, values: Any) -> None:
        self.run.log(step, {f"{self.name}/{k}": v for k, v in values.items()})

    def resumed(self, step: int) -> None:
        self.run.resumed(step)

    def committing(self, step: int) -> Any:
        return self.run.committing(step)


def predict_job(
    job: "Job", real: "Labelled", cfg: "ClassifyConfig", work: Path, log: "Log", name: str
) -> "np.ndarray":
    """Train a job's model and return its probabilities of the job's test videos (V,).

    They are kept in `work`, where the next call finds them; a killed training resumes.
    """
    import io

    import numpy as np

    from echosyn.cluster import fit
    from echosyn.runtime.files import write_bytes
    from echosyn.training.classify import ClassifierTask, probabilities

    done, folder = work / f"{job.name}.npy", work / job.name
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        task = ClassifierTask(cfg, job.train, job.val)
        shown = f"classify {name} {job.name}"
        model = fit(task, cfg.loop, job.seed, folder, _Named(log, job.name), shown, "classify")
        found = probabilities(model, real.take(job.test).frames, cfg)
        data = io.BytesIO()
        np.save(data, found)
        write_bytes(done, data.getvalue())
    shutil.rmtree(folder, ignore_errors=True)
    return np.load(done)


def roc_figure(table: "pd.DataFrame") -> "Figure":
    """ROC curves of the arms on the VAL and TEST videos of a table of `predict_all`."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from echosyn.metrics.classification import roc_points
    from echosyn.report.plots import ARM_COLOURS, GRID, STYLE

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GRID, lw=1, ls=":")
        held_out = table[table["Split"] != "TRAIN"]
        for (arm, rows), colour in zip(
            held_out.groupby("arm", sort=False), ARM_COLOURS, strict=False
        ):
            if rows["truth"].nunique() == 2:
                x, y = roc_points(rows["truth"].to_numpy(), rows["probability"].to_numpy())
                axes.plot(x, y, color=colour, lw=1.5, label=f"{arm} (n = {len(rows)})")
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        axes.set_aspect("equal")
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def main(name: str) -> None:
    from echosyn.data.frames import load_frames
    from echosyn.metrics.classification import classification_numbers
    from echosyn.report.plots import png
    from echosyn.runtime.files import atomic_dir, write_bytes
    from echosyn.runtime.process import state_root
    from echosyn.runtime.shards import finish, work_dir
    from echosyn.tracking import stage_run
    from echosyn.training.classify import predict_all
    from echosyn.training.folds import label_videos

    params = torch_params()
    task, cfg = read_settings(params, name)
    folders = [Path("data/train") / task.dataset, Path("samples") / task.dataset]
    label = params.dataset(task.dataset).label
    settings = {**dataclasses.asdict(cfg), "task": dataclasses.asdict(task), "seed": params.seed}
    work = work_dir(state_root(), "classify", name, settings, folders)
    out = Path("classification") / name
    with stage_run("classify", name, settings, folders, work) as run:
        real, synthetic = (
            label_videos(
                load_frames(folder, cfg.fps, state_root() / "frames", label), task,
                folder / "FileList.csv",
            )
            for folder in folders
        )  # fmt: skip
        table = predict_all(
            real, synthetic, cfg, params.seed,
            lambda job: predict_job(job, real, cfg, work, run, name),
        )  # fmt: skip
        figure = roc_figure(table)
        with atomic_dir(out) as tmp:
            table.to_csv(tmp / "predictions.csv", index=False, lineterminator="\n")
            write_bytes(tmp / "roc.png", png(figure))
        run.output(out)
        run.figure(figure, "roc.png")
        numbers = classification_numbers(table, name, params.seed, cfg.resamples)
        run.final(numbers, Path(f"metrics/classify/{name}.json"))
    finish(work)


if __name__ == "__main__":
    command(main, name="name under `classify` in params.yaml")
