"""Which precision a network is used in: the one asked for, or fp32 where this machine gets one of
its operations wrong.

A check runs in a process of its own, since what it looks for may end a process, and once for a
machine, its libraries, and a network's shapes: the results lie in `cache_folder`.
"""

import contextlib
import copy
import dataclasses
import hashlib
import multiprocessing
import os
import pickle
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from echosyn.arithmetic.watch import DTYPES, TOLERANCES, Findings, Watch
from echosyn.runtime.device import pick_precision
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import digest, read_json, write_json
from echosyn.runtime.process import cache_root

FORMAT = 1  # of what a check does and of its file
UNKNOWN = "unknown"  # the answer to jobs whose classes another process cannot import


@dataclass(frozen=True)
class Probe:
    """Something that a network computes, for a check to look at: `call(*args)`.

    `call` and `args` are sent to another process. What they are of, classes, settings and shapes,
    identifies the check; the numbers in tensors do not. A loss that `call` returns is
    differentiated.
    """

    what: str
    call: Callable
    args: tuple = ()

    def signature(self) -> str:
        return digest(_facts((self.call, self.args)))


@dataclass(frozen=True)
class ProbeResult:
    """What a check found: how many operations it compared, the largest relative error of those
    that are right, and those that are wrong. `died`: how the process ended, if it did.
    """

    what: str
    precision: str
    checked: int = 0
    error: float = 0.0
    worst: str = ""
    wrong: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    died: str = ""

    @property
    def right(self) -> bool:
        return not self.wrong and not self.died

    @property
    def reason(self) -> str:
        """Why it is not right."""
        return self.died or f"{len(self.wrong)} operations are wrong, such as {self.wrong[0]}"


def trusted(precision: str, device: torch.device, probe: Probe, name: str) -> str:
    """The precision to use: `precision` resolved, or "fp32", with a line that says why.

    Args:
        name: of the stage and its subject, for that line.

    Raises:
        EchosynError: this machine gets even fp32 wrong.
    """
    precision = pick_precision(precision)
    if precision == "fp32":
        return precision
    result = examine(probe, precision, device)
    if result.right:
        return precision
    full = examine(probe, "fp32", device)
    if not full.right:
        raise EchosynError(f"{name}: {full.reason}, in fp32, on {described(device)}")
    print(
        f"echosyn: {name}: fp32 instead of {precision}: {result.reason}; {described(device)} "
        "(see `echosyn doctor`)",
        file=sys.stderr,
    )
    return "fp32"


def examine(probe: Probe, precision: str, device: torch.device) -> ProbeResult:
    """The result on a probe, from the cache or from a check."""
    return next(examine_all([(probe, precision)], device))


def examine_all(
    jobs: Sequence[tuple[Probe, str]], device: torch.device, anew: bool = False
) -> Iterator[ProbeResult]:
    """The results on probes, each in a precision, in turn; `anew`: whatever the cache has."""
    paths = [cache_folder() / f"{_key(*job, device)}.json" for job in jobs]
    kept = [None if anew else _read(path, device) for path in paths]
    checks = check_apart([job for job, k in zip(jobs, kept, strict=True) if k is None], device)
    for path, known in zip(paths, kept, strict=True):
        result = known
        if result is None:
            result = next(checks)
            with contextlib.suppress(OSError):  # a folder that cannot be written costs time only
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, {"machine": machine(device), **dataclasses.asdict(result)})
        yield result


def check(probe: Probe, precision: str, device: torch.device) -> Findings:
    """Compare the operations of a probe in this process, forward and, of a loss, backward."""
    watch = Watch(precision, device)
    torch.manual_seed(0)
    lower = precision != "fp32"
    with watch, torch.autocast(device.type, DTYPES[precision], enabled=lower):
        args = [_moved(a, device) for a in probe.args]
        loss = probe.call(*args)
        if isinstance(loss, Tensor) and loss.requires_grad and not loss.ndim:
            loss.backward()
    return watch.findings


def check_apart(jobs: Sequence[tuple[Probe, str]], device: torch.device) -> Iterator[ProbeResult]:
    """`check` of each job, all in a process apart; when that dies, what it was at was wrong, and
    another goes on with the rest. What another process cannot import is checked in this one.

    Raises:
        EchosynError: a check fails by an error of the probe and not of the arithmetic.
    """
    left = list(jobs)
    while left:
        with _process_for(left, device) as (process, pipe):
            unknown = False
            while left:
                probe, precision = left[0]
                try:
                    found = UNKNOWN if unknown else pipe.recv()
                except (EOFError, ConnectionError):
                    left.pop(0)
                    how = f"the process computing it ended by {_ended(process.wait())}"
                    yield ProbeResult(probe.what, precision, died=how)
                    break
                unknown = found == UNKNOWN  # of the others too
                if unknown:
                    found = findings_of(copy.deepcopy(probe), precision, device)
                left.pop(0)
                yield answer(found, probe.what, precision)


@contextlib.contextmanager
def _process_for(
    jobs: list[tuple[Probe, str]], device: torch.device
) -> Iterator[tuple[subprocess.Popen, Connection]]:
    """A process at work on `jobs`, and where its answers come from. It does not run the script that
    this one runs, as multiprocessing's would."""
    ours, theirs = multiprocessing.Pipe()
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-m", "echosyn.arithmetic.serve", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env={**os.environ, "PYTHONPATH": paths},
    )
    theirs.close()
    try:
        with contextlib.suppress(ConnectionError):  # it died: nothing will come
            ours.send((str(device), torch.get_num_threads(), pickle.dumps(jobs)))
        yield process, ours
    finally:
        ours.close()
        process.kill()
        process.wait()


def findings_of(probe: Probe, precision: str, device: torch.device) -> Findings | str:
    """What `check` finds, or, as a text, the error that it raises."""
    try:
        return check(probe, precision, device)
    except Exception as e:  # whatever it is, the one who asked says it
        return f"{type(e).__name__}: {e}"


def answer(found: Findings | str, what: str, precision: str) -> ProbeResult:
    """The result that findings make; a text is an error of the probe.

    Raises:
        EchosynError: that error.
    """
    if isinstance(found, str):
        raise EchosynError(f"the check of {what} in {precision} failed: {found}")
    worst = found.worst
    return ProbeResult(
        what,
        precision,
        found.checked,
        worst.error if worst else 0.0,
        str(worst) if worst else "",
        tuple(str(o) for o in found.wrong),
        tuple(found.beyond),
    )


def machine(device: torch.device) -> dict[str, str]:
    """What arithmetic depends on: processor, libraries, threads."""
    facts = {
        "torch": torch.__version__,
        "build": _digest(torch.__config__.show()),
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
        "device": str(device.type),
        "processor": processor(),
        "instructions": f"{torch.backends.cpu.get_cpu_capability()} {_digest(_flags())}",
        "onednn": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = f"{torch.version.cuda} cudnn {torch.backends.cudnn.version()}"
    return facts


def described(device: torch.device) -> str:
    """Processor and versions, for a message."""
    facts = machine(device)
    chip = facts.get("gpu", facts["processor"])
    libraries = f"CUDA {facts['cuda']}" if device.type == "cuda" else f"oneDNN {onednn_version()}"
    return f"{chip}, torch {facts['torch']}, {libraries}"


def onednn_version() -> str:
    """Version of the library of convolutions on CPUs, as torch was built with it."""
    line = next((x for x in torch.__config__.show().splitlines() if "MKL-DNN" in x), "")
    return line.strip(" -").removeprefix("Intel(R) MKL-DNN v").split(" ")[0] or "none"


def processor() -> str:
    """Name of the CPU."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cache_folder() -> Path:
    return cache_root() / "arithmetic"


def _flags() -> str:
    return _cpuinfo("flags") or _cpuinfo("Features")


def _cpuinfo(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((x.partition(":")[2].strip() for x in lines if x.startswith(field)), "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _key(probe: Probe, precision: str, device: torch.device) -> str:
    rules = (FORMAT, TOLERANCES[precision])
    return digest([probe.what, probe.signature(), precision, machine(device), rules])


def _read(path: Path, device: torch.device) -> ProbeResult | None:
    """A kept result, unless the file is damaged or of another machine."""
    try:
        kept = read_json(path)
        if kept.pop("machine") != machine(device):
            return None
        kept = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
        return ProbeResult(**kept)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EchosynError):
        return None


def _ended(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"status {code}"


def _moved(x: Any, device: torch.device) -> Any:
    if isinstance(x, dict):
        return {k: _moved(v, device) for k, v in x.items()}
    return x.to(device) if isinstance(x, Tensor | nn.Module) else x


def _facts(x: Any) -> Any:
    """What identifies something: shapes of tensors, classes and shapes of networks."""
    if isinstance(x, Tensor):
        return [str(x.dtype), list(x.shape)]
    if isinstance(x, nn.Module):
        shapes = {k: list(v.shape) for k, v in x.state_dict().items()}
        own = {
            k: v for k, v in vars(x).items() if isinstance(v, str | int | bool) and k != "training"
        }
        return [type(x).__qualname__, str(x), shapes, own]
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        values = {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
        return [type(x).__qualname__, _facts(values)]
    if isinstance(x, dict):
        return {str(k): _facts(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_facts(v) for v in x]
    if callable(x):
        return getattr(x, "__qualname__", type(x).__qualname__)
    if isinstance(x, str | int | float | bool | None):
        return x
    return [type(x).__qualname__, _facts(getattr(x, "cfg", None))]
