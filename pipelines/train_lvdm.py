"""Train the latent video diffusion model (LVDM), which animates hearts at an EF, on all datasets.

python -m pipelines.train_lvdm
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.config import Params
from pipelines._stage import command, subfolders, torch_params

if TYPE_CHECKING:
    from echosyn.training.diffusion import LvdmTask, TrainLvdmConfig


def prepare(params: Params, cfg: "TrainLvdmConfig") -> "tuple[LvdmTask, list[Path]]":
    """The task, and the folders it reads."""
    from echosyn.data.latents import LatentSet
    from echosyn.training.diffusion import LvdmTask

    folders = subfolders("latents/train")
    fit, held_out = ([LatentSet(f, split) for f in folders] for split in ("TRAIN", "VAL"))
    return LvdmTask(cfg, fit, held_out), folders


def main() -> None:
    from echosyn.training.diffusion import TrainLvdmConfig
    from pipelines._train import train

    params = torch_params()
    cfg = params.stage("train_lvdm", TrainLvdmConfig)
    task, folders = prepare(params, cfg)

    def save(model, folder: Path) -> None:  # noqa: ANN001
        model.save(folder)
        task.objective.save(folder)

    train(
        "train_lvdm", "all", cfg, params.seed, task, folders, Path("models/lvdm"),
        save, lambda model: {"train_lvdm/val_loss": task.validate(model)["loss"]},
    )  # fmt: skip


if __name__ == "__main__":
    command(main)
