"""Features of clips of many videos: prepared ahead of the network, run in batches."""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np

from echosyn.metrics.features import FeatureSpace
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.process import cores

AHEAD = 2  # batches that may wait for the network


class Videos(Protocol):
    """Videos to take clips from; echosyn.data.frames.FrameSet is one, VideoFolder another."""

    @property
    def fps(self) -> float: ...
    @property
    def lengths(self) -> np.ndarray: ...  # int64 (V,), frames of each video

    def __len__(self) -> int: ...

    def video(self, i: int) -> np.ndarray:
        """Frames of video i, uint8 (T, H, W); called from several threads at once."""


@dataclass(frozen=True)
class Clip:
    """Frames of a video by their numbers, int64 (T,); an image space takes each by itself."""

    video: int
    frames: np.ndarray


def extract(
    space: FeatureSpace, videos: Videos, clips: Sequence[Clip], batch: int = 16
) -> np.ndarray:
    """Features float32: one row per clip, or one per frame when `space.clip` is empty, in order.

    Threads decode and index what comes next while the network works on a batch. A video is decoded
    once for all neighbouring clips of it: sort clips by video. At most `AHEAD` batches and a video
    per thread are held, however many clips there are.

    Args:
        batch: clips (or frames, of an image space) that the network gets at once; fewer at the end.

    Raises:
        EchosynError: no clips, clips of several lengths, a frame that its video does not have,
            videos of several sizes; and what reading a video raises, as soon as it is known.
    """
    _check(space, videos, clips)
    with closing(_batches(videos, clips, bool(space.clip), batch)) as batches:
        return np.concatenate([space(x) for x in batches])


def video_name(videos: Videos, i: int) -> str:
    """What a message calls video i: its FileName where the videos have a table."""
    table = getattr(videos, "table", None)
    return f"video {i}" if table is None else f"video {table['FileName'].iloc[i]}"


def _check(space: FeatureSpace, videos: Videos, clips: Sequence[Clip]) -> None:
    if len(clips) == 0:
        raise EchosynError(f"no clips to take {space.name} features of")
    for k, clip in enumerate(clips):
        if not 0 <= clip.video < len(videos):
            raise EchosynError(f"clip {k}: video {clip.video}, but there are {len(videos)} videos")
        name, length = video_name(videos, clip.video), int(videos.lengths[clip.video])
        if len(clip.frames) == 0:
            raise EchosynError(f"clip {k} of {name} has no frames")
        first, last = int(np.min(clip.frames)), int(np.max(clip.frames))
        if first < 0 or last >= length:
            outside = first if first < 0 else last
            raise EchosynError(
                f"clip {k}: frame {outside} of {name}, which has frames 0 to {length - 1}"
            )
        if space.clip and len(clip.frames) != len(clips[0].frames):
            raise EchosynError(
                f"clip {k} of {name} has {len(clip.frames)} frames, those before have "
                f"{len(clips[0].frames)}; {space.name} takes clips of one length"
            )


@dataclass(frozen=True)
class _Job:
    """Neighbouring clips of one video, and what becomes of them."""

    video: int
    rows: np.ndarray  # frame numbers: of each clip (N, T), or of single frames (N,)

    def needed(self, videos: Videos) -> tuple[np.ndarray, np.ndarray]:
        """The frames that the rows use, in memory (U, H, W), and the rows as positions in them; the
        rest of the video is let go."""
        numbers, positions = np.unique(self.rows, return_inverse=True)
        return videos.video(self.video)[numbers], positions.reshape(self.rows.shape)


def _batches(
    videos: Videos, clips: Sequence[Clip], whole: bool, batch: int
) -> Generator[np.ndarray]:
    """Clips (B, T, H, W) when `whole`, else their frames (B, H, W)."""
    held: list[np.ndarray] = []  # runs of rows of the next batch
    count, size = 0, None
    with closing(_prepared(videos, _jobs(clips, whole), batch)) as prepared:
        for job, frames, rows in prepared:
            if size is not None and frames.shape[1:] != size:
                raise EchosynError(
                    f"{video_name(videos, job.video)}: frames {frames.shape[1:]}, those before have"
                    f" {size}; features compare frames of one size"
                )
            size = frames.shape[1:]
            start = 0
            while start < len(rows):
                held.append(frames[rows[start : start + batch - count]])
                start, count = start + len(held[-1]), count + len(held[-1])
                if count == batch:
                    yield np.concatenate(held)
                    held, count = [], 0
    if held:
        yield np.concatenate(held)


def _jobs(clips: Sequence[Clip], whole: bool) -> Iterator[_Job]:
    join = np.stack if whole else np.concatenate
    for video, group in groupby(clips, key=lambda clip: clip.video):
        yield _Job(video, join([np.asarray(clip.frames, np.int64) for clip in group]))


def _prepared(
    videos: Videos, jobs: Iterator[_Job], batch: int
) -> Generator[tuple[_Job, np.ndarray, np.ndarray]]:
    """Each job with what it needed, in order, made ahead by threads."""
    workers = cores()
    pending: deque[tuple[_Job, Future]] = deque()
    waiting = 0  # rows of the pending jobs
    with ThreadPoolExecutor(workers, thread_name_prefix="extract") as pool:
        try:
            for job in jobs:
                pending.append((job, pool.submit(job.needed, videos)))
                waiting += len(job.rows)
                while len(pending) > workers and waiting > AHEAD * batch:
                    waiting -= len(pending[0][0].rows)
                    yield _next(pending)
            while pending:
                yield _next(pending)
        finally:
            pool.shutdown(cancel_futures=True)


def _next(pending: deque[tuple[_Job, Future]]) -> tuple[_Job, np.ndarray, np.ndarray]:
    """The first job with its result; when a later one has failed already, its exception."""
    for _, future in pending:
        if future.done():
            future.result()
    job, future = pending.popleft()
    return job, *future.result()
