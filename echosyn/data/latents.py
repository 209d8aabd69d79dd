"""Latents on disk: safetensors shards of unit-scale posterior means and log-variances.

`index.csv` has one row per video (FileName, EF, Split, FPS, NumberOfFrames, Shard, and Patient and
Class when known); shard files hold one float16 tensor (T, 8, h, w) per FileName, the mean in the
first four channels and the log-variance in the last four, both after the VAE's per-channel
standardisation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from echosyn.data.beats import read_beats
from echosyn.data.filelist import CLASS, PATIENT
from echosyn.data.spaced import evenly_spaced
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text

DIASTOLE = 0.08  # beats from end-diastole, within which a frame shows the ventricle full
INDEX_COLUMNS = ("FileName", "EF", "Split", "FPS", "NumberOfFrames", "Shard")


def pack(mean: Tensor, logvar: Tensor) -> Tensor:
    """(T, 4, h, w) each to the float16 (T, 8, h, w) that a shard holds."""
    return torch.cat([mean, logvar.clamp(-30, 20)], dim=1).to(torch.float16).cpu().contiguous()


def write_shard(path: Path, latents: Mapping[str, Tensor]) -> None:
    """One safetensors file; the same tensors give the same bytes."""
    save_file(dict(latents), path)


def write_index(folder: Path, table: pd.DataFrame) -> None:
    columns = [*INDEX_COLUMNS, *(c for c in (PATIENT, CLASS) if c in table.columns)]
    write_text(folder / "index.csv", table[columns].to_csv(index=False, lineterminator="\n"))


class LatentSet:
    """Random access to the latents of a dataset folder, memory-mapped.

    Args:
        split: only its videos. beats: the folder of the dataset's beats.csv.

    Attributes:
        beats: rate, beats a minute, and phase of the first frame, beats from end-diastole, float64
            (N, 2); NaN where they are not known.

    Raises:
        EchosynError: the index or a shard is missing, or a video is not in its shard.
    """

    def __init__(
        self, folder: Path | str, split: str | None = None, beats: Path | None = None
    ) -> None:
        self.folder = Path(folder)
        path = self.folder / "index.csv"
        if not path.is_file():
            raise EchosynError(f"{self.folder}: no latents here (index.csv is missing); run encode")
        table = pd.read_csv(path, dtype={"FileName": str, PATIENT: str, CLASS: str})
        self.table = table if split is None else table[table["Split"] == split]
        self.table = self.table.reset_index(drop=True)
        self.beats = np.full((len(self.table), 2), np.nan)
        if beats is not None:
            self.beats = read_beats(beats, self.table["FileName"].tolist())
        self._shards: dict[str, safe_open] = {}

    def __len__(self) -> int:
        return len(self.table)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_shards": {}}  # file handles stay with their process

    @property
    def lengths(self) -> np.ndarray:
        return self.table["NumberOfFrames"].to_numpy()

    @property
    def ef(self) -> np.ndarray:
        """EF in percent, float32 (N,), NaN where there is no label."""
        return self.table["EF"].to_numpy(np.float32)

    @property
    def classes(self) -> list[str | None]:
        """The class of each video, None where it has none."""
        if CLASS not in self.table:
            return [None] * len(self)
        return [c if isinstance(c, str) else None for c in self.table[CLASS]]

    @property
    def frame_size(self) -> int:
        """Height and width of a latent frame; 0 for a set without videos."""
        return int(self.mean(0, 0, 1).shape[-1]) if len(self) else 0

    def _slice(self, i: int) -> Any:  # a lazy tensor of safetensors, a class without types
        row = self.table.iloc[i]
        if row["Shard"] not in self._shards:
            path = self.folder / row["Shard"]
            try:
                self._shards[row["Shard"]] = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as e:
                raise EchosynError(
                    f"{path}: this latent shard cannot be read ({e}): run encode again"
                ) from None
        try:
            return self._shards[row["Shard"]].get_slice(row["FileName"])
        except SafetensorError:
            raise EchosynError(
                f"{self.folder / row['Shard']}: no latents of {row['FileName']}, which index.csv "
                "places there: run encode again"
            ) from None

    def mean(self, i: int, start: int = 0, stop: int | None = None) -> Tensor:
        """Posterior mean of frames start..stop of video i, float32 (T, 4, h, w)."""
        return self._slice(i)[start:stop][:, :4].float()

    def draw(self, i: int, start: int, stop: int, generator: torch.Generator) -> Tensor:
        """A posterior sample of frames start..stop of video i, float32 (T, 4, h, w)."""
        mean, logvar = self._slice(i)[start:stop].float().chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator)
        return mean + torch.exp(0.5 * logvar) * noise

    def heart_frames(self, i: int) -> np.ndarray:
        """Numbers of the frames of video i that are hearts, as the image model draws them and the
        video model animates them: those of end-diastole where the beat is known, else all."""
        length = int(self.lengths[i])
        rate, phase = self.beats[i]
        if not np.isfinite(rate):
            return np.arange(length)
        at = phase + rate / 60 / float(self.table["FPS"].iloc[i]) * np.arange(length)
        apart = np.abs((at + 0.5) % 1 - 0.5)
        return np.flatnonzero(apart <= max(DIASTOLE, apart.min()))

    def hearts(self, i: int, k: int) -> Tensor:
        """k of the hearts of video i, evenly spread over them, posterior means (k, 4, h, w)."""
        numbers = self.heart_frames(i)
        chosen = numbers[evenly_spaced(len(numbers), k)]
        return torch.cat([self.mean(i, int(f), int(f) + 1) for f in chosen])

    def frames(self, i: int, k: int) -> Tensor:
        """k frames spread evenly over video i, posterior means (k, 4, h, w)."""
        whole = self.mean(i)
        return whole[evenly_spaced(len(whole), k)]
