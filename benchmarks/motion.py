"""Which metrics see broken motion and broken texture, and which mistake one for the other.

Phantom patients against other phantom patients whose clips were corrupted: Frechet distances over
those of the two clean sets, then the distances of ultrasound statistics. No speed is compared, so
no line of JSON ends the output.

python -m benchmarks.motion
"""

import time
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from benchmarks.harness import machine, use_threads
from echosyn.data.phantom import PhantomConfig, render_patient
from echosyn.metrics.features import FeatureSpace, RandomFeatures3d
from echosyn.metrics.frechet import frechet_interval
from echosyn.metrics.motion import MotionFeatures
from echosyn.metrics.ultrasound import compare_statistics, image_statistics

CLIPS = 100  # a side
FRAMES, FPS = 32, 16.0
Corruption = Callable[[np.ndarray], np.ndarray]


@cache
def render(first: int, fps: float = FPS) -> np.ndarray:
    """Clips uint8 (CLIPS, FRAMES, 112, 112) of the patients from `first` on."""
    cfg = PhantomConfig(train=2 * CLIPS, val=1, test=1, frames=FRAMES, fps=fps)
    return np.stack([render_patient(i, cfg, seed=0).frames for i in range(first, first + CLIPS)])


def shuffled(clips: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([c[rng.permutation(len(c))] for c in clips])


def averaged(clips: np.ndarray) -> np.ndarray:
    """Each frame with its neighbours: the heart beats on, but speckle flickers less."""
    padded = np.pad(clips, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="edge").astype(np.uint16)
    return ((padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) // 3).astype(np.uint8)


def in_order(order: np.ndarray) -> Corruption:
    return lambda clips: clips[:, order]


def gain(factor: float) -> Corruption:
    return lambda clips: np.clip(clips * np.float32(factor), 0, 255).astype(np.uint8)


def speckle(share: float, frames: int) -> Corruption:
    """Multiplicative noise, one draw for each of `frames`."""

    def corrupt(clips: np.ndarray) -> np.ndarray:
        rng, out = np.random.default_rng(0), []
        for clip in clips:
            noise = rng.standard_normal((frames, *clip.shape[1:]), dtype=np.float32)
            out.append(np.clip(clip * (1 + np.float32(share) * noise), 0, 255).astype(np.uint8))
        return np.stack(out)

    return corrupt


def blur(sigma: float) -> Corruption:
    return lambda clips: np.stack(
        [[cv2.GaussianBlur(frame, (0, 0), sigma) for frame in clip] for clip in clips]
    )


def corruptions(frames: int) -> dict[str, Corruption]:
    """Of clips of `frames` frames: movement broken, then still changes."""
    t = np.arange(frames)
    return {
        "all frames shuffled": shuffled,
        "neighbours swapped": in_order(t ^ 1),
        "frozen": in_order(0 * t),
        "half frozen": in_order(np.minimum(t, frames // 2 - 1)),
        "played at x1.5": lambda _: render(CLIPS, FPS / 1.5)[:, :frames],
        "played at x0.67": lambda _: render(CLIPS, FPS * 1.5)[:, :frames],
        "reversed": in_order(t[::-1]),
        "three frames averaged": averaged,
        "gain +10 %": gain(1.1),
        "gain -10 %": gain(0.9),
        "blur of 1 pixel": blur(1.0),
        "10 % speckle, still": speckle(0.1, 1),
        "10 % speckle, flickering": speckle(0.1, frames),
        "20 % speckle, flickering": speckle(0.2, frames),
    }


def column(space: FeatureSpace, a: np.ndarray, b: np.ndarray) -> dict[str, str]:
    """Distance / floor by corruption; a star where the intervals of the two are apart."""
    start = time.perf_counter()
    real = space(a)
    rate = a.shape[0] * a.shape[1] / (time.perf_counter() - start)
    floor = frechet_interval(real, space(b))
    cells = {"two clean sets": f"{floor.value:.3g} [{floor.lo:.3g}, {floor.hi:.3g}]"}
    for name, corrupt in corruptions(a.shape[1]).items():
        e = frechet_interval(real, space(corrupt(b)))
        cells[name] = f"{e.value / floor.value:.2f}{' *' if e.lo > floor.hi else ''}"
    return {**cells, "frames/s": f"{rate:,.0f}"}


def texture(a: np.ndarray, b: np.ndarray) -> list[str]:
    """Rows of a table: distances of ultrasound statistics by corruption, the floor first."""
    chosen = ("gain +10 %", "frozen", "three frames averaged", "10 % speckle, flickering")
    broken = {"clean": lambda clips: clips} | {k: corruptions(a.shape[1])[k] for k in chosen}
    broken |= {f"blur, sigma {s:g} pixels": blur(s) for s in (0.5, 1.0, 2.0)}
    real, lines = statistics(a), []
    for name, corrupt in broken.items():
        distances = compare_statistics(real, statistics(corrupt(b)))
        if not lines:
            lines = [f"| | {' | '.join(distances)} |", f"|---|{'---|' * len(distances)}"]
        lines.append(f"| {name} | {' | '.join(f'{e.value:.2f}' for e in distances.values())} |")
    return lines


def statistics(clips: np.ndarray) -> np.ndarray:
    return np.stack([image_statistics(clip) for clip in clips])


def main() -> None:
    use_threads(1)
    a, b = render(0), render(CLIPS)
    columns = {
        "motion_32f": column(MotionFeatures(32, FPS), a, b),
        "motion_16f": column(MotionFeatures(16, FPS), a[:, :16], b[:, :16]),
        "rand3d_16f": column(RandomFeatures3d(), a[:, :16], b[:, :16]),
    }
    print(f"Frechet distance, {CLIPS} clips a side at {FPS:g} fps; {machine()}\n")
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for row in columns["motion_32f"]:
        print(f"| {row} | {' | '.join(c[row] for c in columns.values())} |")
    print("", *texture(a, b), sep="\n")


if __name__ == "__main__":
    main()
