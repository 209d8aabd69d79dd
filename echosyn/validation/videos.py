"""What a video file holds, measured by decoding it once, three frames in memory at a time."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from echosyn.errors import EchosynError
from echosyn.files import sha256_file

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
    if not path.is_file():
        raise EchosynError(f"{path}: the video does not exist")
    size = path.stat().st_size
    if size == 0:
        raise EchosynError(f"{path}: the video is empty (0 bytes)")
    # A file cut inside its last frame still decodes to the number of frames in its header.
    with path.open("rb") as f:
        start = f.read(8)
    if start[:4] == b"RIFF" and (whole := int.from_bytes(start[4:], "little") + 8) > size + 1:
        raise EchosynError(f"{path}: truncated, {size:,} of the {whole:,} bytes in its header")
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise EchosynError(f"{path}: not a video that can be decoded")
        declared = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        count, kept = _three_frames(capture, declared, path)
    finally:
        capture.release()
    if count < declared:
        raise EchosynError(
            f"{path}: truncated, {count} of the {declared} frames in its header can be read"
        )
    if not np.isfinite(fps) or fps <= 0:
        raise EchosynError(f"{path}: frame rate {fps} in the header; it must be above 0")
    grey = [cv2.transform(f, np.full((1, 3), 1 / 3)) for f in kept]
    return Measured(
        count,
        *grey[0].shape,
        fps,
        sha256_file(path),
        float(min(int(f.max()) - int(f.min()) for f in grey)),
        max(float(cv2.absdiff(f, grey[0]).mean()) for f in grey[1:]),
        np.stack([describe(f) for f in grey]),
    )


def _three_frames(
    capture: cv2.VideoCapture, declared: int, path: Path
) -> tuple[int, list[np.ndarray]]:
    """How many frames there are; the first, that in the middle of those declared, and the last."""
    count, first, middle, last = 0, None, None, None
    while True:
        ok, frame = capture.read()  # (H, W, 3), BGR
        if not ok:
            break
        first = frame if first is None else first
        if frame.shape != first.shape:
            was, now = (f"{f.shape[1]}x{f.shape[0]}" for f in (first, frame))
            raise EchosynError(f"{path}: frame {count + 1} is {now} pixels, the first {was}")
        middle = frame if count <= declared // 2 else middle
        count, last = count + 1, frame
    if count == 0:
        raise EchosynError(f"{path}: the video has no frames")
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
