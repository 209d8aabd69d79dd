"""Sources in EchoNet layout: FileList.csv, Videos/*.avi and perhaps VolumeTracings.csv.

Videos that already have the canonical size are copied byte for byte. What FileList.csv says of
them is kept as it says it: whether it is true is the gate's question, not ours to mend silently.
"""

import shutil
from pathlib import Path

import pandas as pd

from echosyn.data.filelist import read_cells, read_filelist, to_numbers, video_path, write_filelist
from echosyn.data.ingest.canonical import FRAME_SIZE, IngestReport, SquareFit, refuse_all
from echosyn.data.video import map_videos, read_video, write_video
from echosyn.errors import EchosynError
from echosyn.files import write_text

TRACINGS = "VolumeTracings.csv"


def ingest(raw: Path, out: Path, label: str) -> IngestReport:
    """Fill the empty folder `out` from `raw`; see `echosyn.data.ingest.ingest`."""
    table = read_filelist(raw / "FileList.csv", label)
    names = list(table["FileName"])
    gone = [name for name in names if not video_path(raw, name).is_file()]
    refuse_all((f"{video_path(raw, n)}: the video does not exist" for n in gone), len(names),
               "videos of FileList.csv")  # fmt: skip
    (out / "Videos").mkdir()

    def convert(name: str) -> tuple[int, int, int] | str:
        source, target = video_path(raw, name), video_path(out, name)
        try:
            frames, fps = read_video(source)
        except EchosynError as e:
            return str(e)
        fit = SquareFit(*frames.shape[1:])
        if fit.identity:
            shutil.copyfile(source, target)
        else:
            write_video(target, fit.apply(frames), fps)
        return frames.shape

    results = list(map_videos(convert, names, "ingest"))
    refuse_all((r for r in results if isinstance(r, str)), len(names), "videos")
    shapes = pd.DataFrame(results, columns=["frames", "height", "width"])
    resized = (shapes["height"] != FRAME_SIZE) | (shapes["width"] != FRAME_SIZE)
    for column, measured in (("FrameHeight", "height"), ("FrameWidth", "width")):
        table.loc[resized & (table[column] == shapes[measured]), column] = FRAME_SIZE
    write_filelist(out / "FileList.csv", table)
    fits = {n: SquareFit(h, w) for n, _, h, w in shapes[resized].itertuples()}
    _tracings(raw / TRACINGS, out / TRACINGS, {names[i]: fit for i, fit in fits.items()})
    return IngestReport(len(names), int(shapes["frames"].sum()), _notes(raw, names, len(fits)))


def _tracings(source: Path, target: Path, fits: dict[str, SquareFit]) -> None:
    """Copy the tracings; move those of resized videos with their frames."""
    if not source.is_file():
        return
    if not fits:
        shutil.copyfile(source, target)
        return
    table = read_cells(source).table
    missing = {"FileName", "X1", "Y1", "X2", "Y2"} - set(table.columns)
    if missing:
        raise EchosynError(f"{source}: column '{min(missing)}' is missing")
    fit = table["FileName"].str.removesuffix(".avi").map(fits)
    moved = fit.notna()
    scale = fit[moved].map(lambda f: FRAME_SIZE / f.side).astype(float)
    for axis, edge in (("X", "left"), ("Y", "top")):
        offset = fit[moved].map(lambda f, edge=edge: getattr(f, edge)).astype(float)
        for column in (f"{axis}1", f"{axis}2"):
            value = (to_numbers(table[column][moved]) + offset) * scale
            table.loc[moved, column] = value.map(lambda v: f"{v:.4f}")
    write_text(target, table.to_csv(index=False, lineterminator="\n"))


def _notes(raw: Path, names: list[str], resized: int) -> tuple[str, ...]:
    listed = {f"{name}.avi" for name in names}
    unlisted = sum(f.name not in listed for f in (raw / "Videos").iterdir())
    notes = []
    if resized:
        notes.append(f"{resized} videos were resized to {FRAME_SIZE}x{FRAME_SIZE}")
    if unlisted:
        notes.append(f"{unlisted} files in {raw / 'Videos'} are not in FileList.csv: left out")
    return tuple(notes)
