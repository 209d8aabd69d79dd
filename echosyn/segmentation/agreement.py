"""How far a traced EF agrees with another one."""

from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.data.filelist import EF_TRACED
from echosyn.metrics.ef import ef_scores, requested_vs_measured
from echosyn.segmentation import RESAMPLES
from echosyn.segmentation.files import FILE, NONE

FEWEST = 3  # videos of which an agreement is given


def measured_agreement(folder: Path, measured: pd.DataFrame, seed: int) -> dict[str, float]:
    """`segmentation/ef_measured_{r,slope,mae}`: traced EF against what the EF regressors measure.

    Args:
        folder: of the stage trace; nothing is given where there are no tracings.
        measured: columns FileName and ef_measured, percent.
    """
    if (folder / NONE).is_file():
        return {}
    both = pd.read_csv(folder / FILE, dtype={"FileName": str}).merge(measured, on="FileName")
    traced, measured_ef = (both[c].to_numpy(np.float64) for c in (EF_TRACED, "ef_measured"))
    return agreement("ef_measured", measured_ef, traced, seed)


def agreement(
    name: str, stated: np.ndarray, traced: np.ndarray, seed: int, ending: str = ""
) -> dict[str, float]:
    """`segmentation/<name>_{r,slope,mae}<ending>` of traced EF (N,) against a stated one, percent,
    over the videos that have both; nothing of fewer than three."""
    both = np.isfinite(stated) & np.isfinite(traced)
    if both.sum() < FEWEST:
        return {}
    x, y = stated[both], traced[both]
    scores = requested_vs_measured(x, y, seed, RESAMPLES) | ef_scores(x, y, seed, RESAMPLES)
    numbers: dict[str, float] = {}
    for score in ("r", "slope", "mae"):
        numbers |= scores[score].flat(f"segmentation/{name}_{score}{ending}")
    return numbers
