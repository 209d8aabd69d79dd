"""The report: one HTML file that needs nothing else, no script, no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from echosyn.report.mosaic import data_uri
from echosyn.report.numbers import collect, label, percent, texts
from echosyn.report.parts import cell, document, figure, metric_tables, section, table

# What a reader looks for first, in this order; a tile appears when its number was measured.
HEADLINES = (
    ("ef/real/r2", "EF R² of a network trained on real videos"),
    ("ef/synthetic/r2", "EF R² trained on synthetic videos only"),
    ("ef/requested_vs_measured/r", "correlation of requested and measured EF"),
    ("privacy/rejection_rate", "of synthetic hearts thrown out as too alike"),
    ("privacy/planted_exact_recall", "of planted copies caught"),
    ("coverage/learned_fraction", "of training videos represented"),
)
SHARES = ("rate", "recall", "fraction")


@dataclass(frozen=True)
class Mosaic:
    """An animated WebP of several videos and what it shows."""

    title: str
    caption: str
    image: bytes


@dataclass(frozen=True)
class Plot:
    """An inline SVG and what it shows."""

    svg: str
    caption: str
    wide: bool = False


def render(
    *,
    title: str,
    subtitle: str,
    notice: str,
    mosaics: Sequence[Mosaic],
    plots: Sequence[Plot],
    privacy: Sequence[str],
    privacy_plot: Plot | None,
    metrics: Mapping[str, float],
    others: Mapping[str, Mapping[str, float]],
    lineage: Mapping[str, Mapping[str, str]],
    settings: Mapping[str, Any],
    seconds: str,
) -> str:
    """The whole page.

    Args:
        notice: shown in a box at the top, for example that real videos are on the page.
        privacy: sentences of the privacy section. privacy_plot: the figure beside them.
        metrics: the evaluation's flat numbers. others: further stages' numbers by stage.
        lineage: md5 by path, in groups. settings: flat, what the release was made with.
        seconds: what each stage took, as HTML.
    """
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(subtitle)}</p>',
        f'<p class="notice">{escape(notice)}</p>' if notice else "",
        _headlines(metrics),
        section("Real, reconstructed, synthetic", _mosaics(mosaics)),
        section("Privacy", _privacy(privacy, privacy_plot)),
        section("Ejection fraction", _plots(plots)),
        section("All numbers", _numbers(metrics)),
        section("Training and other stages", _others(others)),
        section("What it was made from", _lineage(lineage, settings) if lineage else ""),
        section("What each stage took", seconds),
    ]
    return document(title, body)


def _headlines(metrics: Mapping[str, float]) -> str:
    numbers = collect(metrics)
    tiles = []
    for key, words in HEADLINES:
        number = numbers.get(key)
        if number is None:
            continue
        share = key.rsplit("_", 1)[-1] in SHARES
        value, _, interval = (percent(number) if share else str(number)).partition(" (")
        tiles.append(
            f'<div class="tile"><b>{escape(value)}</b><span>{escape(words)}</span>'
            f"<span>{escape(interval.removesuffix(')'))}</span></div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _mosaics(mosaics: Sequence[Mosaic]) -> str:
    figures = [
        f'<figure><img alt="{escape(m.caption)}" src="{data_uri(m.image)}">'
        f"<figcaption><b>{escape(m.title)}.</b> {escape(m.caption)}</figcaption></figure>"
        for m in mosaics
    ]
    return f'<div class="videos">{"".join(figures)}</div>' if figures else ""


def _plot(plot: Plot) -> str:
    return figure(plot.svg, plot.caption, plot.wide)


def _plots(plots: Sequence[Plot]) -> str:
    narrow = "".join(_plot(p) for p in plots if not p.wide)
    wide = "".join(_plot(p) for p in plots if p.wide)
    return (f'<div class="pair">{narrow}</div>' if narrow else "") + wide


def _privacy(sentences: Sequence[str], plot: Plot | None) -> str:
    said = sentences or ["Nothing was measured: this release has no privacy evidence."]
    text = "".join(f"<p>{escape(sentence)}</p>" for sentence in said)
    return f'<div class="pair"><div>{text}</div>{_plot(plot)}</div>' if plot else text


def _numbers(metrics: Mapping[str, float]) -> str:
    intro = (
        '<p class="soft">In brackets a 95% interval. The floor is what real data score against '
        "real data; reconstructed is what they score after the autoencoder. No generator can be "
        "expected to do better.</p>"
    )
    parts = [intro, metric_tables(metrics)]
    if words := texts(metrics):
        parts.append(_listing("how these numbers were measured", words, False))
    return "\n".join(parts)


def _others(others: Mapping[str, Mapping[str, float]]) -> str:
    parts = []
    for stage, metrics in others.items():
        rows = [[escape(label(key)), cell(n)] for key, n in collect(metrics).items()]
        parts.append(f"<details><summary>{escape(stage)}</summary>{table((), rows)}</details>")
    return "\n".join(parts)


def _lineage(lineage: Mapping[str, Mapping[str, str]], settings: Mapping[str, Any]) -> str:
    parts = []
    for group, hashes in lineage.items():
        if hashes:
            kind, is_open = "md5", group in ("data", "models")
            if group == "stages":
                kind = "the digest of their code"
            parts.append(_listing(f"{group}: {len(hashes)}, with {kind}", hashes, is_open))
    parts.append(_listing(f"settings: {len(settings)}", settings, False))
    return "\n".join(parts)


def _listing(summary: str, values: Mapping[str, Any], is_open: bool) -> str:
    rows = [
        [f"<code>{escape(k)}</code>", f"<code>{escape(str(v))}</code>"] for k, v in values.items()
    ]
    state = " open" if is_open else ""
    return f"<details{state}><summary>{escape(summary)}</summary>{table((), rows)}</details>"
