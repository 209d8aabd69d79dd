"""Windows, joint sampling, guidance and frame rates: what each way of sampling does to 64 frames.

A table per question, all with the same TEST hearts, EFs and noise, judged as in benchmarks.steps:
- windows: how a video outgrows the model's window. `seam` is the change of latents where windows of
  the last step meet, over the change elsewhere: 1 is no seam.
- joint: steps at which the image model acts instead of the video model (JVID).
- guidance: on the EF, and on the heart.
- versatile: a second training, conditioned on frame rates (strides 1 and 2), given frames and no
  heart at times, which the windows `continue`, guidance on the heart and other rates need;
  `beats/min` is the strongest frequency of the latents' motion, between 45 and 180.

python -m benchmarks.ways --project . --work DIR

The teacher and the student are benchmarks.training's, trained first if they are not there.
Finished rows stay in DIR: the same command goes on where it was stopped. Tables, not two sides of
one speed: no line of JSON ends the output.
"""

import dataclasses
import sys

from benchmarks.harness import machine, threads, use_threads

use_threads(threads())

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.generation import Bench, table  # noqa: E402
from benchmarks.training import SEED, Rivals, arguments, opened, train  # noqa: E402
from benchmarks.video_quality import seam_score  # noqa: E402
from echosyn.diffusion.settings import GUIDANCE  # noqa: E402
from echosyn.diffusion.windows import window_seams  # noqa: E402
from echosyn.models.published_video import load_video  # noqa: E402
from echosyn.runtime.config import Params  # noqa: E402
from echosyn.runtime.errors import EchosynError  # noqa: E402
from echosyn.runtime.files import atomic_dir  # noqa: E402
from echosyn.tracking import NullRun  # noqa: E402
from echosyn.training.diffusion import LvdmTask, TrainLvdmConfig  # noqa: E402
from echosyn.training.loop import fit  # noqa: E402

FRAMES, STEPS = 64, 10
BAND = (45.0, 180.0)  # beats per minute
VERSATILE = {"strides": (1, 2), "drop_heart": 0.1, "continues": 0.3}
NUMBERS = {
    "seam": "seam",
    "kd_efnet": "kernel, efnet",
    "kd_motion": "kernel, motion",
    "r": "EF r",
    "slope": "EF slope",
    "mae": "EF MAE (%)",
}
PLAIN = {"model": "teacher", "steps": STEPS, "guidance": GUIDANCE, "windows": "blend"}
QUICK = {**PLAIN, "model": "student", "steps": 4}
ABLE = {**PLAIN, "model": "versatile"}
TABLES: dict[str, dict[str, dict]] = {
    "windows": {
        **{
            f"{kind}, teacher": {**PLAIN, "windows": kind} for kind in ("blend", "shift", "discard")
        },
        "blend 8, teacher": {**PLAIN, "overlap": 8},
        **{
            f"{kind}, student": {**QUICK, "windows": kind} for kind in ("blend", "shift", "discard")
        },
        "blend 8, student": {**QUICK, "overlap": 8},
    },
    "joint": {
        "image model at the last step": {**PLAIN, "image_steps": (9,)},
        "at the last two": {**PLAIN, "image_steps": (8, 9)},
        "at steps 4 and 8": {**PLAIN, "image_steps": (4, 8)},
        "at the first": {**PLAIN, "image_steps": (0,)},
    },
    "guidance": {f"EF {g:g}": {**PLAIN, "guidance": g} for g in (1.0, 1.5, 2.0, 3.0, 4.0)},
    "versatile": {
        "blend": ABLE,
        "continue": {**ABLE, "windows": "continue"},
        "heart guidance 1.5": {**ABLE, "heart_guidance": 1.5},
        "heart guidance 2": {**ABLE, "heart_guidance": 2.0},
        "8 frames per second": {**ABLE, "fps": 8.0},
    },
}


def train_versatile(rivals: Rivals) -> None:
    """work/versatile: the teacher's training, with `VERSATILE` besides."""
    if (rivals.work / "versatile").is_dir():
        return
    base = Params(rivals.project).stage("train_lvdm", TrainLvdmConfig)
    task = LvdmTask(
        dataclasses.replace(base, **VERSATILE), rivals.sets("TRAIN"), rivals.sets("VAL")
    )
    model = fit(task, base.loop, SEED, rivals.work / "fit-versatile", NullRun(), "versatile")
    with atomic_dir(rivals.work / "versatile") as tmp:
        model.save(tmp)
        task.objective.save(tmp)


def beats_per_minute(latents: Tensor, fps: float) -> np.ndarray:
    """Of videos (N, T, ...): the strongest frequency within BAND of each one's four first principal
    components, their powers summed, (N,)."""
    found = []
    for z in latents.flatten(2).double():
        u, s, _ = torch.linalg.svd(z - z.mean(0), full_matrices=False)
        motion = (u[:, :4] * s[:4]).numpy() * np.hanning(len(z))[:, None]
        power = (np.abs(np.fft.rfft(motion, 8 * len(z), axis=0)) ** 2).sum(1)
        rate = 60 * np.fft.rfftfreq(8 * len(z), 1 / fps)
        power[(rate < BAND[0]) | (rate > BAND[1])] = 0
        found.append(rate[power.argmax()])
    return np.array(found)


def rows_of(bench: Bench, name: str) -> list[dict]:
    rows = []
    for label, settings in TABLES[name].items():
        cfg = bench.config(**settings)
        row = bench.row(label, cfg, "ways")
        latents = torch.load(row["folder"] / "latents.pt", weights_only=True).float()
        window = load_video(bench.rivals.work / cfg.model).window
        seams = window_seams(cfg.windows, FRAMES, window, cfg.overlap, cfg.steps)
        row["seam"] = dataclasses.asdict(seam_score(latents, seams))
        row["bpm"] = beats_per_minute(latents, cfg.fps or bench.fps)
        rows.append(row)
        print(f"{name}: {label}, {row['seconds']:.2f} s per video", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--tables", nargs="+", choices=tuple(TABLES), default=list(TABLES))
    args = parser.parse_args()
    rivals = opened(args)
    train(rivals)
    if "versatile" in args.tables:
        train_versatile(rivals)
    bench = Bench(rivals, FRAMES, args.videos)
    print(f"{args.videos} videos of {FRAMES} frames, {machine()}")
    for name in args.tables:
        rows = rows_of(bench, name)
        print(f"\n{name}\n")
        print("\n".join(table(rows, NUMBERS)))
        for row in rows:
            low, middle, high = np.percentile(row["bpm"], [25, 50, 75])
            print(f"beats/min, {row['name']}: {middle:.0f} (quartiles {low:.0f}, {high:.0f})")
    test = rivals.sets("TEST")[0]
    long = [v for v in range(len(test)) if test.lengths[v] >= 24]
    real = [
        beats_per_minute(test.mean(v, 0, int(test.lengths[v]))[None], bench.fps)[0] for v in long
    ]
    low, middle, high = np.percentile(real, [25, 50, 75])
    print(f"beats/min, real TEST: {middle:.0f} (quartiles {low:.0f}, {high:.0f})")


if __name__ == "__main__":
    try:
        main()
    except EchosynError as e:
        sys.exit(str(e))
