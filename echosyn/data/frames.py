"""Frames of a dataset at a frame rate: decoded once into a memory-mapped array, or when asked for.

What a video is called in a cache is its content: the SHA-256 of its file and the frame rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import map_videos, open_video, read_video, resample_indices
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, digest, sha256_file


@dataclass(frozen=True)
class FrameSet:
    """Videos as runs of one array.

    data uint8 (N, H, W), all videos end to end; table: the FileList; starts, lengths int64 (V,);
    content str (V,), what identifies each video's frames, None where that is unknown.
    """

    data: np.ndarray
    table: pd.DataFrame
    starts: np.ndarray
    lengths: np.ndarray
    fps: float
    content: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> tuple:
        """Another process opens the frames where they lie instead of getting a copy."""
        rest = (self.table, self.starts, self.lengths, self.fps, self.content)
        if isinstance(self.data, np.memmap):
            return _open_frames, (str(self.data.filename), *rest)
        return FrameSet, (self.data, *rest)

    def video(self, i: int) -> np.ndarray:
        """Frames of video i, uint8 (T, H, W), a view."""
        return self.data[self.starts[i] : self.starts[i] + self.lengths[i]]

    def clip(self, i: int, start: int, frames: int) -> np.ndarray:
        """Frames from `start`, uint8 (frames, H, W), the last frame repeated past the end."""
        index = np.minimum(np.arange(start, start + frames), self.lengths[i] - 1)
        return self.data[self.starts[i] + index]

    def split(self, name: str) -> "FrameSet":
        return self.take(np.flatnonzero(self.table["Split"] == name))

    def take(self, rows: Sequence[int] | np.ndarray) -> "FrameSet":
        """Some videos, in the order given."""
        rows = np.asarray(rows, dtype=np.int64)
        table = self.table.iloc[rows].reset_index(drop=True)
        content = None if self.content is None else self.content[rows]
        return FrameSet(self.data, table, self.starts[rows], self.lengths[rows], self.fps, content)

    @property
    def ef(self) -> np.ndarray:
        return self.table["EF"].to_numpy(np.float32)


def _open_frames(path: str, *rest: Any) -> FrameSet:
    return FrameSet(np.load(path, mmap_mode="r"), *rest)


@dataclass(frozen=True)
class VideoFolder:
    """Videos of a dataset folder, decoded each time they are asked for: for one pass over a dataset
    that need not lie unpacked on the disk.

    The same table, lengths and frames as the FrameSet of `load_frames`. Lengths int64 (V,) are
    those that the files' own headers make at `fps`: FileLists round frame rates.
    """

    folder: Path
    table: pd.DataFrame
    lengths: np.ndarray
    fps: float

    @classmethod
    def open(
        cls, folder: Path | str, fps: float, label: str = "ef", splits: tuple = ()
    ) -> "VideoFolder":
        """Read the FileList and the videos' headers, decode nothing.

        Raises:
            EchosynError: the FileList is wrong, or a video that it lists is missing or is none.
        """
        folder = Path(folder)
        table, paths = _listed(folder, label, splits)
        facts = list(zip(paths, table["NumberOfFrames"], strict=True))
        lengths = list(map_videos(lambda fact: _length(*fact, fps), facts, "open"))
        return cls(folder, table, np.array(lengths, np.int64), fps)

    def __len__(self) -> int:
        return len(self.table)

    def video(self, i: int) -> np.ndarray:
        """Frames of video i, uint8 (T, H, W).

        Raises:
            EchosynError: the file cannot be decoded, or is not as long as its header says or, in
                another container than AVI, its line in the FileList.
        """
        path = video_path(self.folder, self.table["FileName"][i])
        frames = _read_at(path, self.fps)
        if len(frames) != self.lengths[i]:
            raise EchosynError(
                f"{path}: {len(frames)} frames at {self.fps:g} per second, but {self.lengths[i]} by"
                f" its header and the {self.table['NumberOfFrames'][i]} frames of its line in"
                f" {self.folder / 'FileList.csv'}; correct that line"
            )
        return frames

    @cached_property
    def content(self) -> np.ndarray:
        """What identifies each video's frames, str (V,); reads every file when first asked."""
        return _content(
            [video_path(self.folder, name) for name in self.table["FileName"]], self.fps
        )

    def split(self, name: str) -> "VideoFolder":
        return self.take(np.flatnonzero(self.table["Split"] == name))

    def take(self, rows: Sequence[int] | np.ndarray) -> "VideoFolder":
        """Some videos, in the order given."""
        rows = np.asarray(rows, dtype=np.int64)
        table = self.table.iloc[rows].reset_index(drop=True)
        taken = VideoFolder(self.folder, table, self.lengths[rows], self.fps)
        if "content" in vars(self):
            vars(taken)["content"] = self.content[rows]
        return taken

    @property
    def ef(self) -> np.ndarray:
        return self.table["EF"].to_numpy(np.float32)


def load_frames(
    folder: Path | str, fps: float, cache: Path | str, label: str = "ef", splits: tuple = ()
) -> FrameSet:
    """Decode a dataset folder at `fps` into `cache`, or open what was decoded before.

    The cache entry is named by the content of the FileList and of every video, never by path.

    Raises:
        EchosynError: a listed video cannot be read, or sizes differ within the dataset.
    """
    folder, cache = Path(folder), Path(cache)
    table, paths = _listed(folder, label, splits)
    content = _content(paths, fps)
    entry = cache / f"frames-{digest({'fps': fps, 'format': 2, 'videos': content.tolist()})}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{entry.name}.lock"):  # stages side by side decode a dataset once
        if not entry.is_dir():
            _decode(paths, fps, entry)
    lengths = np.load(entry / "lengths.npy")
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    data = np.load(entry / "frames.npy", mmap_mode="r")
    return FrameSet(data, table, starts, lengths, fps, content)


def _listed(folder: Path, label: str, splits: tuple) -> tuple[pd.DataFrame, list[Path]]:
    """The FileList of a dataset folder and the videos that it lists, all there."""
    table = read_filelist(folder / "FileList.csv", label)
    if splits:
        table = table[table["Split"].isin(splits)].reset_index(drop=True)
    paths = [video_path(folder, name) for name in table["FileName"]]
    for path in paths:
        if not path.is_file():
            raise EchosynError(
                f"{path}: listed in {folder / 'FileList.csv'} but missing: run the stage that "
                "makes this folder again"
            )
    return table, paths


def _content(paths: list[Path], fps: float) -> np.ndarray:
    hashes = map_videos(sha256_file, paths, "hash")
    return np.array([f"{sha256}@{float(fps)!r}fps" for sha256 in hashes], dtype=str)


def _length(path: Path, listed: int, fps: float) -> int:
    """Frames of a video at `fps`; only AVI headers count their frames, others state a duration."""
    with open_video(path) as video:
        count = video.declared if video.avi else int(listed)
        return len(resample_indices(count, video.check_fps(), fps))


def _read_at(path: Path, fps: float) -> np.ndarray:
    frames, source_fps = read_video(path)
    return frames[resample_indices(len(frames), source_fps, fps)]


def _decode(paths: list[Path], fps: float, entry: Path) -> None:
    """Two passes would decode twice: append to a raw file, then give it its npy header."""
    with atomic_dir(entry) as tmp:
        lengths, size = [], None
        with (tmp / "raw").open("wb") as raw:
            decoded = map_videos(lambda path: _read_at(path, fps), paths, "decode")
            for path, frames in zip(paths, decoded, strict=True):
                if size is not None and frames.shape[1:] != size:
                    raise EchosynError(
                        f"{path}: frames {frames.shape[1:]}, others have {size}: run the stage "
                        "that makes this folder again"
                    )
                size = frames.shape[1:]
                lengths.append(len(frames))
                raw.write(frames.tobytes())
        shape = (sum(lengths), *(size or (0, 0)))
        with (tmp / "frames.npy").open("wb") as f, (tmp / "raw").open("rb") as raw:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(f, header)
            while block := raw.read(1 << 24):
                f.write(block)
        (tmp / "raw").unlink()
        np.save(tmp / "lengths.npy", np.array(lengths, dtype=np.int64))
