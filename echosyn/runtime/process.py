"""What every process of ours sets before anything heavy is imported."""

import ctypes
import errno
import getpass
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from echosyn.runtime.errors import EchosynError

QUIET = {
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # broken videos are named by us
    "OPENCV_LOG_LEVEL": "SILENT",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# Number of the process that stands for this one where DVC looks (echosyn.project.prefork).
STAND_IN = "ECHOSYN_STAND_IN"


def threads() -> int:
    """CPU threads that share one computation: ECHOSYN_THREADS, else `cores`.

    Part of what makes bytes repeat: floating-point sums depend on how work is split.
    """
    return _count("ECHOSYN_THREADS") or cores()


def cores() -> int:
    """Cores for items that do not wait for each other (a video each): ECHOSYN_CORES, else those
    that this process may run on, or ECHOSYN_THREADS where that is set. Changes no byte.
    """
    found = _count("ECHOSYN_CORES") or _count("ECHOSYN_THREADS")
    if found:
        return found
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _count(variable: str) -> int:
    """A whole number from the environment; 0 where it is not set."""
    text = os.environ.get(variable, "")
    if text and (not text.isdigit() or int(text) < 1):
        raise EchosynError(f"{variable}: {text!r} is not a whole number of 1 or more")
    return int(text or 0)


def prepare() -> None:
    """Set telemetry off, thread counts, and what stands for a home folder where there is none.
    Call before importing torch, OpenCV, matplotlib or MLflow."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["OMP_NUM_THREADS"] = str(threads())
    _stand_in_for_home()


def _stand_in_for_home() -> None:
    """A container may run as a number that has neither a name nor a home, and a home may be
    read-only: libraries stop, or complain in every process and make their caches anew."""
    own = state_root().resolve()
    try:
        home = Path.home()
    except RuntimeError:
        home = own / "home"
        os.environ["HOME"] = str(home)
    if not os.access(home, os.W_OK):
        os.environ.setdefault("MPLCONFIGDIR", str(own / "matplotlib"))
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())


def project_root() -> Path:
    """The folder of params.yaml: DVC's root under `dvc repro`, else the working directory."""
    root = Path.cwd()
    if not (root / "params.yaml").is_file():
        raise EchosynError(f"no params.yaml in {root}: run from the project folder")
    return root


def state_root() -> Path:
    """Where resumable state lives: outside every DVC output, shared by queued experiments."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()) / ".echosyn"


def cache_root() -> Path:
    """Where facts of a machine and files for all projects lie: `$XDG_CACHE_HOME/echosyn`, or the
    same under ~/.cache.

    Raises:
        EchosynError: there is no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "echosyn"
    except RuntimeError:
        raise EchosynError("this user has no home folder: set HOME, or XDG_CACHE_HOME") from None


@contextmanager
def deferred_stop() -> Iterator[Callable[[], bool]]:
    """Within the block, Ctrl-C and SIGTERM only ask; yields what tells whether one has.

    The block ends itself when it has saved its work. A second Ctrl-C stops at once; SIGTERM comes
    several times of itself (from whoever stops the job, and when the parent has ended). Outside
    the main thread, where Python takes no signals, nobody ever asks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked: list[int] = []

    def ask(signum: int, frame: object) -> None:
        if asked and signum == signal.SIGINT:
            raise KeyboardInterrupt
        if not asked:
            print("echosyn: saving, then stopping (Ctrl-C: stop now)", file=sys.stderr)
        asked.append(signum)

    before = {s: signal.signal(s, ask) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Ask Linux for a signal when the parent process dies, however it dies; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


def _parent(pid: int) -> int:
    """The parent of a Linux process; 0 when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])  # a process's name may hold anything


def _end_with_dvc(stage: str) -> None:
    """SIGTERM to this process when the `dvc repro` that runs `stage` dies, however it dies.

    A shell may stand between the two (dash does not replace itself by its last command) and
    outlive DVC: what DVC started carries DVC_STAGE, DVC itself does not.
    """
    end_with_parent()
    if sys.platform != "linux":
        return
    mark = f"DVC_STAGE={stage}".encode()
    child, pid = os.getpid(), int(os.environ.get(STAND_IN) or os.getppid())
    try:
        while pid and mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            child, pid = pid, _parent(pid)
        if child == os.getpid():
            return
        dvc = os.pidfd_open(pid)
    except OSError:  # gone, or of another user, as init is that adopts orphans
        dvc = None
    if dvc is None or _parent(child) != pid:
        os.kill(os.getpid(), signal.SIGTERM)
        return

    def watch() -> None:
        select.select([dvc], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="dvc", daemon=True).start()


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's main: one clear message and status 1 for what a user can fix.

    SIGTERM becomes KeyboardInterrupt, so that a killed stage cleans its temporary files as an
    interrupted one does. A stage does not outlive the `dvc repro` that started it.
    """

    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    if stage := os.environ.get("DVC_STAGE"):
        _end_with_dvc(stage)
    try:
        prepare()
        main()
    except EchosynError as e:
        sys.exit(f"echosyn: {e}")
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(f"echosyn: no space left on the disk that holds {e.filename or Path.cwd()}")
        if e.filename and e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            sys.exit(
                f"echosyn: {e.filename}: {e.strerror}. Its permissions (ls -l) must let user "
                f"{getpass.getuser()} read the data, and write below the project folder"
            )
        traceback.print_exc()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit("echosyn: stopped; the same command continues where it was")
