"""Packing and verifying a release of EchoNet-Dynamic's size, against `tar` and `sha256sum`.

Timed in turns, on the same bytes: `verify` against `sha256sum` of the videos, `pack` (which hashes
every video against the manifest, and every shard) against `tar` of them, and unpack. Ours may take
1.3 times as long as `sha256sum` and `tar` together. The peak memory of packing a tenth of the
videos is compared with that of packing all.

python -m benchmarks.pack [--source releases/phantom] [--videos 10030] [--frames 192]
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import conclude, disagree, use_threads

DISTINCT = 16  # videos made; further ones are the same bytes under other names
BAR = 1.3
SPARE = 2.2  # the release and one copy of it lie on the disk at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=Path("releases/phantom"))
    parser.add_argument("--work", type=Path, default=Path(), help="a folder on a large disk")
    parser.add_argument("--videos", type=int, default=10_030)
    parser.add_argument("--frames", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    use_threads(args.threads)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        _run(Path(folder).resolve(), args)


def _run(work: Path, args: argparse.Namespace) -> None:
    # Apart: Linux counts a parent's peak as its child's.
    with get_context("spawn").Pool(1) as made:
        distinct = made.apply(_distinct, (args.source, work / "distinct", args.frames))
        mean = statistics.fmean(p.stat().st_size for p in distinct)
        count = min(args.videos, int(shutil.disk_usage(work).free / mean / SPARE))
        if count < args.videos:
            print(f"the disk has room for {count} of the {args.videos} videos and a copy")
        small = made.apply(_release, (work / "small", distinct, count // 10, args.frames))
        release = made.apply(_release, (work / "release", distinct, count, args.frames))
    out, tar = work / "out", work / "out.tar"
    few = _ours("pack", small, out).peak
    size = sum(p.stat().st_size for p in (release / "Videos").iterdir())
    steps = {
        "verify": lambda: _ours("verify", release),
        "sha256sum": lambda: _timed(["sh", "-c", "sha256sum Videos/*"], release),
        "pack": lambda: _ours("pack", release, out),
        "tar": lambda: _timed(["tar", "-cf", str(tar), "Videos"], release, tar),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    peaks: dict[str, float] = {}
    print(f"{'':10} {'seconds':>8} {'CPU s':>8} {'MB/s':>8}")
    for _ in range(args.repeats):
        for name, step in steps.items():
            took = step()
            seconds[name].append(took.seconds)
            rate = size / took.seconds / 1e6
            print(f"{name:10} {took.seconds:8.2f} {took.cpu:8.2f} {rate:8.0f}", flush=True)
            peaks[name] = took.peak
    s = {name: statistics.median(taken) for name, taken in seconds.items()}
    ours, baseline = s["verify"] + s["pack"], s["sha256sum"] + s["tar"]
    print(f"{count} videos, {size / 1e9:.2f} GB, {args.repeats} rounds; medians:")
    print(f"verify / sha256sum {s['verify'] / s['sha256sum']:.2f}, pack / tar "
          f"{s['pack'] / s['tar']:.2f}, both {ours / baseline:.2f} (bar: {BAR})")  # fmt: skip
    print(f"peak memory, MB: pack of {count // 10} videos {few:.0f}, of {count} "
          f"{peaks['pack']:.0f}; verify of {count} {peaks['verify']:.0f}")  # fmt: skip
    conclude("pack", ours=count / ours, baseline=count / baseline, unit="videos/s", n=count)


def _distinct(source: Path, out: Path, frames: int) -> list[Path]:
    """Videos of `frames` frames: those of a release one after the other."""
    import numpy as np

    from echosyn.data.video import read_video, write_video

    found = sorted((source / "Videos").glob("*.avi"))
    if not found:
        sys.exit(f"{source}: no videos; make demo first, or give --source")
    made = []
    for i in range(DISTINCT):
        parts, n = [], 0
        while n < frames:
            parts.append(read_video(found[(i + len(parts) * DISTINCT) % len(found)])[0])
            n += len(parts[-1])
        made.append(out / f"{i}.avi")
        write_video(made[-1], np.concatenate(parts)[:frames], 32.0)
    return made


def _release(folder: Path, distinct: list[Path], count: int, frames: int) -> Path:
    """A release of `count` videos with phases, and the manifest of it."""
    import numpy as np
    import pandas as pd

    from echosyn.data.filelist import COLUMNS, frame_phases, video_path, write_filelist
    from echosyn.release.manifest import MANIFEST, PHASES, SCHEMA, file_table
    from echosyn.runtime.files import write_json, write_text
    from echosyn.runtime.progress import track

    (folder / "Videos").mkdir(parents=True)
    names = [f"SYN_bench_0_{i:06d}" for i in range(count)]
    for i, name in enumerate(track(names, "make", "videos")):
        shutil.copyfile(distinct[i % len(distinct)], video_path(folder, name))
    facts = (55.5, np.nan, np.nan, 112, 112, 32.0, frames)
    table = pd.DataFrame([(name, *facts, "TRAIN") for name in names], columns=list(COLUMNS))
    table = table.assign(HeartRate=60.0, Phase=0.25)
    write_filelist(folder / "FileList.csv", table)
    write_text(folder / PHASES, frame_phases(table).to_csv(index=False, lineterminator="\n"))
    manifest = {"schema": SCHEMA, "name": "bench", "version": "1.0.0", "files": file_table(folder)}
    write_json(folder / MANIFEST, manifest)
    return folder


CALLS = {
    "verify": "from echosyn.release import verify; sys.exit(bool(verify(sys.argv[1])))",
    "pack": "from echosyn.release.pack import pack; pack(*sys.argv[1:])",
}


class Took(NamedTuple):
    seconds: float  # until what was written is on the disk, the start of the process included
    cpu: float
    peak: float  # memory, MB


def _ours(name: str, release: Path, *out: Path) -> Took:
    command = [sys.executable, "-c", f"import sys; {CALLS[name]}", str(release), *map(str, out)]
    return _timed(command, Path.cwd(), *out)


def _timed(command: list[str], folder: Path, *out: Path) -> Took:
    """Run a process in `folder`; `out`, which it wrote, is removed afterwards."""
    os.sync()
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    for path in (p for o in out for p in (o, *o.rglob("*")) if p.is_file()):
        with path.open("rb") as f:
            os.fsync(f.fileno())
    seconds = time.perf_counter() - start
    if status:
        disagree(f"{command[:3]} ended with status {os.waitstatus_to_exitcode(status)}")
    for path in out:
        path.unlink() if path.is_file() else shutil.rmtree(path)
    return Took(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
