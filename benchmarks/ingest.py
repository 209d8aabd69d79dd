"""Ingesting canonical videos: decoded once to be counted, copied byte for byte, all threads busy.

The baseline decodes the same files with OpenCV on as many threads and does nothing else, so the
ratio is the share of the time that decoding takes: 1 would be ingestion for free. The bar is 0.8.
Also timed: the checks of a FileList of 100,000 rows, in this process and as the gate does them with
Great Expectations, its import included (bar: 10 s), and the peak memory of ingesting two sizes of
dataset, which should be the same.

python -m benchmarks.ingest [--videos 160] [--frames 128] [--threads CORES]
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.harness import conclude, disagree, machine, time_in_turns, use_threads

PATIENTS = 8  # rendered; further videos are the same bytes under other names
ROWS = 100_000
SIZES = (1, 5)  # of the two datasets whose peak memory is compared, in units of --videos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=160)
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    use_threads(args.threads)
    if args.peak:
        print(_peak(args.peak))
        return
    with tempfile.TemporaryDirectory() as folder:
        raw = _dataset(Path(folder) / "raw", args.videos, args.frames)
        _memory(raw, Path(folder), args)  # first: Linux counts a parent's peak as its child's
        _filelist(Path(folder))
        _speed(raw, Path(folder) / "out", args)


def _dataset(raw: Path, videos: int, frames: int) -> Path:
    """EchoNet layout with `videos` phantom videos."""
    from echosyn.data.filelist import COLUMNS, video_path
    from echosyn.data.phantom import PhantomConfig, render_patient
    from echosyn.data.video import write_video

    config = PhantomConfig(train=PATIENTS, val=1, test=1, frames=frames)
    (raw / "Videos").mkdir(parents=True)
    lines = [",".join(COLUMNS)]
    for i in range(videos):
        target = video_path(raw, f"v{i:06d}")
        if i < PATIENTS:
            rendered = render_patient(i, config, 0)
            write_video(target, rendered.frames, 50)
        else:
            shutil.copyfile(video_path(raw, f"v{i % PATIENTS:06d}"), target)
        lines.append(f"v{i:06d},55.5,44.5,100.0,112,112,50,{frames},TRAIN")
    (raw / "FileList.csv").write_text("\n".join(lines) + "\n")
    return raw


def _ingest(raw: Path, out: Path) -> int:
    from echosyn.data.ingest import ingest

    return ingest("echonet", raw, out, "ef").frames


def _decode(raw: Path, threads: int) -> int:
    """Frames of all videos, decoded and thrown away."""
    import cv2

    def count(file: Path) -> int:
        capture, frames = cv2.VideoCapture(str(file)), 0
        while capture.read()[0]:
            frames += 1
        capture.release()
        return frames

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(count, sorted((raw / "Videos").iterdir())))


def _filelist(folder: Path) -> None:
    from echosyn.data.filelist import COLUMNS, read_filelist

    path = folder / "FileList.csv"
    rows = (f"0X{i:016X},55.5,44.5,100.0,112,112,50,128,TRAIN\n" for i in range(ROWS))
    path.write_text(",".join(COLUMNS) + "\n" + "".join(rows))
    start = time.perf_counter()
    table = read_filelist(path)
    taken = time.perf_counter() - start
    if len(table) != ROWS:
        disagree(f"{len(table)} of {ROWS} rows were read")
    print(f"FileList of {ROWS:,} rows read and checked in {taken:.2f} s (bar: 10 s)")
    _gate(path)


def _gate(path: Path) -> None:
    """Time every check of the gate on a list whose videos have been measured."""
    import pandas as pd

    from echosyn.data.filelist import read_cells
    from echosyn.validation import ValidateConfig
    from echosyn.validation.engine import evaluate
    from echosyn.validation.gate import dataset_checks
    from echosyn.validation.suites import load_suite
    from echosyn.validation.tables import join

    measured = pd.DataFrame(
        {
            "MeasuredFrameHeight": 112.0,
            "MeasuredFrameWidth": 112.0,
            "MeasuredFPS": 50.0,
            "MeasuredNumberOfFrames": 128.0,
            "Contrast": 200.0,
            "Motion": 4.0,
            "Sha256": [f"{i:064x}" for i in range(ROWS)],
        }
    )
    start = time.perf_counter()
    cells = read_cells(path)
    found = [f"{name}.avi" for name in cells.table["FileName"]]
    tables = join(cells, measured, found)
    checks = dataset_checks(load_suite("echonet"), tables, "ef", ValidateConfig())
    outcomes = evaluate(checks, tables, None, "benchmark")
    taken = time.perf_counter() - start
    failed = [o.check.name for o in outcomes if o.stops]
    if failed:
        disagree(f"checks {failed} failed on a good list")
    print(f"the gate's {len(checks)} checks of it in {taken:.2f} s (bar: 10 s)")


def _peak(raw: Path) -> float:
    """Peak memory of this process after ingesting `raw`, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        _ingest(raw, Path(folder) / "out")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _memory(raw: Path, folder: Path, args: argparse.Namespace) -> None:
    """Print the peak memory of ingesting datasets of two sizes, each in its own process."""
    peaks = []
    for size in SIZES:
        larger = folder / f"raw{size}"
        (larger / "Videos").mkdir(parents=True)
        header, *lines = (raw / "FileList.csv").read_text().splitlines()
        rows = []
        for k in range(size):
            for line in lines:
                name = line.split(",")[0]
                (larger / "Videos" / f"{name}_{k}.avi").symlink_to(raw / "Videos" / f"{name}.avi")
                rows.append(line.replace(name, f"{name}_{k}"))
        (larger / "FileList.csv").write_text("\n".join([header, *rows]) + "\n")
        command = [sys.executable, "-m", "benchmarks.ingest", "--threads", str(args.threads)]
        done = subprocess.run(
            [*command, "--peak", str(larger)], check=True, stdout=subprocess.PIPE, text=True
        )
        peaks.append(float(done.stdout.split()[-1]))
        print(f"peak memory with {len(rows):,} videos: {peaks[-1]:.0f} MB")
        shutil.rmtree(larger)
    print(
        f"per further video: {(peaks[1] - peaks[0]) * 1e3 / (len(lines) * (SIZES[1] - 1)):.1f} kB"
    )


def _speed(raw: Path, out: Path, args: argparse.Namespace) -> None:
    counts = {_ingest(raw, out), _decode(raw, args.threads)}
    if counts != {args.videos * args.frames}:
        disagree(f"{counts} frames, {args.videos * args.frames} were written")
    sides = (lambda: _ingest(raw, out), lambda: _decode(raw, args.threads))
    times = time_in_turns(sides, args.repeats)
    megabytes = sum(f.stat().st_size for f in (raw / "Videos").iterdir()) / 1e6
    print(f"{'':10} {'files/s':>10} {'MB/s':>8} {'frames/s':>10} {'median s':>9}")
    rates = []
    for label, taken in zip(("ours", "baseline"), times, strict=True):
        seconds = statistics.median(taken)
        rates.append(args.videos / seconds)
        frames = args.frames * rates[-1]
        print(
            f"{label:10} {rates[-1]:10.1f} {megabytes / seconds:8.1f} {frames:10.0f} {seconds:9.3f}"
        )
    print(f"{args.videos} videos of {args.frames} frames, {args.repeats} repeats; {machine()}")
    conclude("ingest", ours=rates[0], baseline=rates[1], unit="files/s", n=args.videos)


if __name__ == "__main__":
    main()
