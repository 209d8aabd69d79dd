"""Quality against steps: the LVDM by Euler and Heun, and its distilled student.

The same TEST hearts, EFs and noise in every row, at the guidance that the student learned; 28
frames at 16 fps in two windows. Distances are to real TEST videos; `floor` has as many real TRAIN
videos in the generator's place. Seconds are of sampling, without the VAE, median over batches of
four. A curve, not two sides of one speed: no line of JSON ends the output.

python -m benchmarks.steps --project . --student fast --work DIR --plot steps.png

`project` has been through `dvc repro` at scale `demo` with `distill: {fast: {}}` in params.yaml.
Finished rows stay in DIR: the same command goes on where it was stopped.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.harness import machine, threads, use_threads

use_threads(threads())

import matplotlib as mpl  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.video_quality import Judge  # noqa: E402
from echosyn.data.frames import FrameSet, load_frames  # noqa: E402
from echosyn.data.latents import LatentSet  # noqa: E402
from echosyn.data.reconstruct import VideoCodec  # noqa: E402
from echosyn.device import set_threads  # noqa: E402
from echosyn.diffusion.ef_draw import draw_ef  # noqa: E402
from echosyn.diffusion.generate import VideoSampler  # noqa: E402
from echosyn.diffusion.settings import SampleVideosConfig  # noqa: E402
from echosyn.diffusion.student import Student, read_student  # noqa: E402
from echosyn.errors import EchosynError  # noqa: E402
from echosyn.files import fingerprint, read_json, write_bytes, write_json  # noqa: E402
from echosyn.metrics.interval import Estimate  # noqa: E402
from echosyn.models.vae import Vae  # noqa: E402
from echosyn.report.plots import ARM_COLOURS, STYLE, figure_of, png  # noqa: E402

STEPS = (1, 2, 4, 8, 16, 32, 64)
FRAMES, OVERLAP, BATCH, SEED = 28, 4, 4, 0
NUMBERS = {
    "kd_efnet": "kernel, efnet",
    "kd_motion": "kernel, motion",
    "fd_efnet": "Frechet, efnet",
    "fd_motion": "Frechet, motion",
    "r": "EF r",
    "slope": "EF slope",
    "mae": "EF MAE (%)",
}
PLOTTED = ("kd_efnet", "kd_motion", "r")


@dataclass(frozen=True)
class Inputs:
    """Where things lie; every model and dataset of one project."""

    project: Path
    models: Path
    dataset: str
    student: str

    @property
    def student_folder(self) -> Path:
        return self.models / "distilled" / self.student

    def folder(self, name: str) -> Path:
        """The model of a row."""
        return self.student_folder if name == "student" else self.models / "lvdm"

    def check(self) -> Student:
        """What the student learned.

        Raises:
            EchosynError: something is missing, and how it is made.
        """
        arm = self.models / "ef" / self.dataset / "real"
        for folder in (self.models / "vae", self.models / "lvdm", self.student_folder, arm):
            if not folder.is_dir():
                raise EchosynError(
                    f"{folder}: not there. In the project: set `distill: {{{self.student}: {{}}}}` "
                    f"in params.yaml, then `dvc repro train_ef_real@{self.dataset} "
                    f"distill_lvdm@{self.student}`"
                )
        student = read_student(self.student_folder)
        if student is None:
            raise EchosynError(f"{self.student_folder}: no distilled model (student.json)")
        return student

    def latents(self, split: str) -> LatentSet:
        return LatentSet(self.project / "latents/train" / self.dataset, split)

    def asked(self, n: int) -> tuple[Tensor, np.ndarray]:
        """Hearts (n, 4, h, w) of TEST videos, any phase of the beat, and EFs as TRAIN's (n,)."""
        test, rng = self.latents("TEST"), np.random.default_rng(SEED)
        hearts = []
        for v in np.resize(np.arange(len(test)), n):
            frame = int(rng.integers(test.lengths[v]))
            hearts.append(test.mean(int(v), frame, frame + 1))
        return torch.cat(hearts), draw_ef("real", self.latents("TRAIN").ef, n, SEED)

    def real(self, work: Path) -> FrameSet:
        """Decoded at the latents' rate."""
        fps = float(self.latents("TEST").table["FPS"].iloc[0])
        return load_frames(self.project / "data/train" / self.dataset, fps, work / "frames")


def ways(student: Student, steps: tuple[int, ...]) -> Iterator[tuple[str, str, int]]:
    """Rows of the table: name, sampler and steps."""
    for sampler in ("euler", "heun"):
        yield from ((f"teacher, {sampler}", sampler, n) for n in steps)
    yield from (("student", "euler", n) for n in sorted(student.steps))


def measure(
    inputs: Inputs, judge: Judge, codec: VideoCodec, cfg: SampleVideosConfig, name: str, n: int
) -> dict:
    """One row: quality of n videos, frames through the network and seconds per video."""
    sampler = VideoSampler(inputs.folder(name), cfg)
    hearts, ef = inputs.asked(n)
    videos, seconds = [], []
    for i in range(0, n, BATCH):
        rows = slice(i, min(i + BATCH, n))
        told = torch.tensor(ef[rows], dtype=torch.float32)
        start = time.perf_counter()
        made = sampler.animate(hearts[rows], told, range(rows.start, rows.stop), SEED)
        seconds.append((time.perf_counter() - start) / len(made))
        videos += [codec.decode(z) for z in made]
    # The first batch is the warm-up.
    timed = statistics.median(seconds[1:] or seconds)
    quality = asdict(judge.measure(videos, ef))
    return {
        "name": name,
        "steps": cfg.steps,
        "frames": sampler.frame_passes(),
        "seconds": timed,
        **quality,
    }


def rows_of(inputs: Inputs, n: int, steps: tuple[int, ...], work: Path) -> list[dict]:
    """All rows, the floor first; those already in `work` are not made again."""
    student = inputs.check()
    real = inputs.real(work)
    arm = inputs.models / "ef" / inputs.dataset / "real"
    judge = Judge(real.split("TEST"), arm, FRAMES)
    codec = VideoCodec(Vae.load(inputs.models / "vae"))
    train = real.split("TRAIN")
    spread = np.linspace(0, len(train) - 1, min(n, len(train))).round().astype(int)
    floor = {k: asdict(v) for k, v in judge.distances(train.take(spread)).items()}
    rows = [{"name": "real TRAIN (floor)", **floor}]
    for name, sampler, count in ways(student, steps):
        cfg = SampleVideosConfig(
            n, 0, 0, FRAMES, overlap=OVERLAP, steps=count, sampler=sampler,
            guidance=student.guidance, heart_guidance=student.heart_guidance, batch=BATCH,
        )  # fmt: skip
        key = fingerprint({"cfg": asdict(cfg)}, [inputs.folder(name)])
        path = work / f"{name.replace(', ', '-')}-{count}-{key[:8]}.json"
        if not path.is_file():
            write_json(path, measure(inputs, judge, codec, cfg, name, n))
        rows.append(read_json(path))
        print(f"{name} {count}: {rows[-1]['seconds']:.2f} s per video", flush=True)
    return rows


def cell(row: dict, key: str) -> str:
    """A value with its interval, to as many digits as the value's size calls for."""
    if key not in row:
        return ""
    e = Estimate(**row[key])
    digits = 2 if key in ("r", "slope") else 1 if key == "mae" else 3
    if key in ("r", "slope", "mae"):
        return f"{e.value:.{digits}f} [{e.lo:.{digits}f}, {e.hi:.{digits}f}]"
    return f"{e.value:.{digits}g} [{e.lo:.{digits}g}, {e.hi:.{digits}g}]"


def table(rows: list[dict]) -> list[str]:
    head = ["", "steps", "frames through the network", *NUMBERS.values(), "s per video"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---|' * (len(head) - 1)}"]
    for row in rows:
        facts = [
            row["name"],
            str(row.get("steps", "")),
            f"{row['frames']:,}" if "frames" in row else "",
        ]
        spent = f"{row['seconds']:.2f}" if "seconds" in row else ""
        lines.append(f"| {' | '.join([*facts, *(cell(row, k) for k in NUMBERS), spent])} |")
    return lines


def curve(rows: list[dict]) -> bytes:
    """Quality and seconds against steps, as PNG."""
    with mpl.rc_context(STYLE):
        figure, panels = figure_of(len(PLOTTED) + 1, 9.0)
        names = list(dict.fromkeys(row["name"] for row in rows[1:]))
        for colour, name in zip(ARM_COLOURS, names, strict=False):
            own = [row for row in rows if row["name"] == name]
            x = [row["steps"] for row in own]
            for axes, key in zip(panels, PLOTTED, strict=False):
                values = np.array([[row[key][k] for k in ("value", "lo", "hi")] for row in own])
                apart = np.abs(values[:, 1:].T - values[:, 0])
                axes.errorbar(
                    x, values[:, 0], apart, marker="o", ms=4, capsize=2, color=colour, label=name
                )
            panels[-1].plot(x, [row["seconds"] for row in own], marker="o", ms=4, color=colour)
        for axes, key in zip(panels, PLOTTED, strict=False):
            axes.set_ylabel(NUMBERS[key])
            if key in rows[0]:
                axes.axhline(rows[0][key]["value"], ls=":", color="#8a8f98")
        panels[-1].set_ylabel("seconds per video")
        panels[-1].set_yscale("log")
        for axes in panels:
            axes.set_xscale("log", base=2)
            axes.set_xticks(STEPS, [str(s) for s in STEPS])
            axes.set_xlabel("steps")
        panels[0].legend(frameon=False, fontsize=8)
    return png(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--project", type=Path, default=Path(), help="folder of data/ and latents/")
    parser.add_argument(
        "--models", type=Path, help="folder of vae, lvdm, distilled, ef; project/models"
    )
    parser.add_argument("--dataset", default="phantom")
    parser.add_argument("--student", default="fast", help="name under models/distilled")
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS), help="of the teacher")
    parser.add_argument("--work", type=Path, default=Path(".echosyn/steps"), help="finished rows")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    args = parser.parse_args()
    set_threads(threads())
    inputs = Inputs(
        args.project, args.models or args.project / "models", args.dataset, args.student
    )
    try:
        rows = rows_of(inputs, args.videos, tuple(args.steps), args.work)
    except EchosynError as e:
        sys.exit(str(e))
    print(f"\n{args.videos} videos of {FRAMES} frames, {machine()}\n")
    print("\n".join(table(rows)))
    if args.plot:
        write_bytes(args.plot, curve(rows))


if __name__ == "__main__":
    main()
