"""The pictures and files that a release's MLflow run keeps, for comparing two side by side."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import read_video
from echosyn.release.manifest import MANIFEST, read_manifest
from echosyn.report import plots
from echosyn.report.ef_plots import predictions
from echosyn.report.mosaic import clip, gif, spread
from echosyn.runtime.files import write_bytes

VIDEOS, COLUMNS, SECONDS = 8, 4, 2.0


def write_evidence(folder: Path, release: Path, evaluation: Path, scores: Path) -> None:
    """Write samples.gif, the figures measured, manifest, card and data sheet to `folder`.

    Args:
        release: a release folder.
        evaluation: holds requested.csv and predictions.csv where EF was measured.
        scores: the table of similarities of the privacy filter, where one was written.
    """
    manifest = read_manifest(release)
    table = read_filelist(release / "FileList.csv", label="none")
    by = "EF" if table["EF"].notna().all() else "NumberOfFrames"
    names = table["FileName"].iloc[spread(table[by].to_numpy(), VIDEOS)]
    fps = float(np.median(table["FPS"]))
    videos = (read_video(video_path(release, name)) for name in names)
    clips = [clip(frames, own, fps, SECONDS) for frames, own in videos]
    write_bytes(folder / "samples.gif", gif(clips, fps, COLUMNS))
    figures = {}
    if (evaluation / "requested.csv").exists():
        requested = pd.read_csv(evaluation / "requested.csv")
        figures["requested_vs_measured"] = plots.requested_vs_measured(requested)
    if (evaluation / "predictions.csv").exists():
        figures["predictions"] = predictions(pd.read_csv(evaluation / "predictions.csv"))
    tau = manifest["metrics"].get("privacy/tau")
    if tau is not None and scores.exists():
        figures["privacy"] = plots.privacy_histogram(pd.read_csv(scores), tau)
    for name, figure in figures.items():
        write_bytes(folder / f"{name}.png", plots.png(figure))
    for name in (MANIFEST, "README.md", "DATASHEET.md"):
        shutil.copyfile(release / name, folder / name)
