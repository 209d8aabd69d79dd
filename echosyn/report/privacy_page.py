"""The privacy page: what a data steward needs to decide about a release, in one HTML file.

It needs nothing else, no script, no network. Where it shows real frames it must stay in the house.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from echosyn.report import html, plots, privacy_plots
from echosyn.report.html import Plot
from echosyn.report.numbers import Number, collect, percent, plain, privacy_sentences, tables
from echosyn.report.privacy_evidence import PrivacyEvidence
from echosyn.report.privacy_pairs import LOCAL_ONLY, shown_pairs

PAGE, PUBLIC = "privacy.html", "privacy_without_patients.html"  # in pages/<dataset>
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


def render(evidence: PrivacyEvidence) -> str:
    """The whole page as HTML; the same evidence gives the same bytes."""
    metrics = evidence.metrics
    return html.render(
        "privacy.html",
        title=f"Privacy of the release of '{evidence.dataset}'",
        checks=evidence.checks,
        loosened=evidence.loosened,
        tested=[*privacy_sentences(metrics, evidence.videos), *evidence.tested],
        similarity=list(_histograms(evidence)),
        shares=_shares(metrics, {"privacy": "hearts", "privacy_videos": "videos"}, RATES),
        planted=_planted(evidence.planted),
        membership=_membership(evidence),
        canary=_canary(evidence),
        coverage=_shares(metrics, _coverage_titles(metrics), COVERAGE),
        bands=_bands(evidence.bands),
        local_only=LOCAL_ONLY,
        pairs=shown_pairs(evidence.pairs),
        all_pairs=len(evidence.pairs),
        numbers=tables(metrics),
    )


def _histograms(evidence: PrivacyEvidence) -> Iterator[Plot]:
    for i, scores in enumerate(evidence.scores):
        drawn = privacy_plots.similarity_histogram(scores.table, scores.tau, scores.column)
        caption = f"{scores.title[:1].upper()}{scores.title[1:]}. {HISTOGRAM}"
        yield Plot(plots.svg(drawn, f"similarity{i}"), caption)


def _planted(planted: pd.DataFrame | None) -> dict[str, Any] | None:
    if planted is None or planted.empty:
        return None
    keys = [c for c in ("level", "disguise") if c in planted.columns]
    limits = ["limit"] if "limit" in planted.columns else []
    rows = [
        [
            *(row[k] for k in keys),
            plain(row["strength"]),
            *(plain(row[k]) if np.isfinite(row[k]) else "" for k in limits),
            _share(row, "recall"),
        ]
        for row in planted.to_dict("records")
    ]
    svg = plots.svg(privacy_plots.recall_curves(planted), "planted")
    head = (*keys, "strength", *(["at most, in its own unit"] if limits else []), "caught")
    plot = Plot(svg, "Share of planted copies that the filter caught.")
    return {"plot": plot, "head": head, "rows": rows}


def _membership(evidence: PrivacyEvidence) -> dict[str, Any] | None:
    attacks = evidence.membership
    if attacks is None or attacks.empty:
        return None
    closer = collect(evidence.metrics).get("privacy/membership_dcr_share")
    svg = plots.svg(privacy_plots.membership_plot(attacks), "membership")
    return {
        "plot": Plot(svg, "Each attack with its interval."),
        "confidence": f"{100 * evidence.confidence:g}",
        "closer": percent(closer) if closer else None,
        "rows": [
            (row["attack"], _number(row["auc"], row["lo"], row["hi"]))
            for row in attacks.to_dict("records")
        ],
    }


def _canary(evidence: PrivacyEvidence) -> dict[str, Any] | None:
    curve = evidence.canary
    if curve is None or curve.empty:
        return None
    share, bound, relative = (
        evidence.metrics.get(f"privacy/canary_{k}")
        for k in ("share", "bound_from_noise", "relative")
    )
    svg = plots.svg(privacy_plots.canary_plot(curve, share), "canary")
    return {
        "plot": Plot(svg, "How often the mark was found, with 95% intervals, and the bound."),
        "share": None if share is None else percent(Number(share)),
        "bound": None if bound is None else percent(Number(bound)),
        "relative": relative,
        "rows": [
            (plain(row["time"]), *(_share(row, k) for k in ("marked", "unmarked", "bound")))
            for row in curve.to_dict("records")
        ],
    }


def _coverage_titles(metrics: Mapping[str, float]) -> dict[str, str]:
    titles = {}
    for prefix, kind in (("coverage", "hearts"), ("coverage/videos", "videos")):
        queries = metrics.get(f"{prefix}/queries")
        titles[prefix] = kind if queries is None else f"{kind}, at {plain(queries)} queries"
    return titles


def _bands(bands: pd.DataFrame | None) -> dict[str, Any] | None:
    if bands is None or bands.empty:
        return None
    kinds = [k for k in ("synthetic", "real") if k in bands.columns]
    counted = ["videos"] if "videos" in bands.columns else []
    caption = "Which patients are represented, by ejection fraction, at equally many queries."
    return {
        "plot": Plot(plots.svg(privacy_plots.band_plot(bands), "bands"), caption),
        "never": list(bands.loc[bands["synthetic"] == 0, "band"]),
        "head": ("band", *counted, *kinds),
        "rows": [
            (row["band"], *(plain(row[k]) for k in counted), *(_share(row, k) for k in kinds))
            for row in bands.to_dict("records")
        ],
    }


def _shares(
    metrics: Mapping[str, float], titles: Mapping[str, str], words: Mapping[str, str]
) -> dict[str, list[tuple[str, str]]]:
    """Rows by title of a prefix of `metrics`; a row appears when its number was measured."""
    found = {}
    for prefix, title in titles.items():
        row = {k.removeprefix(f"{prefix}/"): v for k, v in metrics.items()}
        rows = [(text, _share(row, name)) for name, text in words.items() if name in row]
        if rows:
            found[title] = rows
    return found


def _share(row: Mapping[str, float], column: str) -> str:
    return percent(_number(row[column], row.get(f"{column}_lo"), row.get(f"{column}_hi")))


def _number(value: float, lo: float | None, hi: float | None) -> Number:
    """With its interval where both ends were measured."""
    if lo is None or hi is None or not np.isfinite([lo, hi]).all():
        return Number(value)
    return Number(value, lo, hi)
