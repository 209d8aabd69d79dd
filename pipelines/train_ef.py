"""Train the EF regressor on one arm: what of real, reconstructed and synthetic video it may see.

python -m pipelines.train_ef phantom synthetic

Protocol `strict`: the arm's own VAL stops and selects, so the synthetic arm sees no real video
before the test. `synthetic_relabelled` replaces the EF asked for by what the real-trained regressor
measures, and is named so because that regressor has seen real video.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.config import Params
from pipelines._stage import command, torch_params

if TYPE_CHECKING:
    from echosyn.training.ef import EfTask, TrainEfConfig


def prepare(
    params: Params, cfg: "TrainEfConfig", dataset: str, arm: str
) -> "tuple[EfTask, list[Path]]":
    """The task, and the folders it reads."""
    from echosyn.data.frames import load_frames
    from echosyn.runtime import state_root
    from echosyn.training.ef import EfRegressor, EfTask, arm_folders, relabel

    folders = arm_folders(dataset, arm)
    sets = [load_frames(f, cfg.fps, state_root() / "frames") for f in folders]
    inputs = list(folders)
    if arm == "synthetic_relabelled":
        teacher = Path("models/ef") / dataset / "real"
        inputs.append(teacher)
        sets = [relabel(s, EfRegressor.load(teacher), cfg) for s in sets]
    task = EfTask(cfg, [s.split("TRAIN") for s in sets], [s.split("VAL") for s in sets])
    return task, inputs


def main(dataset: str, arm: str) -> None:
    from echosyn.training.ef import TrainEfConfig
    from pipelines._train import train

    params = torch_params()
    cfg = params.stage("train_ef", TrainEfConfig)
    task, inputs = prepare(params, cfg, dataset, arm)

    train(
        "train_ef", f"{dataset}-{arm}", cfg, params.seed, task, inputs,
        Path("models/ef") / dataset / arm, lambda model, folder: model.save(folder),
        lambda model: {f"train_ef/{arm}/val_{k}": v for k, v in task.validate(model).items()},
    )  # fmt: skip


if __name__ == "__main__":
    command(
        main,
        dataset="name under `generate` in params.yaml",
        arm="real, reconstructed, synthetic, synthetic_relabelled or real_plus_synthetic",
    )
