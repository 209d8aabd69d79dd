"""192-frame videos per second, ours against the reference's protocol, at equal training time.

- ours: the LVDM of conf/demo (rectified flow, EF by guidance) and a student distilled from it, in
  `STEPS` steps over side-by-side windows: each frame goes through the network once a step, guidance
  included; latents are decoded in large batches while finished videos are written by threads.
- baseline: a network of the same sizes and window, trained as the reference trains (v-prediction
  DDPM, linear betas, EF as one number, noise offset) for as long as our two trainings took, and
  sampled as the reference samples: 64 ancestral DDPM steps without guidance over windows that
  overlap by half, of which the second half is thrown away; then decoded and written in turn.

Both animate the same real TEST hearts at the same EFs, decode with the same VAE and write AVIs. A
speed of worse videos is no speed: kernel video distances to real TEST videos and the correlation of
requested with measured EF are printed with intervals, and the benchmark fails when ours are worse
beyond what the intervals allow.

python -m benchmarks.sampling --project . --work DIR

`project` has been through `dvc repro` at scale `demo`: its VAE, latents and EF regressors are used.
Trainings stay in DIR: the same command goes on where it was stopped.
"""

import argparse
import dataclasses
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import conclude, disagree, threads, time_in_turns, use_threads

use_threads(threads())

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.video_quality import Judge, Quality  # noqa: E402
from echosyn.config import Params, build  # noqa: E402
from echosyn.data.frames import load_frames  # noqa: E402
from echosyn.data.latents import LatentSet  # noqa: E402
from echosyn.data.reconstruct import VideoCodec  # noqa: E402
from echosyn.data.video import read_video, write_video  # noqa: E402
from echosyn.device import set_threads  # noqa: E402
from echosyn.diffusion.ef_draw import draw_ef  # noqa: E402
from echosyn.diffusion.generate import VideoSampler  # noqa: E402
from echosyn.diffusion.heart_file import Hearts  # noqa: E402
from echosyn.diffusion.settings import SampleVideosConfig  # noqa: E402
from echosyn.diffusion.synthesise import SamplePlan, sample_shard, synthetic_table  # noqa: E402
from echosyn.errors import EchosynError  # noqa: E402
from echosyn.files import atomic_dir, read_json, write_json  # noqa: E402
from echosyn.models.vae import Vae  # noqa: E402
from echosyn.privacy.filter import HEARTS, AcceptedHearts  # noqa: E402
from echosyn.tracking import NullRun  # noqa: E402
from echosyn.training.diffusion import LvdmTask, TrainLvdmConfig  # noqa: E402
from echosyn.training.distill import DistillConfig, DistillTask  # noqa: E402
from echosyn.training.loop import fit  # noqa: E402

FRAMES, VIDEOS, TIMED, SEED = 192, 40, 4, 0
STEPS, GUIDANCE = 4, 3.0
REFERENCE = {
    "layout": "published",
    "objective": "ddpm_v",
    "times": "uniform",
    "time_shift": 0.0,
    "noise_offset": 0.1,
    "drop_label": 0.1,
    "posterior": "sample",
}
COMMON = {"train": VIDEOS, "val": 0, "test": 0, "frames": FRAMES, "batch": TIMED}
OURS = SampleVideosConfig(
    **COMMON, model="student", windows="shift", steps=STEPS, guidance=GUIDANCE
)
BASELINE = SampleVideosConfig(
    **COMMON, model="reference", windows="discard", steps=64, sampler="ddpm", guidance=1.0
)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What both sides share."""

    project: Path
    dataset: str
    work: Path

    @property
    def latents(self) -> Path:
        return self.project / "latents/train" / self.dataset

    def sets(self, split: str) -> list[LatentSet]:
        return [LatentSet(self.latents, split)]

    def check(self) -> None:
        """Raises EchosynError when the project lacks what both sides need."""
        arm = self.project / "models/ef" / self.dataset / "real"
        for folder in (self.project / "models/vae", self.latents, arm):
            if not folder.is_dir():
                raise EchosynError(f"{folder} does not exist: run `make demo` in the project first")

    def plan(self) -> SamplePlan:
        """Hearts of TEST videos, any phase of the beat, at EFs of TRAIN's distribution."""
        test, rng = self.sets("TEST")[0], np.random.default_rng(SEED)
        chosen = np.resize(np.arange(len(test)), VIDEOS)
        frames = [int(rng.integers(test.lengths[v])) for v in chosen]
        pairs = zip(chosen, frames, strict=True)
        hearts = Hearts(torch.cat([test.mean(v, f, f + 1) for v, f in pairs]))
        folder, indices = self.work / "hearts", np.arange(VIDEOS)
        if not folder.is_dir():
            with atomic_dir(folder) as tmp:
                hearts.write(tmp / HEARTS, indices=torch.from_numpy(indices))
        ef = draw_ef("real", self.sets("TRAIN")[0].ef, VIDEOS, SEED)
        names = [f"video{i:03d}" for i in indices]
        fps = float(test.table["FPS"].iloc[0])
        table = synthetic_table(names, ef, ["TRAIN"] * VIDEOS, FRAMES, fps)
        return SamplePlan(AcceptedHearts(folder), indices, table)


def train(inputs: Inputs) -> dict[str, float]:
    """Models in work/{teacher,student,reference}; the seconds that each training took."""
    base = Params(inputs.project).stage("train_lvdm", TrainLvdmConfig)
    distill = Params(inputs.project).settings("distill_lvdm")[0]
    sets = inputs.sets("TRAIN"), inputs.sets("VAL")
    work = inputs.work

    def teach() -> None:
        task = LvdmTask(base, *sets)
        model = fit(task, base.loop, SEED, work / "fit-teacher", NullRun(), "teacher")
        with atomic_dir(work / "teacher") as tmp:
            model.save(tmp)
            task.objective.save(tmp)

    def distilled() -> None:
        cfg = build(DistillConfig, {**distill, "guidance": GUIDANCE}, "distill_lvdm")
        task = DistillTask(cfg, work / "teacher", base, *sets)
        model = fit(task, cfg.loop, SEED, work / "fit-student", NullRun(), "student")
        with atomic_dir(work / "student") as tmp:
            model.save(tmp)
            task.objective.save(tmp)
            cfg.student.save(tmp)

    def as_reference(seconds: float) -> None:
        """As many steps as fit into `seconds`, by the time that twenty take."""
        cfg = dataclasses.replace(base, **REFERENCE)
        short = dataclasses.replace(cfg.loop, steps=40, warmup=10, validate_every=0)
        with tempfile.TemporaryDirectory() as tmp:
            start = time.perf_counter()
            fit(LvdmTask(cfg, *sets), short, SEED, Path(tmp), NullRun(), "pace")
            pace = (time.perf_counter() - start) / short.steps
        loop = dataclasses.replace(cfg.loop, steps=int(seconds / pace))
        task = LvdmTask(cfg, *sets)
        model = fit(task, loop, SEED, work / "fit-reference", NullRun(), "reference")
        with atomic_dir(work / "reference") as tmp:
            model.save(tmp)
            task.objective.save(tmp)

    spent: dict[str, float] = {}
    for name, make in (
        ("teacher", teach),
        ("student", distilled),
        ("reference", lambda: as_reference(spent["teacher"] + spent["student"])),
    ):
        note = work / f"{name}.json"
        if not note.is_file():
            start = time.perf_counter()
            make()
            write_json(note, {"seconds": time.perf_counter() - start})
        spent[name] = read_json(note)["seconds"]
    return spent


class Side:
    """A way to make videos, from hearts to AVI files in a folder."""

    def __init__(self, inputs: Inputs, cfg: SampleVideosConfig) -> None:
        self.cfg = cfg
        self.sampler = VideoSampler(inputs.work / cfg.model, cfg)
        self.codec = VideoCodec(Vae.load(inputs.project / "models/vae"))

    def reference(self, plan: SamplePlan, rows: range, folder: Path) -> None:
        """A batch sampled together, decoded in chunks of the batch's size, written in turn."""
        chosen = list(rows)
        ef = torch.from_numpy(plan.ef[chosen])
        made = self.sampler.animate(plan.hearts.take(plan.indices[chosen]), ef, chosen, SEED)
        for row, z in zip(chosen, made, strict=True):
            frames = np.concatenate([self.codec.decode(part) for part in z.split(self.cfg.batch)])
            write_video(folder / f"{plan.table['FileName'][row]}.avi", frames, plan.fps)

    def ours(self, plan: SamplePlan, rows: range, folder: Path) -> None:
        """What the stage does."""
        sample_shard(self.sampler, self.codec, plan, rows, folder, SEED)


SIDES = {"ours": OURS, "baseline": BASELINE}


def make(inputs: Inputs, name: str, plan: SamplePlan, rows: range, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    side = Side(inputs, SIDES[name])
    (side.ours if name == "ours" else side.reference)(plan, rows, folder)


def peak_mb(inputs: Inputs, name: str) -> float:
    """Peak memory of a process that makes one batch: of the GPU's, or resident without one."""
    command = [sys.executable, "-m", "benchmarks.sampling", "--peak", name]
    where = ["--project", inputs.project, "--dataset", inputs.dataset, "--work", inputs.work]
    out = subprocess.run([*command, *map(str, where)], check=True, capture_output=True, text=True)
    return float(out.stdout.split()[-1])


def print_peak(inputs: Inputs, name: str) -> None:
    with tempfile.TemporaryDirectory() as tmp:
        make(inputs, name, inputs.plan(), range(TIMED), Path(tmp))
    if torch.cuda.is_available():
        print(torch.cuda.max_memory_allocated() / 1e6)
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def judged(inputs: Inputs, plan: SamplePlan) -> dict[str, Quality]:
    """Quality of `VIDEOS` videos of each side; finished videos are not made again."""
    real = load_frames(inputs.project / "data/train" / inputs.dataset, plan.fps, inputs.work / "f")
    test = real.split("TEST")
    arm = inputs.project / "models/ef" / inputs.dataset / "real"
    judge, found = Judge(test, arm, int(min(test.lengths.min(), FRAMES))), {}
    for name in SIDES:
        folder = inputs.work / f"videos-{name}"
        for row in range(0, VIDEOS, TIMED):
            rows = range(row, row + TIMED)
            paths = [folder / f"{plan.table['FileName'][r]}.avi" for r in rows]
            if not all(p.is_file() for p in paths):
                make(inputs, name, plan, rows, folder)
            print(f"{name}: {row + TIMED} of {VIDEOS} videos", file=sys.stderr, flush=True)
        videos = [read_video(folder / f"{n}.avi")[0] for n in plan.table["FileName"]]
        found[name] = judge.measure(videos, plan.table["EF"].to_numpy())
    return found


def agreement(found: dict[str, Quality]) -> str:
    """Ours must not be worse: no kernel distance above, nor EF correlation below, the baseline's
    interval."""
    ours, theirs = found["ours"], found["baseline"]
    for key in ("kd_efnet", "kd_motion"):
        a, b = getattr(ours, key), getattr(theirs, key)
        if a.value > b.hi:
            disagree(
                f"{key} of ours is {a.value:.4g}, the baseline's {b.value:.4g} (<= {b.hi:.4g})"
            )
    if ours.r.value < theirs.r.lo:
        disagree(f"EF r of ours is {ours.r.value:.3f}, the baseline's {theirs.r.value:.3f}")
    return "ours is no worse in kernel distances and EF correlation"


def show(found: dict[str, Quality]) -> None:
    names = ("kd_efnet", "kd_motion", "fd_efnet", "fd_motion", "r", "slope", "mae")
    print(f"{'':10}" + "".join(f"{n:>28}" for n in names))
    for side, quality in found.items():
        cells = [getattr(quality, n) for n in names]
        print(
            f"{side:10}" + "".join(f"{f'{c.value:.4g} ({c.lo:.4g}-{c.hi:.4g})':>28}" for c in cells)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", type=Path, default=Path.cwd())
    parser.add_argument("--dataset", default="phantom")
    parser.add_argument("--work", type=Path, default=Path(".echosyn/benchmarks/sampling"))
    parser.add_argument("--peak", choices=tuple(SIDES), help="print the peak memory of one batch")
    args = parser.parse_args()
    set_threads(threads())
    inputs = Inputs(args.project, args.dataset, args.work)
    inputs.check()
    if args.peak:
        print_peak(inputs, args.peak)
        return
    args.work.mkdir(parents=True, exist_ok=True)
    spent = train(inputs)
    print("training, s: " + ", ".join(f"{k} {v:.0f}" for k, v in spent.items()))
    plan = inputs.plan()
    for name, cfg in SIDES.items():
        print(f"{name}: {Side(inputs, cfg).sampler.cost()}")
    found = judged(inputs, plan)
    show(found)
    said = agreement(found)
    with tempfile.TemporaryDirectory() as tmp:
        sides = {name: Side(inputs, cfg) for name, cfg in SIDES.items()}
        out = Path(tmp)
        calls = [
            lambda: sides["ours"].ours(plan, range(VIDEOS), out),
            lambda: sides["baseline"].reference(plan, range(TIMED), out),
        ]
        times = time_in_turns(calls, 3, warmup=1)
    counts = {"ours": VIDEOS, "baseline": TIMED}
    rates = {k: n / statistics.median(t) for (k, n), t in zip(counts.items(), times, strict=True)}
    for (name, n), t in zip(counts.items(), times, strict=True):
        print(
            f"{name:10} {rates[name]:9.4f} videos/s, {min(t) / n:.3f} to {max(t) / n:.3f} s a "
            f"video, peak {peak_mb(inputs, name):,.0f} MB"
        )
    print(f"{VIDEOS} and {TIMED} videos of {FRAMES} frames, 3 repeats after 1 warm-up: {said}")
    conclude("sampling", ours=rates["ours"], baseline=rates["baseline"], unit="videos/s", n=VIDEOS)


if __name__ == "__main__":
    try:
        main()
    except EchosynError as e:
        sys.exit(str(e))
