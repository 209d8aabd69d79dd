"""The privacy page: what a data steward needs to decide about a release, in one HTML file.

It needs nothing else, no script, no network. Where it shows real frames it must stay in the house.
"""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd

from echosyn.privacy.gate.requirements import PASS
from echosyn.report import plots, privacy_plots
from echosyn.report.numbers import Number, collect, percent, plain, privacy_sentences
from echosyn.report.parts import cell, document, figure, metric_tables, section, table
from echosyn.report.privacy_evidence import Check, PrivacyEvidence
from echosyn.report.privacy_pairs import LOCAL_ONLY, pairs_html

PAGE, PUBLIC = "privacy.html", "privacy_without_patients.html"  # in pages/<dataset>
NOT_A_PROOF = (
    "These are measurements, not a proof: they speak for the attacks that were tried, with the "
    "numbers of patients that were at hand."
)
LOOSENED = (
    "This outcome asks less than is usual: somebody loosened thresholds for this release. Ask why "
    "before you rely on it."
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
STYLE = """
.outcome{border-radius:10px;padding:1rem 1.25rem;margin:1.25rem 0;font-size:1.15rem;
font-weight:600;max-width:none}
.pass{background:#dff3e4;color:#14532d}.fail{background:#fde2e1;color:#7f1d1d}
.checks table{width:100%}.checks td,.checks th{white-space:normal;overflow-wrap:break-word}
.checks tbody th{min-width:14rem}.checks td:nth-child(3){min-width:9rem}
.checks p{font-weight:400;font-size:.87rem;line-height:1.45;color:var(--soft);margin:.2rem 0}
.mark{white-space:nowrap;border-radius:6px;padding:.1rem .5rem;font-weight:600}
.twins{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:1rem}
.twin{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1rem}
.twin div{display:grid;grid-template-columns:1fr 1fr;gap:.5rem}
.twin img{width:100%;display:block;background:#000;image-rendering:pixelated}
.twin>img{margin-top:.5rem}
@media(max-width:44rem){td{white-space:normal}.checks thead{display:none}
.checks tbody th,.checks td{display:block;border:0;padding:.15rem 0;min-width:0}
.checks tr{display:block;border-bottom:1px solid var(--line);padding:.5rem 0}
.checks td:nth-child(3)::before{content:"measured: "}
.checks td:nth-child(4)::before{content:"required: "}}
"""


def render(evidence: PrivacyEvidence) -> str:
    """The whole page as HTML; the same evidence gives the same bytes."""
    title = f"Privacy of the release of '{evidence.dataset}'"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="notice">{escape(LOCAL_ONLY)}</p>' if evidence.pairs else "",
        _outcome(evidence.checks, evidence.loosened),
        section("What was tested", _tested(evidence)),
        section("Similarity to the training patients", _similarity(evidence)),
        section("Planted copies", _planted(evidence.planted)),
        section("Who was in the training set?", _membership(evidence)),
        section("A mark planted before training", _canary(evidence)),
        section("Coverage of the training patients", _coverage(evidence)),
        section("The most similar pairs that were accepted", pairs_html(evidence.pairs)),
        section("All numbers", metric_tables(evidence.metrics)),
    ]
    return document(title, body, STYLE)


def _outcome(checks: Sequence[Check], loosened: Sequence[str]) -> str:
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
            f'<span class="mark {kind}">{escape(c.result)}</span>',
            escape(c.measured),
            escape(c.required),
        ]
        for kind, group in (("fail", stops), ("", skipped), ("pass", passed))
        for c in group
    ]
    listed = table(("check", "outcome", "measured", "required"), rows) if rows else ""
    note = ""
    if loosened:
        asked = "".join(f"<li>{escape(one)}</li>" for one in loosened)
        note = f'<div class="notice">{escape(LOOSENED)}<ul>{asked}</ul></div>\n'
    return (
        f'<p class="outcome {kind}">{escape(words)}</p>\n{note}<div class="checks">{listed}</div>'
    )


def _tested(evidence: PrivacyEvidence) -> str:
    said = [*privacy_sentences(evidence.metrics, evidence.videos), *evidence.tested]
    said.append(NOT_A_PROOF if said else "Nothing was measured.")
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in said)


def _similarity(evidence: PrivacyEvidence) -> str:
    parts = []
    for i, scores in enumerate(evidence.scores):
        drawn = privacy_plots.similarity_histogram(scores.table, scores.tau, scores.column)
        caption = f"{scores.title[:1].upper()}{scores.title[1:]}. {HISTOGRAM}"
        parts.append(figure(plots.svg(drawn, f"similarity{i}"), caption))
    figures = f'<div class="pair">{"".join(parts)}</div>' if parts else ""
    for prefix, kind in (("privacy", "hearts"), ("privacy_videos", "videos")):
        shares = _shares(evidence.metrics, prefix, RATES)
        figures += f"<h3>{kind}</h3>{shares}" if shares else ""
    return figures


def _planted(planted: pd.DataFrame | None) -> str:
    if planted is None or planted.empty:
        return ""
    text = (
        "Copies of training hearts and videos, exact and disguised as an attacker might, were "
        "mixed into the candidates before the filter ran."
    )
    keys = [c for c in ("level", "disguise") if c in planted.columns]
    limits = ["limit"] if "limit" in planted.columns else []
    rows = [
        [
            *(escape(str(row[k])) for k in keys),
            plain(row["strength"]),
            *(plain(row[k]) if np.isfinite(row[k]) else "" for k in limits),
            _share(row, "recall"),
        ]
        for row in planted.to_dict("records")
    ]
    svg = plots.svg(privacy_plots.recall_curves(planted), "planted")
    head = (*keys, "strength", *(["at most, in its own unit"] if limits else []), "caught")
    return (
        f"<p>{escape(text)}</p>"
        + figure(svg, "Share of planted copies that the filter caught.")
        + "<details><summary>the numbers behind the curves</summary>"
        + f"{table(head, rows)}</details>"
    )


def _membership(evidence: PrivacyEvidence) -> str:
    attacks = evidence.membership
    if attacks is None or attacks.empty:
        return ""
    text = (
        "Each attack guesses from the released videos which patients were trained on. 0.5 is coin "
        "tossing, 1 is certainty; every interval should include 0.5. They are intervals that hold "
        f"for all attacks together with {100 * evidence.confidence:g} %: were the release "
        "harmless, then with that chance none of them would miss 0.5."
    )
    closer = collect(evidence.metrics).get("privacy/membership_dcr_share")
    more = (
        f"<p>Of the synthetic hearts {escape(percent(closer))} lie closer to a training patient "
        "than to a stranger, among as many of each; 50% is chance.</p>"
        if closer
        else ""
    )
    rows = [
        [escape(str(row["attack"])), cell(_number(row["auc"], row["lo"], row["hi"]))]
        for row in attacks.to_dict("records")
    ]
    svg = plots.svg(privacy_plots.membership_plot(attacks), "membership")
    return (
        f'<p>{escape(text)}</p>{more}<div class="pair">'
        f"{figure(svg, 'Each attack with its interval.')}<div>{table(('attack', 'AUC'), rows)}"
        "</div></div>"
    )


def _canary(evidence: PrivacyEvidence) -> str:
    curve = evidence.canary
    if curve is None or curve.empty:
        return ""
    share, bound, relative = (
        evidence.metrics.get(f"privacy/canary_{k}")
        for k in ("share", "bound_from_noise", "relative")
    )
    text = (
        "For this test alone a second image generator was trained, with a mark added to the hearts "
        "of a few training patients. If the mark comes back in what it draws, it reproduces "
        "patients. It was started from training hearts under more and more noise, until only noise "
        "was left: marks that return from much noise are known by heart."
    )
    if share is not None:
        text += (
            f" {percent(Number(share))} of the training videos carried the mark, which is how "
            "often a generator shows it that only repeats its training videos."
        )
    if bound is not None:
        text += f" This one reproduces a marked heart in at most {percent(Number(bound))} of cases"
        text += f", {plain(relative)} times that rate." if relative is not None else "."
    kinds = ("marked", "unmarked")
    rows = [
        [plain(row["time"]), *(_share(row, k) for k in kinds), percent(Number(row["bound"]))]
        for row in curve.to_dict("records")
    ]
    svg = plots.svg(privacy_plots.canary_plot(curve, share), "canary")
    head = ("noise at the start", "mark from marked hearts", "from others", "bound")
    return (
        f"<p>{escape(text)}</p>"
        + figure(svg, "How often the mark was found, with 95% intervals, and the bound.")
        + f"<details><summary>the numbers behind the curves</summary>{table(head, rows)}</details>"
    )


def _coverage(evidence: PrivacyEvidence) -> str:
    parts = []
    for prefix, kind in (("coverage", "hearts"), ("coverage/videos", "videos")):
        shares = _shares(evidence.metrics, prefix, COVERAGE)
        if shares:
            queries = evidence.metrics.get(f"{prefix}/queries")
            at = f", at {plain(queries)} queries" if queries is not None else ""
            parts.append(f"<h3>{escape(kind + at)}</h3>{shares}")
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
        listed = table(("band", *counted, *kinds), rows)
        never = [str(b) for b in bands.loc[bands["synthetic"] == 0, "band"]]
        said = f"<p>Never represented: {escape(', '.join(never))}.</p>" if never else ""
        parts.append(f"<h3>hearts by EF</h3>{said}{figure(svg, caption)}{listed}")
    return "".join(parts)


def _shares(metrics: Mapping[str, float], prefix: str, words: Mapping[str, str]) -> str:
    row = {k.removeprefix(f"{prefix}/"): v for k, v in metrics.items()}
    rows = [[_share(row, name), escape(text)] for name, text in words.items() if name in row]
    return table((), rows) if rows else ""


def _share(row: Mapping[str, float], column: str) -> str:
    return escape(percent(_number(row[column], row.get(f"{column}_lo"), row.get(f"{column}_hi"))))


def _number(value: float, lo: float | None, hi: float | None) -> Number:
    """With its interval where both ends were measured."""
    if lo is None or hi is None or not np.isfinite([lo, hi]).all():
        return Number(value)
    return Number(value, lo, hi)
