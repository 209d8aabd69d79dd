"""Decoded frames of a dataset in one memory-mapped array, made once per content and frame rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import read_video, resample_indices
from echosyn.errors import EchosynError
from echosyn.files import atomic_dir, fingerprint
from echosyn.progress import track


@dataclass(frozen=True)
class FrameSet:
    """Videos as runs of one array.

    data uint8 (N, H, W), all videos end to end; table: the FileList; starts, lengths int64 (V,).
    """

    data: np.ndarray
    table: pd.DataFrame
    starts: np.ndarray
    lengths: np.ndarray
    fps: float

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> tuple:
        """Another process opens the frames where they lie instead of getting a copy."""
        rest = (self.table, self.starts, self.lengths, self.fps)
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
        return FrameSet(self.data, table, self.starts[rows], self.lengths[rows], self.fps)

    @property
    def ef(self) -> np.ndarray:
        return self.table["EF"].to_numpy(np.float32)


def _open_frames(path: str, *rest: Any) -> FrameSet:
    return FrameSet(np.load(path, mmap_mode="r"), *rest)


def load_frames(
    folder: Path | str, fps: float, cache: Path | str, label: str = "ef", splits: tuple = ()
) -> FrameSet:
    """Decode a dataset folder at `fps` into `cache`, or open what was decoded before.

    The cache entry is named by the content of the FileList and of every video, never by path.

    Raises:
        EchosynError: a listed video cannot be read, or sizes differ within the dataset.
    """
    folder, cache = Path(folder), Path(cache)
    table = read_filelist(folder / "FileList.csv", label)
    if splits:
        table = table[table["Split"].isin(splits)].reset_index(drop=True)
    paths = [video_path(folder, name) for name in table["FileName"]]
    for path in paths:
        if not path.is_file():
            raise EchosynError(f"{path}: listed in {folder / 'FileList.csv'} but missing")
    entry = cache / f"frames-{fingerprint({'fps': fps, 'format': 1}, paths)}"
    if not entry.is_dir():
        _decode(paths, fps, entry)
    lengths = np.load(entry / "lengths.npy")
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return FrameSet(np.load(entry / "frames.npy", mmap_mode="r"), table, starts, lengths, fps)


def _decode(paths: list[Path], fps: float, entry: Path) -> None:
    """Two passes would decode twice: append to a raw file, then give it its npy header."""
    with atomic_dir(entry) as tmp:
        lengths, size = [], None
        with (tmp / "raw").open("wb") as raw:
            for path in track(paths, "decode", "video"):
                frames, source_fps = read_video(path)
                frames = frames[resample_indices(len(frames), source_fps, fps)]
                if size is not None and frames.shape[1:] != size:
                    raise EchosynError(f"{path}: frames {frames.shape[1:]}, others have {size}")
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
