"""One epoch's clips for the EF regressor: from the memory-mapped frame cache, with `EfTask.batch`.

The baseline does per clip what echonet/dynamic does (`echonet.utils.loadvideo` and
`echonet.datasets.Echo.__getitem__`): decodes the whole AVI frame by frame, then takes every second
of 64 frames. Both leave the subtraction of mean and standard deviation to the network, draw from
the same random numbers, and run on one thread.

python -m benchmarks.ef_epoch
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness import compare, disagree, use_threads

THREADS = 1
use_threads(THREADS)

import cv2  # noqa: E402

from echosyn.data.filelist import video_path  # noqa: E402
from echosyn.data.frames import load_frames  # noqa: E402
from echosyn.data.phantom import PhantomConfig, write_dataset  # noqa: E402
from echosyn.models.r2plus1d import R2Plus1dConfig  # noqa: E402
from echosyn.training.ef import EfTask, TrainEfConfig  # noqa: E402
from echosyn.training.loop import LoopConfig  # noqa: E402

VIDEOS, LENGTH, FPS = 64, 100, 32.0
PERIOD = 2
BATCH, FRAMES, PAD = 20, 32, 12
CONFIG = TrainEfConfig(
    model=R2Plus1dConfig(in_channels=1),
    loop=LoopConfig(steps=1, batch=BATCH, lr=1e-4),
    fps=FPS / PERIOD,
    frames=FRAMES,
    pad=PAD,
    gain=0.0,
)
MEMORY_BATCHES = 4  # what an epoch may hold at once, in batches


def loadvideo(path: Path) -> np.ndarray:
    """Colour frames uint8 (3, T, H, W), as echonet.utils.loadvideo."""
    capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    video = np.zeros((count, height, width, 3), np.uint8)
    for i in range(count):
        ok, frame = capture.read()
        if not ok:
            raise ValueError(f"failed to load frame {i} of {path}")
        video[i] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    return video.transpose(3, 0, 1, 2)


def reference_clip(path: Path, rng: np.random.Generator) -> np.ndarray:
    """Float32 (3, FRAMES, H, W), padded and cropped at random, as Echo.__getitem__."""
    video = loadvideo(path).astype(np.float32)
    c, count, h, w = video.shape
    # EfTask counts starts in frames at its own rate, which are those of even number here.
    start = PERIOD * int(rng.integers((count + 1) // PERIOD - FRAMES + 1))
    video = video[:, start + PERIOD * np.arange(FRAMES)]
    temp = np.zeros((c, FRAMES, h + 2 * PAD, w + 2 * PAD), video.dtype)
    temp[:, :, PAD:-PAD, PAD:-PAD] = video
    i, j = PAD - rng.integers(-PAD, PAD + 1, 2)
    rng.uniform()  # EfTask draws a gain, here of no effect
    return temp[:, :, i : i + h, j : j + w]


def batches() -> list[np.ndarray]:
    order = np.random.default_rng(1).permutation(VIDEOS)
    return [order[i : i + BATCH] for i in range(0, VIDEOS, BATCH)]


def same_clips(ours: Iterator[np.ndarray], baseline: Iterator[np.ndarray]) -> str:
    """Every pixel of every clip."""
    clips = 0
    for a, b in zip(ours, baseline, strict=True):
        if not all(np.array_equal(a, b[:, channel]) for channel in range(3)):
            disagree(f"clips {clips} to {clips + len(a)}")
        clips += len(a)
    return f"all {clips} clips, every pixel"


def resident_mb() -> dict[str, float]:
    """Memory of this process: its own, and pages of mapped files, which the system may drop."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kb = {k: v for k, _, v in (line.partition(":") for line in lines)}
    return {name: int(kb[f"Rss{name}"].split()[0]) / 1e3 for name in ("Anon", "File")}


def print_memory(epoch: Callable[[], Iterator[np.ndarray]], batch_mb: float) -> None:
    """The growth over an epoch whose batches are let go, at its highest; ends the benchmark when
    the process's own memory grows with the epoch."""
    before = resident_mb()
    most = dict.fromkeys(before, 0.0)
    for _ in epoch():
        for name, mb in resident_mb().items():
            most[name] = max(most[name], mb - before[name])
    print(
        f"an epoch grows the process by {most['Anon']:.0f} MB of its own (a batch is "
        f"{batch_mb:.0f} MB) and {most['File']:.0f} MB of mapped frames, which the system may drop"
    )
    if most["Anon"] > MEMORY_BATCHES * batch_mb:
        raise SystemExit(f"more than {MEMORY_BATCHES} batches are held at once")


def main() -> None:
    cfg = PhantomConfig(train=VIDEOS, val=1, test=1, frames=LENGTH, fps=FPS)
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp) / "phantom"
        write_dataset(folder, cfg, seed=0, workers=THREADS)
        frames = load_frames(folder, CONFIG.fps, Path(tmp) / "cache").split("TRAIN")
        paths = [video_path(folder, name) for name in frames.table["FileName"]]

        def ours(task: EfTask | None = None) -> Iterator[np.ndarray]:
            task = task or EfTask(CONFIG, [frames], [])
            rng = np.random.default_rng(2)
            for rows in batches():
                yield task.batch(rows, rng)["clips"].numpy()

        def baseline() -> Iterator[np.ndarray]:
            rng = np.random.default_rng(2)
            for rows in batches():
                yield np.stack([reference_clip(paths[row], rng) for row in rows])

        size = frames.data.shape[1:]
        print_memory(ours, BATCH * FRAMES * size[0] * size[1] / 1e6)
        task = EfTask(CONFIG, [frames], [])
        compare(
            "ef_epoch",
            lambda: sum(map(len, ours(task))),
            lambda: sum(map(len, baseline())),
            lambda a, b: (
                same_clips(ours(task), baseline()) if a == b else disagree(f"{a}, {b} clips")
            ),
            n=VIDEOS,
            unit="clips/s",
            repeats=5,
        )


if __name__ == "__main__":
    main()
