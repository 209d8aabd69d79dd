"""Frames per second through the video network: precision, memory layout, compilation, threads.

What `sample_videos` spends its time on is a window through this network. Each way to run it is
timed in turns on the same input and set against the arithmetic that it needs (counted) and the
machine's measured peak (a large matrix product in the same precision). Its output is compared with
fp32's. A call is four passes, as a sampler's steps are: weights are cast once. A table, not two
sides of one speed: no line of JSON ends the output.

python -m benchmarks.passes --scale demo

The network has conf/<scale>'s sizes and random weights: speed does not depend on them.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

from benchmarks.harness import machine, threads, time_in_turns, use_threads

use_threads(threads())

import torch  # noqa: E402
import yaml  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from echosyn.models.condition import ConditionSpec  # noqa: E402
from echosyn.runtime.config import SCALES, Params  # noqa: E402
from echosyn.runtime.device import autocast, pick_device  # noqa: E402
from echosyn.training.diffusion import TrainLvdmConfig, new_video  # noqa: E402

ROOT = Path(__file__).parents[1]
DEVICE = pick_device()
SIZE, REPEATS, PASSES = 14, 7, 4
MATRIX = 4096 if DEVICE.type == "cpu" else 16384


@dataclass(frozen=True)
class Way:
    name: str
    precision: str = "fp32"
    channels_last: bool = False
    compiled: bool = False


WAYS = (
    Way("fp32"),
    Way("bf16", "bf16"),
    Way("fp32, channels_last", channels_last=True),
    Way("bf16, channels_last", "bf16", channels_last=True),
    Way("fp32, compiled", compiled=True),
    Way("bf16, compiled", "bf16", compiled=True),
)


def network(scale: str) -> tuple[nn.Module, TrainLvdmConfig]:
    """The video network of conf/<scale>, weights random from seed 0."""
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        copytree(ROOT / "conf", root / "conf")
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        (root / "params.yaml").write_text(yaml.safe_dump({**params, "scale": scale}))
        cfg = Params(root).stage("train_lvdm", TrainLvdmConfig)
    torch.manual_seed(0)
    spec = ConditionSpec(published=cfg.layout == "published")
    return new_video(cfg, spec, SIZE).eval().to(DEVICE), cfg


def channels_last(net: nn.Module) -> nn.Module:
    """The same weights, those of convolutions with channels as their last axis in memory."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weight in net.parameters():
        if weight.ndim in layouts:
            weight.data = weight.data.contiguous(memory_format=layouts[weight.ndim])
    return net


def inputs(net: nn.Module, clips: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shape = (clips, net.window, 4, SIZE, SIZE)
    made = (
        torch.randn(shape, generator=generator),
        torch.full((clips,), 500.0),
        torch.randn((clips, *shape[2:]), generator=generator),
        torch.rand((clips, net.spec.dim), generator=generator),
    )
    return tuple(x.to(DEVICE) for x in made)


def operations(net: nn.Module, given: tuple[Tensor, ...]) -> int:
    """Of one pass, multiplications and additions."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(*given)
    return counter.get_total_flops()


def synchronised(call: Callable[[], object]) -> None:
    call()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def peak(precision: str) -> float:
    """Operations per second of the best of five large matrix products."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(MATRIX, MATRIX, device=DEVICE).to(dtype)
    b, seconds = torch.randn(MATRIX, MATRIX, device=DEVICE).to(dtype), []
    for _ in range(6):
        start = time.perf_counter()
        synchronised(lambda: a @ b)
        seconds.append(time.perf_counter() - start)
    return 2 * MATRIX**3 / min(seconds[1:])


def prepared(net: nn.Module, way: Way) -> Callable[..., Tensor]:
    run = torch.compile(net) if way.compiled else net

    def call(*given: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(DEVICE, way.precision):
            for _ in range(PASSES):
                out = run(*given)
            return out.float()

    return call


def in_parallel(call: Callable[..., Tensor], given: tuple[Tensor, ...]) -> float:
    """Seconds per pass when every thread of ours makes a video on one core each."""
    count = threads()

    def work() -> None:
        torch.set_num_threads(1)
        call(*given)

    try:
        with ThreadPoolExecutor(count) as pool:
            seconds = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                for future in [pool.submit(work) for _ in range(count)]:
                    future.result()
                seconds.append((time.perf_counter() - start) / (count * PASSES))
    finally:
        torch.set_num_threads(threads())
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--scale", choices=SCALES, default="demo")
    parser.add_argument("--clips", type=int, default=1 if DEVICE.type == "cpu" else 8)
    args = parser.parse_args()
    net, cfg = network(args.scale)
    last = channels_last(network(args.scale)[0])
    given = inputs(net, args.clips)
    flops, frames = operations(net, given), args.clips * net.window
    parameters = sum(p.numel() for p in net.parameters())
    exact = prepared(net, WAYS[0])(*given)
    calls = {way: prepared(last if way.channels_last else net, way) for way in WAYS}
    found, seconds = {}, {}
    for way, call in calls.items():
        start = time.perf_counter()
        found[way] = call(*given)
        seconds[way] = time.perf_counter() - start
    sides = [lambda c=c: synchronised(lambda: c(*given)) for c in calls.values()]
    rounds = time_in_turns(sides, REPEATS, warmup=1)
    times = {way: [t / PASSES for t in taken] for way, taken in zip(calls, rounds, strict=True)}
    where = torch.cuda.get_device_name() if DEVICE.type == "cuda" else machine()
    print(f"{where}: {args.clips} clip(s) of {cfg.window} frames")
    print(f"{parameters / 1e6:.1f} M parameters, {flops / frames / 1e9:.3f} GFLOP a frame")
    best = {p: peak(p) for p in ("fp32", "bf16")}
    for precision, rate in best.items():
        print(f"measured peak, {precision}: {rate / 1e9:,.0f} GFLOP/s")
    print("\n| | frames/s (least to most) | share of the peak | first call, s | apart from fp32 |")
    print("|---|---|---|---|---|")
    for way, t in times.items():
        apart = float((found[way] - exact).square().mean().sqrt() / exact.std())
        middle = statistics.median(t)
        print(
            f"| {way.name} | {frames / middle:,.0f} ({frames / max(t):,.0f} to "
            f"{frames / min(t):,.0f}) | {flops / middle / best[way.precision]:.1%} | "
            f"{seconds[way]:.1f} | {apart:.1e} |"
        )
    if DEVICE.type == "cpu" and threads() > 1:
        for way in WAYS[:2]:
            rate = frames / in_parallel(calls[way], given)
            print(f"| {way.name}, {threads()} videos at once, a core each | {rate:,.0f} | | | |")


if __name__ == "__main__":
    main()
