"""From the folders and tables of a dataset to its report page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import read_video
from echosyn.privacy.gate.requirements import GateResult, Thresholds
from echosyn.report import ef_plots, plots
from echosyn.report.changes import changes
from echosyn.report.headlines import headlines
from echosyn.report.html import Plot, render, stage_rows
from echosyn.report.mosaic import Moving, moving, nearest, spread
from echosyn.report.numbers import collect, label, plain, privacy_sentences, tables, texts
from echosyn.report.privacy_evidence import gate_checks, loosened
from echosyn.report.strange import strange_section
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.lineage import flatten
from echosyn.runtime.progress import track
from echosyn.runtime.timing import Seconds

COLUMNS, VIDEOS, SECONDS = 4, 16, 3.0  # of a mosaic
# Bytes of each mosaic, and of the videos that one picks from together. As text in the page they
# take a third more: under 8 MB, so that with its plots a page of 10 MB can go by mail.
MOSAIC, PICKED = 1_400_000, 1_700_000
CAPTIONS = {
    "distribution": "EF of all real videos and of the synthetic ones, as requested.",
    "requested": "EF asked of the generator against EF measured in its videos by a network "
    "trained on real ones. Dotted: perfect.",
    "predictions": "EF of the real test videos, as predicted by networks trained on different "
    "videos; mean over seeds.",
    "bland_altman": "The same as Bland and Altman draw it: bias, and 95% limits of agreement.",
    "residuals_by_band": "Predicted minus true EF where the true EF is low, middling or normal.",
    "scarce_curve": "R² with few real training videos, without and with synthetic ones.",
    "privacy": "How alike the most alike training video is. Hearts right of the dashed line were "
    "thrown out.",
}
PANELS = ("predictions", "bland_altman", "residuals_by_band")


def build_report(
    dataset: str,
    label: str,
    *,
    real: Path,
    reconstructed: Path,
    samples: Path,
    requested: pd.DataFrame | None,
    predictions: pd.DataFrame | None,
    scores: pd.DataFrame | None,
    metrics: Mapping[str, float | str],
    others: Mapping[str, Mapping[str, float]],
    manifest: Mapping[str, Any],
    gate: GateResult,
    thresholds: Thresholds,
    took: Mapping[str, Seconds],
    strangest: Path | None = None,
    previous: Mapping[str, Any] | None = None,
) -> str:
    """The page as HTML. A table that is None (nothing of the kind was measured) has no figure.

    Args:
        label: "ef" or "none", what the dataset's FileList labels.
        real, reconstructed, samples: folders in EchoNet layout.
        requested: FileName, ef_requested, ef_measured. predictions: arm, FileName, ef_true,
            ef_predicted. scores: kind, similarity, accepted.
        metrics: the evaluation's flat numbers. others: those of other stages by stage.
        strangest: file of the strangest videos with their maps, where a detector was asked for.
        manifest: of the release that the page is about. previous: of an earlier version of it.
        gate: what the audits gave, held against `thresholds`.
        took: what each stage took on this machine, by its name, where that was kept.

    Raises:
        EchosynError: a FileList or a video cannot be read; `previous` is of another dataset.
    """
    mosaics, clips = _mosaics(label, real, reconstructed, samples, requested)
    return render(
        "report.html",
        title=f"{manifest['name']} {manifest['version']}",
        subtitle=f"{manifest['videos']:,} synthetic videos made from the dataset '{dataset}', "
        f"at scale '{manifest['params']['scale']}'. Licence: {manifest['license']}.",
        headlines=headlines(metrics),
        checks=gate_checks(gate),
        loosened=loosened(thresholds),
        since=since(previous, manifest) if previous else None,
        mosaics=mosaics,
        clips=clips,
        strange=strange_section(strangest, metrics),
        privacy=privacy_sentences(metrics, manifest["videos"]),
        privacy_plot=_privacy_plot(scores, metrics),
        plots=_ef_plots(label, real, samples, requested, predictions, metrics),
        numbers=tables(metrics),
        protocol=texts(metrics),
        others={stage: _rows(values) for stage, values in others.items()},
        lineage=manifest["lineage"],
        settings=flatten(manifest["params"]),
        seconds=stage_rows(took),
    )


def since(previous: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What changed since another version of a release, for `since` of templates/parts.html.

    Raises:
        EchosynError: the manifests are of releases of different names.
    """
    if previous["name"] != manifest["name"]:
        raise EchosynError(
            f"{previous['name']} {previous['version']} is no earlier version of {manifest['name']}:"
            " give the manifest of a release of the same name"
        )
    both = [previous["metrics"], manifest["metrics"]]
    first = {key for metrics in both for h in headlines(metrics) for key in h.keys}
    found = changes(*both)
    return {
        "version": previous["version"],
        "headlines": [c for c in found if c.key in first],
        "others": [c for c in found if c.key not in first],
    }


def _rows(metrics: Mapping[str, float]) -> list[tuple[Any, ...]]:
    return [(label(key), number) for key, number in collect(metrics).items()]


def _plot(figure: Any, name: str) -> Plot:
    return Plot(plots.svg(figure, name), CAPTIONS[name], name in PANELS)


def _ef_plots(
    label: str,
    real: Path,
    samples: Path,
    requested: pd.DataFrame | None,
    predictions: pd.DataFrame | None,
    metrics: Mapping[str, float | str],
) -> list[Plot]:
    figures = {}
    lists = [read_filelist(folder / "FileList.csv", label) for folder in (real, samples)]
    if all(table["EF"].notna().all() for table in lists):
        figures["distribution"] = plots.ef_distribution(*lists)
    if requested is not None:
        figures["requested"] = plots.requested_vs_measured(requested)
    if predictions is not None:
        figures |= ef_plots.evaluation_figures(predictions, metrics)
    return [_plot(figure, name) for name, figure in figures.items()]


def _privacy_plot(scores: pd.DataFrame | None, metrics: Mapping[str, float | str]) -> Plot | None:
    if scores is None or "privacy/tau" not in metrics:
        return None
    return _plot(plots.privacy_histogram(scores, float(metrics["privacy/tau"])), "privacy")


def _mosaics(
    label: str, real: Path, reconstructed: Path, samples: Path, requested: pd.DataFrame | None
) -> tuple[list[tuple[str, str, Moving]], list[dict[str, Any]]]:
    """Title, caption and picture of each mosaic; the synthetic videos in the last, one by one.

    The same place in each holds the same video, or the synthetic one nearest in EF.
    """
    sets = [
        read_filelist(folder / "FileList.csv", label) for folder in (real, reconstructed, samples)
    ]
    both = sets[0][sets[0]["FileName"].isin(sets[1]["FileName"])].reset_index(drop=True)
    by = "EF" if both["EF"].notna().all() and sets[2]["EF"].notna().all() else "NumberOfFrames"
    shown = both.iloc[spread(both[by].to_numpy(), VIDEOS)]
    alike = sets[2].iloc[nearest(sets[2][by].to_numpy(), shown[by].to_numpy())]
    order = ", from low to high EF" if by == "EF" else ""
    words = (
        (real, shown, "Real", f"Videos of the dataset{order}."),
        (reconstructed, shown, "Reconstructed", "The same through the autoencoder: what a perfect "
         "generator could reach."),
        (samples, alike, "Synthetic", "Drawn by the generator"
         + (", each at about the EF of the real one in its place." if by == "EF" else ".")),
    )  # fmt: skip
    fps = float(sets[2]["FPS"].median())
    mosaics, videos = [], {}
    for folder, table, title, caption in track(words, "report", "mosaic"):
        videos = {name: read_video(video_path(folder, name)) for name in table["FileName"]}
        alt = f"{title.lower()} videos{order}"
        clips = list(videos.values())
        mosaics.append((title, caption, moving(clips, fps, SECONDS, COLUMNS, MOSAIC, alt)))
    return mosaics, [] if requested is None else _picked(videos, requested, fps)


def _picked(
    videos: Mapping[str, tuple[np.ndarray, float]], requested: pd.DataFrame, fps: float
) -> list[dict[str, Any]]:
    """`asked`, `measured` (None: not) and `picture` of each synthetic video that was asked for an
    EF, by that EF."""
    known = requested[requested["FileName"].isin(videos)].sort_values("ef_requested", kind="stable")
    return [
        {
            "asked": row.ef_requested,
            "measured": row.ef_measured if np.isfinite(row.ef_measured) else None,
            "picture": moving([videos[row.FileName]], fps, SECONDS, 1, PICKED // len(known),
                              f"a synthetic video, asked for EF {plain(row.ef_requested)} %"),
        }
        for row in known.itertuples()
    ]  # fmt: skip
