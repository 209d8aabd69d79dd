"""Train the VAE on the TRAIN frames of every dataset with role 'train'.

python -m pipelines.train_vae
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.config import Params
from pipelines._stage import command, subfolders, torch_params

if TYPE_CHECKING:
    from echosyn.training.vae import TrainVaeConfig, VaeTask


def prepare(params: Params, cfg: "TrainVaeConfig") -> "tuple[VaeTask, list[Path]]":
    """The task, and the folders it reads."""
    from echosyn.data.frames import load_frames
    from echosyn.runtime import state_root
    from echosyn.training.vae import VaeTask

    folders = subfolders("data/train")
    cache = state_root() / "frames"
    sets = [load_frames(f, cfg.fps, cache, params.dataset(f.name).label) for f in folders]
    return VaeTask(cfg, [s.split("TRAIN") for s in sets], [s.split("VAL") for s in sets]), folders


def main() -> None:
    from echosyn.training.vae import TrainVaeConfig, evenly_spaced_frames, standardise
    from pipelines._train import train

    params = torch_params()
    cfg = params.stage("train_vae", TrainVaeConfig)
    task, folders = prepare(params, cfg)

    def measure(vae) -> dict[str, float]:  # noqa: ANN001
        standardise(vae, evenly_spaced_frames(task.sets, cfg.standardise_frames))
        scores = task.validate(vae)
        return {f"train_vae/val_{k}": v for k, v in scores.items()}

    train(
        "train_vae", "all", cfg, params.seed, task, folders, Path("models/vae"),
        lambda vae, folder: vae.save(folder), measure,
    )  # fmt: skip


if __name__ == "__main__":
    command(main)
