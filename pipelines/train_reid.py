"""Train the re-identification encoder of a dataset on pairs of TRAIN frames, and test it.

python -m pipelines.train_reid phantom
"""

from pathlib import Path

from pipelines._stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.data.latents import LatentSet
    from echosyn.training.reid import ReidTask, TrainReidConfig, measure_reid, save_reid
    from pipelines._train import train

    params = torch_params()
    cfg = params.stage("train_reid", TrainReidConfig)
    latents = Path("latents/train") / dataset
    task = ReidTask(cfg, LatentSet(latents, "TRAIN"), LatentSet(latents, "VAL"))
    test = LatentSet(latents, "TEST")

    train(
        "train_reid", dataset, cfg, params.seed, task, [latents], Path("models/reid") / dataset,
        save_reid, lambda model: measure_reid(model, test, cfg.test_frames, params.seed),
    )  # fmt: skip


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
