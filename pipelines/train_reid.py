"""Train the re-identification encoder of a dataset on pairs of TRAIN frames, and test it.

With `joint` it learns from all datasets together; each still has an encoder of its own to test.

python -m pipelines.train_reid phantom
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.data.training_sets import subfolders
from echosyn.runtime.config import Params
from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    from echosyn.training.reid import ReidTask, TrainReidConfig


def prepare(params: Params, cfg: "TrainReidConfig", dataset: str) -> "tuple[ReidTask, list[Path]]":
    """The task, and the folders it reads."""
    from echosyn.data.latents import LatentSet
    from echosyn.training.reid import ReidTask

    own = Path("latents/train") / dataset
    others = subfolders(params, "latents/train") if cfg.joint else []
    folders = [own, *(f for f in others if f != own)]
    train, val = ([LatentSet(f, split) for f in folders] for split in ("TRAIN", "VAL"))
    if cfg.init != "none":
        folders.append(Path(cfg.init))
    return ReidTask(cfg, train, val), folders


def main(dataset: str) -> None:
    from echosyn.data.latents import LatentSet
    from echosyn.stages.train import train
    from echosyn.training.reid import TrainReidConfig, measure_reid, save_reid

    params = torch_params()
    cfg = params.stage("train_reid", TrainReidConfig)
    task, folders = prepare(params, cfg, dataset)
    test = LatentSet(folders[0], "TEST")

    train(
        "train_reid", dataset, cfg, params.seed, task, folders, Path("models/reid") / dataset,
        save_reid,
        lambda model: measure_reid(model, test, cfg.test_frames, params.seed, cfg.augment),
        as_built=cfg.as_published,
    )  # fmt: skip


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
