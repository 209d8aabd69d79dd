"""Train the network that finds the left ventricle in a frame, on the traced frames of TRAIN.

python -m pipelines.train_segmentation phantom

VAL selects; Dice is of TEST. Writes models/segmentation/<dataset>. Without VolumeTracings.csv there
is nothing to learn from: none.json in its place says so, and the release goes without tracings.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    from echosyn.models.segmenter import Segmenter


def main(dataset: str) -> None:
    from echosyn.cluster import fit
    from echosyn.runtime.files import atomic_dir, write_json
    from echosyn.segmentation.files import NONE
    from echosyn.segmentation.task import (
        LEAST_TRACED,
        SegmentationConfig,
        SegmentationTask,
        cubic_pixel,
        dice_numbers,
        dices,
        traced_frames,
    )
    from echosyn.tracking import stage_run
    from echosyn.training.stage import train

    params = torch_params()
    cfg = params.stage("train_segmentation", SegmentationConfig)
    data, out = Path("data/train") / dataset, Path("models/segmentation") / dataset
    learned, held_out, test = (traced_frames(data, split) for split in ("TRAIN", "VAL", "TEST"))
    if learned.videos < LEAST_TRACED or not held_out.videos:
        reason = (
            f"{learned.videos} real videos of TRAIN and {held_out.videos} of VAL are traced "
            f"({LEAST_TRACED} and 1 are needed)"
        )
        print(f"{dataset}: {reason}: no segmentation model, no tracings in the release")
        with stage_run("train_segmentation", dataset, cfg, [data]) as run:
            with atomic_dir(out) as tmp:
                write_json(tmp / NONE, {"reason": reason})
            run.output(out)
            run.final({}, Path(f"metrics/train_segmentation/{dataset}.json"))
        return

    def measure(model: "Segmenter") -> dict[str, float]:
        return dice_numbers(dices(model, test), test, params.seed) if test.videos else {}

    task = SegmentationTask(cfg, learned, held_out, cubic_pixel(data))
    train(
        fit, "train_segmentation", dataset, cfg, params.seed, task, [data], out,
        lambda model, tmp: model.save(tmp), measure,
    )  # fmt: skip


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
