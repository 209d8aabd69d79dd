"""Pictures of the beat: a line across the heart over time (M-mode), with what was found on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from echosyn.data.filelist import video_path
from echosyn.data.spaced import evenly_spaced
from echosyn.data.video import read_video, resample_indices
from echosyn.report.plots import REAL, STYLE, SYNTHETIC, figure_of

LINE = 0.42  # of the height, from the top: in an apical view it crosses the left ventricle


@dataclass(frozen=True, eq=False)
class FoundBeat:
    """A video uint8 (T, H, W) and its beat: the area's curve (T,), in any unit; rate, beats a
    minute, and phase of the first frame, beats from end-diastole, both NaN where not sure; share of
    the curve's variance that the beat explains, 0-1.
    """

    name: str
    frames: np.ndarray
    fps: float
    curve: np.ndarray
    rate: float
    phase: float
    share: float

    @property
    def diastoles(self) -> np.ndarray:
        """Seconds from the first frame to each end-diastole in the video; none where not sure."""
        if not np.isfinite(self.rate):
            return np.zeros(0)
        seconds = len(self.frames) / self.fps
        beats = np.arange(np.ceil(self.phase), self.phase + seconds * self.rate / 60)
        return (beats - self.phase) * 60 / self.rate


def m_mode(frames: np.ndarray, line: float = LINE) -> np.ndarray:
    """Grey levels along a horizontal line over time, uint8 (W, T), of a video uint8 (T, H, W).

    Args:
        line: height of the line, 0 (top) to 1.
    """
    return frames[:, min(int(line * frames.shape[1]), frames.shape[1] - 1)].T


def some_beats(
    data: Path, fps: np.ndarray, table: pd.DataFrame, curves: Sequence[np.ndarray], count: int
) -> list[FoundBeat]:
    """Videos of the dataset folder `data`, evenly spread, and what was found of each.

    Args:
        fps: of the curves (V,). table: beats.csv, a row per video. curves: of the area.
    """
    some = []
    for v in np.unique(evenly_spaced(len(table), count)):
        row, rate = table.iloc[v], float(fps[v])
        frames, own = read_video(video_path(data, row["FileName"]))
        shown = frames[resample_indices(len(frames), own, rate)]
        beat = (row["HeartRate"], row["Phase"], row["Share"])
        some.append(FoundBeat(row["FileName"], shown, rate, curves[v], *beat))
    return some


def beat_figure(found: Sequence[FoundBeat]) -> Figure:
    """A panel for each video: its M-mode, the area of the ventricle, and every end-diastole."""
    with mpl.rc_context(STYLE):
        figure, panels = figure_of(len(found))
        for axes, beat in zip(panels, found, strict=True):
            picture, seconds = m_mode(beat.frames), len(beat.frames) / beat.fps
            axes.grid(False)
            axes.imshow(
                picture, cmap="gray", vmin=0, vmax=255, aspect="auto",
                extent=(0.0, seconds, len(picture), 0.0),
            )  # fmt: skip
            span = max(float(np.ptp(beat.curve)), 1e-9)
            height = (beat.curve - beat.curve.min()) / span
            times = (np.arange(len(beat.curve)) + 0.5) / beat.fps
            axes.plot(times, len(picture) * (0.98 - 0.2 * height), color=SYNTHETIC, lw=1.5)
            for at in beat.diastoles:
                axes.axvline(at, color=REAL, lw=1.2)
            rate = f"{beat.rate:.0f} a minute" if np.isfinite(beat.rate) else "not sure"
            axes.set_title(f"{beat.name}\n{rate} ({beat.share:.2f})", loc="left", size=8)
            axes.set_yticks([])
            axes.set_xlabel("s", size=8)
            axes.tick_params(labelsize=8)
        figure.suptitle("orange: area of the left ventricle; blue: end-diastole", size=9)
    return figure
