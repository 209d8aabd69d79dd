"""A phantom dataset on disk, in EchoNet-Dynamic's layout."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import pandas as pd

from echosyn.data.filelist import CLASS, PATIENT, write_filelist
from echosyn.data.phantom.config import PhantomConfig
from echosyn.data.phantom.defects import add_defects
from echosyn.data.phantom.render import Labels, write_patient
from echosyn.runtime.files import atomic_dir, write_text
from echosyn.runtime.progress import track


def write_dataset(out: Path, cfg: PhantomConfig, seed: int, workers: int) -> pd.DataFrame:
    """Render all patients into `out`: FileList.csv, VolumeTracings.csv, Videos/*.avi.

    `out` is replaced as a whole, or left alone when anything fails. The bytes do not depend on
    `workers` (processes), and those of a video not on how many others there are. With more than
    one worker, a script calls this under `if __name__ == "__main__"`, as workers import it.

    Returns:
        The FileList, one row per patient.

    Raises:
        EchosynError: a video could not be written.
    """
    with atomic_dir(out) as folder:
        videos = folder / "Videos"
        videos.mkdir()
        rendered = _render_all(videos, cfg, seed, workers)
        labels = list(track(rendered, "phantom", "videos", total=cfg.videos))
        table = add_defects(_filelist(labels, cfg), folder, cfg, seed)
        write_filelist(folder / "FileList.csv", table)
        write_text(folder / "VolumeTracings.csv", _volume_tracings(labels))
    return table


def _filelist(labels: Sequence[Labels], cfg: PhantomConfig) -> pd.DataFrame:
    rows = [
        {
            "FileName": x.name,
            "EF": round(x.ef, 4),
            "ESV": round(x.esv, 4),
            "EDV": round(x.edv, 4),
            "FrameHeight": cfg.size,
            "FrameWidth": cfg.size,
            "FPS": cfg.fps,
            "NumberOfFrames": cfg.frames,
            "Split": cfg.split(index),
            PATIENT: f"phantom-{index:05d}",
        }
        for index, x in enumerate(labels)
    ]
    table = pd.DataFrame(rows)
    if cfg.pathology != "none":
        table[CLASS] = [cfg.label(index) for index in range(len(labels))]
    return table


def _volume_tracings(labels: Sequence[Labels]) -> str:
    """EchoNet's table: per traced frame the long axis, then 20 discs; the larger frame is last."""
    rows = [
        (f"{x.name}.avi", *(f"{c:.4f}" for c in row), tracing.frame)
        for x in labels
        for tracing in reversed(x.tracings)
        for row in tracing.rows().tolist()
    ]
    columns = ["FileName", "X1", "Y1", "X2", "Y2", "Frame"]
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n")


def _render_all(folder: Path, cfg: PhantomConfig, seed: int, workers: int) -> Iterator[Labels]:
    """Labels of every patient in order of index, rendered by `workers` processes."""
    render = partial(write_patient, folder, cfg=cfg, seed=seed)
    workers = min(workers, cfg.videos)
    if workers == 1:
        yield from map(render, range(cfg.videos))
        return
    # Forking a process that holds OpenMP threads can deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield from pool.map(render, range(cfg.videos), chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """One thread each, deaf to Ctrl-C (the parent decides), gone when the parent is gone."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a worker

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
