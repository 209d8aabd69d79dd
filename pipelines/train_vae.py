"""Train the VAE on the TRAIN frames of every dataset with role 'train', or take published
`weights`.

python -m pipelines.train_vae
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.data.training_sets import subfolders
from echosyn.runtime.config import Params
from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    from torch import nn

    from echosyn.training.vae import TrainVaeConfig, VaeTask


def prepare(params: Params, cfg: "TrainVaeConfig") -> "tuple[VaeTask, list[Path]]":
    """The task, and what it reads."""
    from echosyn.data.frames import load_frames
    from echosyn.runtime.process import state_root
    from echosyn.training.published_vae import PublishedVae
    from echosyn.training.vae import VaeTask

    folders = subfolders(params, "data/train")
    cache = state_root() / "frames"
    sets = [load_frames(f, cfg.fps, cache, params.dataset(f.name).label) for f in folders]
    fit, held_out = ([s.split(split) for s in sets] for split in ("TRAIN", "VAL"))
    inputs = [*folders, *cfg.files]
    if cfg.weights == "none":
        return VaeTask(cfg, fit, held_out), inputs
    task = PublishedVae(cfg, fit, held_out)
    return task, [*inputs, task.folder]


def main() -> None:
    from echosyn.stages.train import train
    from echosyn.training.vae import TrainVaeConfig, evenly_spaced_frames, standardise, vae_of

    params = torch_params()
    cfg = params.stage("train_vae", TrainVaeConfig)
    task, inputs = prepare(params, cfg)

    def measure(model: "nn.Module") -> dict[str, float]:
        if cfg.weights == "none":  # denoisers published with a VAE know the scale of its latents
            standardise(vae_of(model), evenly_spaced_frames(task.sets, cfg.standardise_frames))
        scores = task.validate(model)
        return {f"train_vae/val_{k}": v for k, v in scores.items()}

    train(
        "train_vae", "all", cfg, params.seed, task, inputs, Path("models/vae"),
        lambda model, folder: vae_of(model).save(folder), measure,
        as_built=cfg.weights != "none",
    )  # fmt: skip


if __name__ == "__main__":
    command(main)
