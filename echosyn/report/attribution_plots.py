"""What a video model makes of its condition: maps, response, variance explained."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from echosyn.attribution.design import HEART, NOISE, Design
from echosyn.attribution.experiment import GROUPS
from echosyn.attribution.numbers import gradient_maps, maps_of, shown_ef
from echosyn.report.plots import ARM_COLOURS, GRID, REAL, STYLE, SYNTHETIC
from echosyn.segmentation.contour import largest_contour

SHOWN = 1  # which heart's maps are drawn: the second, as any other
WORDS = {"ef": "EF", "rate": "heart rate"}
Answers = dict[str, np.ndarray]


def attribution_figure(
    answers: Mapping[float, Answers],
    shares: Sequence[pd.DataFrame],
    design: Design,
    regions: np.ndarray | None,
) -> Figure:
    """Above, where each factor acts in one heart, at the middle guidance; below, EF shown by EF
    asked for, the variance of motion explained, and when a condition acts.

    Args:
        answers: by guidance; see Experiment.answer. shares: of `share_table`, with `guidance`.
        regions: the ventricle's place, bool (hearts, H, W), or None.
    """
    middle = answers[list(answers)[len(answers) // 2]]
    names = [HEART, *design.varied, NOISE]
    maps = {f"{WORDS.get(n, n)}": maps_of(middle, n)[SHOWN] ** 0.5 for n in names}
    maps |= {f"{WORDS.get(n, n)}, gradient": gradient_maps(middle, n)[SHOWN] for n in design.varied}
    with mpl.rc_context({**STYLE, "font.size": 8}):
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(1, 1.6))  # type: ignore[misc]
        panels = above.subplots(1, 1 + len(maps))
        panels[0].imshow(middle["frames"][SHOWN, 0], cmap="gray", vmin=0, vmax=255)
        panels[0].set_title("end-diastole", size=8)
        for axes, (name, values) in zip(panels[1:], maps.items(), strict=True):
            axes.imshow(values, cmap="magma", vmin=0)
            axes.set_title(name, size=8)
        for axes in panels:
            axes.set_axis_off()
            if regions is not None:
                contour = largest_contour(regions[SHOWN].astype(np.float32))
                if contour is not None:
                    axes.plot(*np.vstack([contour, contour[:1]]).T, color="white", lw=0.8, ls="--")
        drawn = below.subplots(1, 4)
        for axes in drawn:
            axes.grid(True)
            axes.set_axisbelow(True)
        _response(drawn[0], answers, design)
        _bars(drawn[1], pd.concat(shares), names)
        _over_time(drawn[2], middle, names, design.fps)
        _over_steps(drawn[3], answers, design)
    return figure


def _response(axes: Axes, answers: Mapping[float, Answers], design: Design) -> None:
    axes.set_title("EF shown by EF asked for (%)", size=8)
    if "ef" not in design.varied:
        return
    axis = design.axis("ef")
    asked = np.array(design.factors[axis].levels)
    axes.plot(asked, asked, color=GRID, lw=1, ls=":")
    for k, (guidance, one) in enumerate(answers.items()):
        shown = np.moveaxis(shown_ef(one), 1 + axis, 1)
        curves = _known_mean(shown.reshape(len(shown), len(asked), -1), 2)
        colour = ARM_COLOURS[k % len(ARM_COLOURS)]
        axes.plot(asked, curves.T, color=colour, lw=0.5, alpha=0.35)
        axes.plot(asked, _known_mean(curves, 0), color=colour, lw=2, label=f"guidance {guidance:g}")
    axes.legend(frameon=False, fontsize=7)


def _bars(axes: Axes, shares: pd.DataFrame, names: Sequence[str]) -> None:
    axes.set_title("share of motion's variance (x: total)", size=8)
    motion = shares[shares["outcome"] == "motion"]
    guidances = motion["guidance"].unique()
    width = 0.8 / len(guidances)
    for k, guidance in enumerate(guidances):
        of = motion[motion["guidance"] == guidance].set_index("factor").loc[list(names)]
        at = np.arange(len(names)) + (k - (len(guidances) - 1) / 2) * width
        first = of["first_order"].to_numpy()
        reach = np.abs(of[["first_order_lo", "first_order_hi"]].to_numpy().T - first)
        colour = ARM_COLOURS[k % len(ARM_COLOURS)]
        axes.bar(at, first, width, color=colour, yerr=reach, error_kw={"lw": 0.8})
        axes.scatter(at, of["total"], marker="x", s=14, color=colour)
    axes.set_xticks(range(len(names)), [WORDS.get(n, n) for n in names])


def _over_time(axes: Axes, answers: Answers, names: Sequence[str], fps: float) -> None:
    axes.set_title("change (sd) over seconds", size=8)
    for name, colour in zip(names[1:], (SYNTHETIC, REAL, *ARM_COLOURS[3:]), strict=False):
        change = answers[f"time/{name}"].mean(axis=0) ** 0.5
        axes.plot(np.arange(len(change)) / fps, change, color=colour, label=WORDS.get(name, name))
    axes.legend(frameon=False, fontsize=7)


def _over_steps(axes: Axes, answers: Mapping[float, Answers], design: Design) -> None:
    axes.set_title("effect by third of denoising", size=8)
    for name, style in zip(design.varied, ("-", "--", ":"), strict=False):
        for k, one in enumerate(answers.values()):
            label = WORDS.get(name, name) if k == 0 else None
            colour = ARM_COLOURS[k % len(ARM_COLOURS)]
            axes.plot(GROUPS, _known_mean(one[f"steps/{name}"], 0), color=colour, ls=style,
                      marker="o", ms=3, label=label)  # fmt: skip
    axes.legend(frameon=False, fontsize=7)


def _known_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Without NaN; NaN where all are."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=axis) / known.sum(axis=axis)
