"""From what the privacy stages left to the steward's page, with patients and without."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.data.filelist import read_filelist, video_path
from echosyn.metrics.interval import Estimate
from echosyn.privacy.filters.video_detectors import RealVideos, read_clip
from echosyn.privacy.filters.video_scores import DETECTORS
from echosyn.privacy.gate.requirements import GateResult
from echosyn.privacy.release_audit import AuditConfig
from echosyn.report.privacy_evidence import (
    Clip,
    Pair,
    PrivacyEvidence,
    Scores,
    attack_table,
    band_table,
    gate_checks,
    loosened,
)
from echosyn.report.privacy_page import PAGE, PUBLIC, render

TITLES = {
    "similarity": "finished videos, by the re-identification model",
    "ncc": "finished videos, by the copy detector in pixels",
}


def build_privacy_pages(
    dataset: str,
    outcome: GateResult,
    cfg: AuditConfig,
    numbers: Mapping[str, float],
    planted: Sequence[pd.DataFrame],
    privacy: Path,
    samples: Path,
    real: RealVideos,
) -> dict[str, str]:
    """The page by file name: PAGE shows the most similar pairs, PUBLIC is the same without them.

    Args:
        numbers: flat metrics of the privacy stages. planted: curves with `level`.
        privacy: privacy/<dataset>, with the folders of its stages. samples: the released videos.
        real: the dataset that they imitate.
    """
    released = read_filelist(samples / "FileList.csv", "none")
    curve = privacy / "canary/curve.csv"
    evidence = PrivacyEvidence(
        dataset,
        gate_checks(outcome),
        numbers,
        videos=len(released),
        tested=_tested(numbers, cfg),
        scores=_scores(privacy, numbers),
        planted=pd.concat(planted, ignore_index=True),
        membership=attack_table(numbers),
        confidence=cfg.attacks.confidence,
        canary=pd.read_csv(curve) if "privacy/canary_relative" in numbers else None,
        bands=band_table(numbers),
        loosened=loosened(cfg.thresholds),
    )
    pairs = closest_pairs(privacy, samples, real, cfg.pairs)
    return {PAGE: render(dataclasses.replace(evidence, pairs=pairs)), PUBLIC: render(evidence)}


def closest_pairs(privacy: Path, samples: Path, real: RealVideos, count: int) -> list[Pair]:
    """The released videos most similar to a training video, each beside it, most similar first.

    A mirrored heart stands beside the patient as it is.
    """
    table = pd.read_csv(privacy / "videos/local_video_matches.csv", dtype={"similar_to": str})
    table = table[table["accepted"]].sort_values("similarity", ascending=False, kind="stable")
    names = list(real.frames.table["FileName"])
    pairs = []
    for row in table.head(count).itertuples():
        clip = read_clip(video_path(samples, row.video), real.fps)
        patient = real.frames.video(names.index(row.similar_to))
        pairs.append(
            Pair(
                clip[row.similar_frame],
                np.asarray(patient[row.similar_to_frame]),
                float(row.similarity),
                row.video,
                row.similar_to,
                (Clip(clip, real.fps), Clip(np.asarray(patient), real.fps)),
            )
        )
    return pairs


def _scores(privacy: Path, numbers: Mapping[str, float]) -> list[Scores]:
    def tau(key: str) -> Estimate:
        return Estimate(*(numbers.get(key + end, np.nan) for end in ("", "_lo", "_hi")))

    videos = pd.read_csv(privacy / "videos/video_scores.csv")
    return [
        Scores("hearts", pd.read_csv(privacy / "hearts/scores.csv"), tau("privacy/tau")),
        *(
            Scores(TITLES[name], videos, tau(f"privacy_videos/tau_{name}"), name)
            for name in DETECTORS
        ),
    ]


def _tested(numbers: Mapping[str, float], cfg: AuditConfig) -> list[str]:
    tried, kept = (int(numbers[f"privacy_videos/{k}"]) for k in ("videos", "accepted"))
    frames, gallery = (int(numbers[f"privacy_videos/{k}"]) for k in ("frames", "comparisons"))
    return [
        f"Every frame of every finished video was compared with all {gallery:,} frames of the "
        "training videos, by the same network and by a copy detector that compares the pictures "
        f"themselves. Of {tried:,} videos, {kept:,} passed both and are released.",
        f"The thresholds were set on {int(numbers['privacy/calibration_people'])} people (hearts) "
        f"and {int(numbers['privacy_videos/calibration_people'])} people (videos, {frames} frames "
        "at a time) whom no model has seen, and tested on others.",
        f"Copies of up to {cfg.planted.copies} training hearts and {cfg.planted_videos.copies} "
        "training videos were hidden among the synthetic ones, as they are and disguised.",
    ]
