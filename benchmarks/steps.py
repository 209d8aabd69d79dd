"""Quality against steps: the LVDM, its student, and the reference's training of the same network.

The models are benchmarks.training's, trained first if they are not there. The same TEST hearts,
EFs and noise in every row; the teacher at the guidance that the student learned, the reference
without any, as it is published; 28 frames at 16 fps in two windows. Distances are to real TEST
videos; `floor` has as many real TRAIN videos in the generator's place. Seconds are of sampling,
without the VAE, median over batches of four. A curve, not two sides of one speed: no line of JSON
ends the output.

python -m benchmarks.steps --project . --work DIR --plot steps.png --sheet sheet.png

`project` has been through `dvc repro` at scale `demo`. Finished rows stay in DIR: the same command
goes on where it was stopped.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import machine, threads, use_threads

use_threads(threads())

import matplotlib as mpl  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.generation import NUMBERS, Bench, first_video, table  # noqa: E402
from benchmarks.training import arguments, opened, train  # noqa: E402
from echosyn.data.video import read_video  # noqa: E402
from echosyn.diffusion.settings import GUIDANCE  # noqa: E402
from echosyn.diffusion.student import read_student  # noqa: E402
from echosyn.report.plots import ARM_COLOURS, STYLE, figure_of, png  # noqa: E402
from echosyn.report.sheet import contact_sheet  # noqa: E402
from echosyn.runtime.errors import EchosynError  # noqa: E402
from echosyn.runtime.files import write_bytes  # noqa: E402

FRAMES = 28
STEPS = (1, 2, 4, 8, 16, 32, 64)
# Model, sampler, guidance and the most steps: Heun's second order needs no more.
SAMPLED = (
    ("teacher", "euler", GUIDANCE, 64),
    ("teacher", "heun", GUIDANCE, 16),
    ("reference", "dpmpp", 1.0, 64),
    ("reference", "ddpm", 1.0, 64),
)
PLOTTED = ("fd_motion", "r")
SHOWN = ("teacher, euler", "reference, ddpm", "student")


def ways(student: tuple[int, ...]) -> Iterator[tuple[str, dict]]:
    """Rows of the table: name and settings."""
    for model, sampler, guidance, most in SAMPLED:
        for n in (n for n in STEPS if n <= most):
            settings = {"model": model, "sampler": sampler, "guidance": guidance, "steps": n}
            yield f"{model}, {sampler}", settings
    for n in sorted(student):
        yield "student", {"model": "student", "guidance": GUIDANCE, "steps": n}


def rows_of(bench: Bench) -> list[dict]:
    """All rows, the floor first; those already in `work` are not made again."""
    student = read_student(bench.rivals.work / "student")
    rows = [bench.floor()]
    for name, settings in ways(student.steps):
        rows.append(bench.row(name, bench.config(**settings), "steps"))
        line = f"{name} {settings['steps']}: {rows[-1]['seconds']:.2f} s per video"
        print(line, file=sys.stderr, flush=True)
    return rows


def sheet(rows: list[dict]) -> bytes:
    """One heart, one EF, one noise, in ever more steps."""
    shown = [row for row in rows if row["name"] in SHOWN]
    labels = [f"{row['name'].replace(',', '')} {row['steps']}" for row in shown]
    videos = [read_video(first_video(row))[0] for row in shown]
    return contact_sheet(list(zip(labels, videos, strict=True)), moments=4)


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
        panels[0].set_yscale("log")
        panels[-1].set_ylabel("seconds per video")
        panels[-1].set_yscale("log")
        for axes in panels:
            axes.set_xscale("log", base=2)
            axes.set_xticks(STEPS, [str(s) for s in STEPS])
            axes.set_xlabel("steps")
        panels[0].legend(frameon=False, fontsize=8)
    return png(figure)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--plot", type=Path, help="PNG of the curves to write")
    parser.add_argument("--sheet", type=Path, help="PNG of one heart by all ways to write")
    args = parser.parse_args()
    rivals = opened(args)
    train(rivals)
    bench = Bench(rivals, FRAMES, args.videos)
    rows = rows_of(bench)
    print(f"\n{args.videos} videos of {FRAMES} frames, {machine()}\n")
    print("\n".join(table(rows)))
    if args.plot:
        write_bytes(args.plot, curve(rows))
    if args.sheet:
        write_bytes(args.sheet, sheet(rows))


if __name__ == "__main__":
    try:
        main()
    except EchosynError as e:
        sys.exit(str(e))
