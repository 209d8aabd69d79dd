"""Bars as inline SVG, drawn by hand: the same numbers give the same bytes, and no font is asked."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT, LEFT, BOTTOM = 300, 130, 34, 22


def histogram(
    title: str, values: np.ndarray, edges: Sequence[float] | np.ndarray, unit: str
) -> str:
    """Share of the values in each bin, as a figure with its mean, sd and count in words.

    Args:
        values: (N,), without NaN. edges: of the bins, ascending; values outside count in none.
    """
    counts, _ = np.histogram(values, edges)
    shares = counts / max(len(values), 1)
    step = (WIDTH - LEFT) / len(counts)
    top = float(shares.max(initial=0)) or 1.0
    bars = "".join(
        f'<rect x="{LEFT + i * step:.1f}" y="{_y(share / top):.1f}" width="{step - 1:.1f}" '
        f'height="{HEIGHT - BOTTOM - _y(share / top):.1f}"><title>{lo:g}-{hi:g} {escape(unit)}: '
        f"{count:,}</title></rect>"
        for i, (share, count, lo, hi) in enumerate(
            zip(shares, counts, edges[:-1], edges[1:], strict=True)
        )
        if count
    )
    ticks = "".join(
        f'<text x="{LEFT + i * step:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{edges[i]:g}</text>'
        for i in range(0, len(edges), max(1, len(counts) // 4))
    )
    said = f"{len(values):,} videos"
    if len(values):
        said += f", mean {values.mean():.1f}, sd {values.std():.1f} {unit}"
    return (
        f'<figure><svg viewBox="0 0 {WIDTH + 12} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}: {escape(said)}">'
        f'<text x="0" y="12">{top:.0%}</text>'
        f'<line x1="{LEFT}" x2="{WIDTH}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>'
        f"{bars}{ticks}</svg>"
        f"<figcaption><b>{escape(title)}</b> {escape(said)}</figcaption></figure>"
    )


def _y(share: float) -> float:
    return 4 + (1 - share) * (HEIGHT - BOTTOM - 4)


def shares(title: str, parts: Mapping[str, float]) -> str:
    """What each part makes of the whole, as one bar with a legend.

    Args:
        parts: name and count.
    """
    whole = sum(parts.values()) or 1.0
    bars, x = [], 0.0
    for i, (name, count) in enumerate(parts.items()):
        width = count / whole * WIDTH
        bars.append(
            f'<rect class="part{i % 4}" x="{x:.1f}" y="2" width="{max(width - 1, 0):.1f}" '
            f'height="18"><title>{escape(name)}: {count:,.0f}</title></rect>'
        )
        x += width
    said = ", ".join(f"{n} {c:,.0f} ({c / whole:.0%})" for n, c in parts.items())
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} 22" role="img" aria-label="{escape(said)}">'
        f"{''.join(bars)}</svg><figcaption><b>{escape(title)}</b> {escape(said)}</figcaption>"
        "</figure>"
    )
