"""Train the VAE on the TRAIN frames of every dataset with role 'train', or take published
`weights`.

python -m pipelines.train_vae
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    from torch import nn


def main() -> None:
    from echosyn.cluster import fit
    from echosyn.runtime.process import state_root
    from echosyn.training.published_vae import prepare_vae
    from echosyn.training.stage import train
    from echosyn.training.vae import TrainVaeConfig, evenly_spaced_frames, standardise, vae_of

    params = torch_params()
    cfg = params.stage("train_vae", TrainVaeConfig)
    task, inputs = prepare_vae(params, cfg, state_root() / "frames")

    def measure(model: "nn.Module") -> dict[str, float]:
        if cfg.weights == "none":  # denoisers published with a VAE know the scale of its latents
            standardise(vae_of(model), evenly_spaced_frames(task.sets, cfg.standardise_frames))
        scores = task.validate(model)
        return {f"train_vae/val_{k}": v for k, v in scores.items()}

    train(
        fit, "train_vae", "all", cfg, params.seed, task, inputs, Path("models/vae"),
        lambda model, folder: vae_of(model).save(folder), measure,
        as_built=cfg.weights != "none",
    )  # fmt: skip


if __name__ == "__main__":
    command(main)
