"""beats.csv: the beat of every video of a latent dataset, and drawing beats for new ones."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text

if TYPE_CHECKING:
    from echosyn.data.latents import LatentSet

FILE = "beats.csv"
# Beats a minute; beats from end-diastole to the first latent frame; share of the area's variance
# that they explain. HeartRate and Phase are empty where the beat is not sure.
COLUMNS = ("FileName", "HeartRate", "Phase", "Share")
NEIGHBOURS = 15  # TRAIN videos of the nearest EF, one of whose rates a new video takes
SPREAD = 4.0  # beats a minute, sd of what is added to it: no rate is one patient's own


def write_beats(folder: Path, table: pd.DataFrame) -> None:
    """Write beats.csv, a row a video, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = table[list(COLUMNS)].to_csv(index=False, lineterminator="\n", float_format="%.4f")
    write_text(folder / FILE, text)


def read_beats(folder: Path, names: list[str]) -> np.ndarray:
    """HeartRate and Phase of these videos, float64 (N, 2), NaN where the beat is not sure.

    Raises:
        EchosynError: the table is missing, or is not of these videos.
    """
    path = folder / FILE
    if not path.is_file():
        raise EchosynError(f"{path} does not exist: run the stage beats")
    table = pd.read_csv(path, dtype={"FileName": str})
    if missing := [c for c in COLUMNS if c not in table]:
        raise EchosynError(
            f"{path}: no column {missing[0]}; found {', '.join(table)}: run the stage beats again"
        )
    table = table.set_index("FileName")
    if absent := [name for name in names if name not in table.index]:
        raise EchosynError(
            f"{path}: no row of {absent[0]} ({len(absent)} such): it is not of these latents; run "
            "the stage beats again"
        )
    return table.loc[names, ["HeartRate", "Phase"]].to_numpy(np.float64)


def draw_beats(real: "LatentSet", ef: np.ndarray, seed: int) -> np.ndarray:
    """Rates for new videos, beats a minute to 0.1, float64 (N,), NaN where TRAIN's are not known.

    Each is that of a TRAIN video of about the EF, and a little more or less.

    Args:
        real: TRAIN, with its beats. ef: percent (N,), NaN for none.
    """
    rates, known = real.beats[:, 0], np.isfinite(real.beats[:, 0])
    rng = np.random.default_rng([seed, 8])
    which, noise = rng.random(len(ef)), rng.normal(0, SPREAD, len(ef))
    if not known.any():
        return np.full(len(ef), np.nan)
    rates, efs = rates[known], real.ef[known]
    drawn = np.empty(len(ef))
    for i, asked in enumerate(ef):
        near = np.arange(len(rates))
        if np.isfinite(asked) and np.isfinite(efs).any():
            near = np.argsort(np.abs(np.nan_to_num(efs, nan=np.inf) - asked), kind="stable")
            near = near[:NEIGHBOURS]
        drawn[i] = rates[near[int(which[i] * len(near))]] + noise[i]
    return np.round(np.clip(drawn, rates.min(), rates.max()), 1)


def first_phases(indices: np.ndarray, seed: int) -> np.ndarray:
    """Phase of the first frame of videos with these sample indices, uniform, in beats (N,)."""
    return np.array([np.random.default_rng([seed, 9, int(i)]).random() for i in indices])
