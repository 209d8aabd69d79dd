"""The privacy page: what a data steward needs to decide about a release, in one HTML file.

It needs nothing else, no script, no network. Where it shows real frames it must stay in the house.
"""

import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd
from PIL import Image

from echosyn.privacy.verdict import PASS
from echosyn.report import plots, privacy_plots
from echosyn.report.mosaic import data_uri
from echosyn.report.numbers import (
    Number,
    collect,
    percent,
    plain,
    privacy_sentences,
    tables,
)
from echosyn.report.privacy_evidence import Check, Pair, PrivacyEvidence
from echosyn.report.style import CSS

LOCAL_ONLY = (
    "LOCAL ONLY. This page shows real patients. It may not leave the building and is not part of "
    "the release."
)
NOT_A_PROOF = (
    "These are measurements, not a proof: they speak for the attacks that were tried, with the "
    "numbers of patients that were at hand."
)
HISTOGRAM = (
    "How alike the most alike training video is, for synthetic candidates and for real patients "
    "that no model has seen. Candidates right of the dashed line were refused; shaded is the 95% "
    "interval of that line. A synthetic hump right of the real one would be copying."
)
# Shares of the filter, in reading order: a row appears when its number was measured.
RATES = {
    "rejection_rate": "of the candidates refused",
    "false_rejection_calibrated": "of unrelated real ones refused: asked for",
    "false_rejection_heldout": "of unrelated real ones refused: found on held-out patients",
    "planted_exact_recall": "of exact planted copies caught",
    "planted_light_recall": "of lightly disguised planted copies caught",
    "planted_disguised_recall": "of disguised planted copies caught",
}
COVERAGE = {
    "learned_fraction": "training videos represented, by synthetic queries",
    "learned_fraction_real": "by as many held-out real queries",
    "learned_fraction_uniform": "by as many queries if each found any video with equal chance",
    "irs_inf": "by endless synthetic queries (IRS, extrapolated)",
    "irs_inf_real": "by endless real queries (IRS, extrapolated)",
    "irs_adjusted": "IRS of synthetic over that of real queries",
    "chao1": "by endless synthetic queries, at least (Chao1)",
    "chao1_real": "by endless real queries, at least (Chao1)",
}
EXTRA = """
.verdict{border-radius:10px;padding:1rem 1.25rem;margin:1.25rem 0;font-size:1.15rem;
font-weight:600;max-width:none}
.pass{background:#dff3e4;color:#14532d}.fail{background:#fde2e1;color:#7f1d1d}
.checks tbody th{white-space:normal;min-width:16rem}
.checks p{font-weight:400;font-size:.87rem;line-height:1.45;color:var(--soft);margin:.2rem 0}
.mark{border-radius:6px;padding:.1rem .5rem;font-weight:600}
.twins{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:1rem}
.twin{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1rem}
.twin div{display:grid;grid-template-columns:1fr 1fr;gap:.5rem}
.twin img{width:100%;display:block;background:#000;image-rendering:pixelated}
"""


def render(evidence: PrivacyEvidence) -> str:
    """The whole page as HTML; the same evidence gives the same bytes."""
    title = f"Privacy of the release of '{evidence.dataset}'"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="notice">{escape(LOCAL_ONLY)}</p>' if evidence.pairs else "",
        _verdict(evidence.checks),
        _section("What was tested", _tested(evidence)),
        _section("Similarity to the training patients", _similarity(evidence)),
        _section("Planted copies", _planted(evidence.planted)),
        _section("Who was in the training set?", _membership(evidence.membership)),
        _section("Coverage of the training patients", _coverage(evidence)),
        _section("The most similar pairs that were accepted", _pairs(evidence.pairs)),
        _section("All numbers", _numbers(evidence.metrics)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}{EXTRA}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def _verdict(checks: Sequence[Check]) -> str:
    stops = [c for c in checks if c.stops]
    skipped = [c for c in checks if not c.stops and c.result != PASS]
    passed = [c for c in checks if c.result == PASS]
    if stops:
        kind, words = "fail", f"Do not release: {len(stops)} of {len(checks)} checks did not pass."
    elif not passed:
        kind, words = "fail", "Do not release: nothing was checked."
    else:
        kind, words = "pass", f"Every required check passed, {len(passed)} in all."
        words += f" Optional and not passed: {len(skipped)}." if skipped else ""
    rows = [
        [
            f"{escape(c.name)}<p>{escape(c.meaning)}</p>",
            escape(c.measured),
            escape(c.required),
            f'<span class="mark {kind}">{escape(c.result)}</span>',
        ]
        for kind, group in (("fail", stops), ("", skipped), ("pass", passed))
        for c in group
    ]
    table = _table(("check", "measured", "required", "outcome"), rows) if rows else ""
    return f'<p class="verdict {kind}">{escape(words)}</p>\n<div class="checks">{table}</div>'


def _tested(evidence: PrivacyEvidence) -> str:
    said = [*privacy_sentences(evidence.metrics, evidence.videos), *evidence.tested]
    said.append(NOT_A_PROOF if said else "Nothing was measured.")
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in said)


def _similarity(evidence: PrivacyEvidence) -> str:
    parts = []
    for i, scores in enumerate(evidence.scores):
        figure = privacy_plots.similarity_histogram(scores.table, scores.tau, scores.column)
        caption = f"{scores.title[:1].upper()}{scores.title[1:]}. {HISTOGRAM}"
        parts.append(_figure(plots.svg(figure, f"similarity{i}"), caption))
    figures = f'<div class="pair">{"".join(parts)}</div>' if parts else ""
    for prefix, kind in (("privacy", "hearts"), ("privacy_videos", "videos")):
        table = _shares(evidence.metrics, prefix, RATES)
        figures += f"<h3>{kind}</h3>{table}" if table else ""
    return figures


def _planted(planted: pd.DataFrame | None) -> str:
    if planted is None or planted.empty:
        return ""
    text = (
        "Copies of training hearts and videos, exact and disguised as an attacker might, were "
        "mixed into the candidates before the filter ran."
    )
    keys = [c for c in ("level", "disguise") if c in planted.columns]
    rows = [
        [*(escape(str(row[k])) for k in keys), plain(row["strength"]), _share(row, "recall")]
        for row in planted.to_dict("records")
    ]
    svg = plots.svg(privacy_plots.recall_curves(planted), "planted")
    table = _table((*keys, "strength", "caught"), rows)
    return (
        f"<p>{escape(text)}</p>"
        + _figure(svg, "Share of planted copies that the filter caught.")
        + f"<details><summary>the numbers behind the curves</summary>{table}</details>"
    )


def _membership(attacks: pd.DataFrame | None) -> str:
    if attacks is None or attacks.empty:
        return ""
    text = (
        "Each attack guesses from the released videos which patients were trained on. 0.5 is coin "
        "tossing, 1 is certainty; the interval should include 0.5."
    )
    rows = [
        [escape(str(row["attack"])), _cell(_number(row["auc"], row["lo"], row["hi"]))]
        for row in attacks.to_dict("records")
    ]
    svg = plots.svg(privacy_plots.membership_plot(attacks), "membership")
    table = _table(("attack", "AUC"), rows)
    return (
        f'<p>{escape(text)}</p><div class="pair">'
        f"{_figure(svg, 'Each attack with its 95% interval.')}<div>{table}</div></div>"
    )


def _coverage(evidence: PrivacyEvidence) -> str:
    parts = []
    for prefix, kind in (("coverage", "hearts"), ("coverage/videos", "videos")):
        table = _shares(evidence.metrics, prefix, COVERAGE)
        if table:
            queries = evidence.metrics.get(f"{prefix}/queries")
            at = f", at {plain(queries)} queries" if queries is not None else ""
            parts.append(f"<h3>{escape(kind + at)}</h3>{table}")
    bands = evidence.bands
    if bands is not None and not bands.empty:
        svg = plots.svg(privacy_plots.band_plot(bands), "bands")
        kinds = [k for k in ("synthetic", "real") if k in bands.columns]
        counted = ["videos"] if "videos" in bands.columns else []
        rows = [
            [
                escape(str(row["band"])),
                *(plain(row[k]) for k in counted),
                *(_share(row, k) for k in kinds),
            ]
            for row in bands.to_dict("records")
        ]
        caption = "Which patients are represented, by ejection fraction, at equally many queries."
        table = _table(("band", *counted, *kinds), rows)
        never = [str(b) for b in bands.loc[bands["synthetic"] == 0, "band"]]
        said = f"<p>Never represented: {escape(', '.join(never))}.</p>" if never else ""
        parts.append(f"<h3>hearts by EF</h3>{said}{_figure(svg, caption)}{table}")
    return "".join(parts)


def _pairs(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    figures = [
        '<figure class="twin"><div>'
        f'<img alt="synthetic {escape(p.synthetic_name)}" src="{_png(p.synthetic)}">'
        f'<img alt="real {escape(p.real_name)}" src="{_png(p.real)}"></div>'
        f"<figcaption>similarity {plain(p.similarity)}. Left: synthetic "
        f"{escape(p.synthetic_name)}. Right: real {escape(p.real_name)}.</figcaption></figure>"
        for p in sorted(pairs, key=lambda p: -p.similarity)
    ]
    text = (
        "Pictures that passed the filter, each beside the training picture most like it. Is any "
        "the same heart?"
    )
    return (
        f'<p class="notice">{escape(LOCAL_ONLY)}</p><p>{escape(text)}</p>'
        f'<div class="twins">{"".join(figures)}</div>'
    )


def _png(picture: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return data_uri(out.getvalue(), "png")


def _numbers(metrics: Mapping[str, float]) -> str:
    parts = []
    for title, group in tables(metrics).items():
        parts.append(f"<h3>{escape(title)}</h3>")
        for one in group:
            columns = () if one.columns == ("value",) else one.columns
            rows = [[escape(name), *map(_cell, row)] for name, row in one.rows.items()]
            parts.append(_table(("", *columns) if columns else (), rows))
    return "".join(parts)


def _shares(metrics: Mapping[str, float], prefix: str, words: Mapping[str, str]) -> str:
    numbers = collect(metrics)
    found = {text: numbers.get(f"{prefix}/{name}") for name, text in words.items()}
    rows = [[escape(percent(n)), escape(text)] for text, n in found.items() if n is not None]
    return _table((), rows) if rows else ""


def _share(row: Mapping[str, float], column: str) -> str:
    return escape(percent(_number(row[column], row.get(f"{column}_lo"), row.get(f"{column}_hi"))))


def _number(value: float, lo: float | None, hi: float | None) -> Number:
    """With its interval where both ends were measured."""
    if lo is None or hi is None or not np.isfinite([lo, hi]).all():
        return Number(value)
    return Number(value, lo, hi)


def _cell(number: Number) -> str:
    small = f"<small>({number.interval})</small>" if number.interval else ""
    return f"{plain(number.value)}{small}"


def _figure(svg: str, caption: str) -> str:
    return f'<figure class="plot">{svg}<figcaption>{escape(caption)}</figcaption></figure>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already, the head is text."""
    thead = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join(
        f"<tr><th>{row[0]}</th>{''.join(f'<td>{c}</td>' for c in row[1:])}</tr>" for row in rows
    )
    top = f"<thead><tr>{thead}</tr></thead>" if head else ""
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'
