"""What a stage takes of its machine, sampled while it runs: `system/` metrics of MLflow."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from echosyn.tracking.outbox import Row

EVERY = 10.0  # seconds; a stage that is done before has no samples
MB = 1e6


def sample() -> dict[str, float]:
    """Percentages of the machine, megabytes, and this process with its children: 100 is a core."""
    memory = psutil.virtual_memory()
    values = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": (memory.total - memory.available) / MB,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_usage_megabytes": _resident() / MB,
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            values[f"system/gpu_{i}_memory_usage_megabytes"] = (total - free) / MB
    return values


def _resident() -> int:
    total, me = 0, psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # it ended meanwhile
            continue
    return total


@contextmanager
def sampling(keep: Callable[[list[Row]], None], start: int, every: float = EVERY) -> Iterator[None]:
    """Sample every so many seconds while the block runs.

    Args:
        keep: gets the values of a sample. start: of the run, milliseconds; steps are seconds since
            then, so that a stage that was killed and goes on continues its curves.
    """
    over = threading.Event()
    psutil.cpu_percent()  # its first call has nothing to compare with

    def watch() -> None:
        while not over.wait(every):
            now = time.time_ns() // 1_000_000
            step = max(0, (now - start) // 1000)
            keep([(key, value, now, step) for key, value in sample().items()])

    thread = threading.Thread(target=watch, name="usage", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
