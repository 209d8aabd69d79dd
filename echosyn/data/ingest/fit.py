"""Frames of any size to grey 112x112, one frame in memory at a time."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from echosyn.data.ingest.pace import Pace, even_pace
from echosyn.data.video import grey, open_video
from echosyn.runtime.errors import EchosynError

FRAME_SIZE = 112  # pixels; EchoNet-Dynamic's, and what the models are built for
MIN_FRAMES = 2
MIN_SIDE = 16  # pixels; less holds no picture of a heart
MAX_PIXELS = 2**26  # 8192 x 8192; more is refused before it is decoded
ANISOTROPY = 0.01  # pixels whose sides differ by less are taken as square
ASPECTS = (0.1, 10.0)  # of pixels; what is outside is damage
# How files that hold a video begin. Decoders know more kinds, some of which name other files or
# addresses to read (playlists) or are stills: a data folder's files are not trusted with that.
MP4 = (b"ftyp", b"moov", b"mdat", b"wide", b"free")  # after 4 bytes of length
OTHERS = (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"0&\xb2u")  # Matroska, MPEG, WMV
# OpenCV's other backend for a file would take `v0001.avi` for the first of a series of images.
FFMPEG = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
BACKEND = cv2.CAP_FFMPEG if FFMPEG else cv2.CAP_ANY


@dataclass(frozen=True, eq=False)
class Fitted:
    """A video at the canonical size."""

    frames: np.ndarray | None  # uint8 (T, 112, 112); None: the file itself is canonical
    fps: float
    count: int  # frames, counted by decoding
    square: "SquareFit"  # how the frames as they were read came to this size
    note: str = ""  # what was done about frames that are not evenly spaced


@dataclass(frozen=True)
class SquareFit:
    """How a frame gets square pixels, is padded to a square and scaled to FRAME_SIZE, keeping its
    proportions. aspect: height of a pixel over its width."""

    height: int
    width: int
    aspect: float = 1.0

    @classmethod
    def of(cls, frames: np.ndarray) -> "SquareFit":
        """The fit of frames (T, H, W) with square pixels."""
        return cls(*frames.shape[1:])

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width with square pixels."""
        return square_size(self.height, self.width, self.aspect)

    @property
    def side(self) -> int:
        return max(self.shown)

    @property
    def top(self) -> int:
        return (self.side - self.shown[0]) // 2

    @property
    def left(self) -> int:
        return (self.side - self.shown[1]) // 2

    @property
    def identity(self) -> bool:
        return (self.height, self.width) == self.shown == (FRAME_SIZE, FRAME_SIZE)

    def apply(self, frames: np.ndarray) -> np.ndarray:
        """Frames uint8 (T, height, width) to (T, 112, 112): black padding, area when shrinking."""
        return np.stack([self.frame(frame) for frame in frames])

    def frame(self, frame: np.ndarray) -> np.ndarray:
        """One frame uint8 (height, width) to (112, 112)."""
        if self.identity:
            return frame
        frame = square_pixels(frame, self.aspect)
        height, width = frame.shape
        if height != width:
            square = np.zeros((self.side, self.side), np.uint8)
            square[self.top : self.top + height, self.left : self.left + width] = frame
            frame = square
        how = cv2.INTER_AREA if self.side >= FRAME_SIZE else cv2.INTER_LINEAR
        return cv2.resize(frame, (FRAME_SIZE, FRAME_SIZE), interpolation=how)

    def fit(self, frames: np.ndarray, fps: float) -> Fitted:
        """Frames uint8 (T, height, width) as a video.

        Raises:
            EchosynError: there are too few frames, they are too small, or the rate is no rate.
        """
        if frames.ndim != 3 or frames.dtype != np.uint8:
            raise ValueError(f"expected uint8 (T, H, W), got {frames.dtype} {frames.shape}")
        check_count(len(frames))
        check_size(self.height, self.width)
        check_fps(fps)
        return Fitted(self.apply(frames), fps, len(frames), self)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Where a point (column, row) of the frame as it was read lies in the fitted one."""
        scale, (height, width) = FRAME_SIZE / self.side, self.shown
        x, y = x * width / self.width, y * height / self.height
        return (x + self.left) * scale, (y + self.top) * scale


def square_size(height: int, width: int, aspect: float) -> tuple[int, int]:
    """Height and width of a frame once its pixels are square: the coarser axis keeps its size, the
    finer one shrinks.

    Raises:
        EchosynError: the aspect is none that a picture has.
    """
    if not ASPECTS[0] <= aspect <= ASPECTS[1]:
        raise EchosynError(
            f"pixels {aspect:g} times as high as wide; expected {ASPECTS[0]:g} to {ASPECTS[1]:g}"
        )
    if abs(aspect - 1) < ANISOTROPY:
        return height, width
    if aspect > 1:
        return height, max(1, round(width / aspect))
    return max(1, round(height * aspect)), width


def square_pixels(frame: np.ndarray, aspect: float, how: int = cv2.INTER_AREA) -> np.ndarray:
    """A frame uint8 (H, W) whose pixels are `aspect` times as high as wide, with square pixels."""
    height, width = square_size(frame.shape[0], frame.shape[1], aspect)
    if (height, width) == frame.shape:
        return frame
    return cv2.resize(np.ascontiguousarray(frame), (width, height), interpolation=how)


def check_size(height: int, width: int) -> None:
    """Refuse frames too small to show a heart, and those too large to be frames at all."""
    if min(height, width) < MIN_SIDE:
        raise EchosynError(f"frames of {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE}")
    if height * width > MAX_PIXELS:
        raise EchosynError(f"frames of {width}x{height} pixels; at most {MAX_PIXELS:,} in all")


def check_count(frames: int) -> None:
    """Refuse what does not move."""
    if frames < MIN_FRAMES:
        what = "a still image" if frames else "no frames"
        raise EchosynError(f"{what}; a video has {MIN_FRAMES} frames or more")


def check_fps(fps: float) -> None:
    """Refuse a frame rate that is none."""
    if not np.isfinite(fps) or fps <= 0:
        raise EchosynError(f"frame rate {fps}; it must be above 0")


def fit_video(path: Path, keep: bool = False) -> Fitted:
    """Decode a video file to grey 112x112, holding one frame of its own size at a time.

    Its pixels become square and its frames evenly spaced, as the file states aspect and times. An
    AVI has one rate.

    Args:
        path: AVI, MP4, or whatever OpenCV decodes.
        keep: give frames of a canonical file too.

    Raises:
        EchosynError: the file is missing, empty, truncated, a still or no video, its frames change
            size, are too small or too large, or the frame rate is not above 0.
    """
    with open_video(path, BACKEND, known=_is_video) as video:
        try:
            check_size(video.height, video.width)  # before a decoder allocates them
            check_fps(video.fps)
        except EchosynError as e:
            raise EchosynError(f"{path}: {e}") from None
        frames: list[np.ndarray] = []
        count, square = 0, SquareFit(video.height, video.width)
        for frame in video.frames():
            if count == 0:
                square = SquareFit(frame.shape[0], frame.shape[1], video.aspect)
                copied = video.avi and square.identity and not keep
            count += 1
            if not copied:
                frames.append(square.frame(grey(frame)))
    try:
        check_count(count)
        pace = None if video.avi else _pace(np.array(video.times), video.fps)
    except EchosynError as e:
        raise EchosynError(f"{path}: {e}") from None
    if copied:
        return Fitted(None, video.fps, count, square)
    if pace is None:
        return Fitted(np.stack(frames), video.fps, count, square)
    kept = np.stack([frames[i] for i in pace.frames])
    return Fitted(kept, pace.fps, len(kept), square, pace.note)


def _pace(times: np.ndarray, fps: float) -> Pace:
    """Of a container that states the time of every frame, milliseconds, and a rate besides."""
    if not (np.diff(times) > 0).all():
        note = f"time stamps that do not increase: taken as even, {fps:g} frames a second"
        return Pace(np.arange(len(times)), fps, note)
    pace = even_pace(times)
    return pace if pace.note else Pace(pace.frames, fps)


def _is_video(start: bytes) -> bool:
    """By its first bytes: FFmpeg would follow playlists and read pictures."""
    avi = start[:4] == b"RIFF" and start[8:12] == b"AVI "
    return avi or start[4:8] in MP4 or start.startswith(OTHERS)
