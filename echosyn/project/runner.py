"""`echosyn run`: what is left to do, how long it will take, and what it took."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from echosyn.project import graph
from echosyn.project.prefork import prefork
from echosyn.project.side_by_side import LOGS, Running, Watcher, environment, run_stages
from echosyn.report.progress import write_progress
from echosyn.runtime import timing
from echosyn.runtime.config import Params, read_yaml
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.process import cores, end_with_parent
from echosyn.tracking import CARRIED

LINE_EVERY = 30.0  # seconds between lines about what runs, in a log file
PREFORK = Path(".echosyn/prefork")
FEWEST = 4  # stages for which a process that has imported, which takes as long as two, is started


def run(root: Path, targets: list[str], jobs: int) -> None:
    """Bring `targets` (default: everything) up to date and print what each stage took.

    Args:
        jobs: stages at once; 0: two, where there are two cores and no GPU to share.

    Raises:
        EchosynError: a stage failed, or a target is none.
    """
    from echosyn.runtime.device import pick_device

    params = Params(root)
    needs = graph.read_needs(root)
    needs = {s: needs[s] for s in graph.wanted(needs, targets)}
    stale = graph.downstream(needs, graph.read_changed(root, needs))
    if not stale:
        print("Everything is up to date.")
        return
    needs = {s: needs[s] & stale for s in stale}
    on_cpu = pick_device().type == "cpu"
    jobs = jobs or (min(cores(), 2) if on_cpu else 1)
    expected = _expected(params, needs, jobs)
    print(f"{len(stale)} stages, {jobs} at a time. {_forecast(needs, expected, jobs)}", flush=True)
    page = root / "reports" / "index.html"
    write_progress(root, params, page, stale)
    print(f"as it comes: {page.as_uri()}", flush=True)
    env = environment(jobs)
    # Drivers of GPUs do not bear a fork.
    many = on_cpu and len(stale) >= FEWEST
    ready: AbstractContextManager[dict[str, str]] = (
        prefork(root / PREFORK, env) if many else nullcontext({})
    )
    with ready as asking, _Carrier(root) as carrier, _rehearsal(root, env):
        view = _View(root, params, needs, page, carrier)
        try:
            watcher = Watcher(view.start, view.end, view.tick)
            run_stages(root, needs, expected, jobs, watcher, {**env, **asking, CARRIED: "1"})
        finally:
            view.close()
    write_progress(root, params, page, stale, view.seconds)
    print(table(timing.kept(root / ".echosyn" / "seconds"), stale, view.seconds))


@contextmanager
def _rehearsal(root: Path, env: Mapping[str, str]) -> Iterator[None]:
    """Check the arithmetic of all networks at once while data is made: one start instead of ten."""
    process = _apart(root, "arithmetic", env, "doctor", "--arithmetic")
    try:
        yield
    finally:
        process.terminate()
        process.wait()


class _Carrier:
    """The one process that sends the stages' records to MLflow."""

    def __init__(self, root: Path) -> None:
        self.process = _apart(root, "records", {}, "sync", "--follow")
        self.log = root / LOGS / "records.log"

    def __enter__(self) -> "_Carrier":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        if self.process.wait():
            print(f"echosyn: records wait in .echosyn/outbox: see {self.log}", file=sys.stderr)

    def check(self) -> None:
        """Raises EchosynError when the tracking store refuses us."""
        if self.process.poll():
            text = self.log.read_text(errors="replace").strip().splitlines()
            raise EchosynError((text or ["no record can be sent"])[-1].removeprefix("echosyn: "))


def _apart(root: Path, name: str, env: Mapping[str, str], *command: str) -> subprocess.Popen:
    """A command of ours beside the stages; what it prints is in .echosyn/log."""
    log = root / LOGS / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "echosyn.cli", *command],
            cwd=root,
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )


def _expected(params: Params, needs: graph.Needs, jobs: int) -> dict[str, float]:
    """Seconds that stages are expected to take: as they took here, else as conf/<scale> has it;
    none for a stage of which neither is known."""
    file = params.conf("seconds")
    listed = read_yaml(file) if file.exists() else {}
    took = timing.kept(params.root / ".echosyn" / "seconds")
    stages: dict[str, float] = listed.get("stages") or {}
    ratio = float(listed["speed"]) / measured_speed(jobs) if stages else 1.0
    found = {s: stages[k] * ratio for s in needs if (k := s.partition("@")[0]) in stages}
    return found | {s: v.wall + v.dvc for s, v in took.items() if s in needs}


def measured_speed(jobs: int) -> float:
    """Training steps a second of a small network on each of `jobs` cores at once, for a second."""
    command = [sys.executable, "-m", "echosyn.project.speed"]
    racers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(max(jobs, 1))
    ]
    rates = [float(racer.communicate()[0]) for racer in racers]
    return sum(rates) / len(rates)


def _forecast(needs: graph.Needs, expected: Mapping[str, float], jobs: int) -> str:
    unknown = sorted(set(needs) - set(expected))
    if unknown:
        return f"How long {unknown[0]} takes here is not known yet."
    return f"About {clock(graph.forecast(needs, expected, jobs))} on this machine."


def clock(seconds: float) -> str:
    """Minutes and seconds, such as 9:41."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class _View:
    """What a person sees of a run: a line that changes on a terminal, lines in a log file."""

    def __init__(
        self, root: Path, params: Params, needs: graph.Needs, page: Path, carrier: _Carrier
    ) -> None:
        self.carrier = carrier
        self.root, self.params, self.page = root, params, page
        self.total, self.done = len(needs), 0
        self.stages = set(needs)
        self.began, self.shown = time.monotonic(), time.monotonic()
        self.live = sys.stderr.isatty()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def start(self, stage: str) -> None:
        if not self.live:
            print(f"{clock(self.seconds)}  {stage} begins", flush=True)

    def end(self, stage: str, seconds: float) -> None:
        self.done += 1
        self._clear()
        print(
            f"{clock(self.seconds)}  [{self.done}/{self.total}] {stage}, {seconds:.0f} s",
            flush=True,
        )
        _note_dvc(self.root, stage, seconds)
        write_progress(self.root, self.params, self.page, self.stages)

    def tick(self, running: list[Running], left: int) -> None:
        self.carrier.check()
        now = time.monotonic()
        if now - self.shown < (0.5 if self.live else LINE_EVERY):
            return
        self.shown = now
        parts = [f"{job.stage} {clock(job.seconds)} {job.last_line()[:60]}" for job in running]
        if self.live:
            line = f"{clock(self.seconds)}  {self.done}/{self.total}  " + "  |  ".join(parts)
            sys.stderr.write(f"\r\x1b[2K{line[:160]}")
            sys.stderr.flush()
        else:
            print("\n".join(f"{clock(self.seconds)}    {part}" for part in parts), flush=True)

    def close(self) -> None:
        self._clear()

    def _clear(self) -> None:
        if self.live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def _note_dvc(root: Path, stage: str, seconds: float) -> None:
    """What DVC took around a stage's own process; a stage that DVC took from its cache has none."""
    folder = root / ".echosyn" / "seconds"
    own = timing.kept(folder).get(stage)
    if own is not None:
        timing.note_dvc(folder, stage, max(seconds - own.wall, 0.0))


def table(took: Mapping[str, timing.Seconds], stages: set[str], seconds: float) -> str:
    """What each of `stages` took, as text."""
    rows: list[tuple[str, ...]] = [
        ("stage", "seconds", "start-up", "reading", "computing", "DVC", "peak MiB")
    ]
    shown = {s: v for s, v in took.items() if s in stages}
    for stage, v in shown.items():
        cells = (v.wall + v.dvc, v.start_up, v.reading, v.computing, v.dvc, v.peak_mib)
        rows.append((stage, *(f"{c:.0f}" for c in cells)))
    sums = [sum(f(v) for v in shown.values()) for f in (
        lambda v: v.wall + v.dvc, lambda v: v.start_up, lambda v: v.reading,
        lambda v: v.computing, lambda v: v.dvc)]  # fmt: skip
    rows.append(("all", *(f"{s:.0f}" for s in sums), ""))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            [r[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(r[1:], widths[1:], strict=True))]
        )
        for r in rows
    ]
    return "\n".join(["", *lines, "", f"in all {clock(seconds)} ({seconds:.0f} s)"])
