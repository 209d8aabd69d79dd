"""A gate's outcome as one HTML file that needs nothing from a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from echosyn.data.filelist import SPLITS
from echosyn.report import html
from echosyn.validation.charts import Bars, histogram, shares
from echosyn.validation.engine import Outcome
from echosyn.validation.tables import Tables

EF_BINS = np.arange(0, 101, 5)


@dataclass(frozen=True)
class Part:
    """What stands under a heading: bars, or a small table of rows under `head`."""

    title: str
    bars: Sequence[Bars] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def render(
    title: str,
    about: str,
    outcomes: Sequence[Outcome],
    facts: Mapping[str, object],
    parts: Sequence[Part] = (),
) -> str:
    """The page: the outcome, what failed or warns, plots, what was checked, and all that holds.

    Args:
        title: gate and dataset. about: what suite this is.
        facts: name and value of what was counted.
        parts: of `dataset_parts` or `table_part`.
    """
    return html.render(
        "gate.html",
        title=title,
        about=about,
        outcomes=outcomes,
        facts=[(k, _fact(v)) for k, v in facts.items()],
        shown=parts,
    )


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v:,}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def dataset_parts(tables: Tables) -> list[Part]:
    """EF of each split, with what the splits' difference is; classes of each split; lengths."""
    values = tables["values"].frame
    made = []
    if "EF" in values and values["EF"].notna().any():
        bars = [
            histogram(s, values["EF"][values["Split"] == s].dropna().to_numpy(), EF_BINS, "%")
            for s in SPLITS
        ]
        made.append(Part("EF in percent", bars))
        drift = tables["drift"].frame[["Pair", "KS", "P"]]
        if len(drift):
            made.append(table_part("Difference of EF between splits", drift))
    classes = tables["classes"].frame
    if len(classes):
        bars = [
            shares(split, dict(zip(rows["Class"], rows["Rows"], strict=True)))
            for split, rows in classes.groupby("Split", sort=False)
        ]
        made.append(Part("Classes", bars))
    lengths = values["MeasuredNumberOfFrames"].dropna().to_numpy()
    if len(lengths):
        step = np.ceil((lengths.max() - lengths.min() + 1) / 20)
        edges = np.arange(lengths.min(), lengths.max() + 1 + step, step)
        made.append(Part("Length", [histogram("All splits", lengths, edges, "frames")]))
    return made


def table_part(title: str, table: pd.DataFrame) -> Part:
    """A small table under a heading."""
    rows = [[_cell(v) for v in row] for row in table.itertuples(index=False)]
    return Part(title, head=[str(c) for c in table.columns], rows=rows)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
