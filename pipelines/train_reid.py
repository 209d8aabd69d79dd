"""Train the re-identification encoder of a dataset on pairs of TRAIN frames, and test it.

With `joint` it learns from all datasets together; each still has an encoder of its own to test.

python -m pipelines.train_reid phantom
"""

from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.cluster import fit
    from echosyn.data.latents import LatentSet
    from echosyn.training.reid import TrainReidConfig, measure_reid, prepare_reid, save_reid
    from echosyn.training.stage import train

    params = torch_params()
    cfg = params.stage("train_reid", TrainReidConfig)
    task, folders = prepare_reid(params, cfg, dataset)
    test = LatentSet(folders[0], "TEST")

    train(
        fit, "train_reid", dataset, cfg, params.seed, task, folders, Path("models/reid") / dataset,
        save_reid,
        lambda model: measure_reid(model, test, cfg.test_frames, params.seed, cfg.augment),
        as_built=cfg.as_published,
    )  # fmt: skip


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
