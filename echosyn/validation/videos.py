"""What a video file holds, measured by decoding it once, three frames in memory at a time."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from echosyn.data.video import VideoStream, grey, open_video
from echosyn.runtime.files import sha256_file

SIDE = 32  # pixels that a frame is reduced to, to be compared with others
COARSEST, FINEST = 3, 20  # cosines along a side: less is gain and sector, more is noise
BAND = np.maximum(*np.mgrid[:SIDE, :SIDE])
KEPT = (BAND >= COARSEST) & (BAND < FINEST)
WIDTH = int(KEPT.sum())  # numbers per frame
FAINT = 0.5 * SIDE  # length of the descriptor of a picture of half a grey level: nothing
FRAMES = ("first", "middle", "last")


@dataclass(frozen=True)
class Measured:
    """Facts of a video file.

    contrast: brightest less darkest grey level, of that of three frames which has least.
    motion: mean absolute difference in grey levels between three frames, the largest.
    descriptors: float32 (3, WIDTH), of the first, the middle and the last frame; a row's length
    is 1, or 0 for a frame that shows nothing.
    """

    frames: int
    height: int
    width: int
    fps: float
    sha256: str
    contrast: float
    motion: float
    descriptors: np.ndarray


def measure(path: Path) -> Measured:
    """Decode a video whole, keeping its first, middle and last frame.

    Raises:
        EchosynError: the file is missing, empty, not a video, has no frames, frames of several
            sizes, or ends before the number of frames that its header declares.
    """
    with open_video(path) as video:
        count, kept = _three_frames(video)
        fps = video.check_fps()
    three = [grey(f) for f in kept]
    height, width = three[0].shape
    return Measured(
        count,
        height,
        width,
        fps,
        sha256_file(path),
        float(min(int(f.max()) - int(f.min()) for f in three)),
        max(float(cv2.absdiff(f, three[0]).mean()) for f in three[1:]),
        np.stack([describe(f) for f in three]),
    )


def _three_frames(video: VideoStream) -> tuple[int, list[np.ndarray]]:
    """How many frames there are; the first, that in the middle of those declared, and the last."""
    count = 0
    for frame in video.frames():  # one at least
        if count == 0:
            first = frame
        if count <= video.declared // 2:
            middle = frame
        count, last = count + 1, frame
    return count, [first, middle, last]


def describe(frame: np.ndarray) -> np.ndarray:
    """The picture of a grey frame uint8 (H, W) as a direction, float32 (WIDTH,).

    The inner product of two is their similarity, 1 for the same picture. Only cosines between the
    coarsest and the finest count, so that gain, noise, blur, another size and another compression
    change little (0.98 or more), whereas frames of two people differ (0.86 at most among 440
    phantoms, which are alike in what is coarse; 0.53 among six real ones). Zeros: it shows nothing.
    """
    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    cosines = cv2.dct(small.astype(np.float32))[KEPT].astype(np.float64)
    length = np.linalg.norm(cosines)
    return (cosines / length if length > FAINT else np.zeros(WIDTH)).astype(np.float32)
