"""AVI in and out: motion-JPEG, grey, uint8 frames of shape (T, H, W)."""

import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_bytes
from echosyn.runtime.process import cores
from echosyn.runtime.progress import bar
from echosyn.runtime.timing import reading

A = TypeVar("A")
R = TypeVar("R")

JPEG_QUALITY = 95
THIRD = np.full((1, 3), 1 / 3)
# Endings that a video may have in another release of a dataset than the one its list is of.
VIDEOS = (".mp4", ".avi", ".AVI", ".MP4", ".m4v", ".mov", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg")
NO_VIDEOS = (".nii.gz", ".nii", ".dcm", ".mhd", ".gif", ".npy", ".npz", ".h5", ".zip")


class VideoStream:
    """An open video file, whose frames come one after the other; see `open_video`."""

    def __init__(self, path: Path, capture: cv2.VideoCapture, avi: bool) -> None:
        self.path, self._capture, self.avi = path, capture, avi
        self.declared = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.fps = float(capture.get(cv2.CAP_PROP_FPS))
        self.height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self.width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.times: list[float] = []  # milliseconds, of the frames given so far

    def frames(self) -> Iterator[np.ndarray]:
        """Every frame once, uint8 (H, W, 3) BGR.

        Raises:
            EchosynError: there are none, they change size, or they end before the number that the
                header declares.
        """
        count, shape = 0, None
        while True:
            ok, frame = self._capture.read()
            if not ok:
                break
            count, shape = count + 1, shape or frame.shape
            self.times.append(self._capture.get(cv2.CAP_PROP_POS_MSEC))
            if frame.shape != shape:
                was, now = (f"{s[1]}x{s[0]}" for s in (shape, frame.shape))
                raise EchosynError(f"{self.path}: frame {count} is {now} pixels, the first {was}")
            yield frame
        if count == 0:
            raise EchosynError(f"{self.path}: the video has no frames")
        # Other containers state a duration, from which OpenCV only guesses the number of frames.
        if count < (self.declared if self.avi else 0.95 * self.declared - 2):
            raise EchosynError(
                f"{self.path}: truncated, {count} of the {self.declared} frames in its header can "
                "be read"
            )

    @property
    def aspect(self) -> float:
        """Height of a pixel over its width, 1 where the file does not state it. A frame that the
        file says is to be turned comes out turned, and its pixels with it."""
        wide, high = (self._capture.get(p) for p in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
        if not (wide > 0 and high > 0):
            return 1.0
        turned = self._capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180 == 90
        return wide / high if turned else high / wide

    def check_fps(self) -> float:
        """Frames per second. Raises EchosynError when it is no rate."""
        if not np.isfinite(self.fps) or self.fps <= 0:
            raise EchosynError(
                f"{self.path}: frame rate {self.fps} in the header; it must be above 0"
            )
        return self.fps


@contextmanager
def open_video(
    path: Path | str, backend: int = cv2.CAP_ANY, known: Callable[[bytes], bool] | None = None
) -> Iterator[VideoStream]:
    """A video file, open.

    Args:
        backend: of OpenCV, such as cv2.CAP_FFMPEG.
        known: whether a file that begins with these 12 bytes is a video; None: the decoder knows.

    Raises:
        EchosynError: the file is missing, empty, shorter than its header says, or not a video.
    """
    path = Path(path)
    if not path.is_file():
        raise EchosynError(f"{path}: the video does not exist{_beside(path)}")
    with path.open("rb") as f:
        start = f.read(12)
        size = f.seek(0, 2)
    if size == 0:
        raise EchosynError(f"{path}: the video is empty (0 bytes)")
    if known is not None and not known(start):
        raise EchosynError(f"{path}: not a video: no AVI, MP4, Matroska, MPEG or WMV file")
    avi = start[:4] == b"RIFF"
    # A file cut inside its last frame still decodes to the number of frames in its header.
    if avi and (whole := int.from_bytes(start[4:8], "little") + 8) > size + 1:
        raise EchosynError(f"{path}: truncated, {size:,} of the {whole:,} bytes in its header")
    capture = cv2.VideoCapture(str(path), backend)
    try:
        if not capture.isOpened():
            raise EchosynError(f"{path}: not a video that can be decoded (an unknown codec?)")
        yield VideoStream(path, capture, avi)
    finally:
        capture.release()


def _beside(path: Path) -> str:
    """What is there of the same name in another format, and what to do; nothing if none is."""
    names = [path.stem, *(f"{path.stem}{suffix}" for suffix in (*VIDEOS, *NO_VIDEOS))]
    there = next((n for n in names if n != path.name and path.with_name(n).is_file()), None)
    if there is None:
        plain = f"{Path(path.stem).stem}.avi"  # where a list has v1.mp4 or v1.AVI
        if plain == path.name or not path.with_name(plain).is_file():
            return ""
        return f", but {plain} does: give its name in the list without an ending"
    if there.endswith(NO_VIDEOS):
        return f", but {there} does, which is no video: convert it to {path.name}"
    return f", but {there} does: rename it to {path.name}"


def grey(frame: np.ndarray) -> np.ndarray:
    """A frame (H, W, 3) as uint8 (H, W): the mean over channels, as the reference has it."""
    return cv2.transform(frame, THIRD)


def read_video(path: Path | str) -> tuple[np.ndarray, float]:
    """Decode a video to grey frames.

    Returns:
        frames uint8 (T, H, W) in 0-255, and the frame rate in frames per second.

    Raises:
        EchosynError: as `open_video` and `VideoStream.frames`, or the frame rate is no rate.
    """
    with open_video(path) as video:
        frames = np.stack([grey(frame) for frame in video.frames()])
        return frames, video.check_fps()


def map_videos(
    work: Callable[[A], R], items: Sequence[A], desc: str, unit: str = "videos"
) -> Iterator[R]:
    """`work` of each item, in order, on as many threads as this process may use (OpenCV decodes
    outside Python's lock), with a progress bar. Few items are in flight, however many there are.
    """
    workers = cores()
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool, bar(len(items), desc, unit) as progress:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= 4 * workers:
                    yield _awaited(pending.popleft())
                    progress.update()
            while pending:
                yield _awaited(pending.popleft())
                progress.update()
        finally:
            pool.shutdown(cancel_futures=True)


def _awaited(work: "Future[R]") -> R:
    with reading():
        return work.result()


def write_video(path: Path | str, frames: np.ndarray, fps: float) -> None:
    """Write uint8 frames (T, H, W) as a motion-JPEG AVI; the same frames give the same bytes.

    The frame rate is kept as a fraction with a denominator up to 1001. OpenCV's own writer is not
    used: it rounds the rate to a whole number, and the motion-JPEG encoder of OpenCV 5.0 writes
    grey frames that no decoder reads back.

    Raises:
        EchosynError: the file cannot be written whole (a full disk, a folder without permission).
    """
    path = Path(path)
    if frames.ndim != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"expected uint8 (T, H, W), none 0, got {frames.dtype} {frames.shape}")
    if not np.isfinite(fps) or fps <= 0:
        raise ValueError(f"expected a frame rate above 0, got {fps}")
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    jpegs = [cv2.imencode(".jpg", np.ascontiguousarray(f), quality)[1].tobytes() for f in frames]
    try:
        write_bytes(path, avi(jpegs, frames.shape[1], frames.shape[2], fps))
    except OSError as e:
        raise EchosynError(f"{path}: the video cannot be written: {e.strerror}") from e


def avi(jpegs: Sequence[bytes], height: int, width: int, fps: float) -> bytes:
    """A RIFF AVI file with one motion-JPEG stream and its index (Microsoft's AVI RIFF layout).

    Args:
        jpegs: grey frames of height x width pixels, at least one.
    """
    rate = Fraction(fps).limit_denominator(1001)
    largest = max(map(len, jpegs))
    has_index, is_keyframe = 0x10, 0x10
    size = struct.pack("<2I", width, height)
    main = struct.pack("<8I", round(1e6 / fps), 0, 0, has_index, len(jpegs), 0, 1, largest)
    stream = b"vidsMJPG" + struct.pack(
        "<IHH8I4H", 0, 0, 0, 0, rate.denominator, rate.numerator, 0, len(jpegs), largest,
        2**32 - 1, 0, 0, 0, width, height,
    )  # fmt: skip
    bitmap = (
        struct.pack("<I", 40) + size + struct.pack("<HH4sI", 1, 24, b"MJPG", width * height * 3)
    )
    header = _list(
        b"hdrl",
        _chunk(b"avih", main + size + bytes(16)),
        _list(b"strl", _chunk(b"strh", stream), _chunk(b"strf", bitmap + bytes(16))),
    )
    chunks = [_chunk(b"00dc", jpeg) for jpeg in jpegs]
    offsets = accumulate(map(len, chunks), initial=4)
    index = b"".join(
        b"00dc" + struct.pack("<3I", is_keyframe, offset, len(jpeg))
        for offset, jpeg in zip(offsets, jpegs, strict=False)
    )
    body = b"AVI " + header + _list(b"movi", *chunks) + _chunk(b"idx1", index)
    return _chunk(b"RIFF", body)


def stored_jpegs(data: bytes) -> tuple[list[bytes], int, int, float]:
    """What `avi` made a file of, to the last bit: JPEGs, height, width, frames per second.

    Raises:
        EchosynError: it made no such file.
    """
    rate, scale, height, width = 0, 1, 0, 0
    jpegs, at = [], 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        start = at + 8
        if name == b"LIST":
            at += 12  # what it lists follows
            continue
        if name == b"avih":
            width, height = struct.unpack_from("<2I", data, start + 32)
        elif name == b"strh":
            scale, rate = struct.unpack_from("<2I", data, start + 20)
        elif name == b"00dc":
            jpegs.append(data[start : start + size])
        at = start + size + size % 2
    if not (jpegs and rate and scale) or avi(jpegs, height, width, rate / scale) != data:
        raise EchosynError("not a motion-JPEG AVI as echosyn writes it")
    return jpegs, height, width, rate / scale


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _list(name: bytes, *chunks: bytes) -> bytes:
    return _chunk(b"LIST", name + b"".join(chunks))


def resample_indices(n: int, fps: float, target_fps: float) -> np.ndarray:
    """Nearest source frame for each tick of `target_fps` within the n frames (int64, (M,))."""
    m = max(1, int(np.floor((n - 1) / fps * target_fps + 1e-6)) + 1)
    ticks = np.arange(m) * (fps / target_fps)
    return np.minimum(np.floor(ticks + 0.5).astype(np.int64), n - 1)
