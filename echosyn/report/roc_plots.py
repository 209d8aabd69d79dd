"""ROC curves of classifiers."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from echosyn.metrics.classification import roc_points
from echosyn.report.plots import ARM_COLOURS, GRID, STYLE


def roc_figure(table: pd.DataFrame) -> Figure:
    """ROC curves of classifiers on the VAL and TEST videos, arm by arm.

    Args:
        table: columns arm, Split, truth (1 positive) and probability.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GRID, lw=1, ls=":")
        held_out = table[table["Split"] != "TRAIN"]
        for (arm, rows), colour in zip(
            held_out.groupby("arm", sort=False), ARM_COLOURS, strict=False
        ):
            if rows["truth"].nunique() == 2:
                x, y = roc_points(rows["truth"].to_numpy(), rows["probability"].to_numpy())
                axes.plot(x, y, color=colour, lw=1.5, label=f"{arm} (n = {len(rows)})")
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        axes.set_aspect("equal")
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure
