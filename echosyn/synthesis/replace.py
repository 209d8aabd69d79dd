"""The filter on finished videos, to its end: calibrate, score, and replace what is refused.

A refused video gives its place (EF, split, position in the FileList) to the next accepted heart
that no video shows yet; the new video is scored in turn, until every place is filled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import resample_indices
from echosyn.diffusion.generate import synthetic_name
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.encoding.codec import EncodeConfig
from echosyn.models.anomaly import AnomalyDetector
from echosyn.privacy.detectors.embedding import people_of
from echosyn.privacy.filters.anomaly_gate import calibrate_gate, require_people
from echosyn.privacy.filters.calibration import accepted
from echosyn.privacy.filters.hearts import AcceptedHearts
from echosyn.privacy.filters.video_detectors import (
    RealVideos,
    VideoScorer,
    long_enough,
    made_with,
    open_scorer,
    read_clip,
)
from echosyn.privacy.filters.video_result import VideoFilterResult
from echosyn.privacy.filters.video_scores import (
    ANOMALY,
    VideoFilterConfig,
    VideoScores,
    calibrate_videos,
    passes,
)
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir
from echosyn.runtime.shards import Make
from echosyn.synthesis.ef_truth import read_truth, with_truth
from echosyn.synthesis.samples import replanned, sample_shard
from echosyn.synthesis.video_writer import VideoModels

KEPT, GALLERY = "scores.npz", "gallery.npz"
# (work folder, items, items per shard, worker, what to call it) to the folders of the shards.
Shards = Callable[[Path, int, int, Callable[[], Make], str], list[Path]]


@dataclass(frozen=True)
class Sources:
    """Where everything is that the filter reads."""

    dataset: str
    candidates: Path  # a dataset folder, as sample_videos writes it
    hearts: Path  # privacy/<dataset>/hearts
    latents: Path  # of `videos`, as encode writes them
    videos: Path  # the real dataset's folder
    encoder: Path
    models: VideoModels
    cache: Path  # of decoded frames
    label: str = "ef"
    anomaly: Path | None = None  # the detector of strange videos, if they are to be refused

    @property
    def vae(self) -> Path:
        return self.models.vae


def filter_finished(
    sources: Sources,
    cfg: VideoFilterConfig,
    sampling: SampleVideosConfig,
    encoding: EncodeConfig,
    seed: int,
    work: Path,
    shards: Shards,
) -> VideoFilterResult:
    """Score all candidates, and replace those that are refused.

    Windows are as long as `cfg.frames`, or as the shortest candidate. VAL sets the taus, TEST
    checks them, with the middle window of every video that is long enough.

    Args:
        sampling, encoding: as the candidates and the latents were made.
        work: folder for what a killed filter resumes from.

    Where `sources` names an anomaly detector, it refuses too, at a threshold of its own.

    Raises:
        EchosynError: inputs that do not belong together, too few held-out people, videos shorter
            than the anomaly detector's window, or hearts or `cfg.limit` that run out before every
            place is filled.
    """
    real = RealVideos.open(sources.latents, sources.videos, sources.cache, sources.label)
    hearts = AcceptedHearts(sources.hearts)
    table, unused = _candidates(sources, hearts)
    facts = zip(table["NumberOfFrames"], table["FPS"], strict=True)
    shortest = min(len(resample_indices(int(n), fps, real.fps)) for n, fps in facts)
    frames = min(cfg.frames, shortest)
    needed = {"VAL": int(np.ceil(2 / cfg.calibration.false_rejection - 1e-9)), "TEST": 2}
    heldout = {split: real.split(split) for split in needed}
    videos = {s: long_enough(heldout[s], frames, n, s) for s, n in needed.items()}
    people = {s: people_of(heldout[s].latents)[videos[s]] for s in needed}
    if sources.anomaly:
        AnomalyDetector.load(sources.anomaly).frames(frames, real.fps)
        require_people(len(np.unique(people["VAL"])), cfg.anomaly_rate)
    kept = work / "gallery" / GALLERY
    if not kept.is_file():
        with atomic_dir(kept.parent) as tmp:
            prepared = open_scorer(real, sources.encoder, sources.vae, cfg, encoding)
            prepared.save(tmp / GALLERY)

    def scorer() -> VideoScorer:
        return open_scorer(real, sources.encoder, sources.vae, cfg, encoding, kept, sources.anomaly)

    def scored(folders: list[Path]) -> VideoScores:
        return VideoScores.join([VideoScores.load(f / KEPT) for f in folders])

    def score_heldout(split: str) -> VideoScores:
        def worker() -> Make:
            found = scorer()
            return lambda rows, folder: found.score_real(
                heldout[split], videos[split][rows.start : rows.stop], frames
            ).save(folder / KEPT)

        return scored(shards(work / split, len(videos[split]), cfg.shard, worker, split))

    def score_candidates(paths: list[Path]) -> VideoScores:
        def worker() -> Make:
            found = scorer()
            return lambda rows, folder: found.score(
                read_clip(paths[i], real.fps) for i in rows
            ).save(folder / KEPT)

        return scored(shards(work / "candidates", len(paths), cfg.shard, worker, "candidates"))

    def animate(part: pd.DataFrame, indices: np.ndarray, number: int) -> Attempt:
        plan = replanned(hearts, indices, part)

        def worker() -> Make:
            found = scorer()
            sampler, codec, speckle, meter = sources.models.open(
                sampling, plan.fps, real.fps, plan.has_ef
            )

            def make(rows: range, folder: Path) -> None:
                sample_shard(sampler, codec, plan, rows, folder, seed, speckle, meter)
                names = part["FileName"].iloc[rows.start : rows.stop]
                clips = (read_clip(folder / f"{name}.avi", real.fps) for name in names)
                found.score(clips).save(folder / KEPT)

            return make

        folder, size = work / f"round-{number:02d}", sampling.shard
        folders = shards(folder, len(part), size, worker, f"round {number}")
        made = with_truth(plan.table, read_truth(folders))
        names = enumerate(made["FileName"])
        files = [folders[i // size] / f"{name}.avi" for i, name in names]
        return made.assign(path=files), scored(folders)

    val, test = score_heldout("VAL"), score_heldout("TEST")
    calibration = calibrate_videos(val, people["VAL"], test, people["TEST"], cfg.calibration, seed)
    paths = [video_path(sources.candidates, name) for name in table["FileName"]]
    first, taus, gate = score_candidates(paths), calibration.taus, None
    if first.anomaly is not None and val.anomaly is not None and test.anomaly is not None:
        gate = calibrate_gate(
            val.anomaly, people["VAL"], test.anomaly, people["TEST"], cfg.anomaly_rate,
            cfg.calibration, seed,
        ).at_most(first.anomaly, cfg.anomaly_most)  # fmt: skip
        taus = {**taus, ANOMALY: gate.tau}
    tried, scores = replace_refused(
        (table.assign(path=paths), first), unused, animate, taus, cfg.limit,
        lambda index: synthetic_name(sources.dataset, seed, index),
    )  # fmt: skip
    identities = made_with(real, sources.encoder, sources.vae, cfg)
    short = {split: len(heldout[split]) - len(videos[split]) for split in needed}
    names = scorer().names()
    return VideoFilterResult(
        calibration, tried, scores, names, short, {**identities, "frames": frames}, seed, gate
    )


Attempt = tuple[pd.DataFrame, VideoScores]  # FileList rows with the videos' path, and the scores


def replace_refused(
    first: Attempt,
    unused: np.ndarray,
    animate: Callable[[pd.DataFrame, np.ndarray, int], Attempt],
    taus: dict[str, float],
    limit: float,
    name_of: Callable[[int], str],
) -> tuple[pd.DataFrame, VideoScores]:
    """Try videos until every place has one that passes.

    Args:
        first: the candidates, one for each place.
        unused: (A,) sample indices of hearts to take in turn.
        animate: (FileList rows of the places, new hearts' sample indices, the round from 1) to
            an attempt with those names.
        limit: of all videos tried, in times the places.
        name_of: the FileName of a heart's video.

    Returns:
        a row per video tried, with place, round and path; and the scores of those.

    Raises:
        EchosynError: hearts or the limit run out, with the numbers.
    """
    table, columns = first[0], first[0].columns.drop("path")
    rows = [table.assign(place=np.arange(len(table)), round=0)]
    scores, most = [first[1]], int(limit * len(table))
    while not (fine := passes(scores[-1], taus)).all():
        refused, number = rows[-1][~fine], len(rows)
        used = sum(map(len, rows[1:]))
        left = min(len(unused) - used, most - len(table) - used)
        if left < len(refused):
            raise EchosynError(
                _ran_out(table, VideoScores.join(scores), taus, len(unused) - used, most)
            )
        indices = unused[used : used + len(refused)]
        part = refused[columns].assign(FileName=[name_of(int(i)) for i in indices])
        made, found = animate(part, indices, number)
        rows.append(made.assign(place=refused["place"].to_numpy(), round=number))
        scores.append(found)
    return pd.concat(rows, ignore_index=True), VideoScores.join(scores)


def _ran_out(
    table: pd.DataFrame, scores: VideoScores, taus: dict[str, float], hearts: int, most: int
) -> str:
    passed = int(passes(scores, taus).sum())
    by = " and ".join(
        f"{int((~accepted(getattr(scores, n), tau)).sum())} by {n} (tau {tau:.4f})"
        for n, tau in taus.items()
    )
    rate = max(passed / len(scores), 1 / len(scores))
    more = int(np.ceil(1.1 * (len(table) - passed) / rate))
    return (
        f"{len(table)} videos are wanted, {passed} of {len(scores)} tried were accepted; refused: "
        f"{by}. {hearts} accepted hearts are left, and `limit` allows {most} videos in all. About "
        f"{more} more are needed: raise `spare` in conf/<scale>/privacy_filter.yaml for more "
        "hearts, or `limit` in conf/<scale>/filter_videos.yaml, or train generators that copy less"
        + (", or, if many are strange, lower `anomaly_most` there" if ANOMALY in taus else "")
    )


def _candidates(sources: Sources, hearts: AcceptedHearts) -> tuple[pd.DataFrame, np.ndarray]:
    """The FileList of the candidates, and the accepted hearts that none of them shows."""
    path = sources.candidates / "FileList.csv"
    table = read_filelist(path, sources.label)
    indices = table["FileName"].str.extract(r"_(\d+)$")[0].fillna(-1).astype(np.int64)
    strange = ~np.isin(indices, hearts.indices)
    if strange.any():
        raise EchosynError(
            f"{path}: {table['FileName'][strange].iloc[0]} is of no heart that {hearts.path} "
            "accepts; run sample_videos again"
        )
    return table, np.setdiff1d(hearts.indices, indices)
