"""What the terms and the size of the VAE do to pictures, to ultrasound texture and to EF.

A row is a training of conf/<scale>/train_vae.yaml with what the row says; TEST videos go through it
as `encode` does it (posterior means, stored as float16). EF R2 is of the project's real-trained
regressors; Frechet distances and `us/spectrum_db` are against the same videos unreconstructed. A
table, not two sides of one speed: no line of JSON ends the output.

python -m benchmarks.vae --project . --work DIR --steps 600

`project` has been through `dvc repro`. Finished trainings stay in DIR: the same command goes on
where it was stopped.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

from benchmarks.harness import machine, threads, use_threads

use_threads(threads())

import numpy as np  # noqa: E402

from echosyn.data.frames import FrameSet, load_frames  # noqa: E402
from echosyn.data.video import resample_indices  # noqa: E402
from echosyn.encoding.codec import VideoCodec  # noqa: E402
from echosyn.evaluation.quality import clips_of, efnet  # noqa: E402
from echosyn.metrics.ef import ef_scores  # noqa: E402
from echosyn.metrics.ef_meter import measure_ef  # noqa: E402
from echosyn.metrics.extract import extract  # noqa: E402
from echosyn.metrics.features import RandomFeatures2d, RandomFeatures3d  # noqa: E402
from echosyn.metrics.frechet import frechet_distance  # noqa: E402
from echosyn.metrics.image import psnr_db, ssim  # noqa: E402
from echosyn.metrics.interval import Estimate  # noqa: E402
from echosyn.metrics.ultrasound import compare_statistics, image_statistics  # noqa: E402
from echosyn.models.ef_regressor import load_seeds  # noqa: E402
from echosyn.models.vae import Vae  # noqa: E402
from echosyn.runtime.config import Params, build  # noqa: E402
from echosyn.runtime.device import set_threads  # noqa: E402
from echosyn.runtime.errors import EchosynError  # noqa: E402
from echosyn.runtime.files import atomic_dir, read_json, write_json  # noqa: E402
from echosyn.tracking import NullRun  # noqa: E402
from echosyn.training.loop import fit  # noqa: E402
from echosyn.training.vae import (  # noqa: E402
    TrainVaeConfig,
    VaeTask,
    evenly_spaced_frames,
    standardise,
    vae_of,
)

SEED, CLIPS = 0, 4
# What a row changes of the settings.
ROWS: dict[str, dict] = {
    "as it is": {},
    "+ `adversarial: {weight: 0.5}`": {"adversarial": {"weight": 0.5}},
    "+ `perceptual: features`": {"perceptual": "features"},
    "+ both": {"adversarial": {"weight": 0.5}, "perceptual": "features"},
    "28x28, `model.patch: 2`": {"model": {"patch": 2}},
}
HEAD = (
    "training", "PSNR dB", "SSIM", "EF R2", "Frechet efnet", "rand2d", "rand3d", "spectrum dB",
    "posterior sd", "active units", "KL, nats per number", "CPU s",
)  # fmt: skip


def train(cfg: TrainVaeConfig, sets: dict[str, FrameSet], folder: Path) -> None:
    """folder/vae and folder/training.json: what VAL says of it, and CPU seconds."""
    if (folder / "vae").is_dir():
        return
    task = VaeTask(cfg, [sets["TRAIN"]], [sets["VAL"]])
    begin = time.process_time()
    model = fit(task, cfg.loop, SEED, folder / "fit", NullRun(), folder.name)
    spent = time.process_time() - begin
    standardise(vae_of(model), evenly_spaced_frames([sets["TRAIN"]], cfg.standardise_frames))
    write_json(folder / "training.json", {**task.validate(model), "cpu_s": spent})
    with atomic_dir(folder / "vae") as tmp:
        vae_of(model).save(tmp)


def measure(real: FrameSet, folder: Path, arm: Path) -> dict[str, float]:
    """Numbers of the TEST videos through the VAE in `folder`."""
    codec = VideoCodec(Vae.load(folder / "vae"))
    videos = [np.array(real.video(v)) for v in range(len(real))]
    made = [codec.decode(codec.encode(v)[0].half().float()) for v in videos]
    rebuilt = dataclasses.replace(
        real, data=np.concatenate(made), starts=_starts(made), content=None
    )
    scores = ef_r2(rebuilt, arm)
    numbers = {
        "psnr": float(np.mean([psnr_db(a, b) for a, b in zip(videos, made, strict=True)])),
        "ssim": float(np.mean([ssim(a, b) for a, b in zip(videos, made, strict=True)])),
        "r2": scores.value, "r2_lo": scores.lo, "r2_hi": scores.hi,
    }  # fmt: skip
    for space in (efnet(arm / "seed0"), RandomFeatures2d(), RandomFeatures3d()):
        both = (s if space.name != "efnet" else as_regressor_sees(s, arm) for s in (real, rebuilt))
        a, b = (extract(space, s, clips_of(space, s, 1, SEED)) for s in both)
        numbers[space.name] = frechet_distance(a, b)
    statistics = (np.stack([image_statistics(v) for v in some]) for some in (videos, made))
    numbers["spectrum"] = compare_statistics(*statistics)["us/spectrum_db"].value
    return numbers


def as_regressor_sees(videos: FrameSet, arm: Path) -> FrameSet:
    """The videos at the frame rate of an arm's regressors."""
    fps = load_seeds(arm)[0].fps
    frames = [np.array(videos.video(v)) for v in range(len(videos))]
    made = [f[resample_indices(len(f), videos.fps, fps)] for f in frames]
    lengths = np.array([len(f) for f in made])
    return FrameSet(np.concatenate(made), videos.table, _starts(made), lengths, fps)


def ef_r2(videos: FrameSet, arm: Path) -> Estimate:
    """R2 of EF that an arm's regressors measure."""
    found = measure_ef(arm, as_regressor_sees(videos, arm), CLIPS)
    return ef_scores(videos.ef, found, SEED)["r2"]


def _starts(videos: list[np.ndarray]) -> np.ndarray:
    lengths = np.array([len(v) for v in videos])
    return np.cumsum(lengths) - lengths


def line(name: str, n: dict[str, float]) -> str:
    cells = (
        name, f"{n['psnr']:.2f}", f"{n['ssim']:.3f}",
        f"{n['r2']:.3f} ({n['r2_lo']:.3f} to {n['r2_hi']:.3f})",
        f"{n['efnet']:.3f}", f"{n['rand2d']:.4f}", f"{n['rand3d']:.4f}", f"{n['spectrum']:.1f}",
        f"{n['posterior_sd']:.3f}", f"{n['active_units']:.3f}", f"{n['kl_per_unit']:.2f}",
        f"{n['cpu_s']:.0f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vae", description=__doc__)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--dataset", default="phantom")
    parser.add_argument("--work", type=Path, default=Path(".echosyn/benchmarks/vae"))
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args()
    set_threads(threads())
    values, where = Params(args.project).settings("train_vae")
    values = {**values, "loop": {**values["loop"], "steps": args.steps}}
    arm = args.project / "models/ef" / args.dataset / "real"
    if not arm.is_dir():
        raise EchosynError(f"{arm} does not exist: run `make demo` in the project first")
    args.work.mkdir(parents=True, exist_ok=True)
    source, rate = args.project / "data/train" / args.dataset, values.get("fps", 16.0)
    frames = load_frames(source, rate, args.work / "frames")
    sets = {split: frames.split(split) for split in ("TRAIN", "VAL", "TEST")}
    found = ef_r2(sets["TEST"], arm)
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    lines.append(f"| (no VAE) | | | {found.value:.3f} ({found.lo:.3f} to {found.hi:.3f}) | |||||||")
    for i, (name, change) in enumerate(ROWS.items()):
        changed = {**values, **change, "model": {**values["model"], **change.get("model", {})}}
        folder = args.work / f"row{i}"
        folder.mkdir(exist_ok=True)
        train(build(TrainVaeConfig, changed, where), sets, folder)
        if not (folder / "numbers.json").is_file():
            numbers = measure(sets["TEST"], folder, arm)
            write_json(folder / "numbers.json", {**read_json(folder / "training.json"), **numbers})
        lines.append(line(name, read_json(folder / "numbers.json")))
        print(f"{name}: done", file=sys.stderr, flush=True)
    print(f"{args.steps} steps, {len(sets['TEST'])} TEST videos, {machine()}\n")
    print("\n".join(lines))


if __name__ == "__main__":
    try:
        main()
    except EchosynError as e:
        sys.exit(str(e))
