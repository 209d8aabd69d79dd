"""What a release's FileList holds, counted for its documents."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from echosyn.data.filelist import (
    BEAT,
    CLASS,
    EF_ASKED,
    EF_KIND,
    EF_MEASURED,
    HEART_RATE,
    MEASURED,
    PHASE,
    SPLITS,
)
from echosyn.metrics.bands import ef_bands


def composition(table: pd.DataFrame, params: Mapping[str, Any]) -> dict[str, Any]:
    """Counts and ranges by name; None or empty where the FileList has no such column.

    Args:
        table: the FileList of the release. params: those of its manifest.
    """
    return {
        "videos": len(table),
        "splits": by_split(table),
        "frames": _range(table["NumberOfFrames"]),
        "fps": _range(table["FPS"]),
        "width": _range(table["FrameWidth"]),
        "height": _range(table["FrameHeight"]),
        **_ef(table),
        "bands": _bands(table),
        "classes": _classes(table),
        "rate": _range(table[HEART_RATE]) if HEART_RATE in table else None,
        "phases": set(BEAT) <= set(table) and bool(table[PHASE].notna().any()),
        "phantom": {d.get("source") for d in params.get("datasets", {}).values()} == {"phantom"},
    }


def _ef(table: pd.DataFrame) -> dict[str, Any]:
    """Range and moments of EF, and what the column is: measured (then the mean of what was asked is
    there), or asked (then the mean distance of what was measured, where it was)."""
    ef, asked, off = table["EF"], None, None
    if EF_KIND in table and (table[EF_KIND] == MEASURED).any():
        asked = table[EF_ASKED].mean()
    elif EF_MEASURED in table and table[EF_MEASURED].notna().any():
        off = (table[EF_MEASURED] - ef).abs().mean()
    moments = {"ef_mean": ef.mean(), "ef_sd": ef.std(ddof=0)}
    return {"ef": _range(ef), **moments, "ef_asked_mean": asked, "ef_off": off}


def _bands(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Of each band of EF, by its name in metrics' keys: its limits in words, videos by split."""
    bands = ef_bands() if table["EF"].notna().any() else ()
    return {
        band.name: {
            "limits": _limits(band.lo, band.hi),
            "splits": by_split(table[band.holds(table["EF"].to_numpy())]),
        }
        for band in bands
    }


def _limits(lo: float, hi: float) -> str:
    if lo <= 0:
        return f"below {hi:g} percent"
    return f"{lo:g} percent and above" if hi >= 100 else f"{lo:g} to below {hi:g} percent"


def _classes(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Videos by split of each class, the most frequent class first."""
    names = table[CLASS].value_counts().index if CLASS in table else ()
    return {name: by_split(table[table[CLASS] == name]) for name in names}


def by_split(table: pd.DataFrame) -> dict[str, int]:
    """Videos of each split that has any."""
    counts = table["Split"].value_counts()
    return {split: int(counts[split]) for split in SPLITS if split in counts}


def _range(column: pd.Series) -> str | None:
    if column.isna().all():
        return None
    lo, hi = column.min(), column.max()
    return f"{lo:g}" if lo == hi else f"{lo:.4g} to {hi:.4g}"
