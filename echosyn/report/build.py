"""From the folders and tables of a dataset to its report page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import read_video
from echosyn.report import ef_plots, plots
from echosyn.report.mosaic import clip, nearest, spread, webp
from echosyn.report.numbers import privacy_sentences
from echosyn.report.page import Mosaic, Plot, render
from echosyn.report.parts import stage_table
from echosyn.runtime.lineage import flatten
from echosyn.runtime.timing import Seconds

ROWS, COLUMNS, SECONDS = 4, 4, 3.0  # of a mosaic


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
    took: Mapping[str, Seconds],
) -> str:
    """The page as HTML. A table that is None (nothing of the kind was measured) has no figure.

    Args:
        label: "ef" or "none", what the dataset's FileList labels.
        real, reconstructed, samples: folders in EchoNet layout.
        requested: FileName, ef_requested, ef_measured. predictions: arm, FileName, ef_true,
            ef_predicted. scores: kind, similarity, accepted.
        metrics: the evaluation's flat numbers. others: those of other stages by stage.
        manifest: of the release that the page is about.
        took: what each stage took on this machine, by its name, where that was kept.

    Raises:
        EchosynError: a FileList or a video cannot be read.
    """
    figures = []
    tables = [read_filelist(folder / "FileList.csv", label) for folder in (real, samples)]
    if all(table["EF"].notna().all() for table in tables):
        figures.append(
            Plot(
                plots.svg(plots.ef_distribution(*tables), "distribution"),
                "EF of all real videos and of the synthetic ones, as requested.",
            )
        )
    if requested is not None:
        figures.append(
            Plot(
                plots.svg(plots.requested_vs_measured(requested), "requested"),
                "EF asked of the generator against EF measured in its videos by a network trained "
                "on real ones. Dotted: perfect.",
            )
        )
    if predictions is not None:
        captions = {
            "predictions": "EF of the real test videos, as predicted by networks trained on "
            "different videos; mean over seeds.",
            "bland_altman": "The same as Bland and Altman draw it: bias, and 95% limits of "
            "agreement.",
            "residuals_by_band": "Predicted minus true EF where the true EF is low, middling or "
            "normal.",
            "scarce_curve": "R² with few real training videos, without and with synthetic ones.",
        }
        for name, figure in ef_plots.evaluation_figures(predictions, metrics).items():
            wide = name != "scarce_curve"
            figures.append(Plot(plots.svg(figure, name), captions[name], wide=wide))
    histogram = None
    if scores is not None and "privacy/tau" in metrics:
        histogram = Plot(
            plots.svg(plots.privacy_histogram(scores, float(metrics["privacy/tau"])), "privacy"),
            "How alike the most alike training video is. Hearts right of the dashed line were "
            "thrown out.",
        )
    return render(
        title=f"{manifest['name']} {manifest['version']}",
        subtitle=f"{manifest['videos']:,} synthetic videos made from the dataset '{dataset}', "
        f"at scale '{manifest['params']['scale']}'. Licence: {manifest['license']}.",
        notice="This page shows real videos beside synthetic ones. It is for those who may see the "
        "dataset, and is not part of the release.",
        mosaics=_mosaics(label, real, reconstructed, samples),
        plots=figures,
        privacy=privacy_sentences(metrics, manifest["videos"]),
        privacy_plot=histogram,
        metrics=metrics,
        others=others,
        lineage=manifest["lineage"],
        settings=flatten(manifest["params"]),
        seconds=stage_table(took),
    )


def _mosaics(label: str, real: Path, reconstructed: Path, samples: Path) -> list[Mosaic]:
    """The same place in each mosaic holds the same video, or the synthetic one nearest in EF."""
    sets = [
        read_filelist(folder / "FileList.csv", label) for folder in (real, reconstructed, samples)
    ]
    both = sets[0][sets[0]["FileName"].isin(sets[1]["FileName"])].reset_index(drop=True)
    by = "EF" if both["EF"].notna().all() and sets[2]["EF"].notna().all() else "NumberOfFrames"
    shown = both.iloc[spread(both[by].to_numpy(), ROWS * COLUMNS)]
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
    mosaics = []
    for folder, table, title, caption in words:
        clips = _clips(folder, table, fps, SECONDS)
        mosaics.append(Mosaic(title, caption, webp(clips, fps, COLUMNS)))
    return mosaics


def _clips(folder: Path, table: pd.DataFrame, fps: float, seconds: float) -> list[np.ndarray]:
    videos = (read_video(video_path(folder, name)) for name in table["FileName"])
    return [clip(frames, own, fps, seconds) for frames, own in videos]
