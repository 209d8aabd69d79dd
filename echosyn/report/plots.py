"""Figures from data frames, and how figures become bytes. The same data give the same bytes."""

import io
import re
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# Drawn in this colour, then replaced by the page's own text colour.
INK = "#0b0c0d"
GRID = "#8a8f98"
REAL, SYNTHETIC, TAU = "#2f6fb2", "#d9822b", "#c0392b"
ARM_COLOURS = ("#2f6fb2", "#3d9a8b", "#d9822b", "#a4508b", "#6b7280")
METADATA = ("Date", "Creator", "Format", "Type")
COLUMNS = 3  # panels per row
STYLE: "dict[RcKeyType, Any]" = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.alpha": 0.25,
}


def requested_vs_measured(table: pd.DataFrame) -> Figure:
    """EF asked of the generator against EF measured in its videos: the calibration curve, means
    with 95 % intervals of equal numbers of videos, over the videos and their regression line.

    Args:
        table: columns ef_requested and ef_measured, in percent.
    """
    with mpl.rc_context(STYLE):
        figure, (axes,) = figure_of(1)
        x, y = table["ef_requested"].to_numpy(), table["ef_measured"].to_numpy()
        identity(axes, x, y)
        axes.scatter(x, y, s=16, color=SYNTHETIC, alpha=0.7, linewidths=0)
        if len(table) > 2 and np.ptp(x) > 0:
            slope, offset = np.polyfit(x, y, 1)
            ends = np.array([x.min(), x.max()])
            axes.plot(ends, slope * ends + offset, color=SYNTHETIC, lw=1.5)
            middle, mean, reach = calibration_curve(x, y)
            axes.errorbar(middle, mean, reach, color=INK, marker="o", ms=4, lw=1.2, capsize=3)
            axes.set_title(f"slope {slope:.2f}, n = {len(table)}", loc="left", size=10)
        axes.set_xlabel("requested EF (%)")
        axes.set_ylabel("measured EF (%)")
    return figure


def calibration_curve(
    requested: np.ndarray, measured: np.ndarray, bins: int = 8, fewest: int = 5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of requested and of measured EF within bins of requested EF, each (B,), and half the
    95 % interval of the latter (normal, over videos).

    Bins hold equal numbers of videos, `fewest` or more; there are up to `bins`, and one at least.
    """
    order = np.argsort(requested, kind="stable")
    parts = np.array_split(order, max(1, min(bins, len(order) // fewest)))
    x, y = (np.array([values[part].mean() for part in parts]) for values in (requested, measured))
    reach = [1.96 * measured[p].std(ddof=1) / np.sqrt(len(p)) if len(p) > 1 else 0 for p in parts]
    return x, y, np.array(reach)


def ef_distribution(real: pd.DataFrame, synthetic: pd.DataFrame) -> Figure:
    """EF of the real and of the synthetic videos, from two FileLists (column EF, percent)."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = figure_of(1)
        bins = list(range(0, 101, 5))
        for name, table, colour in (("real", real, REAL), ("synthetic", synthetic, SYNTHETIC)):
            weights = np.full(len(table), 1 / len(table))
            label = f"{name} (n = {len(table)})"
            axes.hist(table["EF"], bins, weights=weights, color=colour, alpha=0.55, label=label)
        axes.set_xlabel("EF (%)")
        axes.set_ylabel("share of videos")
        axes.legend(frameon=False, fontsize=9)
    return figure


def privacy_histogram(scores: pd.DataFrame, tau: float) -> Figure:
    """How alike the most alike training heart is: synthetic hearts, and held-out real patients.

    Args:
        scores: columns kind (synthetic or heldout) and similarity.
        tau: the threshold above which a synthetic heart is thrown out.
    """
    with mpl.rc_context(STYLE):
        figure, (axes,) = figure_of(1, width=6.4)
        bins = np.histogram_bin_edges(np.append(scores["similarity"], tau), bins=40).tolist()
        kinds = (("heldout", "real, held out", REAL), ("synthetic", "synthetic", SYNTHETIC))
        for kind, name, colour in kinds:
            values = scores.loc[scores["kind"] == kind, "similarity"].to_numpy()
            if len(values) == 0:
                continue
            weights = np.full(len(values), 1 / len(values))
            label = f"{name} (n = {len(values)})"
            axes.hist(values, bins, weights=weights, color=colour, alpha=0.55, label=label)
        axes.axvline(tau, color=TAU, lw=1.5, ls="--", label=f"τ = {tau:.3g}")
        axes.set_xlabel("similarity to the most alike training video")
        axes.set_ylabel("share of hearts")
        axes.legend(frameon=False, fontsize=9)
    return figure


def svg(figure: Figure, name: str) -> str:
    """The figure as an inline SVG element in the text colour of the page around it.

    Args:
        name: unique on the page; keeps the element ids of two figures apart.
    """
    out = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(METADATA))
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", text)
    # The page gives the size: only the view box stays.
    head, tail = text.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", head) + ">" + tail


def png(figure: Figure) -> bytes:
    """The figure on white."""
    out = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(out, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def figure_of(panels: int, width: float | None = None) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of panels, drawn under `STYLE`."""
    columns = min(panels, COLUMNS)
    rows = -(-panels // columns)
    size = (
        width or (4.6 if panels == 1 else 0.6 + 2.8 * columns),
        3.6 if rows == 1 else 3.1 * rows,
    )
    figure = Figure(figsize=size, layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]
    for one in axes:
        one.grid(True)
        one.set_axisbelow(True)
    return figure, axes


def identity(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Equal limits and the line where y is x."""
    lo, hi = min(x.min(), y.min()) - 2, max(x.max(), y.max()) + 2
    axes.plot([lo, hi], [lo, hi], color=GRID, lw=1, ls=":")
    axes.set_xlim(lo, hi)
    axes.set_ylim(lo, hi)
    axes.set_aspect("equal")
