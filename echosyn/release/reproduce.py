"""Some of a release's videos, sampled again: are they what the models it names draw?

A video follows from its sample index, which its name ends with: that index names the heart and
seeds the noise and the speckle; the FileList says what was asked of the model.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import read_video
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.privacy.filters.hearts import AcceptedHearts
from echosyn.release.manifest import read_manifest
from echosyn.release.store import Store
from echosyn.release.versions import Version
from echosyn.runtime.code import ROOT, modules
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.lineage import dvc_md5
from echosyn.runtime.progress import track
from echosyn.synthesis.samples import replanned, sample_shard
from echosyn.synthesis.video_writer import VideoModels

NAME = re.compile(r"SYN_(?P<dataset>\w+)_(?P<seed>\d+)_(?P<index>\d{6,})")
# Grey levels on average. Other arithmetic is up to 0.8 off, an EF 5 points lower from 1.2, other
# noise from 8.9 (docs/releases.md).
TOLERANCE = 1.0


@dataclass(frozen=True)
class Again:
    """A video sampled again. off: mean absolute difference to the released one, grey levels of 0 to
    255, infinite where the two differ in shape; identical: byte by byte."""

    name: str
    identical: bool
    off: float

    @property
    def passes(self) -> bool:
        return self.identical or self.off <= TOLERANCE

    def __str__(self) -> str:
        if self.identical:
            return f"{self.name}: byte-identical"
        within = "within" if self.passes else "beyond"
        return f"{self.name}: {self.off:.2f} grey levels off on average, {within} {TOLERANCE:g}"


def reproduce(release: Path, project: Path, videos: int, work: Path) -> list[Again]:
    """Sample that many videos of a release again, evenly spread over its FileList.

    Args:
        release: a release folder. project: holds the models and hearts it was made with.
        work: an empty folder, for the videos.

    Raises:
        EchosynError: fewer videos than asked for, one that is not named as sampled ones are, or a
            model or the hearts are missing or not those of the release.
    """
    manifest = read_manifest(release)
    table = read_filelist(release / "FileList.csv", label="none")
    if not 1 <= videos <= len(table):
        raise EchosynError(f"--videos {videos}: {release} has {len(table)}")
    part = table.iloc[np.linspace(0, len(table) - 1, videos).round().astype(int)]
    dataset, seed, indices = _origin(part["FileName"])
    cfg = settings(manifest)
    models = VideoModels.of(cfg, project / "models", dataset)
    _require_same(project, [*models.read_by(cfg), project / hearts(dataset)], manifest)
    plan = replanned(
        AcceptedHearts(project / hearts(dataset)), indices, part.reset_index(drop=True)
    )
    sampler, codec, speckle, meter = models.open(cfg, plan.fps, plan.fps, plan.has_ef)
    for row in track(range(videos), "reproduce", "video"):
        only = range(row, row + 1)
        sample_shard(sampler, codec, plan, only, work, seed, speckle, meter)
    return [
        _compared(name, video_path(release, name), work / f"{name}.avi")
        for name in part["FileName"]
    ]


def settings(manifest: Mapping[str, Any]) -> SampleVideosConfig:
    """What the videos of a release were sampled with."""
    values = manifest["params"].get("sample_videos")
    return build(SampleVideosConfig, values, "manifest.json: params: sample_videos")


def hearts(dataset: str) -> str:
    """Where a project keeps the hearts of a dataset's videos."""
    return f"privacy/{dataset}/hearts"


def fetch_models(
    store: Store, version: Version, manifest: Mapping[str, Any], project: Path
) -> None:
    """The models and hearts that a version was made with, at their places in a new folder."""
    cfg = settings(manifest)
    store.copy(version, f"models/{cfg.model}", project)
    needed = VideoModels.of(cfg, project / "models", version.name).read_by(cfg)
    for path in [*(p.relative_to(project).as_posix() for p in needed), hearts(version.name)]:
        if not (project / path).exists():
            store.copy(version, path, project)


def changed_code(manifest: Mapping[str, Any]) -> list[str]:
    """The code behind a sampled video that is not what the release was made with, by file."""
    recorded = manifest["lineage"]["code"]
    used = modules("sample_videos")
    return [
        path
        for path, md5 in recorded.items()
        if any(file == path or file.startswith(f"{path}/") for file in used)
        and dvc_md5(ROOT / path) != md5
    ]


def _origin(names: Iterable[str]) -> tuple[str, int, np.ndarray]:
    """Dataset, seed and sample indices (n,) of sampled videos."""
    found = []
    for name in names:
        match = NAME.fullmatch(name)
        if match is None:
            raise EchosynError(f"{name}: not named as sample_videos names a video")
        found.append(match)
    ((dataset, seed),) = {(m["dataset"], m["seed"]) for m in found}
    return dataset, int(seed), np.array([int(m["index"]) for m in found])


def _require_same(project: Path, folders: Iterable[Path], manifest: Mapping[str, Any]) -> None:
    recorded = {**manifest["lineage"]["data"], **manifest["lineage"]["models"]}
    for folder in folders:
        name = folder.relative_to(project).as_posix()
        if not folder.exists():
            raise EchosynError(f"{folder} does not exist: dvc pull {name}")
        if dvc_md5(folder) != recorded.get(name):
            raise EchosynError(
                f"{folder} is not what the release was made with (md5 {dvc_md5(folder)} instead of "
                f"{recorded.get(name)}): give NAME@VERSION, or check that version out"
            )


def _compared(name: str, released: Path, again: Path) -> Again:
    if released.read_bytes() == again.read_bytes():
        return Again(name, True, 0.0)
    a, b = read_video(released)[0], read_video(again)[0]
    off = np.abs(a.astype(float) - b).mean() if a.shape == b.shape else np.inf
    return Again(name, False, float(off))
