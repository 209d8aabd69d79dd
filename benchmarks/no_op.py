"""What a run with nothing to do costs at EchoNet-Dynamic's size: `dvc status` and `dvc repro`.

The graph is this project's own, at the scale asked for, with stand-ins for what its stages write:
as many files, in the same folders, of a few bytes. Neither command reads a file that has not
changed since the last one, so their sizes do not count; their number does. `dvc commit` records
them; after a first round each command runs `--repeats` times in a process of its own.

python -m benchmarks.no_op [--videos 10030] [--scale paper] [--repeats 3] [--work FOLDER]
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

from benchmarks.harness import disagree, machine
from echosyn.runtime.process import prepare

ROOT = Path(__file__).parents[1]
BAR = 10.0  # seconds
NOTHING = "Data and pipelines are up to date"
# Outputs with a file a video, below the folder of that name.
VIDEOS = ("data/raw", "data/train", "reconstructions/train", "candidates", "samples", "releases")


def main() -> None:
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=10_030)
    parser.add_argument("--scale", default="paper")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(), help="a folder on a large disk")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        project = Path(folder).resolve() / "project"
        files, uses = make(project, args.videos, args.scale)
        costs = {
            command: measure(project, command, args.repeats) for command in ("status", "repro")
        }
    print(f"{files} files in outputs; of folders with a file a video: {uses} uses by stages")
    for command, taken in costs.items():
        each = ", ".join(f"{cost.seconds:.1f} ({cost.cpu:.1f})" for cost in taken)
        print(f"dvc {command}: seconds (of CPU) {each}; bar {BAR:g} s")
    print(f"{machine()}; load {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    slowest = max(statistics.median(c.seconds for c in taken) for taken in costs.values())
    sys.exit(int(slowest > BAR))


def make(project: Path, videos: int, scale: str) -> tuple[int, int]:
    """A project whose every output is there and recorded: files of all outputs, and how often a
    stage reads or writes a folder with a file a video. Its code is what is committed here."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project)], check=True)
    params = project / "params.yaml"
    params.write_text(re.sub(r"(?m)^scale: \w+", f"scale: {scale}", params.read_text()))
    dvc(project, "config", "--local", "core.site_cache_dir", str(project.parent / "state"))
    shard = yaml.safe_load((project / f"conf/{scale}/encode.yaml").read_text())["shard"]
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        outs = [Path(out.fs_path).relative_to(project).as_posix() for out in repo.index.outs]
        reads = [Path(d.fs_path).relative_to(project).as_posix() for d in repo.index.deps]
    for out in outs:
        fill(project / out, files_of(out, videos, shard))
    dvc(project, "commit", "--force", "--quiet")
    found = sum(
        1 for out in outs for p in [project / out, *(project / out).rglob("*")] if p.is_file()
    )
    return found, sum(o in VIDEOS or is_of_videos(o) for o in (*outs, *reads))


def is_of_videos(out: str) -> bool:
    return out.rpartition("/")[0] in VIDEOS


def files_of(out: str, videos: int, shard: int) -> list[str]:
    """Names of the files that a stage leaves in an output; "" for one that is a file itself."""
    if Path(out).suffix:
        return [""]
    if is_of_videos(out):
        own = ["FileList.csv", "content.sha256", "manifest.json"]
        return [*own, *(f"Videos/SYN_stand_in_0_{i:06d}.avi" for i in range(videos))]
    if out.startswith("latents/"):
        return ["index.csv", *(f"latents-{i:06d}.safetensors" for i in range(0, videos, shard))]
    return ["stand_in"]


def fill(out: Path, names: list[str]) -> None:
    for name in names:
        path = out / name if name else out
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{out}/{name}\n" if path.suffix != ".json" else "{}\n")


class Cost(NamedTuple):
    """Of a command, from its start to its end."""

    seconds: float
    cpu: float
    said: str


def dvc(project: Path, *command: str) -> Cost:
    """Run a command of DVC in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(project), "DVC_NO_ANALYTICS": "1"}
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *command], cwd=project, env=env, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    seconds, after = time.perf_counter() - start, os.times()
    if done.returncode:
        disagree(f"dvc {' '.join(command)}: {done.stdout[-500:]}{done.stderr[-2000:]}")
    cpu = sum(after[2:4]) - sum(before[2:4])  # of children
    return Cost(seconds, cpu, done.stdout)


def measure(project: Path, command: str, repeats: int) -> list[Cost]:
    """What each of `repeats` runs cost, after one that is not counted."""
    taken = []
    for _ in range(repeats + 1):
        taken.append(dvc(project, command))
        if NOTHING not in taken[-1].said:
            disagree(f"dvc {command} found something to do: {taken[-1].said[:2000]}")
    return taken[1:]


if __name__ == "__main__":
    main()
