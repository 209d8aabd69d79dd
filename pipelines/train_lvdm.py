"""Train the latent video diffusion model (LVDM), which animates hearts at an EF, on all datasets,
or take published `weights`.

python -m pipelines.train_lvdm
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.data.training_sets import subfolders, trained_on
from echosyn.runtime.config import Params
from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    from echosyn.models.published_video import PublishedVideoDenoiser
    from echosyn.models.video import VideoDenoiser
    from echosyn.training.diffusion import LvdmTask, TrainLvdmConfig


def prepare(params: Params, cfg: "TrainLvdmConfig") -> "tuple[LvdmTask, list[Path]]":
    """The task, and the folders it reads."""
    from echosyn.training.diffusion import LvdmTask
    from echosyn.training.published_denoiser import PublishedLvdm

    folders = [*subfolders(params, "latents/train"), *subfolders(params, "beats/train")]
    fit, held_out = trained_on(params, "TRAIN"), trained_on(params, "VAL")
    if cfg.weights == "none":
        return LvdmTask(cfg, fit, held_out), folders
    task = PublishedLvdm(cfg, fit, held_out)
    return task, [*folders, task.folder]


def main() -> None:
    from echosyn.report.sweeps import draw_sweeps
    from echosyn.stages.train import train
    from echosyn.training.diffusion import TrainLvdmConfig

    params = torch_params()
    cfg = params.stage("train_lvdm", TrainLvdmConfig)
    task, folders = prepare(params, cfg)
    out, vae = Path("models/lvdm"), Path("models/vae")
    sets = [*trained_on(params, "VAL"), *trained_on(params, "TRAIN")]

    def save(model: "VideoDenoiser | PublishedVideoDenoiser", folder: Path) -> None:
        model.save(folder)
        task.objective.save(folder)

    train(
        "train_lvdm", "all", cfg, params.seed, task, folders, out, save,
        lambda model: {"train_lvdm/val_loss": task.validate(model)["loss"]},
        as_built=cfg.weights != "none", draw=lambda folder: draw_sweeps(out, vae, sets, folder),
    )  # fmt: skip


if __name__ == "__main__":
    command(main)
