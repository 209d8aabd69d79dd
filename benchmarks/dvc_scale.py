"""What DVC costs per file and per byte: the same bytes as one file per video, and as shards.

Stand-in files (random bytes, so nothing compresses) go through a DVC project of their own: commit,
status, repro with nothing to do, push to a folder, checkout. The bytes come as one file per video
(baseline), as shards of 32 videos as latents are kept (ours), and as fewer, longer videos. From the
videos and a single file each operation gets a line, seconds = start + a x files + b x GB; what the
shards took is set against it. Bytes are dropped from memory before every operation that reads them,
and writing counts until they are on the disk. Rates are of commit, push and checkout together.

python -m benchmarks.dvc_scale [--videos 100000] [--bytes 100000] [--link hardlink] [--jobs 2]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from benchmarks.harness import conclude, disagree
from echosyn.runtime.lineage import dvc_md5
from echosyn.runtime.process import prepare

ROOT = Path(__file__).parents[1]
OUT = Path("samples/stand_in")
SHARD, LONGER = 32, 10
BULK = ("commit", "push", "checkout")
NOTHING = "Data and pipelines are up to date"
RESERVE = 20e9  # bytes of disk to leave free


@dataclass(frozen=True)
class Shape:
    """How many files of how many bytes stand in for the videos."""

    name: str
    files: int
    size: int

    @property
    def gigabytes(self) -> float:
        return self.files * self.size / 1e9


@dataclass(frozen=True)
class Cost:
    """Seconds of an operation, and its process's largest resident memory in MB (0: not its own)."""

    seconds: float
    memory: float = 0.0


def readers() -> int:
    """Stages of this project that depend on the samples of one dataset."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    deps = [s.get("do", s)["deps"] for s in stages if "deps" in s.get("do", s)]
    return sum("samples/${item}" in d for d in deps)


class Project:
    """A DVC project in a new folder: one stage whose output is `OUT`, and its readers."""

    def __init__(self, folder: Path, link: str, jobs: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.state = folder / "state"
        graph = {"sample": {"cmd": "false", "deps": ["settings"], "outs": [OUT.as_posix()]}}
        for i in range(readers()):
            graph[f"reader{i}"] = {"cmd": "false", "deps": [OUT.as_posix()]}
        (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": graph}))
        (folder / "settings").write_text("stand-in")
        self.dvc("init", "--no-scm", "--quiet")
        self.dvc("config", "cache.type", link)
        if jobs:
            self.dvc("config", "core.checksum_jobs", str(jobs))
        self.dvc("remote", "add", "--default", "store", str(folder / "remote"))

    def dvc(self, *command: str, expect: str = "") -> Cost:
        """Run DVC; ends the benchmark when it fails or does not print `expect`."""
        env = {**os.environ, "DVC_SITE_CACHE_DIR": str(self.state)}
        with tempfile.TemporaryFile("w+") as log:
            start = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "dvc", *command],
                cwd=self.folder,
                env=env,
                stdout=log,
                stderr=log,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            os.sync()
            seconds = time.perf_counter() - start
            log.seek(0)
            said = log.read()
        if process.returncode or expect not in said:
            disagree(f"dvc {' '.join(command)} ended with {process.returncode}: {said[-2000:]}")
        unit = 1e6 if sys.platform == "darwin" else 1e3
        return Cost(seconds, usage.ru_maxrss / unit)

    def recorded(self) -> str:
        """The md5 that DVC recorded for the output."""
        lock = yaml.safe_load((self.folder / "dvc.lock").read_text())
        return lock["stages"]["sample"]["outs"][0]["md5"]


def fill(folder: Path, shape: Shape) -> None:
    """Write the files, each of its own bytes, and a FileList that names them."""
    videos = folder / "Videos"
    videos.mkdir(parents=True)
    names = [f"stand_in_{i:07d}" for i in range(shape.files)]
    for i, name in enumerate(names):
        (videos / f"{name}.avi").write_bytes(np.random.default_rng(i).bytes(shape.size))
    (folder / "FileList.csv").write_text("\n".join(["FileName,EF", *(f"{n},55.0" for n in names)]))


def forget(folder: Path) -> None:
    """Drop the files of a folder from the system's memory, so that they are read from the disk."""
    if not hasattr(os, "posix_fadvise"):
        return
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def timed(work: Callable[[], object]) -> Cost:
    start = time.perf_counter()
    work()
    return Cost(time.perf_counter() - start)


def measure(folder: Path, shape: Shape, link: str, jobs: int) -> dict[str, Cost]:
    """Cost of every operation on files of that shape; checks that DVC did what it says."""
    project = Project(folder, link, jobs)
    out, cache, remote = folder / OUT, folder / ".dvc/cache", folder / "remote"
    costs = {"(writing the files)": timed(lambda: (fill(out, shape), os.sync()))}
    forget(out)
    costs["commit"] = project.dvc("commit", "--force", "sample")
    project.dvc("commit", "--force")
    costs["status"] = project.dvc("status", "sample", expect=NOTHING)
    costs["status, with readers"] = project.dvc("status", expect=NOTHING)
    costs["repro, with readers"] = project.dvc("repro", expect=NOTHING)
    known, project.state = project.state, folder / "state_of_a_new_node"
    forget(out)
    costs["status, new node"] = project.dvc("status", "sample", expect=NOTHING)
    project.state = known
    forget(cache)
    costs["push"] = project.dvc("push")
    costs["push, nothing new"] = project.dvc("push", expect="up to date")
    objects = sum(p.is_file() for p in remote.rglob("*"))
    if objects != shape.files + 2:  # and FileList.csv, and the list of all
        disagree(f"{objects} objects were pushed of {shape.files} files")
    shutil.rmtree(out)
    forget(cache)
    costs["checkout"] = project.dvc("checkout")
    forget(out)
    md5 = ""

    def hash_again() -> None:
        nonlocal md5
        md5 = dvc_md5(out)

    costs["(our own md5)"] = timed(hash_again)
    if md5 != project.recorded():
        disagree(f"checkout restored {md5}, not {project.recorded()}")
    used = sum(p.stat().st_blocks for p in cache.rglob("*")) * 512 / 1e9
    linked = out.joinpath("FileList.csv").stat().st_nlink > 1
    listing = max(p.stat().st_size for p in cache.rglob("*.dir")) / 1e6
    print(
        f"  cache {used:.2f} GB, {'shared with' if linked else 'beside'} the output; "
        f"list of files {listing:.2f} MB"
    )
    shutil.rmtree(folder)
    return costs


def fit(shapes: list[Shape], seconds: list[float]) -> np.ndarray:
    """Start (s), a (s per file) and b (s per GB), none below 0."""
    from scipy.optimize import nnls

    rows = np.array([[1.0, s.files, s.gigabytes] for s in shapes])
    line, _ = nnls(rows / np.array(seconds)[:, None], np.ones(len(shapes)))
    return line


def main() -> None:
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--bytes", type=int, default=100_000, help="of one video")
    parser.add_argument(
        "--folder", type=Path, help="on the disk to measure (default: the temporary one)"
    )
    parser.add_argument("--link", default="copy", help="cache.type of DVC")
    parser.add_argument("--jobs", type=int, default=0, help="core.checksum_jobs; 0: DVC's choice")
    args = parser.parse_args()
    videos, size = args.videos, args.bytes
    # Smallest first: Linux counts the parent's largest memory as its child's.
    shapes = [
        Shape("a single file", 1, size),
        Shape(f"shards of {SHARD}", max(1, videos // SHARD), SHARD * size),
        Shape(f"{LONGER} times longer videos", max(1, videos // LONGER), LONGER * size),
        Shape("one file per video", videos, size),
    ]
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        needed, free = 3 * videos * size, shutil.disk_usage(temporary).free
        if needed + RESERVE > free:
            sys.exit(f"{temporary}: needs {needed / 1e9:.0f} GB and 20 GB left; {free / 1e9:.0f}")
        costs = []
        for shape in shapes:
            print(
                f"{shape.name}: {shape.files:,} files, {shape.gigabytes:.2f} GB, {args.link}",
                flush=True,
            )
            costs.append(measure(Path(temporary) / "project", shape, args.link, args.jobs))
            for name, cost in costs[-1].items():
                memory = f"{cost.memory:8.0f} MB" if cost.memory else ""
                print(f"  {name:24} {cost.seconds:9.2f} s {memory}", flush=True)
    print(f"\n{'':26}{'start s':>9} {'ms/file':>9} {'s/GB':>9} {'shards / line':>14}")
    start, shards, *rest = range(len(shapes))
    for name in costs[0]:
        seconds = [c[name].seconds for c in costs]
        line = fit([shapes[i] for i in (start, *rest)], [seconds[i] for i in (start, *rest)])
        predicted = float(line @ [1, shapes[shards].files, shapes[shards].gigabytes])
        numbers = f"{line[0]:9.2f} {1000 * line[1]:9.3f} {line[2]:9.3f}"
        print(f"{name:26}{numbers} {seconds[shards] / predicted:14.2f}")
    print(f"{readers()} readers; shards and files per video hold the same volume")
    cycle = [sum(c[name].seconds for name in BULK) for c in costs]
    conclude(
        "dvc_scale",
        ours=videos / cycle[shards],
        baseline=videos / cycle[-1],
        unit="videos/s",
        n=videos,
    )


if __name__ == "__main__":
    main()
