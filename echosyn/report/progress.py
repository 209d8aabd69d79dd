"""The page of a run under way: what there is to see so far, and what each stage took."""

from collections.abc import Collection
from html import escape
from pathlib import Path

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import read_video
from echosyn.report.mosaic import clip, data_uri, spread, webp
from echosyn.report.parts import document, section, stage_table
from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text
from echosyn.runtime.timing import kept

COLUMNS, VIDEOS, FPS, CLIP = 6, 6, 16.0, 2.0  # of a picture; the last in seconds
RELOAD = '<meta http-equiv="refresh" content="5">'


def write_progress(
    root: Path, params: Params, page: Path, stages: Collection[str], seconds: float | None = None
) -> None:
    """Write the page anew.

    Args:
        stages: of the run. seconds: since it began, when it is over.
    """
    took = kept(root / ".echosyn" / "seconds")
    body = ["<h1>Echosyn</h1>"]
    if seconds is None:
        body.append(f'<p class="soft">A run of {len(stages)} stages is under way.</p>{RELOAD}')
    for dataset in params.raw.get("generate") or []:
        final = root / "reports" / dataset / "index.html"
        if final.is_file() and seconds is not None:
            body.append(
                f'<p><a href="{dataset}/index.html">The report of {escape(dataset)}</a></p>'
            )
        body.append(section(dataset, "\n".join(_pictures(root, params, dataset))))
    body.append(section("Stages", stage_table({s: v for s, v in took.items() if s in stages})))
    if seconds is not None:
        body.append(f"<p>In all {seconds:.0f} s.</p>")
    write_text(page, document("Echosyn: a run", body))


def _pictures(root: Path, params: Params, dataset: str) -> list[str]:
    label = params.dataset(dataset).label
    found = []
    for title, folder in (
        ("Real", root / "data" / "train" / dataset),
        ("Through the autoencoder", root / "reconstructions" / "train" / dataset),
        ("Synthetic", root / "samples" / dataset),
    ):
        picture = _picture(folder, label)
        if picture is not None:
            alt = escape(f"{title} videos of {dataset}")
            found.append(f'<h3>{title}</h3><img alt="{alt}" src="{data_uri(picture)}">')
    return found


def _picture(folder: Path, label: str) -> bytes | None:
    """Some videos of a folder from low to high EF; None while it is not whole."""
    try:
        listed = read_filelist(folder / "FileList.csv", label)
        by = "EF" if listed["EF"].notna().all() else "NumberOfFrames"
        names = listed["FileName"].iloc[spread(listed[by].to_numpy(), VIDEOS)]
        videos = [read_video(video_path(folder, name)) for name in names]
    except (EchosynError, OSError):
        return None
    return webp([clip(frames, fps, FPS, CLIP) for frames, fps in videos], FPS, COLUMNS)
