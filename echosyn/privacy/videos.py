"""The filter on finished videos: all their frames, against all frames of TRAIN, by two detectors.

Re-identification compares embeddings of frames, the copy detector their pixels; a video scores its
highest frame by each, and is refused when either reaches its own tau. A maximum over more frames
is larger, so whole held-out videos of as many frames set the taus, each at half of the stated
false-rejection rate: together they then refuse at most that share of unrelated people's videos.

Scores are made in as many pieces as memory asks for (`VideoScores.join`). What is held is the
gallery, 4 D bytes a frame for either detector (1.3 million frames of D = 128: 1.3 GB), and the
embeddings of one piece.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.config import setting
from echosyn.errors import EchosynError
from echosyn.files import write_text
from echosyn.metrics.interval import Estimate, percentile_interval, resample_counts
from echosyn.privacy.calibration import (
    Calibration,
    CalibrationConfig,
    accepted,
    quantile_interval,
)
from echosyn.privacy.copies import CopyConfig, CopyDetector, first_best
from echosyn.privacy.similarity import max_similarity

VIDEO_SCORES = "video_scores.csv"
LOCAL_MATCHES = "local_video_matches.csv"  # names training videos: never leaves the machine
DETECTORS = ("similarity", "ncc")


@dataclass(frozen=True)
class VideoFilterConfig:
    """The filter on finished videos."""

    calibration: CalibrationConfig
    copies: CopyConfig
    frames: int = setting(64, lo=1, help="consecutive frames that every video is scored on")
    gallery_frames: int = setting(0, lo=0, help="frames per TRAIN video; 0: all of them")


@dataclass(frozen=True)
class VideoScores:
    """Maxima over the frames of each of V videos, and where they were reached. All (V,).

    `similarity` and `ncc` are what decides. The rest names gallery rows: `similar_row` and
    `copied_row` with the video's own frames, and the copy's shift in pixels and mirror image.
    """

    similarity: np.ndarray
    ncc: np.ndarray
    similar_row: np.ndarray
    similar_frame: np.ndarray
    copied_row: np.ndarray
    copied_frame: np.ndarray
    down: np.ndarray
    right: np.ndarray
    mirrored: np.ndarray
    frames: int  # of each video
    comparisons: int  # gallery frames

    def __len__(self) -> int:
        return len(self.similarity)

    @staticmethod
    def join(parts: Sequence["VideoScores"]) -> "VideoScores":
        """Scores of several pieces, in order.

        Raises:
            EchosynError: pieces of another number of frames or comparisons.
        """
        for part in parts[1:]:
            _symmetric("the first piece", parts[0], "another piece", part)
        fields = [f.name for f in dataclasses.fields(VideoScores)][:-2]
        joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in fields}
        return VideoScores(**joined, frames=parts[0].frames, comparisons=parts[0].comparisons)


def score_videos(
    embeddings: np.ndarray,
    frames: np.ndarray,
    gallery: np.ndarray,
    detector: CopyDetector,
    length: int,
    progress: str = "",
) -> VideoScores:
    """Score whole videos of `length` frames each, laid end to end.

    Args:
        embeddings: (V length, D) unit embeddings of the frames, and
        frames: uint8 (V length, H, W), the frames themselves.
        gallery: (G, D) unit embeddings of TRAIN frames, the same ones in the same order as
        detector: holds.

    Raises:
        EchosynError: counts that do not agree.
    """
    if len(embeddings) != len(frames) or length < 1 or len(frames) % length or len(frames) == 0:
        raise EchosynError(
            f"{len(embeddings)} embeddings of {len(frames)} frames, in videos of {length}: give "
            "every video the same number of frames, each with its embedding"
        )
    if len(gallery) != len(detector.rows):
        raise EchosynError(
            f"{len(gallery)} embeddings of TRAIN frames, but {len(detector.rows)} in the copy "
            "detector: give both the same frames"
        )
    video = np.repeat(np.arange(len(frames) // length), length)
    similarity, row = max_similarity(embeddings, gallery, progress=progress)
    best = first_best(similarity, video)
    copied = detector(frames, progress).per_video(video)
    return VideoScores(
        similarity[best],
        copied.ncc,
        row[best],
        best % length,
        copied.row,
        copied.frame % length,
        copied.down,
        copied.right,
        copied.mirrored,
        length,
        len(gallery),
    )


def consecutive_rows(
    starts: np.ndarray, lengths: np.ndarray, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the middle `frames` frames of every video that has them, and which videos those are.

    Synthetic videos are consecutive frames at one rate; evenly spread ones of a longer real video
    would show more of its beats.

    Returns:
        rows int64 (V frames,) and the kept videos int64 (V,).
    """
    kept = np.flatnonzero(np.asarray(lengths) >= frames)
    first = np.asarray(starts)[kept] + (np.asarray(lengths)[kept] - frames) // 2
    return (first[:, None] + np.arange(frames)).ravel().astype(np.int64), kept


@dataclass(frozen=True)
class VideoFilterResult:
    """Decisions on finished videos and what they rest on."""

    calibrations: dict[str, Calibration]  # of each detector, on VAL videos
    synthetic: VideoScores
    heldout: VideoScores  # TEST videos, which no tau was calibrated on
    false_rejection: Estimate  # of the two detectors together, on TEST; resamples people
    asked: float  # the share that calibration allowed

    @property
    def accepted(self) -> np.ndarray:
        """Which synthetic videos may be released, bool (V,)."""
        return _accepted(self.synthetic, self.calibrations)

    def numbers(self) -> dict[str, float]:
        """Flat metrics: rates 0-1, taus with the ends of their intervals, counts."""
        numbers: dict[str, float] = {}
        for name, calibration in self.calibrations.items():
            refused = ~accepted(getattr(self.synthetic, name), calibration.tau.value)
            numbers |= calibration.tau.flat(f"privacy_videos/tau_{name}")
            numbers[f"privacy_videos/rejected_by_{name}"] = float(refused.mean())
        return {
            **numbers,
            "privacy_videos/rejection_rate": float(1 - self.accepted.mean()),
            "privacy_videos/false_rejection_calibrated": self.asked,
            **self.false_rejection.flat("privacy_videos/false_rejection_heldout"),
            "privacy_videos/videos": len(self.synthetic),
            "privacy_videos/accepted": int(self.accepted.sum()),
            "privacy_videos/frames": self.synthetic.frames,
            "privacy_videos/comparisons": self.synthetic.comparisons,
            "privacy_videos/calibration_people": self.calibrations[DETECTORS[0]].people,
        }

    def table(self) -> pd.DataFrame:
        """Rows of kind synthetic (in sample order) and heldout: scores and decision, no names."""
        parts = []
        for kind, scores in (("synthetic", self.synthetic), ("heldout", self.heldout)):
            parts.append(
                pd.DataFrame(
                    {
                        "kind": kind,
                        "similarity": scores.similarity.astype(np.float64).round(6),
                        "ncc": scores.ncc.astype(np.float64).round(6),
                        "accepted": _accepted(scores, self.calibrations),
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)

    def local_matches(self, gallery_videos: np.ndarray) -> pd.DataFrame:
        """Which training video and frame each synthetic video came nearest to. Never release it.

        Args:
            gallery_videos: (G,) the name of the training video of each gallery frame; a frame's
                number is its position among the gallery frames of its video.
        """
        names = np.asarray(gallery_videos)
        s = self.synthetic
        number = pd.Series(names).groupby(names, sort=False).cumcount().to_numpy()
        return pd.DataFrame(
            {
                "video": np.arange(len(s)),
                "accepted": self.accepted,
                "similarity": s.similarity,
                "similar_frame": s.similar_frame,
                "similar_to": names[s.similar_row],
                "similar_to_frame": number[s.similar_row],
                "ncc": s.ncc,
                "copied_frame": s.copied_frame,
                "copy_of": names[s.copied_row],
                "copy_of_frame": number[s.copied_row],
                "down": s.down,
                "right": s.right,
                "mirrored": s.mirrored,
            }
        )

    def write(self, folder: Path, gallery_videos: np.ndarray) -> None:
        """`video_scores.csv` with `table`, `local_video_matches.csv` with `local_matches`."""
        for name, table in (
            (VIDEO_SCORES, self.table()),
            (LOCAL_MATCHES, self.local_matches(gallery_videos)),
        ):
            write_text(folder / name, table.to_csv(index=False, lineterminator="\n"))


def filter_videos(
    synthetic: VideoScores,
    calibration: VideoScores,
    calibration_people: np.ndarray,
    heldout: VideoScores,
    heldout_people: np.ndarray,
    cfg: CalibrationConfig,
    seed: int,
) -> VideoFilterResult:
    """Decide which synthetic videos may be released.

    Args:
        calibration: scores of held-out videos, of `calibration_people` (V,), that set the taus.
        heldout: scores of others, of `heldout_people`, that check the false-rejection rate.

    Raises:
        EchosynError: scores made with another number of frames or comparisons, or too few
            people: half of the stated share must be at least one person.
    """
    for name, side in (("calibration", calibration), ("held-out", heldout)):
        _symmetric("synthetic", synthetic, name, side)
    half = dataclasses.replace(cfg, false_rejection=cfg.false_rejection / 2)
    calibrations = {
        name: calibrate_maxima(
            getattr(calibration, name), calibration_people, calibration.comparisons, half, seed
        )
        for name in DETECTORS
    }
    refused = ~_accepted(heldout, calibrations)
    rate = refused_share(refused, heldout_people, cfg.resamples, seed)
    return VideoFilterResult(calibrations, synthetic, heldout, rate, cfg.false_rejection)


def calibrate_maxima(
    maxima: np.ndarray, people: np.ndarray, comparisons: int, cfg: CalibrationConfig, seed: int
) -> Calibration:
    """Tau from one maximum per held-out video, (V,), of `people`; the interval resamples people.

    Raises:
        EchosynError: so few people that refusing one refuses more than the stated share.
    """
    count, needed = len(np.unique(people)), int(np.ceil(1 / cfg.false_rejection))
    if count < needed:
        raise EchosynError(
            f"{count} held-out people with videos that are long enough; tau at a false-rejection "
            f"rate of {cfg.false_rejection:g} per detector needs {needed}: hold out more, or "
            "raise `false_rejection`"
        )
    tau = quantile_interval(maxima, people, cfg, seed)
    return Calibration(
        "symmetric", tau, cfg.false_rejection, comparisons, len(maxima), count, maxima
    )


def refused_share(refused: np.ndarray, people: np.ndarray, resamples: int, seed: int) -> Estimate:
    """Share of videos refused, bool (V,), with a 95 % interval that resamples people."""
    names, person = np.unique(people, return_inverse=True)
    count = np.bincount(person, minlength=len(names)).astype(np.float64)
    bad = np.bincount(person, refused.astype(np.float64), len(names))
    drawn = [(c @ bad) / (c @ count) for c in resample_counts(len(names), resamples, seed)]
    return Estimate(float(refused.mean()), *percentile_interval(np.concatenate(drawn)))


def _accepted(scores: VideoScores, calibrations: dict[str, Calibration]) -> np.ndarray:
    return np.logical_and.reduce(
        [accepted(getattr(scores, name), c.tau.value) for name, c in calibrations.items()]
    )


def _symmetric(one_name: str, one: VideoScores, other_name: str, other: VideoScores) -> None:
    """A maximum over more comparisons is larger: refuse to compare such maxima."""
    if (one.frames, one.comparisons) != (other.frames, other.comparisons):
        raise EchosynError(
            f"{one_name} videos were scored on {one.frames} frames against {one.comparisons}, "
            f"{other_name} ones on {other.frames} against {other.comparisons}; both must agree"
        )
