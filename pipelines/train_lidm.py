"""Train the latent image diffusion model (LIDM), which draws hearts, on one dataset.

python -m pipelines.train_lidm phantom
"""

from pathlib import Path

from pipelines._stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.data.latents import LatentSet
    from echosyn.training.diffusion import LidmTask, TrainLidmConfig
    from pipelines._train import train

    params = torch_params()
    cfg = params.stage("train_lidm", TrainLidmConfig)
    latents = Path("latents/train") / dataset
    task = LidmTask(cfg, LatentSet(latents, "TRAIN"), LatentSet(latents, "VAL"))

    def save(model, folder: Path) -> None:  # noqa: ANN001
        model.save(folder)
        task.objective.save(folder)

    train(
        "train_lidm", dataset, cfg, params.seed, task, [latents], Path("models/lidm") / dataset,
        save, lambda model: {"train_lidm/val_loss": task.validate(model)["loss"]},
    )  # fmt: skip


if __name__ == "__main__":
    command(main, dataset="name under datasets in params.yaml")
