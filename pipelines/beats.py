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
    from echosyn.beat.lv_area import LvArea

PICTURES = 6  # videos in the picture that is kept with the run


def main(dataset: str) -> None:
    from echosyn.beat import lv_area
    from echosyn.cluster import fit
    from echosyn.data.beats import write_beats
    from echosyn.data.latents import LatentSet
    from echosyn.report.beat_plots import beat_figure, some_beats
    from echosyn.report.plots import png
    from echosyn.runtime.files import atomic_dir, write_bytes
    from echosyn.tracking import stage_run
    from echosyn.training.stage import train

    params = torch_params()
    cfg = params.stage("beats", lv_area.BeatsConfig)
    place = Path(params.dataset(dataset).role) / dataset
    data, folder, out = Path("data") / place, Path("latents") / place, Path("beats") / place
    inputs, latents = [folder, data], LatentSet(folder)
    seen, held_out = (
        lv_area.traced_frames(LatentSet(folder, split), data) for split in ("TRAIN", "VAL")
    )
    if seen.videos < lv_area.LEAST_TRACED or not held_out.videos:
        print(
            f"{dataset}: {seen.videos} videos of TRAIN and {held_out.videos} of VAL are traced "
            f"({lv_area.LEAST_TRACED} and 1 are needed): their beats are not known"
        )
        with stage_run("beats", dataset, cfg, inputs) as run:
            with atomic_dir(out) as tmp:
                write_beats(tmp, lv_area.without_beats(latents))
            run.output(out)
            run.final({"beats/sure": 0.0}, Path(f"metrics/beats/{dataset}.json"))
        return
    task = lv_area.LvAreaTask(cfg, seen, held_out)
    found: dict[str, Any] = {}

    def measure(model: "LvArea") -> dict[str, float]:
        found["curves"] = lv_area.area_curves(model, latents)
        found["table"], numbers = lv_area.beat_table(latents, found["curves"], seen)
        return {**numbers, "beats/area_unexplained": task.validate(model)["loss"]}

    def save(model: "LvArea", tmp: Path) -> None:
        lv_area.save_area(tmp, model, cfg.width, latents.frame_size)
        write_beats(tmp, found["table"])

    def draw(tmp: Path) -> None:
        fps = latents.table["FPS"].to_numpy()
        some = some_beats(data, fps, found["table"], found["curves"], PICTURES)
        write_bytes(tmp / "beats.png", png(beat_figure(some)))

    train(fit, "beats", dataset, cfg, params.seed, task, inputs, out, save, measure, draw=draw)


if __name__ == "__main__":
    command(main, dataset="name under datasets in params.yaml")
