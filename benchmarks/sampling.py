"""192-frame videos per second, ours against the reference's protocol, at equal training time.

- ours: the student of conf/demo's LVDM (benchmarks.training), in `STEPS` steps over windows that
  share `OVERLAP` frames, guidance included; videos are written by threads.
- baseline: the same network, trained as the reference trains for as long as our two trainings took
  together, sampled as the reference samples: 64 ancestral DDPM steps without guidance over windows
  that overlap by half, of which the second half is thrown away; then decoded and written in turn.

Both animate the same real TEST hearts at the same EFs, decode with the same VAE and write AVIs. A
speed of worse videos is no speed: kernel video distances to real TEST videos and the correlation of
requested with measured EF are printed with intervals, and the benchmark fails when ours are worse
beyond what the intervals allow.

python -m benchmarks.sampling --project . --work DIR --pictures DIR

`project` has been through `dvc repro` at scale `demo`: its VAE, latents and EF regressors are used.
Trainings and videos stay in DIR: the same command goes on where it was stopped.
"""

import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import conclude, disagree, threads, time_in_turns, use_threads

use_threads(threads())

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.training import Rivals, arguments, opened, train  # noqa: E402
from benchmarks.video_quality import Judge, Quality, frame_set  # noqa: E402
from echosyn.data.beats import draw_beats, first_phases  # noqa: E402
from echosyn.data.filelist import HEART_RATE, PHASE  # noqa: E402
from echosyn.data.frames import load_frames  # noqa: E402
from echosyn.data.video import read_video, write_video  # noqa: E402
from echosyn.diffusion.ef_draw import draw_ef  # noqa: E402
from echosyn.diffusion.generate import VideoSampler  # noqa: E402
from echosyn.diffusion.heart_file import Hearts  # noqa: E402
from echosyn.diffusion.settings import GUIDANCE, SampleVideosConfig  # noqa: E402
from echosyn.encoding.codec import VideoCodec  # noqa: E402
from echosyn.models.vae import Vae  # noqa: E402
from echosyn.privacy.filters.hearts import HEARTS, AcceptedHearts  # noqa: E402
from echosyn.report.mosaic import webp  # noqa: E402
from echosyn.report.sheet import contact_sheet  # noqa: E402
from echosyn.runtime.device import pick_device  # noqa: E402
from echosyn.runtime.errors import EchosynError  # noqa: E402
from echosyn.runtime.files import atomic_dir, write_bytes  # noqa: E402
from echosyn.synthesis.samples import SamplePlan, sample_shard, synthetic_table  # noqa: E402

DEVICE = pick_device()
FRAMES, VIDEOS, SEED = 192, 20, 0
# Videos that are timed, and how many of them a GPU makes together.
TIMED, BATCH = ({"ours": 8, "baseline": 1}, 1) if DEVICE.type == "cpu" else (
    {"ours": 24, "baseline": 8}, 8
)  # fmt: skip
STEPS, OVERLAP = 2, 4
COMMON = {"train": VIDEOS, "val": 0, "test": 0, "frames": FRAMES, "batch": BATCH}
OURS = SampleVideosConfig(
    **COMMON, model="student", windows="blend", overlap=OVERLAP, steps=STEPS, guidance=GUIDANCE
)
BASELINE = SampleVideosConfig(
    **COMMON, model="reference", windows="discard", steps=64, sampler="ddpm", guidance=1.0
)
SHOWN = (0, 1, 2)  # videos of the contact sheet
LONGEST = 48  # frames of it


def plan_of(rivals: Rivals) -> SamplePlan:
    """Hearts of TEST videos, at EFs and rates as TRAIN's are."""
    train, hearts = rivals.sets("TRAIN")[0], Hearts(rivals.hearts(VIDEOS, SEED))
    folder, indices = rivals.work / "hearts", np.arange(VIDEOS)
    with atomic_dir(folder) as tmp:
        hearts.write(tmp / HEARTS, indices=torch.from_numpy(indices))
    ef = draw_ef("real", train.ef, VIDEOS, SEED)
    names = [f"video{i:03d}" for i in indices]
    fps = float(train.table["FPS"].iloc[0])
    table = synthetic_table(names, ef, ["TRAIN"] * VIDEOS, FRAMES, fps)
    table[HEART_RATE] = draw_beats(train, ef, SEED)
    table[PHASE] = first_phases(indices, SEED)
    return SamplePlan(AcceptedHearts(folder), indices, table)


class Side:
    """A way to make videos, from hearts to AVI files in a folder."""

    def __init__(self, rivals: Rivals, cfg: SampleVideosConfig) -> None:
        self.cfg = cfg
        self.sampler = VideoSampler(rivals.work / cfg.model, cfg)
        self.codec = VideoCodec(Vae.load(rivals.project / "models/vae"))

    def reference(self, plan: SamplePlan, rows: range, folder: Path) -> None:
        """A batch sampled together, decoded in chunks of the batch's size, written in turn."""
        chosen = list(rows)
        ef = torch.from_numpy(plan.ef[chosen])
        hearts, beat = plan.hearts.take(plan.indices[chosen]), plan.beat(chosen)
        made = self.sampler.animate(hearts, ef, chosen, SEED, fps=plan.fps, beat=beat)
        for row, z in zip(chosen, made, strict=True):
            frames = np.concatenate([self.codec.decode(part) for part in z.split(self.cfg.batch)])
            write_video(folder / f"{plan.table['FileName'][row]}.avi", frames, plan.fps)

    def ours(self, plan: SamplePlan, rows: range, folder: Path) -> None:
        """What the stage does."""
        sample_shard(self.sampler, self.codec, plan, rows, folder, SEED)


SIDES = {"ours": OURS, "baseline": BASELINE}


def make(rivals: Rivals, name: str, plan: SamplePlan, rows: range, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    side = Side(rivals, SIDES[name])
    (side.ours if name == "ours" else side.reference)(plan, rows, folder)


def peak_mb(rivals: Rivals, name: str) -> float:
    """Peak memory of a process that makes one batch: of the GPU's, or resident without one."""
    command = [sys.executable, "-m", "benchmarks.sampling", "--peak", name]
    where = ["--project", rivals.project, "--dataset", rivals.dataset, "--work", rivals.work]
    out = subprocess.run([*command, *map(str, where)], check=True, capture_output=True, text=True)
    return float(out.stdout.split()[-1])


def print_peak(rivals: Rivals, name: str) -> None:
    with tempfile.TemporaryDirectory() as tmp:
        make(rivals, name, plan_of(rivals), range(BATCH), Path(tmp))
    if torch.cuda.is_available():
        print(torch.cuda.max_memory_allocated() / 1e6)
    else:
        # Not ru_maxrss, which begins at the size of the process that this one was started by.
        status = Path("/proc/self/status").read_text()
        print(int(status.split("VmHWM:")[1].split()[0]) / 1e3)


def judged(rivals: Rivals, plan: SamplePlan, n: int) -> dict[str, Quality]:
    """Quality of the plan's first n videos of each side; finished videos are not made again.

    EF is measured over whole videos. Distances are of their pieces, as long as a real clip, so that
    the last second counts as the first does; their intervals take pieces as independent.
    """
    real = load_frames(rivals.project / "data/train" / rivals.dataset, plan.fps, rivals.work / "f")
    test = real.split("TEST")
    arm = rivals.project / "models/ef" / rivals.dataset / "real"
    length, found = int(min(test.lengths.min(), FRAMES)), {}
    judge = Judge(test, arm, length)
    for name in SIDES:
        folder = rivals.work / f"videos-{name}"
        for row in range(0, n, BATCH):
            rows = range(row, min(row + BATCH, n))
            paths = [folder / f"{plan.table['FileName'][r]}.avi" for r in rows]
            if not all(p.is_file() for p in paths):
                make(rivals, name, plan, rows, folder)
            print(f"{name}: {rows.stop} of {n} videos", file=sys.stderr, flush=True)
        videos = [read_video(folder / f"{v}.avi")[0] for v in plan.table["FileName"][:n]]
        ef = plan.table["EF"].to_numpy()[:n]
        pieces = [v[i : i + length] for v in videos for i in range(0, FRAMES - length + 1, length)]
        cut = frame_set(pieces, np.repeat(ef, FRAMES // length), plan.fps)
        found[name] = replace(judge.measure(videos, ef), **judge.distances(cut))
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
    return "ours are no worse in kernel distances and EF correlation"


def show(found: dict[str, Quality]) -> None:
    names = ("kd_efnet", "kd_motion", "fd_efnet", "fd_motion", "r", "slope", "mae")
    print(f"{'':10}" + "".join(f"{n:>28}" for n in names))
    for side, quality in found.items():
        cells = [getattr(quality, n) for n in names]
        print(
            f"{side:10}" + "".join(f"{f'{c.value:.4g} ({c.lo:.4g}-{c.hi:.4g})':>28}" for c in cells)
        )


def draw(rivals: Rivals, plan: SamplePlan, folder: Path) -> None:
    """sampling.png and sampling.webp: TEST videos, their reconstructions, and both sides' videos
    of their hearts, at the EFs asked for."""
    codec = VideoCodec(Vae.load(rivals.project / "models/vae"))
    test = rivals.sets("TEST")[0]
    frames = load_frames(
        rivals.project / "data/train" / rivals.dataset, plan.fps, rivals.work / "f"
    )
    real, clips = frames.split("TEST"), []
    for i in SHOWN:
        n = min(int(test.lengths[i]), LONGEST)
        shown, ef = real.video(i)[:n], plan.ef[i]
        clips.append((f"real EF {test.ef[i]:.0f}", shown))
        clips.append(("decoded again", codec.decode(test.mean(i, 0, n))))
        for name in SIDES:
            path = rivals.work / f"videos-{name}" / f"{plan.table['FileName'][i]}.avi"
            clips.append((f"{name} asked {ef:.0f}", read_video(path)[0]))
    write_bytes(folder / "sampling.png", contact_sheet(clips))
    moving = [clip[:LONGEST] for _, clip in clips]
    write_bytes(folder / "sampling.webp", webp(moving, plan.fps, len(clips) // len(SHOWN)))


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=VIDEOS, help="of each side that are judged")
    parser.add_argument("--pictures", type=Path, help="folder for sampling.png and sampling.webp")
    parser.add_argument("--peak", choices=tuple(SIDES), help="print the peak memory of one batch")
    args = parser.parse_args()
    rivals = opened(args)
    if not len(SHOWN) <= args.videos <= VIDEOS:
        parser.error(f"--videos {args.videos}: from {len(SHOWN)} to {VIDEOS}")
    if args.peak:
        print_peak(rivals, args.peak)
        return
    spent = train(rivals)
    print("training, s: " + ", ".join(f"{k} {v:.0f}" for k, v in spent.items()))
    plan = plan_of(rivals)
    for name, cfg in SIDES.items():
        print(f"{name}: {Side(rivals, cfg).sampler.cost()}")
    found = judged(rivals, plan, args.videos)
    show(found)
    if args.pictures:
        draw(rivals, plan, args.pictures)
    said = agreement(found)
    with tempfile.TemporaryDirectory() as tmp:
        sides = {name: Side(rivals, cfg) for name, cfg in SIDES.items()}
        out = Path(tmp)
        calls = [
            lambda: sides["ours"].ours(plan, range(TIMED["ours"]), out),
            lambda: sides["baseline"].reference(plan, range(TIMED["baseline"]), out),
        ]
        times = time_in_turns(calls, 3, warmup=1)
    rates = {k: n / statistics.median(t) for (k, n), t in zip(TIMED.items(), times, strict=True)}
    for (name, n), t in zip(TIMED.items(), times, strict=True):
        print(
            f"{name:10} {rates[name]:9.4f} videos/s, {min(t) / n:.3f} to {max(t) / n:.3f} s a "
            f"video, peak {peak_mb(rivals, name):,.0f} MB"
        )
    print(f"videos of {FRAMES} frames, 3 repeats after 1 warm-up: {said}")
    conclude("sampling", **rates, unit="videos/s", n=TIMED["ours"])


if __name__ == "__main__":
    try:
        main()
    except EchosynError as e:
        sys.exit(str(e))
