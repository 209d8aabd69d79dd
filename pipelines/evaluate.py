"""Measure a synthetic dataset against the real one; TEST is looked at here and only here.

python -m pipelines.evaluate phantom

Writes metrics/evaluate/<dataset>.json, every number with its interval and how it was measured, and
tables and plots under evaluation/. docs/metrics.md says what each number means. What needs EF is
left out for a dataset that has none.
"""

import dataclasses
from functools import partial
from pathlib import Path

from echosyn.runtime.stage import command, torch_params

OF_STAGES = (
    *("encode", "train_reid", "train_segmentation", "privacy_filter", "filter_videos", "trace"),
    "privacy_audit",
)


def main(dataset: str) -> None:
    from echosyn.cluster import map_rows
    from echosyn.evaluation import EvaluateConfig, Folders, evaluate_dataset
    from echosyn.metrics.weights import locate
    from echosyn.report import plots
    from echosyn.report.ef_plots import evaluation_figures
    from echosyn.runtime.files import atomic_dir, read_json, write_bytes, write_json
    from echosyn.runtime.process import state_root
    from echosyn.runtime.shards import finish, work_dir
    from echosyn.segmentation.agreement import measured_agreement
    from echosyn.tracking import stage_run
    from echosyn.training.arms import NONE, folders, more_arms

    params = torch_params()
    cfg, label = params.stage("evaluate", EvaluateConfig), params.dataset(dataset).label
    protocol = (params.raw.get("train_ef") or {}).get("protocol", "strict")
    more, videos = more_arms(params.raw, dataset), folders(params.root, dataset)
    models, vae = Path("models/ef") / dataset, Path("models/vae")
    tracings = Path("tracings") / dataset
    latents, beats = (Path(p) / "train" / dataset for p in ("latents", "beats"))
    inputs = [*videos.values(), models, tracings, latents / "index.csv", beats, vae]
    own = {"seed": params.seed, "arms": list(more), "protocol": protocol}
    settings = {**dataclasses.asdict(cfg), **own}
    weights = {
        k: locate(k, v) if (v := getattr(cfg, k)) != "none" else None for k in ("inception", "i3d")
    }
    work = work_dir(state_root(), "evaluate", dataset, settings, inputs)
    with stage_run("evaluate", dataset, settings, inputs, work) as run:
        found = evaluate_dataset(
            Folders(videos, models, latents, beats, vae, state_root()), label, cfg, protocol, more,
            weights, params.seed, partial(map_rows, work, cfg.shard, "evaluate", "video"),
        )  # fmt: skip
        numbers = dict(found.numbers)
        if "requested" in found.tables:
            numbers |= measured_agreement(tracings, found.tables["requested"], params.seed)
        for stage in OF_STAGES:
            numbers |= read_json(Path(f"metrics/{stage}/{dataset}.json"))
        if dataset in (params.raw.get("anomaly") or {}):
            numbers |= read_json(Path(f"metrics/train_anomaly/{dataset}.json"))
        figures, tables = {}, found.tables
        if tables:
            figures = evaluation_figures(tables["predictions"], numbers)
            figures["requested_vs_measured"] = plots.requested_vs_measured(tables["requested"])
        with atomic_dir(Path("evaluation") / dataset) as out:
            if found.none is not None:
                write_json(out / NONE, found.none)
            for name, table in tables.items():
                table.to_csv(out / f"{name}.csv", index=False)
            for name, figure in figures.items():
                write_bytes(out / f"{name}.png", plots.png(figure))
                run.artifact(out / f"{name}.png")
        run.final(numbers, Path(f"metrics/evaluate/{dataset}.json"))
    finish(work)


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
