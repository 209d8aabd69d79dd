"""Load a release: its table, clips of its videos for training, its manifest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from echosyn.data.filelist import SPLITS, check_columns, read_filelist, video_path
from echosyn.data.video import read_video
from echosyn.release.manifest import MANIFEST, read_manifest, verify
from echosyn.release.pack import SUMS
from echosyn.release.store import locate
from echosyn.runtime.errors import EchosynError

ALL = "ALL"  # in place of a split: every video


class ClipDataset(Dataset):
    """A clip per video, by the conventions of EchoNet-Dynamic's `echonet.datasets.Echo` (Ouyang et
    al. 2020): float32 (3, T, H, W), grey values 0 to 255 in three equal channels, every
    `period`-th frame; black frames follow a video that ends early. See `Release.dataset`.
    """

    def __init__(
        self,
        folder: Path,
        table: pd.DataFrame,
        targets: str | Sequence[str],
        frames: int | None,
        period: int,
        transform: Callable[[Tensor], Any] | None,
        random_start: bool,
    ) -> None:
        self.folder, self.table, self.targets = folder, table, targets
        self.frames, self.period = frames, period
        self.transform, self.random_start = transform, random_start

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        row = self.table.iloc[index]
        clip = self._clip(read_video(video_path(self.folder, row["FileName"]))[0])
        if self.transform is not None:
            clip = self.transform(clip)
        if isinstance(self.targets, str):
            return clip, _value(row[self.targets])
        return clip, tuple(_value(row[name]) for name in self.targets)

    def _clip(self, video: np.ndarray) -> Tensor:
        """Some frames of uint8 (N, H, W), as float32 (3, T, H, W)."""
        length = self.frames or max(1, len(video) // self.period)
        starts = max(len(video), length * self.period) - (length - 1) * self.period
        start = int(torch.randint(starts, (1,))) if self.random_start else 0
        taken = video[start : start + length * self.period : self.period][:length]
        clip = torch.zeros(length, *video.shape[1:])
        clip[: len(taken)] = torch.from_numpy(taken)
        return clip.expand(3, *clip.shape)


def _value(cell: Any) -> Any:
    return cell if isinstance(cell, str) else np.float32(cell)


@dataclass(frozen=True)
class Release:
    """A release folder; `load_release` makes it.

    Args:
        table: FileList.csv, typed, FileName without `.avi`.
        manifest: manifest.json: name, version, sha256 of every file, parameters, lineage, metrics.
    """

    folder: Path
    table: pd.DataFrame
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        name, version = (self.manifest.get(key, "?") for key in ("name", "version"))
        return f"<Release {name} {version}: {len(self.table)} videos in {self.folder}>"

    def dataset(
        self,
        split: str = "TRAIN",
        *,
        frames: int | None = 16,
        period: int = 2,
        transform: Callable[[Tensor], Any] | None = None,
        target: str | Sequence[str] = "EF",
        random_start: bool = True,
    ) -> ClipDataset:
        """Clips of a split and their targets, as a torch Dataset of (clip, target).

        Args:
            split: TRAIN, VAL, TEST or ALL, in any case.
            frames: T, the frames of a clip; None: as many as the video has.
            period: every how many frames of the video one is taken.
            transform: what a clip, float32 (3, T, H, W) from 0 to 255, goes through.
            target: a column of FileList.csv, or several for a tuple; numbers are float32.
            random_start: begin anywhere in the video, drawn anew each time from torch's generator
                (`torch.manual_seed` repeats it, workers draw apart); False: at the first frame.

        Raises:
            EchosynError: no such split or column, a split without videos, a target that some of
                its rows do not have, or fewer than 1 frame.
        """
        where, split = self.folder / "FileList.csv", split.upper()
        if split not in (*SPLITS, ALL):
            raise EchosynError(f"split {split!r} is not one of {', '.join((*SPLITS, ALL))}")
        for name, count in (("frames", frames), ("period", period)):
            if count is not None and count < 1:
                raise EchosynError(f"{name} {count}: expected 1 or more")
        rows = self.table if split == ALL else self.table[self.table["Split"] == split]
        if rows.empty:
            raise EchosynError(f"{where}: no video in split {split}")
        targets = (target,) if isinstance(target, str) else tuple(target)
        check_columns(where, list(rows.columns), targets)
        for name in targets:
            if len(empty := rows["FileName"][rows[name].isna()]):
                raise EchosynError(
                    f"{where}: {name} is empty in {len(empty)} of the {len(rows)} rows of {split}, "
                    f"{empty.iloc[0]} first: choose another target"
                )
        return ClipDataset(
            self.folder,
            rows.reset_index(drop=True),
            target if isinstance(target, str) else targets,
            frames,
            period,
            transform,
            random_start,
        )

    def verify(self) -> None:
        """Compare every file with the manifest. Raises EchosynError that names each problem."""
        if problems := verify(self.folder):
            raise EchosynError(f"{self.folder} is not as published:\n" + "\n".join(problems))


def load_release(release: Path | str, where: str | None = None) -> Release:
    """Open a release: reads its manifest and FileList.csv, and no video.

    Args:
        release: the folder of a release, or NAME@VERSION, which is fetched and verified once and
            kept in the user's cache. One that was withdrawn since is opened with a warning that
            says by whom and why.
        where: the project that published the version: a folder, or an address that git clones
            (default: this folder).

    Raises:
        EchosynError: there is no such folder or version, it is no release, or a file of it is
            damaged.
    """
    folder = locate(release, where)
    if (folder / SUMS).is_file():
        raise EchosynError(f"{folder} is packed: echosyn releases unpack {folder} FOLDER")
    if not (folder / MANIFEST).is_file():
        raise EchosynError(f"{folder} is no release: it has no {MANIFEST}")
    manifest = read_manifest(folder)
    return Release(folder, read_filelist(folder / "FileList.csv", label="none"), manifest)
