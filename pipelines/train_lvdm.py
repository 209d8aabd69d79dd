"""Train the latent video diffusion model (LVDM), which animates hearts at an EF, on all datasets,
or take published `weights`.

python -m pipelines.train_lvdm
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    from echosyn.models.published_video import PublishedVideoDenoiser
    from echosyn.models.video import VideoDenoiser


def main() -> None:
    from echosyn.cluster import fit
    from echosyn.data.training_sets import trained_on
    from echosyn.report.sweeps import draw_sweeps
    from echosyn.training.diffusion import TrainLvdmConfig
    from echosyn.training.published_denoiser import prepare_lvdm
    from echosyn.training.stage import train

    params = torch_params()
    cfg = params.stage("train_lvdm", TrainLvdmConfig)
    task, folders = prepare_lvdm(params, cfg)
    out, vae = Path("models/lvdm"), Path("models/vae")
    sets = [*trained_on(params, "VAL"), *trained_on(params, "TRAIN")]

    def save(model: "VideoDenoiser | PublishedVideoDenoiser", folder: Path) -> None:
        model.save(folder)
        task.objective.save(folder)

    train(
        fit, "train_lvdm", "all", cfg, params.seed, task, folders, out, save,
        lambda model: {"train_lvdm/val_loss": task.validate(model)["loss"]},
        as_built=cfg.weights != "none", draw=lambda folder: draw_sweeps(out, vae, sets, folder),
    )  # fmt: skip


if __name__ == "__main__":
    command(main)
