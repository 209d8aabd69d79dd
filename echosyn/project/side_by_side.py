"""`dvc repro` with several stages at once: `echosyn run`.

Each stage is run by a `dvc repro --single-item` of its own as soon as the stages that it needs are
done, so that DVC sees what it would see of one `dvc repro`. Small networks gain: two stages on a
core each are faster than one after the other on both. Outputs are those of `dvc repro` with the
same ECHOSYN_THREADS, the cores that a stage has to itself here.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from echosyn.project import graph
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.process import cores, deferred_stop, end_with_parent

POLL = 0.1  # seconds
LOGS = Path(".echosyn/log")  # what stages print
TAIL = 25  # lines of a failed stage that are printed


@dataclass(frozen=True)
class Running:
    """A stage under way."""

    stage: str
    process: subprocess.Popen
    log: Path
    started: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def last_line(self) -> str:
        """The last thing that it printed."""
        with self.log.open("rb") as file:
            file.seek(max(self.log.stat().st_size - 2000, 0))
            lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


@dataclass(frozen=True)
class Watcher:
    """What a run reports. started: a stage began. ended: it is done, after so many seconds.
    tick: what runs now, and how many stages are left beside it; called often.
    """

    started: Callable[[str], None]
    ended: Callable[[str, float], None]
    tick: Callable[[list[Running], int], None]


def run_stages(
    root: Path,
    needs: graph.Needs,
    seconds: Mapping[str, float],
    jobs: int,
    watcher: Watcher,
    env: Mapping[str, str],
) -> None:
    """Run the stages of `needs`, `jobs` at a time.

    Args:
        seconds: what stages are expected to take; the longest chain of them goes first.
        env: of the stages, over this process's.

    Raises:
        EchosynError: a stage failed; those that ran beside it were left to end.
        KeyboardInterrupt: after the stages under way have saved what they have.
    """
    urgency = graph.remaining(needs, seconds)
    left = set(needs)
    done: set[str] = set()
    running: list[Running] = []
    failed: list[Running] = []
    with deferred_stop() as asked, _ended_with(running):
        while running or (left and not failed and not asked()):
            while len(running) < jobs and not failed and not asked():
                stage = graph.next_stage(needs, left, done, urgency)
                if stage is None:
                    break
                left.remove(stage)
                running.append(_start(root, stage, env))
                watcher.started(stage)
            for job in [j for j in running if j.process.poll() is not None]:
                running.remove(job)
                if job.process.returncode:
                    failed.append(job)
                    continue
                done.add(job.stage)
                watcher.ended(job.stage, job.seconds)
            if asked():
                raise KeyboardInterrupt
            watcher.tick(running, len(left))
            time.sleep(POLL)
    if failed:
        raise EchosynError("\n".join(map(_failure, failed)))


@contextlib.contextmanager
def _ended_with(running: list[Running]) -> Iterator[None]:
    """However the block ends, the stages under way save what they have and end."""
    try:
        yield
    finally:
        for job in running:
            _interrupt(job)
        for job in running:
            job.process.wait()


def _start(root: Path, stage: str, env: Mapping[str, str]) -> Running:
    log = root / LOGS / f"{stage}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage],
            cwd=root,
            env={**os.environ, **env},
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches it through us, once
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )
    return Running(stage, process, log, time.monotonic())


def _interrupt(job: Running) -> None:
    """Ctrl-C for the stage; DVC waits for it to save and end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.process.pid, signal.SIGINT)


def environment(jobs: int) -> dict[str, str]:
    """What stages of a run share the cores by; what the user has set stays."""
    there = cores()
    own = {"ECHOSYN_CORES": str(there), "ECHOSYN_THREADS": str(max(there // jobs, 1))}
    return {k: os.environ.get(k, v) for k, v in own.items()}


def _failure(job: Running) -> str:
    lines = job.log.read_text(errors="replace").splitlines()
    return "\n".join([f"{job.stage} failed; the end of {job.log}:", *lines[-TAIL:]])
