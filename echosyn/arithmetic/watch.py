"""Each operation that a network performs in a precision, forward and backward, against the same
operation on the same numbers in double precision, which other code computes.

Why it is asked: oneDNN 3.12 computes the bf16 weight gradient of some convolutions from memory that
nobody wrote. Training then stops at step 0 or, worse, goes on with garbage; which of the two
depends on the processor and on what the memory held before. So memory is filled with NaN and freed
before every operation here.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# Errors are norms relative to the right result's. What is right stays below 0.005 in bf16
# (docs/results/arithmetic.md); sums that are kept in bf16 are off by percents, what is read from
# memory that nobody wrote by its own size.
TOLERANCES = {"bf16": 0.02, "fp16": 0.01, "fp32": 1e-3}
NUDGES = 4.0  # how much more than rounding its inputs once more may change a result
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
BLOCKS = tuple(1 << n for n in range(6, 20))  # numbers of 4 bytes: 256 bytes to 2 MiB
NAN = 0x7FFF7FFF  # not a number, read as bf16, fp16, fp32 or fp64
UNWRITTEN = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")


@dataclass(frozen=True)
class Operation:
    """An operation as it was called, and its largest relative error over its outputs."""

    name: str
    shapes: tuple[str, ...]
    error: float

    def __str__(self) -> str:
        off = "not finite" if math.isinf(self.error) else f"off by {self.error:.2g} of its size"
        return f"{self.name}({', '.join(self.shapes)}), {off}"


@dataclass
class Findings:
    """What a watch saw: how many operations it compared, the least exact of those that are right,
    and the wrong ones. `beyond`: those that cannot be computed in double precision.
    """

    precision: str
    checked: int = 0
    worst: Operation | None = None
    wrong: list[Operation] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)


def poison(device: torch.device) -> None:
    """Leave NaN in memory that the next allocations get."""
    held = [torch.full((n,), NAN, dtype=torch.int32, device=device) for n in BLOCKS]
    del held


class Watch(TorchDispatchMode):
    """Within it, an operation on numbers of `precision` is computed a second time, in double
    precision, whenever it is called with shapes it was not called with before; see `findings`.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        super().__init__()
        self.findings = Findings(precision)
        self.device, self.dtype = device, DTYPES[precision]
        self.seen: set[tuple] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        given = (args, kwargs or {})
        key = (str(func), *(_described(x) for x in tree_leaves(given)))
        if key in self.seen or not self._concerns(func, given):
            return func(*args, **given[1])
        self.seen.add(key)
        before = tree_map(_copied, given)  # some operations change what they are given
        poison(self.device)
        out = func(*args, **given[1])
        try:
            right = self._again(func, before, nudged=False)
            operation = _compared(key, out, right)
            tolerance = TOLERANCES[self.findings.precision]
            if operation.error > tolerance:
                # A sum that cancels amplifies rounding: no machine knows it better than this.
                nudged = self._again(func, before, nudged=True)
                if operation.error <= tolerance + NUDGES * _compared(key, nudged, right).error:
                    operation = Operation(operation.name, operation.shapes, 0.0)
        except (RuntimeError, NotImplementedError):
            self.findings.beyond.append(f"{key[0]}({', '.join(_shapes(key))})")
            return out
        self._note(operation, tolerance)
        return out

    def _concerns(self, func: Any, given: tuple) -> bool:
        if func.is_view or torch.Tag.nondeterministic_seeded in func.tags:
            return False
        if func.overloadpacket.__name__ in UNWRITTEN:
            return False
        return any(isinstance(x, Tensor) and x.dtype == self.dtype for x in tree_leaves(given))

    def _again(self, func: Any, given: tuple, nudged: bool) -> Any:
        """The operation in double precision; `nudged`: of numbers that are rounded once more."""
        half = torch.finfo(self.dtype).eps / 2
        signs = torch.Generator().manual_seed(0)

        def raised(x: Any) -> Any:
            if x is self.dtype:
                return torch.float64
            if not isinstance(x, Tensor) or not x.is_floating_point():
                return _copied(x)
            up = x.to(torch.float64, copy=True)
            if nudged and x.dtype == self.dtype:
                sign = torch.randint(0, 2, x.shape, generator=signs).to(x.device) * 2 - 1
                up *= 1 + half * sign
            return up

        args, kwargs = tree_map(raised, given)
        return func(*args, **kwargs)

    def _note(self, operation: Operation, tolerance: float) -> None:
        found = self.findings
        found.checked += 1
        if operation.error > tolerance:
            found.wrong.append(operation)
        elif found.worst is None or operation.error > found.worst.error:
            found.worst = operation


def relative_error(value: Tensor, right: Tensor) -> float:
    """Norm of value - right relative to right's, `right` rounded to the type of `value` first:
    what overflows or vanishes in both is no error. Infinite where only `value` is not finite.
    """
    if not value.is_floating_point() or not value.numel():
        return 0.0
    rounded, value = right.to(value.dtype).double(), value.double()
    same = (value == rounded) | (value.isnan() & rounded.isnan())
    apart = torch.where(same, 0.0, value - rounded)
    if not bool(apart.isfinite().all()):
        return math.inf
    scale, off = float(torch.where(rounded.isfinite(), rounded, 0.0).norm()), float(apart.norm())
    return off / scale if scale else (math.inf if off else 0.0)


def _compared(key: tuple[str, ...], out: Any, right: Any) -> Operation:
    pairs = zip(tree_leaves(out), tree_leaves(right), strict=True)
    errors = [relative_error(a, b) for a, b in pairs if isinstance(a, Tensor)]
    return Operation(key[0], _shapes(key), max(errors, default=0.0))


def _copied(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x


def _shapes(key: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.removeprefix("torch.") for part in key[1:] if part.startswith("torch."))


def _described(x: Any) -> str:
    if not isinstance(x, Tensor):
        return repr(x).removeprefix("torch.")
    strides = "" if x.is_contiguous() else f", strides {list(x.stride())}"
    return f"{x.dtype}{list(x.shape)}{strides}"
