"""The page of a run under way: what there is to see so far, and what each stage took."""

from collections.abc import Collection
from pathlib import Path

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import read_video
from echosyn.report.html import render, stage_rows
from echosyn.report.mosaic import Moving, moving, spread
from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text
from echosyn.runtime.timing import kept

COLUMNS, VIDEOS, FPS, CLIP = 6, 6, 16.0, 2.0  # of a picture; the last in seconds
ROOM = 1_000_000  # bytes of a picture


def write_progress(
    root: Path, params: Params, page: Path, stages: Collection[str], seconds: float | None = None
) -> None:
    """Write the page anew.

    Args:
        stages: of the run. seconds: since it began, when it is over.
    """
    took = kept(root / ".echosyn" / "seconds")
    datasets = params.raw.get("generate") or []
    ready = [d for d in datasets if (root / "reports" / d / "index.html").is_file()]
    text = render(
        "progress.html",
        title="Echosyn: a run",
        stages=len(stages),
        over=seconds,
        reports=ready if seconds is not None else [],
        datasets={dataset: _pictures(root, params, dataset) for dataset in datasets},
        seconds=stage_rows({s: v for s, v in took.items() if s in stages}),
    )
    write_text(page, text)


def _pictures(root: Path, params: Params, dataset: str) -> list[tuple[str, Moving]]:
    label = params.dataset(dataset).label
    found = []
    for title, folder in (
        ("Real", root / "data" / "train" / dataset),
        ("Through the autoencoder", root / "reconstructions" / "train" / dataset),
        ("Synthetic", root / "samples" / dataset),
    ):
        picture = _picture(folder, label, f"{title} videos of {dataset}")
        if picture is not None:
            found.append((title, picture))
    return found


def _picture(folder: Path, label: str, alt: str) -> Moving | None:
    """Some videos of a folder from low to high EF; None while it is not whole."""
    try:
        listed = read_filelist(folder / "FileList.csv", label)
        by = "EF" if listed["EF"].notna().all() else "NumberOfFrames"
        names = listed["FileName"].iloc[spread(listed[by].to_numpy(), VIDEOS)]
        videos = [read_video(video_path(folder, name)) for name in names]
    except (EchosynError, OSError):
        return None
    return moving(videos, FPS, CLIP, COLUMNS, ROOM, alt)
