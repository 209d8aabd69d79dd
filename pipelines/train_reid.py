"""Train the re-identification encoder of a dataset on pairs of TRAIN frames, and test it.

python -m pipelines.train_reid phantom
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.config import Params
from pipelines._stage import command, torch_params

if TYPE_CHECKING:
    from echosyn.training.reid import ReidTask, TrainReidConfig


def prepare(params: Params, cfg: "TrainReidConfig", dataset: str) -> "tuple[ReidTask, list[Path]]":
    """The task, and the folders it reads."""
    from echosyn.data.latents import LatentSet
    from echosyn.training.reid import ReidTask

    latents = Path("latents/train") / dataset
    return ReidTask(cfg, LatentSet(latents, "TRAIN"), LatentSet(latents, "VAL")), [latents]


def main(dataset: str) -> None:
    from echosyn.data.latents import LatentSet
    from echosyn.training.reid import TrainReidConfig, measure_reid, save_reid
    from pipelines._train import train

    params = torch_params()
    cfg = params.stage("train_reid", TrainReidConfig)
    task, folders = prepare(params, cfg, dataset)
    test = LatentSet(folders[0], "TEST")

    train(
        "train_reid", dataset, cfg, params.seed, task, folders, Path("models/reid") / dataset,
        save_reid,
        lambda model: measure_reid(model, test, cfg.test_frames, params.seed, cfg.augment),
    )  # fmt: skip


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
