"""Time to the reference objective's validation loss: rectified flow, a student, and the reference.

Three trainings of conf/<scale>'s network on the project's latents, one after the other:
- teacher: train_lvdm as params.yaml has it;
- student: distil_lvdm of that teacher;
- reference: the same network and data as the reference trains it (v-prediction DDPM, uniform times,
  noise offset, posterior samples, no distillation), for as long as the other two took together.

Losses of different objectives do not compare, so every validation also measures one that does: the
reference's own, the squared error of v over its uniform times, on the same VAL clips and noise. A
flow model's velocity is turned into v at the same signal-to-noise ratio. It is the loss that the
reference minimises, and the teacher does not.

python -m benchmarks.training --project . --work DIR --plot training.png

`project` has been through `dvc repro` at scale `demo`. Trainings stay in DIR: the same command goes
on where it was stopped. A table, not two sides of one speed: no line of JSON ends the output.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import machine, threads, use_threads

use_threads(threads())

import matplotlib as mpl  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from diffusers import DDPMScheduler  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from echosyn.data.latents import LatentSet  # noqa: E402
from echosyn.diffusion.objectives import TRAIN_STEPS, DdpmV  # noqa: E402
from echosyn.diffusion.settings import GUIDANCE  # noqa: E402
from echosyn.report.plots import ARM_COLOURS, STYLE, figure_of, png  # noqa: E402
from echosyn.runtime.config import Params, build  # noqa: E402
from echosyn.runtime.device import pick_device, set_threads  # noqa: E402
from echosyn.runtime.errors import EchosynError  # noqa: E402
from echosyn.runtime.files import atomic_dir, write_bytes  # noqa: E402
from echosyn.tracking import NullRun  # noqa: E402
from echosyn.training.curve import write_curves  # noqa: E402
from echosyn.training.diffusion import LvdmTask, TrainLvdmConfig  # noqa: E402
from echosyn.training.distill import DistillConfig, DistillTask  # noqa: E402
from echosyn.training.loop import Task, fit  # noqa: E402

SEED = 0
TIMES = 4  # noise levels at which every VAL clip is looked at
# The reference's training of our network. Its layout is left out: at our widths each group of its
# norms would be one channel, and take the time away again, which is added to channels before them.
REFERENCE = {
    "objective": "ddpm_v",
    "times": "uniform",
    "time_shift": 0.0,
    "noise_offset": 0.1,
    "posterior": "sample",
}


@dataclass(frozen=True)
class Rivals:
    """What is trained on, and where the models come to lie: work/{teacher,student,reference}."""

    project: Path
    dataset: str
    work: Path

    def sets(self, split: str) -> list[LatentSet]:
        beats = self.project / "beats/train" / self.dataset
        return [LatentSet(self.project / "latents/train" / self.dataset, split, beats)]

    def hearts(self, n: int, seed: int) -> Tensor:
        """A heart (LatentSet.heart_frames) of each of n TEST videos, (n, 4, h, w)."""
        test, rng = self.sets("TEST")[0], np.random.default_rng(seed)
        chosen = np.resize(np.arange(len(test)), n)
        frames = [int(rng.choice(test.heart_frames(v))) for v in chosen]
        return torch.cat([test.mean(int(v), f, f + 1) for v, f in zip(chosen, frames, strict=True)])

    def check(self) -> None:
        """Raises EchosynError when the project lacks what is needed."""
        needed = ("models/vae", f"latents/train/{self.dataset}", f"models/ef/{self.dataset}/real")
        for folder in needed:
            if not (self.project / folder).is_dir():
                raise EchosynError(
                    f"{self.project / folder} does not exist: run `make demo` in the project first"
                )

    def curve(self, name: str) -> pd.DataFrame:
        """Validations of a training: seconds, loss, reference_loss."""
        return pd.read_csv(self.work / f"curve-{name}/val.csv")

    def seconds(self, name: str) -> float:
        """Of a training, those before it was stopped and taken up again included."""
        return float(self.curve(name)["seconds"].iloc[-1])

    def rate(self, name: str) -> float:
        """Samples per second, the median over the training."""
        return float(pd.read_csv(self.work / f"curve-{name}/train.csv")["samples_per_s"].median())


def reference_loss(
    model: nn.Module, objective: str, val: dict[str, Tensor], block: int = 16
) -> float:
    """Mean squared error of v on VAL clips at evenly spread times of the reference's schedule."""
    betas = DDPMScheduler(**DdpmV.settings)
    device, n = next(model.parameters()).device, len(val["x"])
    total = 0.0
    for r in range(TIMES):
        k = ((torch.arange(n) * TIMES + r + 0.5) / (n * TIMES) * TRAIN_STEPS).long()
        for i in range(0, n, block):
            rows = slice(i, min(i + block, n))
            part = {key: value[rows].to(device) for key, value in val.items()}
            alpha_bar = betas.alphas_cumprod[k[rows]].to(device).view(-1, 1, 1, 1, 1)
            v = alpha_bar.sqrt() * part["noise"] - (1 - alpha_bar).sqrt() * part["x"]
            found = v_of(model, objective, part, k[rows].to(device), alpha_bar)
            total += float((found - v).square().mean()) * len(part["x"])
    return total / (TIMES * n)


def v_of(
    model: nn.Module, objective: str, part: dict[str, Tensor], k: Tensor, alpha_bar: Tensor
) -> Tensor:
    """A model's v = a noise - s x at times k (B,), from its own prediction where noise and signal
    stand in the same proportion: for flow t = s / (a + s), x_t = (a x + s noise) / (a + s).
    """
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    x = a * part["x"] + s * part["noise"]
    given = part["heart"], part["condition"]
    if objective == "ddpm_v":
        return model(x, k, *given).float()
    t, x = s / (a + s), x / (a + s)
    u = model(x, TRAIN_STEPS * t.flatten(), *given).float()
    clean, noise = x - t * u, x + (1 - t) * u
    return a * noise - s * clean


class Yardstick(LvdmTask):
    """The task, whose validations also measure `reference_loss`."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        common = reference_loss(model, self.objective.name, self.val)
        return {**super().validate(model), "reference_loss": common}


def train(rivals: Rivals) -> dict[str, float]:
    """The models, and the seconds that each training took."""
    base = Params(rivals.project).stage("train_lvdm", TrainLvdmConfig)
    distill = Params(rivals.project).settings("distill_lvdm")[0]
    sets, work = (rivals.sets("TRAIN"), rivals.sets("VAL")), rivals.work

    def teach() -> None:
        run(Yardstick(base, *sets), base, "teacher")

    def distilled() -> None:
        cfg = build(DistillConfig, {**distill, "guidance": GUIDANCE}, "distill_lvdm")
        run(DistillTask(cfg, work / "teacher", base, *sets), cfg, "student")

    def as_reference() -> None:
        """As many steps as fit into the others' time, at the pace of the last of sixty."""
        cfg = dataclasses.replace(base, **REFERENCE)
        short = dataclasses.replace(cfg.loop, steps=60, warmup=10, validate_every=0)
        task = Yardstick(cfg, *sets)
        with tempfile.TemporaryDirectory() as tmp:
            fit(task, short, SEED, Path(tmp), NullRun(), "pace")
            write_curves(Path(tmp), Path(tmp))
            rates = pd.read_csv(Path(tmp) / "train.csv")["samples_per_s"]
        pace = cfg.loop.batch / rates.iloc[-4:].median()
        start = time.perf_counter()
        with torch.no_grad():
            task.validate(task.build().eval().to(pick_device()))
        pace += (time.perf_counter() - start) / cfg.loop.validate_every
        steps = round((spent["teacher"] + spent["student"]) / pace)
        longer = dataclasses.replace(cfg, loop=dataclasses.replace(cfg.loop, steps=steps))
        run(task, longer, "reference")

    def run(task: Task, cfg: TrainLvdmConfig | DistillConfig, name: str) -> None:
        fitted = fit(task, cfg.loop, SEED, work / f"fit-{name}", NullRun(), name)
        write_curves(work / f"fit-{name}", work / f"curve-{name}")
        with atomic_dir(work / name) as tmp:
            fitted.save(tmp)
            task.objective.save(tmp)
            if isinstance(cfg, DistillConfig):
                cfg.student.save(tmp)

    spent: dict[str, float] = {}
    for name, make in (("teacher", teach), ("student", distilled), ("reference", as_reference)):
        if not (work / name).is_dir():
            make()
        spent[name] = rivals.seconds(name)
    return spent


def reached(curve: pd.DataFrame, loss: float) -> float | None:
    """Seconds until the reference's loss is at most `loss`; None when it never is."""
    there = curve[curve["reference_loss"] <= loss]
    return float(there["seconds"].iloc[0]) if len(there) else None


def report(rivals: Rivals, spent: dict[str, float]) -> list[str]:
    lines = ["| | seconds | samples/s | reference's loss at the end |", "|---|---|---|---|"]
    for name, seconds in spent.items():
        curve = rivals.curve(name)
        last = f"{curve['reference_loss'].iloc[-1]:.4f}" if "reference_loss" in curve else ""
        lines.append(f"| {name} | {seconds:.0f} | {rivals.rate(name):.2f} | {last} |")
    teacher, reference = rivals.curve("teacher"), rivals.curve("reference")
    goal = max(float(c["reference_loss"].min()) for c in (teacher, reference))
    when = reached(teacher, goal), reached(reference, goal)
    words = ["never" if s is None else f"{s:.0f} s" for s in when]
    lines += ["", f"to {goal:.4f}, which both reach: teacher {words[0]}, reference {words[1]}"]
    return lines


def picture(rivals: Rivals) -> bytes:
    with mpl.rc_context(STYLE):
        figure, (axes,) = figure_of(1, 4.5)
        for name, colour in zip(("teacher", "reference"), ARM_COLOURS, strict=False):
            curve = rivals.curve(name)
            axes.plot(
                curve["seconds"], curve["reference_loss"], "o-", ms=3, color=colour, label=name
            )
        axes.set_xlabel("seconds of training")
        axes.set_ylabel("the reference's validation loss")
        axes.legend(frameon=False)
    return png(figure)


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--project", type=Path, default=Path.cwd())
    parser.add_argument("--dataset", default="phantom")
    parser.add_argument("--work", type=Path, default=Path(".echosyn/benchmarks/sampling"))
    return parser


def opened(args: argparse.Namespace) -> Rivals:
    """The rivals that the arguments name. Raises EchosynError as `Rivals.check`."""
    set_threads(threads())
    rivals = Rivals(args.project, args.dataset, args.work)
    rivals.check()
    args.work.mkdir(parents=True, exist_ok=True)
    return rivals


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, help="PNG to write")
    args = parser.parse_args()
    rivals = opened(args)
    spent = train(rivals)
    print(machine())
    print("\n".join(report(rivals, spent)))
    if args.plot:
        write_bytes(args.plot, picture(rivals))


if __name__ == "__main__":
    try:
        main()
    except EchosynError as e:
        sys.exit(str(e))
