"""What the gate of latents looks at: index.csv, what its shards hold, and the dataset encoded."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from echosyn.data.filelist import (
    COLUMNS,
    PATIENT,
    SAFE_NAME,
    Cells,
    check_columns,
    read_cells,
    to_numbers,
)
from echosyn.data.video import map_videos, resample_indices
from echosyn.runtime.errors import EchosynError
from echosyn.validation.tables import Table, Tables, by_columns

INDEX = "index.csv"


def read_latents(latents: Path, dataset: Path, fps_tolerance: float = 0.0) -> Tables:
    """Measure a folder of latents, one video in memory per thread.

    - text: the cells of index.csv as written.
    - videos: a row of index.csv with Error, Shape, NotFinite, Mean and Sd (of the posterior
      means), Frames; what the dataset's FileList says of the video (Listed, ListedSplit, ListedEF,
      ListedPatient, ExpectedFrames) and whether it is the same. ExpectedFrames is the nearest to
      NumberOfFrames that a frame rate within `fps_tolerance` of the listed one makes.
    - dataset: a row of FileList.csv, Encoded.
    - shards: File, Unindexed (latents in it that the index does not place there), First of them.
    - channels: Channel, Mean, Sd, PosteriorSd over the frames of TRAIN, or of all without TRAIN.

    Raises:
        EchosynError: index.csv or FileList.csv is missing, has no rows or is not a CSV file, or
            FileList.csv lacks a column.
    """
    index, listed = _rows(latents / INDEX), _rows(dataset / "FileList.csv")
    check_columns(dataset / "FileList.csv", list(listed.table.columns), COLUMNS)
    text = index.table
    columns = ("FileName", "Split", "Shard")
    videos = pd.DataFrame({c: text.get(c, pd.Series("", text.index)) for c in columns})
    videos.insert(0, "Line", index.lines)
    videos["Name"] = videos["FileName"].str.lower()
    for column in ("EF", "FPS", "NumberOfFrames"):
        if column in text:
            videos[column] = to_numbers(text[column])
    if PATIENT in text:
        videos[PATIENT] = text[PATIENT]
    wanted = defaultdict(list)
    for shard, name in zip(videos["Shard"], videos["FileName"], strict=True):
        wanted[shard].append(name)
    files = sorted({*wanted, *(p.name for p in latents.glob("*.safetensors"))})
    facts: dict[tuple[str, str], dict[str, Any]] = {}
    shards = []
    work = map_videos(
        lambda f: _read_shard(latents, f, wanted[f]), files, "check latents", "shards"
    )
    for file, (found, unindexed) in zip(files, work, strict=True):
        facts |= {(file, name): fact for name, fact in found.items()}
        shards.append((file, len(unindexed), unindexed[0] if unindexed else ""))
    keys = list(zip(videos["Shard"], videos["FileName"], strict=True))
    measured = [facts[key] for key in keys]
    for column in ("Error", "Shape", "NotFinite", "Mean", "Sd", "Frames"):
        videos[column] = [fact.get(column) for fact in measured]
    _compare(videos, listed, fps_tolerance)
    encoded = {k for k, error in zip(keys, videos["Error"], strict=True) if error is None}
    names = listed.table["FileName"].str.removesuffix(".avi")
    known = pd.DataFrame({"Line": listed.lines, "FileName": names, "Split": listed.table["Split"]})
    known["Encoded"] = names.isin({name for _, name in encoded})
    train = (videos["Split"] == "TRAIN").to_numpy()
    chosen = [m for m, t in zip(measured, train | ~train.any(), strict=True) if t and "Sums" in m]
    return {
        "text": _by_line(text, videos),
        "videos": _by_line(videos, videos),
        "dataset": _by_line(known, known),
        "shards": by_columns(pd.DataFrame(shards, columns=["File", "Unindexed", "First"]), "File"),
        "channels": by_columns(_channels(chosen), "Channel"),
    }


def _rows(path: Path) -> Cells:
    cells = read_cells(path)
    if cells.table.empty:
        raise EchosynError(f"{path}: no rows")
    return cells


def _by_line(frame: pd.DataFrame, lines: pd.DataFrame) -> Table:
    return Table(frame, lambda i: f"line {lines['Line'].iloc[i]}, {lines['FileName'].iloc[i]}")


def _read_shard(
    folder: Path, file: str, wanted: list[str]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Facts of each wanted video, and the names of those that nobody wants."""
    path = folder / file
    if not SAFE_NAME.fullmatch(file):
        return {name: {"Error": f"{file!r} is not a plain file name"} for name in wanted}, []
    if not path.is_file():
        return {name: {"Error": f"{file} does not exist"} for name in wanted}, []
    try:
        with safe_open(path, framework="numpy") as shard:
            there = set(shard.keys())
            facts = {
                name: _measure(shard.get_tensor(name))
                if name in there
                else {"Error": f"{file} does not hold it"}
                for name in wanted
            }
    except (OSError, SafetensorError) as e:
        return {name: {"Error": f"{file} cannot be read: {e}"} for name in wanted}, []
    return facts, sorted(there - set(wanted))


def _measure(latents: np.ndarray) -> dict[str, Any]:
    """Facts of one video's latents (T, 8, h, w), the mean in the first half of the channels."""
    if latents.ndim != 4 or latents.shape[1] % 2 or latents.size == 0:
        return {"Error": None, "Shape": f"{latents.dtype} {latents.shape}"}
    shape = "x".join(map(str, latents.shape[1:]))
    facts: dict[str, Any] = {"Error": None, "Shape": f"{latents.dtype} {shape}"}
    facts["Frames"] = float(len(latents))
    if latents.dtype.kind != "f":
        return facts
    bad = int(latents.size - np.isfinite(latents).sum())
    facts["NotFinite"] = bad
    if bad:
        return facts
    mean, logvar = np.split(latents.astype(np.float64), 2, axis=1)  # (T, C, h, w) each
    axes = (0, 2, 3)
    facts["Mean"], facts["Sd"] = float(mean.mean()), float(mean.std())
    facts["Sums"] = np.stack(
        [mean.sum(axes), (mean**2).sum(axes), np.exp(0.5 * logvar).sum(axes)]
    )  # (3, C)
    facts["Count"] = mean[:, 0].size
    return facts


def _channels(measured: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    columns = ["Channel", "Mean", "Sd", "PosteriorSd"]
    shapes = {m["Sums"].shape for m in measured}
    if len(shapes) != 1:  # none, or videos that differ: the check of the shape says so
        return pd.DataFrame(columns=columns)
    total = np.sum([m["Sums"] for m in measured], axis=0) / sum(m["Count"] for m in measured)
    sd = np.sqrt(np.maximum(total[1] - total[0] ** 2, 0))
    return pd.DataFrame(
        {"Channel": range(1, len(sd) + 1), "Mean": total[0], "Sd": sd, "PosteriorSd": total[2]}
    )


def _compare(videos: pd.DataFrame, listed: Cells, fps_tolerance: float) -> None:
    """Add what the FileList says of each video, and whether the index says the same."""
    table = listed.table
    table = table.assign(FileName=table["FileName"].str.removesuffix(".avi"))
    table = table.drop_duplicates("FileName").set_index("FileName")
    place = table.index.get_indexer(videos["FileName"])
    known = place >= 0
    videos["Listed"] = known

    def said(column: str) -> pd.Series:
        cells = table[column].iloc[place].reset_index(drop=True)
        return cells.where(known, None)

    videos["ListedSplit"] = said("Split")
    videos["SameSplit"] = (videos["Split"] == videos["ListedSplit"]).where(known, None)
    if "EF" in videos:
        videos["ListedEF"] = to_numbers(said("EF").fillna(""))
        same = np.isclose(videos["EF"], videos["ListedEF"], rtol=0, atol=1e-4, equal_nan=True)
        videos["SameEF"] = pd.Series(same, dtype=object).where(known, None)
    if PATIENT in videos and PATIENT in table:
        videos["ListedPatient"] = said(PATIENT)
        same = videos[PATIENT] == videos["ListedPatient"]
        videos["SamePatient"] = same.where(known, None)
    if {"FPS", "NumberOfFrames"} <= set(videos):
        frames, fps = (to_numbers(said(c).fillna("")) for c in ("NumberOfFrames", "FPS"))
        rows = zip(frames, fps, videos["FPS"], videos["NumberOfFrames"], strict=True)
        videos["ExpectedFrames"] = [_expected_frames(*row, fps_tolerance) for row in rows]


def _expected_frames(
    n: float, source: float, target: float, encoded: float, tolerance: float
) -> float:
    """What `n` frames at about `source` per second are at `target`, as near `encoded` as may be."""
    if not (n >= 1 and source > 0 and target > 0 and encoded >= 0):
        return np.nan
    rates = (source + tolerance, max(source - tolerance, source / 2))
    fewest, most = (len(resample_indices(int(n), rate, target)) for rate in rates)
    return float(np.clip(encoded, fewest, most))
