"""Bars of a gate's page: the same numbers give the same bytes, and no font is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT, LEFT, BOTTOM = 300, 130, 34, 22


@dataclass(frozen=True)
class Bars:
    """Bars as templates/gate.html draws them. `said`: the same in words.

    bars: x, y, width, height and words of each, in units of the view box of `size`.
    axis: x from, x to, and y; top: what the highest bar is; ticks: x and text. A bar in parts has
    none of these.
    """

    title: str
    said: str
    bars: Sequence[tuple[float, float, float, float, str]]
    size: tuple[int, int]
    axis: tuple[int, int, int] | None = None
    top: str = ""
    ticks: Sequence[tuple[float, str]] = ()


def histogram(
    title: str, values: np.ndarray, edges: Sequence[float] | np.ndarray, unit: str
) -> Bars:
    """Share of the values in each bin, with their mean, sd and count in words.

    Args:
        values: (N,), without NaN. edges: of the bins, ascending; values outside count in none.
    """
    counts, _ = np.histogram(values, edges)
    parts = counts / max(len(values), 1)
    step = (WIDTH - LEFT) / len(counts)
    top = float(parts.max(initial=0)) or 1.0
    floor = HEIGHT - BOTTOM
    bars = []
    for i in np.flatnonzero(counts).tolist():
        high = parts[i] / top * (floor - 4)
        words = f"{edges[i]:g}-{edges[i + 1]:g} {unit}: {counts[i]:,}"
        bars.append((LEFT + i * step, floor - high, step - 1, high, words))
    every = range(0, len(edges), max(1, len(counts) // 4))
    ticks = [(LEFT + i * step, f"{edges[i]:g}") for i in every]
    said = f"{len(values):,} videos"
    if len(values):
        said += f", mean {values.mean():.1f}, sd {values.std():.1f} {unit}"
    return Bars(title, said, bars, (WIDTH + 12, HEIGHT), (LEFT, WIDTH, floor), f"{top:.0%}", ticks)


def shares(title: str, parts: Mapping[str, float]) -> Bars:
    """What each part makes of the whole, as one bar.

    Args:
        parts: name and count.
    """
    whole = sum(parts.values()) or 1.0
    bars, x = [], 0.0
    for name, count in parts.items():
        width = count / whole * WIDTH
        bars.append((x, 2, max(width - 1, 0), 18, f"{name}: {count:,.0f}"))
        x += width
    said = ", ".join(f"{n} {c:,.0f} ({c / whole:.0%})" for n, c in parts.items())
    return Bars(title, said, bars, (WIDTH, 22))
