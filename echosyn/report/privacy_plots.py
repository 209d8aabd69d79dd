"""Figures of the privacy page. The same data give the same bytes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from echosyn.metrics.interval import Estimate
from echosyn.report.plots import ARM_COLOURS, INK, REAL, STYLE, SYNTHETIC, TAU, figure_of


def similarity_histogram(scores: pd.DataFrame, tau: Estimate, column: str = "similarity") -> Figure:
    """Similarity to the most alike training video, real held-out against synthetic, with tau.

    Args:
        scores: columns kind (synthetic or heldout) and `column`.
        tau: the threshold from which a candidate is refused, with its interval (shaded).
    """
    with mpl.rc_context(STYLE):
        figure, (axes,) = figure_of(1, width=6.4)
        marks = [v for v in (tau.value, tau.lo, tau.hi) if np.isfinite(v)]
        bins = np.histogram_bin_edges(np.append(scores[column], marks), bins=40).tolist()
        kinds = (("heldout", "real, held out", REAL), ("synthetic", "synthetic", SYNTHETIC))
        for kind, name, colour in kinds:
            values = scores.loc[scores["kind"] == kind, column].to_numpy()
            if len(values):
                weights = np.full(len(values), 1 / len(values))
                label = f"{name} (n = {len(values):,})"
                axes.hist(values, bins, weights=weights, color=colour, alpha=0.55, label=label)
        label = f"τ = {tau.value:.3g}"
        if np.isfinite([tau.lo, tau.hi]).all():
            axes.axvspan(tau.lo, tau.hi, color=TAU, alpha=0.15, lw=0)
            label += f" ({tau.lo:.3g} to {tau.hi:.3g})"
        axes.axvline(tau.value, color=TAU, lw=1.5, ls="--", label=label)
        axes.set_xlabel(f"{column} to the most alike training video")
        axes.set_ylabel("share")
        axes.legend(frameon=False, fontsize=9)
    return figure


def recall_curves(planted: pd.DataFrame) -> Figure:
    """Share of planted copies that were caught, by disguise and its strength.

    Args:
        planted: columns disguise, strength, recall, recall_lo and recall_hi, shares in 0-1; one
            panel per level where a column `level` (hearts, videos) tells them apart. A disguise
            of one row (exact, light) has no curve and is drawn across.
    """
    levels = list(dict.fromkeys(planted["level"])) if "level" in planted.columns else [None]
    names = list(dict.fromkeys(planted["disguise"]))
    handles: dict[str, Artist] = {}
    with mpl.rc_context(STYLE):
        figure, panels = figure_of(len(levels), width=7.2)
        for axes, level in zip(panels, levels, strict=True):
            rows = planted if level is None else planted[planted["level"] == level]
            for name, curve in rows.groupby("disguise", sort=False):
                # More disguises than colours: the marker tells them apart.
                turn, place = divmod(names.index(name), len(ARM_COLOURS))
                colour, marker = ARM_COLOURS[place], "os^Dv"[turn % 5]
                ordered = curve.sort_values("strength", kind="stable")
                x, y, lo, hi = (
                    ordered[c].to_numpy(float)
                    for c in ("strength", "recall", "recall_lo", "recall_hi")
                )
                if len(curve) == 1:
                    line = axes.axhline(y[0], color=colour, lw=1.5, ls=("--", ":")[turn % 2])
                else:
                    (line,) = axes.plot(x, y, color=colour, marker=marker, ms=4, lw=1.5)
                    axes.fill_between(x, lo, hi, color=colour, alpha=0.12, lw=0)
                handles.setdefault(str(name), line)
            axes.set_ylim(-0.03, 1.03)
            axes.set_xlabel("strength of the disguise")
            axes.set_ylabel("share caught")
            if level is not None:
                axes.set_title(str(level), loc="left", size=10)
        figure.legend(
            handles.values(), handles, loc="outside right upper", frameon=False, fontsize=9
        )
    return figure


def membership_plot(attacks: pd.DataFrame) -> Figure:
    """AUC of each membership attack with its interval, beside 0.5.

    Args:
        attacks: columns attack, auc, lo and hi.
    """
    with mpl.rc_context(STYLE):
        figure, (axes,) = figure_of(1, width=6.4)
        _intervals(axes, attacks["attack"], attacks, "auc", 0.0, SYNTHETIC, None)
        axes.axvline(0.5, color=INK, lw=1, ls=":")
        axes.set_xlim(0, 1)
        axes.set_xlabel("AUC (0.5: a coin)")
    return figure


def band_plot(bands: pd.DataFrame) -> Figure:
    """Share of the training videos of each EF band that were represented, beside real queries.

    Args:
        bands: columns band, synthetic, synthetic_lo, synthetic_hi; and the same of real where it
            was measured. Shares in 0-1.
    """
    kinds = [("synthetic", SYNTHETIC, 0.12)]
    if "real" in bands.columns:
        kinds.append(("real", REAL, -0.12))
    with mpl.rc_context(STYLE):
        figure, (axes,) = figure_of(1, width=6.4)
        for kind, colour, offset in kinds:
            ends = bands.rename(columns={f"{kind}_lo": "lo", f"{kind}_hi": "hi"})
            name = {"synthetic": "by synthetic", "real": "by real, held out"}[kind]
            _intervals(axes, bands["band"], ends, kind, offset, colour, name)
        axes.set_xlim(left=0)
        axes.set_xlabel("share of training videos represented")
        axes.legend(frameon=False, fontsize=9)
    return figure


def _intervals(
    axes: Axes,
    names: pd.Series,
    table: pd.DataFrame,
    column: str,
    offset: float,
    colour: str,
    label: str | None,
) -> None:
    """Points with their intervals, one row each, the first on top."""
    y = np.arange(len(table))[::-1]
    axes.hlines(y + offset, table["lo"], table["hi"], color=colour, lw=2, alpha=0.6)
    axes.plot(table[column], y + offset, "o", color=colour, ms=6, label=label)
    axes.set_yticks(y, list(names))
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.grid(False, axis="y")


def canary_plot(curve: pd.DataFrame, share: float | None) -> Figure:
    """How often the planted mark came back, by the time at which the reverse process started.

    Args:
        curve: columns time, marked and unmarked with _lo and _hi, and bound; shares in 0-1.
        share: of the training set that carries the mark, which is the rate of a generator that
            only repeats its training hearts; None: not known.
    """
    with mpl.rc_context(STYLE):
        figure, (axes,) = figure_of(1, width=6.4)
        kinds = (("marked", "from marked hearts", SYNTHETIC), ("unmarked", "from others", REAL))
        for kind, name, colour in kinds:
            axes.plot(curve["time"], curve[kind], "o-", color=colour, ms=4, lw=1.5, label=name)
            ends = curve[f"{kind}_lo"], curve[f"{kind}_hi"]
            axes.fill_between(curve["time"], *ends, color=colour, alpha=0.15, lw=0)
        axes.plot(curve["time"], curve["bound"], "v--", color=TAU, ms=4, lw=1, label="bound")
        if share is not None:
            axes.axhline(share, color=INK, lw=1, ls=":", label=f"marked share ({share:.3g})")
        # Few carry the mark: what matters lies far below 1, and at 0 exactly.
        decades = int(np.clip(np.ceil(-np.log10(share or 0.01)), 1, 4))
        ticks = [0.0, *(10.0**-k for k in range(decades, -1, -1))]
        axes.set_yscale("symlog", linthresh=ticks[1])
        axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
        axes.yaxis.minorticks_off()
        axes.set_ylim(-0.1 * ticks[1], 1.3)
        axes.set_xlabel("start of the reverse process (1: pure noise)")
        axes.set_ylabel("share with the mark")
        axes.legend(frameon=False, fontsize=9)
    return figure
