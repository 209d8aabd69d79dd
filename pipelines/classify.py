"""Tell two classes of real videos apart: classifiers of real, of synthetic and of both videos.

python -m pipelines.classify pah

Cross-validated by patient. Writes metrics/classify/<name>.json, and under classification/<name>
every prediction and the ROC curves.
"""

import dataclasses
from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(name: str) -> None:
    from echosyn.cluster import fit
    from echosyn.data.frames import load_frames
    from echosyn.metrics.classification import classification_numbers
    from echosyn.report.plots import png
    from echosyn.report.roc_plots import roc_figure
    from echosyn.runtime.files import atomic_dir, write_bytes
    from echosyn.runtime.process import state_root
    from echosyn.runtime.shards import finish, work_dir
    from echosyn.tracking import stage_run
    from echosyn.training.classify import classify_settings, predict_all, predict_job
    from echosyn.training.folds import label_videos

    params = torch_params()
    task, cfg = classify_settings(params, name)
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
            lambda job: predict_job(fit, job, real, cfg, work, run, name),
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
