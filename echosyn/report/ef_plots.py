"""Figures of EF regressors tested on real videos, one panel per arm.

Tables have columns arm, FileName, ef_true and ef_predicted (percent), and a row per arm, seed and
video; the seeds of an arm are averaged.
"""

import itertools
import re
from collections.abc import Callable, Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from echosyn.metrics.bands import EDGES, ef_bands
from echosyn.report.plots import (
    ARM_COLOURS,
    COLUMNS,
    GRID,
    INK,
    REAL,
    STYLE,
    SYNTHETIC,
    figure_of,
    identity,
)

BAND_WORDS = ("EF below {1:g}", "EF {0:g} to {1:g}", "EF {0:g} and above")
Z95 = 1.959964


def predictions(table: pd.DataFrame) -> Figure:
    """Predicted against true EF of the real test videos."""

    def draw(axes: Axes, true: np.ndarray, predicted: np.ndarray, colour: str) -> str:
        identity(axes, table["ef_true"].to_numpy(), table["ef_predicted"].to_numpy())
        axes.scatter(true, predicted, s=10, color=colour, alpha=0.6, linewidths=0)
        return ""

    return _panels(table, draw, "true EF (%)", "predicted EF (%)")


def bland_altman(table: pd.DataFrame) -> Figure:
    """Difference against mean of predicted and true EF, with bias and 95 % limits of agreement
    (Bland and Altman 1986)."""
    error = table["ef_predicted"] - table["ef_true"]
    reach = 1.1 * float(error.abs().max())

    def draw(axes: Axes, true: np.ndarray, predicted: np.ndarray, colour: str) -> str:
        difference = predicted - true
        bias, spread = float(difference.mean()), Z95 * float(difference.std(ddof=1))
        axes.scatter((true + predicted) / 2, difference, s=10, color=colour, alpha=0.6, lw=0)
        for level, style in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
            axes.axhline(level, color=colour, lw=1.2, ls=style)
        axes.axhline(0, color=GRID, lw=1, ls=":")
        axes.set_ylim(-reach, reach)
        return f"\nbias {bias:+.1f}, limits ±{spread:.1f}"

    return _panels(table, draw, "mean of true and predicted EF (%)", "predicted - true (points)")


def residuals_by_band(table: pd.DataFrame) -> Figure:
    """Predicted minus true EF within bands of true EF: does an arm fail where patients are ill?"""
    error = table["ef_predicted"] - table["ef_true"]
    reach = 1.1 * float(error.abs().max())
    bands = ef_bands(EDGES)
    middle = [*BAND_WORDS[1:2]] * (len(bands) - 2)
    words = [
        text.format(b.lo, b.hi)
        for text, b in zip([BAND_WORDS[0], *middle, BAND_WORDS[2]], bands, strict=True)
    ]

    ink = {"color": INK}

    def draw(axes: Axes, true: np.ndarray, predicted: np.ndarray, colour: str) -> str:
        parts = [(predicted - true)[band.holds(true)] for band in bands]
        where = [i for i, part in enumerate(parts) if len(part)]
        drawn = axes.boxplot(
            [parts[i] for i in where],
            positions=where,
            widths=0.6,
            sym=".",
            patch_artist=True,
            medianprops=ink,
            whiskerprops=ink,
            capprops=ink,
        )
        for box in drawn["boxes"]:
            box.set(facecolor=colour, alpha=0.55, edgecolor=colour)
        axes.axhline(0, color=GRID, lw=1, ls=":")
        labels = [
            f"{w.removeprefix('EF ')}\nn = {len(p)}" for w, p in zip(words, parts, strict=True)
        ]
        axes.set_xticks(range(len(bands)), labels, size=8)
        axes.set_ylim(-reach, reach)
        return ""

    return _panels(table, draw, "true EF (%)", "predicted - true (points)")


def scarce_curve(metrics: Mapping[str, float | str]) -> Figure | None:
    """R2 against the share of real training videos, without and with synthetic ones.

    None when no arm had few real videos.
    """
    lines: dict[str, list[tuple[float, ...]]] = {"real": [], "real + synthetic": []}
    for key in metrics:
        found = re.fullmatch(
            r"ef/(?:few_real_(\d+)(_plus_synthetic)?|(real)|(real_plus_\w+?))/r2", key
        )
        if not found or found[4] not in (None, "real_plus_synthetic"):
            continue
        name = "real + synthetic" if found[2] or found[4] else "real"
        ends = [float(metrics.get(f"{key}{end}", metrics[key])) for end in ("", "_lo", "_hi")]
        lines[name].append((int(found[1] or 100), *ends))
    if all(len(points) < 2 for points in lines.values()):
        return None
    with mpl.rc_context(STYLE):
        figure, (axes,) = figure_of(1)
        for (name, points), colour in zip(lines.items(), (REAL, SYNTHETIC), strict=True):
            if not points:
                continue
            x, y, lo, hi = np.array(sorted(points)).T
            # Of a few videos an interval may lie beside the value.
            reach = np.maximum([y - lo, hi - y], 0)
            axes.errorbar(x, y, reach, color=colour, marker="o", capsize=3, label=name)
        axes.set_xscale("log")
        axes.set_xlabel("real training videos used (%)")
        axes.set_ylabel("R² on real test videos")
        axes.legend(frameon=False, fontsize=9)
    return figure


def _panels(
    table: pd.DataFrame,
    draw: Callable[[Axes, np.ndarray, np.ndarray, str], str],
    x_label: str,
    y_label: str,
) -> Figure:
    arms = list(dict.fromkeys(table["arm"]))
    means = table.groupby(["arm", "FileName"], sort=False)[["ef_true", "ef_predicted"]].mean()
    with mpl.rc_context(STYLE):
        figure, panels = figure_of(len(arms))
        for arm, axes, colour in zip(arms, panels, itertools.cycle(ARM_COLOURS), strict=False):
            true, predicted = means.loc[arm].to_numpy().T
            note = draw(axes, true, predicted, colour)
            axes.set_title(arm.replace("_", " ") + note, loc="left", size=9)
        for axes in panels[-COLUMNS:]:
            axes.set_xlabel(x_label)
        for axes in panels[::COLUMNS]:
            axes.set_ylabel(y_label)
    return figure


def evaluation_figures(
    predicted: pd.DataFrame, metrics: Mapping[str, float | str]
) -> dict[str, Figure]:
    """The plot set of the EF arms, by file name."""
    made = {
        "predictions": predictions(predicted),
        "bland_altman": bland_altman(predicted),
        "residuals_by_band": residuals_by_band(predicted),
        "scarce_curve": scarce_curve(metrics),
    }
    return {name: figure for name, figure in made.items() if figure is not None}
