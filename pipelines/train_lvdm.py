"""Train the latent video diffusion model (LVDM), which animates hearts at an EF, on all datasets.

python -m pipelines.train_lvdm
"""

from pathlib import Path

from pipelines._stage import command, subfolders, torch_params


def main() -> None:
    from echosyn.data.latents import LatentSet
    from echosyn.training.diffusion import LvdmTask, TrainLvdmConfig
    from pipelines._train import train

    params = torch_params()
    cfg = params.stage("train_lvdm", TrainLvdmConfig)
    folders = subfolders("latents/train")
    task = LvdmTask(
        cfg, [LatentSet(f, "TRAIN") for f in folders], [LatentSet(f, "VAL") for f in folders]
    )

    def save(model, folder: Path) -> None:  # noqa: ANN001
        model.save(folder)
        task.objective.save(folder)

    train(
        "train_lvdm", "all", cfg, params.seed, task, folders, Path("models/lvdm"),
        save, lambda model: {"train_lvdm/val_loss": task.validate(model)["loss"]},
    )  # fmt: skip


if __name__ == "__main__":
    command(main)
