"""Videos side by side as one animated picture."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from echosyn.data.spaced import evenly_spaced
from echosyn.data.video import resample_indices

GAP = 2
SLOWEST = 8.0  # frames per second from which one can still see a heart beat


@dataclass(frozen=True)
class Moving:
    """A looping WebP, its first frame, and what both show."""

    image: bytes
    still: bytes
    alt: str


def moving(
    videos: Sequence[tuple[np.ndarray, float]],
    fps: float,
    seconds: float,
    columns: int,
    room: int,
    alt: str,
) -> Moving:
    """Videos side by side in up to `room` bytes: at `fps`, at half of it and so on, not below
    SLOWEST, or only their first frames.

    Args:
        videos: uint8 (T, H, W) and frames per second of each, of one H and W.
        seconds: shown of each. alt: what they show, in words.
    """
    still = webp([frames[:1] for frames, _ in videos], fps, columns)
    rates = [fps]
    while rates[-1] >= 2 * SLOWEST:
        rates.append(rates[-1] / 2)
    for rate in rates:
        image = webp([clip(f, own, rate, seconds) for f, own in videos], rate, columns)
        if len(image) <= room:
            return Moving(image, still, alt)
    return Moving(still, still, f"first frames of {alt}")


def webp(videos: Sequence[np.ndarray], fps: float, columns: int, quality: int = 70) -> bytes:
    """Tile grey videos row by row and encode them as one looping WebP.

    Args:
        videos: uint8 (T, H, W) each, of one H and W; the shortest gives the number of frames.
        fps: frames per second of all of them.
        columns: tiles per row.

    Raises:
        ValueError: no videos, or not of one size.
    """
    return _animate(grid(videos, columns), "WEBP", _durations(videos, fps, 1), quality=quality)


def gif(videos: Sequence[np.ndarray], fps: float, columns: int) -> bytes:
    """As `webp`, for viewers that know no WebP (MLflow's): larger, timed to hundredths."""
    return _animate(grid(videos, columns), "GIF", _durations(videos, fps, 10))


def _durations(videos: Sequence[np.ndarray], fps: float, unit: int) -> list[int]:
    """Milliseconds per frame in whole units, spread so that the whole keeps the frame rate."""
    ticks = np.rint(np.arange(min(map(len, videos)) + 1) * 1000 / fps / unit).astype(int)
    return [max(1, int(d)) * unit for d in np.diff(ticks)]


def _animate(frames: np.ndarray, kind: str, durations: list[int], **options: int) -> bytes:
    images = [Image.fromarray(frame) for frame in frames]
    out = io.BytesIO()
    images[0].save(
        out, kind, save_all=True, append_images=images[1:], duration=durations, loop=0, **options
    )
    return out.getvalue()


def grid(videos: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """The videos in reading order, uint8 (T, rows * (H + GAP) - GAP, columns * (W + GAP) - GAP)."""
    if not videos or len({v.shape[1:] for v in videos}) != 1:
        raise ValueError("expected at least one video, all of one height and width")
    t = min(len(v) for v in videos)
    h, w = videos[0].shape[1:]
    rows = -(-len(videos) // columns)
    out = np.zeros((t, rows * (h + GAP) - GAP, columns * (w + GAP) - GAP), np.uint8)
    for i, video in enumerate(videos):
        y, x = (i // columns) * (h + GAP), (i % columns) * (w + GAP)
        out[:, y : y + h, x : x + w] = video[:t]
    return out


def clip(frames: np.ndarray, fps: float, target_fps: float, seconds: float) -> np.ndarray:
    """The first seconds of a (T, H, W) video at another frame rate; all of it when shorter."""
    picks = resample_indices(len(frames), fps, target_fps)
    return frames[picks[: max(1, round(seconds * target_fps))]]


def data_uri(image: bytes, kind: str = "webp") -> str:
    """The image inside the page itself."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def spread(values: np.ndarray, n: int) -> np.ndarray:
    """Positions of up to n values spread evenly over their order, ascending (int64, (<=n,))."""
    order = np.argsort(values, kind="stable")
    return order[np.unique(evenly_spaced(len(order), min(n, len(order))))]


def nearest(values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """For each target the position of the nearest value, none used twice (int64, (<=n,))."""
    left = list(range(len(values)))
    chosen = []
    for target in targets[: len(values)]:
        best = min(left, key=lambda i: (abs(values[i] - target), i))
        left.remove(best)
        chosen.append(best)
    return np.array(chosen, dtype=np.int64)
