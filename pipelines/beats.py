"""Find the beat of a dataset's videos: heart rate, and phase from end-diastole.

python -m pipelines.beats phantom

A small network learns the area of the left ventricle from the traced frames of TRAIN; its curve
over a video gives the rate, and TRAIN's end-diastolic frames say where in it a beat begins. Writes
beats/<role>/<dataset>. Without VolumeTracings.csv no beat is known, and videos train without one.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    import numpy as np

    from echosyn.beat.lv_area import LvArea
    from echosyn.data.latents import LatentSet
    from echosyn.report.beat_plots import FoundBeat

PICTURES = 6  # videos in the picture that is kept with the run


def main(dataset: str) -> None:
    from echosyn.beat.lv_area import (
        LEAST_TRACED,
        BeatsConfig,
        LvAreaTask,
        area_curves,
        beat_table,
        save_area,
        traced_frames,
        without_beats,
    )
    from echosyn.data.beats import write_beats
    from echosyn.data.latents import LatentSet
    from echosyn.report.beat_plots import beat_figure
    from echosyn.report.plots import png
    from echosyn.runtime.files import atomic_dir, write_bytes
    from echosyn.stages.train import train
    from echosyn.tracking import stage_run

    params = torch_params()
    cfg = params.stage("beats", BeatsConfig)
    place = Path(params.dataset(dataset).role) / dataset
    data, folder, out = Path("data") / place, Path("latents") / place, Path("beats") / place
    inputs = [folder, data]
    latents = LatentSet(folder)
    fit, held_out = (traced_frames(LatentSet(folder, s), data) for s in ("TRAIN", "VAL"))
    if fit.videos < LEAST_TRACED or not held_out.videos:
        print(
            f"{dataset}: {fit.videos} videos of TRAIN and {held_out.videos} of VAL are traced "
            f"({LEAST_TRACED} and 1 are needed): their beats are not known"
        )
        with stage_run("beats", dataset, cfg, inputs) as run:
            with atomic_dir(out) as tmp:
                write_beats(tmp, without_beats(latents))
            run.output(out)
            run.final({"beats/sure": 0.0}, Path(f"metrics/beats/{dataset}.json"))
        return
    task = LvAreaTask(cfg, fit, held_out)
    found: dict[str, Any] = {}

    def measure(model: "LvArea") -> dict[str, float]:
        found["curves"] = area_curves(model, latents)
        found["table"], numbers = beat_table(latents, found["curves"], fit, _rows(latents, "TRAIN"))
        return {**numbers, "beats/area_unexplained": task.validate(model)["loss"]}

    def save(model: "LvArea", tmp: Path) -> None:
        save_area(tmp, model, cfg.width, latents.frame_size)
        write_beats(tmp, found["table"])

    def draw(tmp: Path) -> None:
        write_bytes(tmp / "beats.png", png(beat_figure(_some(latents, data, found))))

    train("beats", dataset, cfg, params.seed, task, inputs, out, save, measure, draw=draw)


def _some(latents: "LatentSet", data: Path, found: dict[str, Any]) -> "list[FoundBeat]":
    """Videos for the picture, evenly spread over the dataset."""
    import numpy as np

    from echosyn.data.filelist import video_path
    from echosyn.data.spaced import evenly_spaced
    from echosyn.data.video import read_video, resample_indices
    from echosyn.report.beat_plots import FoundBeat

    some = []
    for v in np.unique(evenly_spaced(len(latents), PICTURES)):
        row, rate = found["table"].iloc[v], float(latents.table["FPS"][v])
        frames, fps = read_video(video_path(data, row["FileName"]))
        shown = frames[resample_indices(len(frames), fps, rate)]
        beat = (row["HeartRate"], row["Phase"], row["Share"])
        some.append(FoundBeat(row["FileName"], shown, rate, found["curves"][v], *beat))
    return some


def _rows(latents: "LatentSet", split: str) -> "np.ndarray":
    """Rows of a split's videos among all."""
    return (latents.table["Split"] == split).to_numpy().nonzero()[0]


if __name__ == "__main__":
    command(main, dataset="name under datasets in params.yaml")
