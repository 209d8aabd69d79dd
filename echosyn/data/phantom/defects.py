"""A dataset made wrong on purpose, as real ones are, for tests of what must notice."""

from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.data.filelist import PATIENT, video_path
from echosyn.data.phantom.config import STRANGE_SHAPES, STRANGE_TIMES, PhantomConfig
from echosyn.data.phantom.render import render_patient
from echosyn.data.video import write_video


def add_defects(table: pd.DataFrame, folder: Path, cfg: PhantomConfig, seed: int) -> pd.DataFrame:
    """The FileList with wrong rows; videos in `folder` are damaged or replaced to match.

    Row i of `table` is patient i. Which rows depends on the seed alone, and none gets two defects.
    The defects across splits take the rows that they need first: of VAL and TEST, each with a TRAIN
    row of its own.
    """
    table, defects = table.copy(), cfg.defects
    if not defects.total:
        return table
    order = np.random.default_rng([seed, 3]).permutation(len(table))
    trained = [i for i in order if table.at[i, "Split"] == "TRAIN"]
    held_out = [i for i in order if table.at[i, "Split"] != "TRAIN"]
    for number in range(defects.duplicate + defects.shared_patient):
        i, model = held_out[number], trained[number]
        if number < defects.duplicate:
            copy = video_path(folder, table.at[model, "FileName"]).read_bytes()
            video_path(folder, table.at[i, "FileName"]).write_bytes(copy)
        else:
            table.at[i, PATIENT] = table.at[model, PATIENT]
    across = defects.duplicate + defects.shared_patient
    used = {*held_out[:across], *trained[:across]}
    free = iter([i for i in order if i not in used])
    for _, i in zip(range(defects.truncated), free, strict=False):
        video = video_path(folder, table.at[i, "FileName"])
        video.write_bytes(video.read_bytes()[: video.stat().st_size * 2 // 3])
    for _, i in zip(range(defects.wrong_fps), free, strict=False):
        table.at[i, "FPS"] *= 2
    for _, i in zip(range(defects.wrong_frames), free, strict=False):
        table.at[i, "NumberOfFrames"] += 7
    for _, i in zip(range(defects.wrong_ef), free, strict=False):
        table.at[i, "EF"] += 20 if table.at[i, "EF"] < 50 else -20
    for kind in (*STRANGE_SHAPES, *STRANGE_TIMES):
        for _, i in zip(range(getattr(defects, kind)), free, strict=False):
            drawn = render_patient(i, cfg, seed, kind)
            write_video(video_path(folder, table.at[i, "FileName"]), drawn.frames, cfg.fps)
    return table
