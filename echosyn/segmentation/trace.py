"""End-diastole and end-systole of videos traced by the segmenter, and the EF that follows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from echosyn.data.filelist import (
    EF_TRACED,
    PHASE,
    TRACINGS,
    asked_ef,
    frame_phases,
    video_path,
)
from echosyn.data.video import read_video, resample_indices
from echosyn.models.segmenter import Segmenter, probabilities
from echosyn.runtime.device import pick_device
from echosyn.runtime.files import write_text
from echosyn.segmentation.agreement import agreement
from echosyn.segmentation.contour import CHORDS, area, chords, disc_volume, largest_contour
from echosyn.segmentation.files import FILE, UNIT

if TYPE_CHECKING:
    from echosyn.metrics.streaming import MapRows

OUTCOMES = ("traced", "no ventricle", "implausible area", "no contraction")
PLAUSIBLE = (0.5, 1.5)  # of TRAIN's least and greatest traced area
COLUMNS = ("FileName", "X1", "Y1", "X2", "Y2", "Frame")  # EchoNet-Dynamic's
FACTS = 3  # numbers of a tracing before its lines


@dataclass(frozen=True, eq=False)
class Tracing:
    """What was found in a video: one of OUTCOMES, the frames' numbers of end-diastole and
    end-systole, and their lines (2, 1 + CHORDS, 4), which are NaN unless it was traced."""

    outcome: str
    frames: tuple[int, int]
    lines: np.ndarray

    @property
    def traced(self) -> bool:
        return self.outcome == OUTCOMES[0]

    @property
    def volumes(self) -> tuple[float, float]:
        """End-diastolic and end-systolic, pixels cubed; NaN unless traced."""
        ed, es = (disc_volume(one) for one in self.lines)
        return ed, es


def trace(model: Segmenter, frames: np.ndarray) -> Tracing:
    """Trace a video uint8 (T, H, W) where the ventricle is largest and where it is smallest.

    A video is not traced where either frame shows no ventricle, or one of an area that is beyond
    PLAUSIBLE, or where the volume does not shrink.
    """
    found = probabilities(model, frames)
    # The sum of probabilities tells more than a count of pixels of how far a contour moves.
    size = found.sum(axis=(1, 2))
    at = int(size.argmax()), int(size.argmin())

    def refused(why: int) -> Tracing:
        return Tracing(OUTCOMES[why], at, np.full((2, 1 + CHORDS, 4), np.nan))

    contours = [contour for t in at if (contour := largest_contour(found[t])) is not None]
    if len(contours) < len(at):
        return refused(1)
    low, high = (share * of for share, of in zip(PLAUSIBLE, model.areas, strict=True))
    if not all(low <= area(contour) <= high for contour in contours):
        return refused(2)
    tracing = Tracing(OUTCOMES[0], at, np.stack([chords(contour) for contour in contours]))
    ed, es = tracing.volumes
    return tracing if es < ed else refused(3)


def trace_videos(
    folder: Path,
    names: list[str],
    model: Path,
    over: "MapRows",
    title: str,
    fps: float | None = None,
) -> list[Tracing]:
    """`trace` of the videos of a dataset folder.

    Args:
        model: folder of a Segmenter. over: computes over videos, here or on a cluster, which shows
            `title`. fps: at which frames are taken, None for all; they keep their numbers.
    """

    def worker() -> Callable[[range], np.ndarray]:
        net = Segmenter.load(model).to(pick_device())

        def compute(rows: range) -> np.ndarray:
            return np.stack([_row(net, folder, names[i], fps) for i in rows])

        return compute

    found = over(title, len(names), worker)
    return [
        Tracing(OUTCOMES[int(row[0])], (int(row[1]), int(row[2])), row[FACTS:].reshape(2, -1, 4))
        for row in found
    ]


def _row(net: Segmenter, folder: Path, name: str, fps: float | None) -> np.ndarray:
    frames, own = read_video(video_path(folder, name))
    picks = resample_indices(len(frames), own, fps or own)
    tracing = trace(net, frames[picks])
    numbers = [OUTCOMES.index(tracing.outcome), *(picks[t] for t in tracing.frames)]
    return np.concatenate([numbers, tracing.lines.ravel()])


def volume_table(names: list[str], tracings: list[Tracing], ml: float | None) -> pd.DataFrame:
    """A row a video: FileName; ESV and EDV, in millilitres where `ml`, those of a cubic pixel, are
    known, else in pixels cubed, as VolumeUnit says; EFTraced in percent; EDFrame, ESFrame, Outcome.
    Volumes and EF are NaN where a video was not traced."""
    edv, esv = np.array([t.volumes for t in tracings]).reshape(-1, 2).T * (ml or 1.0)
    return pd.DataFrame(
        {
            "FileName": names,
            "ESV": esv.round(4),
            "EDV": edv.round(4),
            EF_TRACED: (100 * (1 - esv / edv)).round(4),
            UNIT: "pixel^3" if ml is None else "ml",
            "EDFrame": [t.frames[0] for t in tracings],
            "ESFrame": [t.frames[1] for t in tracings],
            "Outcome": [t.outcome for t in tracings],
        }
    )


def write_tracings(folder: Path, table: pd.DataFrame, tracings: list[Tracing]) -> None:
    """Write volumes.csv and, as EchoNet-Dynamic has it, VolumeTracings.csv of the traced videos: of
    each frame the long axis and twenty chords, end-systole before end-diastole as there."""
    write_text(folder / FILE, table.to_csv(index=False, lineterminator="\n"))
    rows = [
        (f"{name}.avi", *(f"{x:.4f}" for x in line), tracing.frames[k])
        for name, tracing in zip(table["FileName"], tracings, strict=True)
        if tracing.traced
        for k in (1, 0)
        for line in tracing.lines[k]
    ]
    text = pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False, lineterminator="\n")
    write_text(folder / TRACINGS, text)


def tracing_numbers(samples: pd.DataFrame, table: pd.DataFrame, seed: int) -> dict[str, float]:
    """How many synthetic videos were traced, and how their traced EF agrees with the others.

    - `segmentation/traced`: share of the videos; `segmentation/left_out_<why>`: counts;
    - `segmentation/ef_{r,slope,mae}`: traced EF against the one asked for;
    - `segmentation/ed_off`: beats between the frame traced as end-diastole and the nearest one that
      was asked to be, median.

    Args:
        samples: the FileList of the videos. table: of `volume_table`, in the same order.
    """
    traced = (table["Outcome"] == OUTCOMES[0]).to_numpy()
    numbers = {"segmentation/traced": float(traced.mean())}
    for why in OUTCOMES[1:]:
        key = f"segmentation/left_out_{why.replace(' ', '_')}"
        numbers[key] = int((table["Outcome"] == why).sum())
    found = table[EF_TRACED].to_numpy(np.float64)
    numbers |= agreement("ef", asked_ef(samples).to_numpy(np.float64), found, seed)
    phases = frame_phases(samples[samples["FileName"].isin(table["FileName"][traced])])
    if len(phases):
        ed = table.rename(columns={"EDFrame": "Frame"})[["FileName", "Frame"]]
        off = ed.merge(phases)[PHASE]
        numbers["segmentation/ed_off"] = float(np.minimum(off, 1 - off).median())
    return numbers
