"""Scores of finished videos against all frames of TRAIN by two detectors, and their thresholds.

Re-identification compares embeddings of frames, the copy detector their pixels; a video scores its
highest frame by each, and is refused when either reaches its own tau. A maximum over more frames
is larger, so held-out videos set the taus on windows of one length, each tau at half of the stated
false-rejection rate: together they then refuse at most that share of unrelated people's windows.
A synthetic video may be longer than a window. Its highest frame is that of its highest window, so
it is refused exactly when any window of it is, and by chance up to as many times as often as it
has windows: the safe side.

What is held is the gallery, 4 D bytes a frame for either detector (1.3 million frames of D = 128:
1.3 GB), and the embeddings of one piece.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from echosyn.metrics.interval import Estimate, percentile_interval, resample_counts
from echosyn.privacy.attacks.planted import share_interval
from echosyn.privacy.detectors.copies import CopyConfig, CopyDetector, first_best
from echosyn.privacy.detectors.embedding import Gallery
from echosyn.privacy.filters.calibration import (
    Calibration,
    CalibrationConfig,
    accepted,
    calibrate_maxima,
    weighted_tau,
)
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

DETECTORS = ("similarity", "ncc")
ANOMALY = "anomaly"  # the score, and the reason, of a video that is strange rather than a copy


@dataclass(frozen=True)
class VideoFilterConfig:
    """Section `filter_videos`."""

    calibration: CalibrationConfig
    copies: CopyConfig = setting(CopyConfig())
    frames: int = setting(
        64, lo=1, help="frames of a window, if the synthetic videos are as long; taus are for these"
    )
    gallery_frames: int = setting(0, lo=0, help="frames per TRAIN video; 0: all of them")
    mirror: bool = setting(True, help="embed a frame's mirror image too, and take the nearer")
    limit: float = setting(
        3.0, lo=1.0, hi=1000.0, help="animate at most this many times the videos wanted, in all"
    )
    anomaly_rate: float = setting(
        0.05,
        lo=0.0001,
        hi=0.5,
        help="share of real videos as strange as what is refused, for datasets under `anomaly`",
    )
    anomaly_most: float = setting(
        0.1, lo=0.0, hi=0.9, help="share of the candidates that may be refused as strange"
    )
    shard: int = setting(64, lo=1, help="videos scored as one unit of resume")

    def check(self) -> str | None:
        if self.calibration.rule != "symmetric":
            return (
                f"calibration.rule {self.calibration.rule!r}: the reference filters hearts alone; "
                "use symmetric"
            )
        return None


@dataclass(frozen=True)
class VideoScores:
    """Maxima over the frames of each of V videos, and where they were reached. All (V,).

    `similarity` and `ncc` are what decides, and `anomaly` where strange videos are looked for. The
    rest names gallery rows: `similar_row` and `copied_row` with the video's own frames, and the
    copy's shift in pixels and mirror image.
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
    frames: np.ndarray
    comparisons: int  # gallery frames
    anomaly: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.similarity)

    @staticmethod
    def join(parts: Sequence["VideoScores"]) -> "VideoScores":
        """Scores of several pieces, in order.

        Raises:
            EchosynError: pieces that met galleries of different size.
        """
        for part in parts[1:]:
            _same_gallery("the first piece", parts[0], "another piece", part)
        joined = {n: np.concatenate([getattr(p, n) for p in parts]) for n in parts[0].arrays}
        return VideoScores(**joined, comparisons=parts[0].comparisons)

    def take(self, rows: np.ndarray | slice) -> "VideoScores":
        """Some videos."""
        return dataclasses.replace(self, **{n: getattr(self, n)[rows] for n in self.arrays})

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of what there is of each video."""
        return tuple(n for n, values in vars(self).items() if isinstance(values, np.ndarray))

    def save(self, path: Path) -> None:
        np.savez(path, **{n: getattr(self, n) for n in (*self.arrays, "comparisons")})

    @staticmethod
    def load(path: Path) -> "VideoScores":
        with np.load(path) as kept:
            facts = {n: kept[n] for n in kept.files}
        return VideoScores(**{**facts, "comparisons": int(facts["comparisons"])})


def score_videos(
    latents: Tensor,
    frames: np.ndarray,
    lengths: Sequence[int] | np.ndarray,
    gallery: Gallery,
    detector: CopyDetector,
) -> VideoScores:
    """Score whole videos of `lengths` frames, laid end to end.

    Args:
        latents: (F, 4, h, w) of the frames, scaled as those that the gallery was made of, and
        frames: uint8 (F, H, W), the frames themselves.
        gallery, detector: hold the same TRAIN frames in the same order.

    Raises:
        EchosynError: counts that do not agree.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) == 0 or lengths.min() < 1 or not len(latents) == len(frames) == lengths.sum():
        raise EchosynError(
            f"{len(latents)} latents and {len(frames)} frames of {len(lengths)} videos with "
            f"{lengths.sum()} frames in all: give every frame its latent, and every video frames"
        )
    if len(gallery.rows) != len(detector.rows):
        raise EchosynError(
            f"{len(gallery.rows)} embeddings of TRAIN frames, but {len(detector.rows)} in the copy "
            "detector: give both the same frames"
        )
    video = np.repeat(np.arange(len(lengths)), lengths)
    first = np.cumsum(lengths) - lengths
    similarity, row = gallery.nearest(latents)
    best = first_best(similarity, video)
    copied = detector(frames).per_video(video)
    return VideoScores(
        similarity[best],
        copied.ncc,
        row[best],
        best - first,
        copied.row,
        copied.frame - first,
        copied.down,
        copied.right,
        copied.mirrored,
        lengths,
        len(gallery.rows),
    )


@dataclass(frozen=True)
class VideoCalibration:
    """The two taus, from VAL windows, and how they do on TEST windows, which they never saw."""

    calibrations: dict[str, Calibration]
    heldout: VideoScores
    false_rejection: Estimate  # of the two detectors together, on TEST
    asked: float  # the share that calibration allowed
    people: int  # behind `heldout`

    @property
    def taus(self) -> dict[str, float]:
        return {name: c.tau.value for name, c in self.calibrations.items()}

    def numbers(self) -> dict[str, float]:
        """Flat metrics: rates 0-1, taus with the ends of their intervals, counts."""
        numbers: dict[str, float] = {}
        for name, calibration in self.calibrations.items():
            numbers |= calibration.tau.flat(f"privacy_videos/tau_{name}")
        return {
            **numbers,
            "privacy_videos/false_rejection_calibrated": self.asked,
            **self.false_rejection.flat("privacy_videos/false_rejection_heldout"),
            "privacy_videos/frames": int(self.heldout.frames[0]),
            "privacy_videos/comparisons": self.heldout.comparisons,
            "privacy_videos/calibration_people": self.calibrations[DETECTORS[0]].people,
            "privacy_videos/heldout_people": self.people,
        }


def calibrate_videos(
    calibration: VideoScores,
    calibration_people: np.ndarray,
    heldout: VideoScores,
    heldout_people: np.ndarray,
    cfg: CalibrationConfig,
    seed: int,
) -> VideoCalibration:
    """Set both taus, and check them on people that they were not set with.

    Args:
        calibration: scores of held-out windows, of `calibration_people` (V,), that set the taus.
        heldout: scores of others, of `heldout_people`, that check the false-rejection rate. Its
            interval holds the luck of both: of these people, and of those who set the taus.

    Raises:
        EchosynError: windows of several lengths, galleries of another size, or too few people:
            half of the stated share must be at least one person.
    """
    _same_gallery("calibration", calibration, "held-out", heldout)
    lengths = np.unique(np.concatenate([calibration.frames, heldout.frames]))
    if len(lengths) != 1:
        raise EchosynError(
            f"held-out windows of {lengths.tolist()} frames; a maximum over more frames is larger, "
            "so give all of them one length"
        )
    half = dataclasses.replace(cfg, false_rejection=cfg.false_rejection / 2)
    calibrations = {
        name: calibrate_maxima(
            getattr(calibration, name), calibration_people, calibration.comparisons, half, seed
        )
        for name in DETECTORS
    }
    rate = _held(calibration, calibration_people, heldout, heldout_people, calibrations, half, seed)
    people = len(np.unique(heldout_people))
    return VideoCalibration(calibrations, heldout, rate, cfg.false_rejection, people)


def _held(
    calibration: VideoScores,
    calibration_people: np.ndarray,
    heldout: VideoScores,
    heldout_people: np.ndarray,
    calibrations: dict[str, Calibration],
    half: CalibrationConfig,
    seed: int,
) -> Estimate:
    """Share of held-out windows that either detector refuses.

    The interval spans Clopper and Pearson's at the taus as they are, and a bootstrap that resamples
    the people behind the taus and the held-out ones together. Each tau at the end of its own
    interval would count the luck of the same people twice.
    """
    taus = {n: c.tau.value for n, c in calibrations.items()}
    exact = share_interval(~passes(heldout, taus), heldout_people)
    one, person = np.unique(calibration_people, return_inverse=True)
    other, stranger = np.unique(heldout_people, return_inverse=True)
    width = max(len(calibration), len(heldout))  # chunks of both then have one size
    shares = []
    for counts, drawn in zip(
        resample_counts(len(one), half.resamples, seed, width),
        resample_counts(len(other), half.resamples, seed + 1, width),
        strict=True,
    ):
        refused = np.zeros((len(counts), len(heldout)), bool)
        for name in calibrations:
            order = np.argsort(getattr(calibration, name), kind="stable")
            ascending = getattr(calibration, name)[order].astype(np.float64)
            at = weighted_tau(ascending, counts[:, person[order]], half.false_rejection)
            refused |= getattr(heldout, name) >= at[:, None]
        weight = drawn[:, stranger]
        shares.append((refused * weight).sum(1) / weight.sum(1))
    lo, hi = percentile_interval(np.concatenate(shares))
    return Estimate(exact.value, min(exact.lo, lo), max(exact.hi, hi))


def passes(scores: VideoScores, taus: dict[str, float]) -> np.ndarray:
    """Which videos may be released: bool (V,), below the tau of every detector."""
    return np.logical_and.reduce([accepted(getattr(scores, n), tau) for n, tau in taus.items()])


def _same_gallery(one_name: str, one: VideoScores, other_name: str, other: VideoScores) -> None:
    """A maximum over more comparisons is larger: refuse to compare such maxima."""
    if one.comparisons != other.comparisons:
        raise EchosynError(
            f"{one_name} videos were scored against {one.comparisons} TRAIN frames, {other_name} "
            f"ones against {other.comparisons}; both must agree"
        )
