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


def main(dataset: str) -> None:
    from echosyn.cluster import map_rows
    from echosyn.data.frames import VideoFolder, load_frames
    from echosyn.data.latents import LatentSet
    from echosyn.encoding.codec import VideoCodec
    from echosyn.evaluation import (
        BeatEvaluation,
        EfEvaluation,
        EvaluateConfig,
        ProtocolEvaluation,
        QualityEvaluation,
        Sets,
    )
    from echosyn.metrics.feature_cache import FeatureCache
    from echosyn.metrics.weights import locate
    from echosyn.models.ef_regressor import EfRegressor
    from echosyn.models.vae import Vae
    from echosyn.report import plots
    from echosyn.report.ef_plots import evaluation_figures
    from echosyn.runtime.files import atomic_dir, read_json, write_bytes, write_json
    from echosyn.runtime.process import state_root
    from echosyn.runtime.shards import finish, work_dir
    from echosyn.segmentation.agreement import measured_agreement
    from echosyn.tracking import stage_run
    from echosyn.training.arms import ARMS, NONE, folders, more_arms, parse_arm, read_none

    params = torch_params()
    cfg, seed = params.stage("evaluate", EvaluateConfig), params.seed
    protocol = (params.raw.get("train_ef") or {}).get("protocol", "strict")
    more = more_arms(params.raw, dataset)
    of, label = folders(dataset), params.dataset(dataset).label
    models, tracings = Path("models/ef") / dataset, Path("tracings") / dataset
    latents, beats, vae = (
        Path("latents/train") / dataset,
        Path("beats/train") / dataset,
        "models/vae",
    )
    inputs = [*of.values(), models, tracings, latents / "index.csv", beats, Path(vae)]
    settings = {**dataclasses.asdict(cfg), "seed": seed, "arms": list(more), "protocol": protocol}
    weights = {
        k: locate(k, v) if (v := getattr(cfg, k)) != "none" else None for k in ("inception", "i3d")
    }
    work = work_dir(state_root(), "evaluate", dataset, settings, inputs)
    with stage_run("evaluate", dataset, settings, inputs, work) as run:
        none, state = read_none(models / "real"), state_root()
        fps = float(none["fps"]) if none else EfRegressor.load(models / "real/seed0").fps
        videos = {name: load_frames(f, fps, state / "frames", label) for name, f in of.items()}
        test = videos["real"].split("TEST")

        over = partial(map_rows, work, cfg.shard, "evaluate", "video")
        ef, tables = EfEvaluation(cfg, seed, over), {}
        if none is None:
            for arm in ARMS:
                ef.add(parse_arm(arm).label(protocol), models / arm, test)
            for arm in more:
                ef.add(parse_arm(arm).label(protocol), models / "more" / arm, test)
            ef.add("real_on_reconstructed", models / "real", videos["reconstructed"].split("TEST"))
            tables["requested"] = ef.faithfulness(models / "real", videos["synthetic"])
            ef.numbers |= measured_agreement(tracings, tables["requested"], seed)
            tables["predictions"] = ef.predictions()

        sets = Sets.of(**videos)
        quality = QualityEvaluation(cfg, seed, over, FeatureCache(state / "features"))
        quality.measure(sets, None if none else models / "real/seed0")
        beat = BeatEvaluation(
            VideoCodec(Vae.load(vae), precision=cfg.precision), beats, cfg.resamples, seed
        )
        real = LatentSet(latents, "TEST")
        rate = float(real.table["FPS"].iloc[0])
        moving = beat.measure(real, load_frames(of["synthetic"], rate, state / "frames", label))
        published = ProtocolEvaluation(
            **weights, strict_names=cfg.strict_names, seed=seed, over=over
        )
        streamed = {name: VideoFolder.open(f, cfg.protocol_fps, label) for name, f in of.items()}
        published.measure(**vars(Sets.of(**streamed)))

        numbers = {
            **ef.numbers,
            **quality.numbers,
            **moving,
            **published.numbers,
            **{
                f"protocol/{m}/{k}": str(v)
                for m, d in published.protocol.items()
                for k, v in d.items()
            },
        }
        for stage in (
            "encode",
            "train_reid",
            "train_segmentation",
            "privacy_filter",
            "filter_videos",
            "trace",
            "privacy_audit",
        ):
            numbers |= read_json(Path(f"metrics/{stage}/{dataset}.json"))

        figures = {}
        if none is None:
            figures = evaluation_figures(tables["predictions"], numbers)
            figures["requested_vs_measured"] = plots.requested_vs_measured(tables["requested"])
        with atomic_dir(Path("evaluation") / dataset) as out:
            if none is not None:
                write_json(out / NONE, none)
            for name, table in tables.items():
                table.to_csv(out / f"{name}.csv", index=False)
            for name, figure in figures.items():
                write_bytes(out / f"{name}.png", plots.png(figure))
                run.artifact(out / f"{name}.png")
        run.final(numbers, Path(f"metrics/evaluate/{dataset}.json"))
    finish(work)


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
