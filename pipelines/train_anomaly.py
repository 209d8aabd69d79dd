"""Train the network that finds strange videos, on real TRAIN videos with anomalies made in them.

python -m pipelines.train_anomaly phantom

Kinds of anomaly that are not learned select it, on VAL. Writes detectors/<dataset>, with which
filter_videos refuses the strangest of a dataset that is under `anomaly` in params.yaml.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    from echosyn.models.anomaly import AnomalyNet


def main(dataset: str) -> None:
    from echosyn.anomaly.measure import drawn_numbers, made_numbers, require_better_than_chance
    from echosyn.anomaly.task import AnomalyConfig, AnomalyTask, Clips
    from echosyn.cluster import fit
    from echosyn.data.frames import load_frames
    from echosyn.data.phantom import PhantomConfig
    from echosyn.encoding.codec import EncodeConfig
    from echosyn.models.anomaly import AnomalyDetector
    from echosyn.runtime.process import state_root
    from echosyn.training.stage import train

    params = torch_params()
    cfg = params.named("train_anomaly", "anomaly", dataset, AnomalyConfig)
    source, fps = params.dataset(dataset), params.stage("encode", EncodeConfig).fps
    data, raw = Path("data/train") / dataset, Path(source.path)
    frames = load_frames(data, fps, state_root() / "frames", source.label)
    learned, held_out, test = (Clips.of(frames, split, cfg) for split in ("TRAIN", "VAL", "TEST"))
    task = AnomalyTask(cfg, learned, held_out)

    def measure(net: "AnomalyNet") -> dict[str, float]:
        found = task.validate(net)
        require_better_than_chance(found["least_auroc"], cfg.least, dataset)
        numbers = made_numbers(net, test, cfg, params.seed)
        numbers |= {"anomaly/val_auroc": found["auroc"]}
        if raw.parent == Path("data/raw") and source.source == "phantom":
            phantom = params.named("phantom", "phantoms", raw.name, PhantomConfig)
            numbers |= drawn_numbers(AnomalyDetector(net), test, phantom, cfg, params.seed)
        return numbers

    train(
        fit, "train_anomaly", dataset, cfg, params.seed, task, [data], Path("detectors") / dataset,
        lambda net, tmp: net.save(tmp), measure,
    )  # fmt: skip


if __name__ == "__main__":
    command(main, dataset="name under `anomaly` in params.yaml")
