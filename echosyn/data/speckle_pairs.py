"""Real videos beside their reconstructions, as speckle is learned from them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.spaced import evenly_spaced
from echosyn.data.video import map_videos, read_video, resample_indices
from echosyn.runtime.errors import EchosynError

# At most, spread over TRAIN, from the start of each: statistics need no more.
VIDEOS, FRAMES = 100, 32


def train_pairs(real: Path, rebuilt: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """TRAIN's videos at the rate of their reconstructions, and these, uint8 (T, 112, 112) each.

    Args:
        real, rebuilt: dataset folders of the same videos.

    Raises:
        EchosynError: TRAIN is empty, or a video cannot be read.
    """
    table = read_filelist(rebuilt / "FileList.csv", label="none")
    names = table["FileName"][table["Split"] == "TRAIN"].to_numpy()
    if not len(names):
        raise EchosynError(f"{rebuilt / 'FileList.csv'}: no TRAIN video: give splits")
    chosen = names[evenly_spaced(len(names), min(VIDEOS, len(names)))]

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        again, rate = read_video(video_path(rebuilt, name))
        frames, fps = read_video(video_path(real, name))
        kept = frames[resample_indices(len(frames), fps, rate)][:FRAMES]
        return kept, again[: len(kept)]

    yield from map_videos(read, list(chosen), "speckle")
