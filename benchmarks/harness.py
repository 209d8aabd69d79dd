"""What every benchmark shares: fair timing, a check that both sides agree, one line of JSON.

Both sides are warmed up and then timed in turns, so that a machine that slows down slows both.
The printed line ends the output: {"name", "ratio", "ours", "baseline", "unit", "n", "machine"},
where ratio > 1 means that ours is faster.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from echosyn.runtime.process import prepare, threads

T = TypeVar("T")


def use_threads(count: int) -> None:
    """Limit this process to `count` CPU threads; call before importing torch."""
    os.environ["ECHOSYN_THREADS"] = str(count)
    prepare()
    import cv2

    cv2.setNumThreads(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def machine() -> str:
    """The processor's name and how many of its threads this process uses."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    used = threads()
    return f"{name}, {used} thread{'s' if used != 1 else ''}"


def time_in_turns(
    sides: Sequence[Callable[[], Any]], repeats: int, warmup: int = 1
) -> list[list[float]]:
    """Seconds of each of `repeats` calls of every side, called in turns after `warmup` rounds."""
    for _ in range(warmup):
        for side in sides:
            side()
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for side, taken in zip(sides, seconds, strict=True):
            start = time.perf_counter()
            side()
            taken.append(time.perf_counter() - start)
    return seconds


def compare(
    name: str,
    ours: Callable[[], T],
    baseline: Callable[[], T],
    same: Callable[[T, T], str],
    *,
    n: int,
    unit: str,
    repeats: int = 5,
    warmup: int = 1,
) -> None:
    """Time both sides on the same `n` items and print the table and the line of JSON.

    Args:
        same: given both results, says in words how well they agree; exits the benchmark
            (`disagree`) when they do not.
        n: items that one call works through; rates are n / median seconds.
        unit: of the rates, such as "videos/s".
    """
    agreement = same(ours(), baseline())
    times = time_in_turns([ours, baseline], repeats, warmup)
    rates = [n / statistics.median(t) for t in times]
    print(f"{'':10} {unit:>12} {'median s':>10} {'min s':>10} {'max s':>10}")
    for label, rate, t in zip(("ours", "baseline"), rates, times, strict=True):
        line = f"{rate:12.3f} {statistics.median(t):10.4f} {min(t):10.4f} {max(t):10.4f}"
        print(f"{label:10} {line}")
    print(f"{n} items, {repeats} repeats after {warmup} warm-up; both sides agree: {agreement}")
    conclude(name, ours=rates[0], baseline=rates[1], unit=unit, n=n)


def conclude(name: str, *, ours: float, baseline: float, unit: str, n: int) -> None:
    """Print the closing line of JSON; `ours` and `baseline` are rates, more is better."""
    line = {
        "name": name,
        "ratio": round(ours / baseline, 3),
        "ours": round(ours, 4),
        "baseline": round(baseline, 4),
        "unit": unit,
        "n": n,
        "machine": machine(),
    }
    print(json.dumps(line, allow_nan=False))


def disagree(message: str) -> None:
    """End the benchmark with status 1: a speed of something else is no speed."""
    sys.exit(f"the two sides disagree: {message}")
