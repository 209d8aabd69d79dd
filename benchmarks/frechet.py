"""Frechet distances: features from the videos on disk, then the distance at d = 2048.

1. Clips end to end, from the AVIs (`VideoFolder`, `extract`: threads decode ahead of the network),
   against the bare network on frames that are in memory already. The networks are those of FVD and
   FID with random weights, which cost what the published ones cost, and the light offline space.
   The last column compares CPU time: the network keeps all threads busy, so decoding cannot cost
   nothing here.
2. The distance of 2048 x 2048 features of width 2048, against scipy's matrix square root as
   StyleGAN-V calls it: the line of JSON.

python -m benchmarks.frechet
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import compare, disagree, time_in_turns, use_threads

THREADS = 2
use_threads(THREADS)

import scipy.linalg  # noqa: E402
import torch  # noqa: E402

from echosyn.data.frames import VideoFolder  # noqa: E402
from echosyn.data.phantom import PhantomConfig, write_dataset  # noqa: E402
from echosyn.metrics.extract import Clip, extract  # noqa: E402
from echosyn.metrics.features import FeatureSpace, RandomFeatures3d  # noqa: E402
from echosyn.metrics.frechet import frechet_distance  # noqa: E402
from echosyn.metrics.i3d import I3d, I3dNetwork  # noqa: E402
from echosyn.metrics.inception import Inception, InceptionV3  # noqa: E402

VIDEOS, FRAMES, FPS = 64, 64, 32.0
WIDTH = ROWS = 2048
TOLERANCE = 1e-6  # relative


def he(net: torch.nn.Module) -> torch.nn.Module:
    """Random weights that keep the size of what passes: PyTorch's own let it shrink, layer by
    layer, to denormal numbers, on which a processor takes several times as long."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return net


def extraction(
    space: FeatureSpace, videos: VideoFolder, clips: list[Clip], batch: int, repeats: int
) -> None:
    """Print frames per second of both sides, taken in turns, and how they compare."""
    frames = [videos.video(c.video)[c.frames] for c in clips]
    preloaded = np.stack(frames) if space.clip else np.concatenate(frames)

    def end_to_end() -> np.ndarray:
        return extract(space, videos, clips, batch)

    def bare() -> np.ndarray:
        rows = [space(preloaded[i : i + batch]) for i in range(0, len(preloaded), batch)]
        return np.concatenate(rows)

    if not np.array_equal(end_to_end(), bare()):
        disagree(f"{space.name} features from disk and from memory")
    cpu: dict[Callable, list[float]] = {end_to_end: [], bare: []}

    def with_cpu(side: Callable[[], np.ndarray]) -> Callable[[], None]:
        def timed() -> None:
            start = time.process_time()
            side()
            cpu[side].append(time.process_time() - start)

        return timed

    times = time_in_turns([with_cpu(end_to_end), with_cpu(bare)], repeats, warmup=0)
    n = sum(map(len, frames))
    rates = [n / statistics.median(t) for t in times]
    work = statistics.median(cpu[bare]) / statistics.median(cpu[end_to_end])
    ratio = rates[0] / rates[1]
    print(f"{space.name:10} {n:7} {rates[0]:12.1f} {rates[1]:12.1f} {ratio:7.3f} {work:9.3f}")


def extractions() -> None:
    cfg = PhantomConfig(train=VIDEOS, val=1, test=1, frames=FRAMES, fps=FPS)
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp) / "phantom"
        write_dataset(folder, cfg, seed=0, workers=THREADS)
        videos = VideoFolder.open(folder, FPS)
        rng = np.random.default_rng(0)
        starts = rng.integers(FRAMES - 15, size=VIDEOS)
        clips = [Clip(v, np.arange(s, s + 16)) for v, s in enumerate(starts)]
        head = ("frames", "end to end/s", "bare/s", "ratio", "CPU ratio")
        print("{:10} {:>7} {:>12} {:>12} {:>7} {:>9}".format("", *head))
        extraction(I3d(he(I3dNetwork()), "random", "16f"), videos, clips[:8], batch=2, repeats=5)
        # As in fid50k_full, neighbouring frames of a video.
        inception = Inception(he(InceptionV3()), "random")
        extraction(inception, videos, [Clip(0, np.arange(32))], batch=16, repeats=3)
        extraction(RandomFeatures3d(), videos, clips, batch=16, repeats=9)


def two_sets() -> tuple[np.ndarray, np.ndarray]:
    """Features (ROWS, WIDTH) whose variances span four decades, a sound case for sqrtm too."""
    rng = np.random.default_rng(0)
    scales = np.geomspace(1, 1e-2, WIDTH)
    turn = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    real = (rng.standard_normal((ROWS, WIDTH)) * scales) @ turn
    fake = (rng.standard_normal((ROWS, WIDTH)) * scales[::-1] ** 0.5 + 0.05) @ turn
    return real, fake


def sqrtm_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """As StyleGAN-V computes it."""
    mu1, mu2 = real.mean(0), fake.mean(0)
    s1, s2 = (np.cov(x, rowvar=False, ddof=0) for x in (real, fake))
    root = scipy.linalg.sqrtm(s1 @ s2)
    return float(np.real(np.square(mu1 - mu2).sum() + np.trace(s1 + s2 - root * 2)))


def agreement(ours: float, baseline: float) -> str:
    apart = abs(ours - baseline) / abs(baseline)
    if not apart <= TOLERANCE:
        disagree(f"distances {ours!r} and {baseline!r}")
    return f"distances {ours:.6f} and {baseline:.6f}, {apart:.1e} apart"


def print_peak(real: np.ndarray, fake: np.ndarray) -> None:
    """What share of the fastest matrix product's arithmetic the distance reaches.

    It needs one product (2 d^3) and the singular values (8/3 d^3).
    """
    product, distance = time_in_turns(
        [lambda: real @ fake.T, lambda: frechet_distance(real, fake)], repeats=3
    )
    flops = np.array([2, 2 + 8 / 3]) * WIDTH**3
    rates = flops / 1e9 / [min(product), min(distance)]
    print(f"dgemm {rates[0]:.0f} GFLOP/s; distance {rates[1]:.0f}, {rates[1] / rates[0]:.0%} of it")


def main() -> None:
    extractions()
    print(f"\nFrechet distance, {ROWS} x {ROWS} features of width {WIDTH}")
    real, fake = two_sets()
    print_peak(real, fake)
    compare(
        "frechet",
        lambda: frechet_distance(real, fake),
        lambda: sqrtm_distance(real, fake),
        agreement,
        n=1,
        unit="distances/s",
        repeats=3,
        warmup=1,
    )


if __name__ == "__main__":
    main()
