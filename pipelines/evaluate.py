"""Measure a synthetic dataset against the real one; TEST is looked at here and only here.

python -m pipelines.evaluate phantom

Writes metrics/evaluate/<dataset>.json, every headline number, and tables under evaluation/.
"""

import dataclasses
from functools import partial
from pathlib import Path

from pipelines._stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.cluster import map_rows
    from echosyn.data.frames import load_frames
    from echosyn.data.latents import LatentSet
    from echosyn.diffusion.generate import read_hearts
    from echosyn.diffusion.synthesise import released_hearts
    from echosyn.evaluation import (
        EfEvaluation,
        EvaluateConfig,
        QualityEvaluation,
        privacy_numbers,
    )
    from echosyn.files import atomic_dir, read_json, write_json
    from echosyn.privacy.embedding import HeartEncoder
    from echosyn.report.plots import predictions, requested_vs_measured
    from echosyn.runtime import state_root
    from echosyn.shards import finish, work_dir
    from echosyn.tracking import stage_run
    from echosyn.training.ef import ARMS, EfRegressor

    params = torch_params()
    cfg, seed = params.stage("evaluate", EvaluateConfig), params.seed
    folders = {
        "real": Path("data/train") / dataset,
        "reconstructed": Path("reconstructions/train") / dataset,
        "synthetic": Path("samples") / dataset,
    }
    models, latents = Path("models/ef") / dataset, Path("latents/train") / dataset
    reid, hearts = Path("models/reid") / dataset, Path("hearts") / dataset
    inputs = [*folders.values(), models, latents, reid, hearts]
    settings = {**dataclasses.asdict(cfg), "seed": seed}
    work = work_dir(state_root(), "evaluate", dataset, settings, inputs)
    with stage_run("evaluate", dataset, settings, inputs, work) as run:
        fps, cache = EfRegressor.load(models / "real").fps, state_root() / "frames"
        videos = {name: load_frames(f, fps, cache) for name, f in folders.items()}
        test = videos["real"].split("TEST")

        over = partial(map_rows, work, cfg.shard, "evaluate", "video")
        ef = EfEvaluation(cfg, seed, over)
        for arm in ARMS:
            ef.add(arm, models / arm, test)
        ef.add("real_on_reconstructed", models / "real", videos["reconstructed"].split("TEST"))
        requested = ef.faithfulness(models / "real", videos["synthetic"])

        quality = QualityEvaluation(cfg, seed, over)
        quality.measure(
            videos["real"].split("TRAIN"), test, videos["reconstructed"].split("TRAIN"),
            videos["synthetic"], models / "real",
        )  # fmt: skip

        splits = {name: LatentSet(latents, name) for name in ("TRAIN", "VAL", "TEST")}
        released = released_hearts(read_hearts(hearts), folders["synthetic"])
        numbers = {
            **ef.numbers,
            **quality.numbers,
            **privacy_numbers(splits, released, HeartEncoder.load(reid), cfg, seed),
        }
        for stage in ("encode", "train_reid", "privacy_filter"):
            numbers |= read_json(Path(f"metrics/{stage}/{dataset}.json"))

        with atomic_dir(Path("evaluation") / dataset) as out:
            ef.predictions().to_csv(out / "predictions.csv", index=False)
            requested.to_csv(out / "requested.csv", index=False)
            write_json(out / "protocol.json", quality.protocol)
        run.figure(predictions(ef.predictions()), "predictions.png")
        run.figure(requested_vs_measured(requested), "requested_vs_measured.png")
        run.final(numbers, Path(f"metrics/evaluate/{dataset}.json"))
    finish(work)


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
