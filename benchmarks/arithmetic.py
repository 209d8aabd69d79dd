"""Which operations this machine gets wrong below fp32: docs/results/arithmetic.md.

python -m benchmarks.arithmetic [--single]

First every network of the project at its scale, forward and backward, in the precision that `auto`
means here and in fp32; then, with --single, single convolutions of many shapes in bf16, by kernel,
stride and the smallest side that comes out. All against double precision, in memory that holds NaN,
in processes that may die.
"""

import argparse
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from echosyn.runtime.process import prepare, threads

prepare()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from echosyn.arithmetic.trust import Probe, check_apart, described  # noqa: E402
from echosyn.project.rehearsal import rehearsal  # noqa: E402
from echosyn.runtime.config import Params  # noqa: E402
from echosyn.runtime.device import pick_device, pick_precision, set_threads  # noqa: E402

CHANNELS = ((16, 16), (115, 64))
DEPTHS, SIDES = (1, 2, 3, 4, 8), (1, 2, 3, 4, 14)


def summed(layer: nn.Module, x: Tensor) -> Tensor:
    """A loss whose gradient is as random as the output."""
    return layer(x).float().square().mean()


def volumes() -> Iterator[tuple[str, Probe]]:
    """Three-dimensional convolutions, each with its row of the table."""
    kernels = ((3, 1, 1), (3, 3, 3), (1, 3, 3))
    strides = ((1, 1, 1), (1, 2, 2), (2, 2, 2))
    for (i, o), d, s, k, by in itertools.product(CHANNELS, DEPTHS, SIDES, kernels, strides):
        layer = nn.Conv3d(i, o, k, by, tuple(n // 2 for n in k), bias=False)
        x = torch.randn(4, i, d, s, s, requires_grad=True)
        least = min(-(-n // m) for n, m in zip((d, s, s), by, strict=True))
        yield f"3d, kernel {k}, stride {by}, least side {least}", Probe("one", summed, (layer, x))


def planes() -> Iterator[tuple[str, Probe]]:
    """Two-dimensional convolutions."""
    kernels, strides = ((3, 3), (3, 1), (1, 1)), ((1, 1), (2, 2))
    for (i, o), h, w, k, by in itertools.product(CHANNELS, SIDES, SIDES, kernels, strides):
        layer = nn.Conv2d(i, o, k, by, tuple(n // 2 for n in k), bias=False)
        x = torch.randn(8, i, h, w, requires_grad=True)
        least = min(-(-n // m) for n, m in zip((h, w), by, strict=True))
        yield f"2d, kernel {k}, stride {by}, least side {least}", Probe("one", summed, (layer, x))


def networks(device: torch.device) -> None:
    """The table of networks."""
    print("| network | precision | operations | least exact of the right ones | wrong |")
    print("|---|---|---|---|---|")
    with rehearsal(Params(Path.cwd())) as parts:
        jobs = [(p, q) for p in parts for q in dict.fromkeys((pick_precision("auto"), "fp32"))]
        found = check_apart([(p.probe, q) for p, q in jobs], device)
        for (part, precision), v in zip(jobs, found, strict=True):
            wrong = "none" if v.right else v.reason
            name = f"{part.stage}, {v.what}"
            print(f"| {name} | {precision} | {v.checked} | {v.error:.1e} | {wrong} |", flush=True)


def single(device: torch.device) -> None:
    """The table of convolutions, rows in which all are right left out."""
    rows, ended = Counter(), defaultdict(Counter)
    named = [*volumes(), *planes()]
    found = check_apart([(probe, "bf16") for _, probe in named], device)
    for (row, _), v in zip(named, found, strict=True):
        rows[row] += 1
        ended[row]["died" if v.died else "right" if v.right else "wrong"] += 1
    print("\n| convolution in bf16 | cases | wrong | process died |\n|---|---|---|---|")
    for row in sorted(rows):
        if ended[row]["right"] < rows[row]:
            print(f"| {row} | {rows[row]} | {ended[row]['wrong']} | {ended[row]['died']} |")
    print(f"\n{sum(rows.values())} cases, {sum(c['right'] for c in ended.values())} right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--single", action="store_true", help="single convolutions as well")
    wanted = parser.parse_args()
    set_threads(threads())
    torch.manual_seed(0)
    device = pick_device()
    print(f"{described(device)}, {torch.get_num_threads()} threads\n")
    networks(device)
    if wanted.single:
        single(device)


if __name__ == "__main__":
    main()
