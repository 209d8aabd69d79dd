"""Distil the LVDM into a student that samples in a few steps, its guidance learned.

python -m pipelines.distill_lvdm fast

Writes models/distilled/<name>. `sample_videos.model: distilled/<name>` uses it, with one of its
numbers of steps and the guidance that it learned.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.data.training_sets import subfolders, trained_on
from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    from echosyn.models.video import VideoDenoiser


def main(name: str) -> None:
    from echosyn.cluster import fit
    from echosyn.report.sweeps import draw_sweeps
    from echosyn.training.diffusion import TrainLvdmConfig
    from echosyn.training.distill import DistillConfig, DistillTask
    from echosyn.training.stage import train

    params = torch_params()
    cfg = params.named("distill_lvdm", "distill", name, DistillConfig)
    clips = params.stage("train_lvdm", TrainLvdmConfig)
    folders = [*subfolders(params, "latents/train"), *subfolders(params, "beats/train")]
    teacher, vae = Path("models/lvdm"), Path("models/vae")
    seen, held_out = trained_on(params, "TRAIN"), trained_on(params, "VAL")
    task = DistillTask(cfg, teacher, clips, seen, held_out)

    def save(model: "VideoDenoiser", folder: Path) -> None:
        model.save(folder)
        task.objective.save(folder)
        cfg.student.save(folder)

    out = Path("models/distilled") / name
    train(
        fit, "distill_lvdm", name, cfg, params.seed, task, [teacher, *folders],
        out, save,
        lambda model: {f"distill_lvdm/val_{k}": v for k, v in task.validate(model).items()},
        draw=lambda folder: draw_sweeps(out, vae, [*held_out, *seen], folder),
    )  # fmt: skip


if __name__ == "__main__":
    command(main, name="name under `distill` in params.yaml")
