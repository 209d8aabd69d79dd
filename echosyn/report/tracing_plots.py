"""Pictures of tracings: frames with contours drawn on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from echosyn.data.filelist import video_path
from echosyn.data.spaced import evenly_spaced
from echosyn.data.video import read_video
from echosyn.models.segmenter import Segmenter, probabilities
from echosyn.report.plots import REAL, STYLE, SYNTHETIC
from echosyn.segmentation.contour import largest_contour, outline
from echosyn.segmentation.task import TracedFrames, traced_frames
from echosyn.segmentation.trace import Tracing

PICTURES = 6  # videos in a row
PHASES = ("ED", "ES")


@dataclass(frozen=True, eq=False)
class TracedFrame:
    """A frame uint8 (H, W), the contour (N, 2) that the model found in it, None for none, and the
    one of the tracings, if any, in pixels."""

    title: str
    frame: np.ndarray
    found: np.ndarray | None
    traced: np.ndarray | None = None


def synthetic_rows(
    folder: Path, table: pd.DataFrame, tracings: Sequence[Tracing]
) -> list[list[TracedFrame]]:
    """End-diastole, then end-systole, of some traced videos of a dataset folder, spread evenly.

    Args:
        table: of `volume_table`, in the order of `tracings`.
    """
    traced = [i for i, tracing in enumerate(tracings) if tracing.traced]
    rows: list[list[TracedFrame]] = [[], []]
    for i in np.unique(evenly_spaced(len(traced), PICTURES)) if traced else ():
        tracing, facts = tracings[traced[i]], table.iloc[traced[i]]
        frames, _ = read_video(video_path(folder, facts["FileName"]))
        for k, name in enumerate(PHASES):
            title = f"synthetic, {name}\nEF {facts['EFTraced']:.0f}, frame {tracing.frames[k]}"
            contour = outline(tracing.lines[k])
            rows[k].append(TracedFrame(title, frames[tracing.frames[k]], contour))
    return [row for row in rows if row]


def real_rows(data: Path, net: Segmenter) -> list[list[TracedFrame]]:
    """The same of traced real TEST videos of the dataset folder `data`."""
    test = traced_frames(data, "TEST", PICTURES)
    contours = [largest_contour(p) for p in probabilities(net, test.frames)] if test.videos else []
    rows: list[list[TracedFrame]] = [[], []]
    for frame, mask, diastole, found in zip(
        test.frames, test.masks, test.diastole, contours, strict=True
    ):
        true = largest_contour(mask.astype(np.float32))
        title = f"real TEST, {PHASES[not diastole]}"
        rows[not diastole].append(TracedFrame(title, frame, found, true))
    return [row for row in rows if row]


def mask_rows(pairs: TracedFrames) -> list[list[TracedFrame]]:
    """End-diastole, then end-systole, of some synthetic frames and the masks made for them."""
    rows = []
    for k, name in enumerate(PHASES):
        at = np.flatnonzero(pairs.diastole == (k == 0))
        chosen = at[np.unique(evenly_spaced(len(at), PICTURES))] if len(at) else at
        rows.append(
            [
                TracedFrame(
                    f"synthetic, {name}", pairs.frames[i],
                    largest_contour(pairs.masks[i].astype(np.float32)),
                )
                for i in chosen
            ]
        )  # fmt: skip
    return [row for row in rows if row]


def tracing_figure(rows: Sequence[Sequence[TracedFrame]]) -> Figure:
    """A row of panels for each row of frames."""
    columns = max(map(len, rows))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.3 * columns, 1.5 * len(rows) + 0.3), layout="constrained")
        for i, row in enumerate(rows):
            for j, one in enumerate(row):
                axes = figure.add_subplot(len(rows), columns, i * columns + j + 1)
                axes.imshow(one.frame, cmap="gray", vmin=0, vmax=255)
                for contour, colour in ((one.traced, REAL), (one.found, SYNTHETIC)):
                    if contour is not None:
                        axes.plot(*np.vstack([contour, contour[:1]]).T, color=colour, lw=1)
                axes.set_title(one.title, size=7)
                axes.set_axis_off()
        figure.suptitle("orange: found by the model; blue: as the dataset traces it", size=8)
    return figure
