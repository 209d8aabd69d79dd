"""What the filter on finished videos decided, on what grounds, and which videos are left."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from echosyn.data.content import write_content
from echosyn.data.filelist import video_path, write_filelist
from echosyn.privacy.filters.anomaly_gate import AnomalyGate
from echosyn.privacy.filters.calibration import TAUS, accepted, save_taus
from echosyn.privacy.filters.video_scores import (
    ANOMALY,
    VideoCalibration,
    VideoScores,
    passes,
)
from echosyn.runtime.files import atomic_dir, write_text

VIDEO_SCORES = "video_scores.csv"
LOCAL_MATCHES = "local_video_matches.csv"  # names training videos: never leaves the machine


@dataclass(frozen=True)
class VideoFilterResult:
    """Every video that was ever tried, in the order of rounds and places, and what decided."""

    calibration: VideoCalibration
    tried: pd.DataFrame  # FileList rows, with place, round (0: the candidates) and path
    scores: VideoScores  # of those
    gallery: tuple[np.ndarray, np.ndarray]  # TRAIN video and frame number of each gallery row
    short: dict[str, int]  # held-out videos left out, by split
    made_with: dict[str, Any]
    seed: int = 0  # of the intervals of the gate's numbers
    gate: AnomalyGate | None = None  # where strange videos are refused too

    @property
    def taus(self) -> dict[str, float]:
        """The threshold of each score that decides."""
        return self.calibration.taus | ({ANOMALY: self.gate.tau} if self.gate else {})

    @property
    def accepted(self) -> np.ndarray:
        """Which of the tried videos are released, bool (N,)."""
        return passes(self.scores, self.taus)

    def samples(self) -> pd.DataFrame:
        """The rows of the accepted videos, in the order of their places."""
        return self.tried[self.accepted].sort_values("place", kind="stable")

    def numbers(self) -> dict[str, float]:
        """Flat metrics: rates 0-1 of the videos tried, and counts; `privacy_videos/rejection_rate`
        is of those that look like a patient's."""
        refused = {
            f"privacy_videos/rejected_by_{name}": float(
                (~accepted(getattr(self.scores, name), tau)).mean()
            )
            for name, tau in self.calibration.taus.items()
        }
        frames = int(self.calibration.heldout.frames[0])
        safe = passes(self.scores, self.calibration.taus)
        return {
            **self.calibration.numbers(),
            **refused,
            "privacy_videos/rejection_rate": float(1 - safe.mean()),
            "privacy_videos/videos": len(self.scores),
            "privacy_videos/accepted": int(self.accepted.sum()),
            "privacy_videos/replaced": int((self.tried["round"][self.accepted] > 0).sum()),
            "privacy_videos/rounds": int(self.tried["round"].max()),
            "privacy_videos/windows": int(-(-self.scores.frames.max() // frames)),
            "privacy_videos/calibration_too_short": self.short["VAL"],
            "privacy_videos/heldout_too_short": self.short["TEST"],
            **self._strange(),
        }

    def _strange(self) -> dict[str, float]:
        if self.gate is None or self.scores.anomaly is None:
            return {}
        first = (self.tried["round"] == 0).to_numpy()
        score = self.scores.anomaly
        return self.gate.numbers(score[first], score[self.accepted], self.seed)

    def table(self) -> pd.DataFrame:
        """Rows of kind synthetic (all that were tried) and heldout: scores and decision.

        Columns kind, video (a synthetic name), round, similarity, ncc, accepted; a held-out
        video has neither name nor round. Where strange videos are refused, the score anomaly too,
        and refused_by, the names of the scores that refuse a video.
        """
        parts, taus = [], self.taus
        heldout = self.calibration.heldout
        for kind, scores, tried in (
            ("synthetic", self.scores, self.tried),
            ("heldout", heldout, pd.DataFrame(index=range(len(heldout)))),
        ):
            part = tried.reindex(columns=["FileName", "round"])
            part = part.rename(columns={"FileName": "video"}).astype({"round": "Int64"})
            part.insert(0, "kind", kind)
            for name in taus:
                part[name] = getattr(scores, name).astype(np.float64).round(6)
            part["accepted"] = passes(scores, taus)
            if self.gate:
                part["refused_by"] = refusals(scores, taus)
            parts.append(part.astype({"video": "str"}).where(part.notna()))
        return pd.concat(parts, ignore_index=True)

    def local_matches(self) -> pd.DataFrame:
        """Which training video and frame each tried video came nearest to. Never release it.

        Frames are numbered at the latents' rate, from 0.
        """
        names, numbers = self.gallery
        s = self.scores
        return pd.DataFrame(
            {
                "video": self.tried["FileName"].to_numpy(),
                "round": self.tried["round"].to_numpy(),
                "accepted": self.accepted,
                "similarity": s.similarity,
                "similar_frame": s.similar_frame,
                "similar_to": names[s.similar_row],
                "similar_to_frame": numbers[s.similar_row],
                "ncc": s.ncc,
                "copied_frame": s.copied_frame,
                "copy_of": names[s.copied_row],
                "copy_of_frame": numbers[s.copied_row],
                "down": s.down,
                "right": s.right,
                "mirrored": s.mirrored,
            }
        )

    def write(self, folder: Path) -> None:
        """`video_scores.csv`, `local_video_matches.csv`, and the taus for VideoFilter."""
        for name, table in ((VIDEO_SCORES, self.table()), (LOCAL_MATCHES, self.local_matches())):
            write_text(folder / name, table.to_csv(index=False, lineterminator="\n"))
        save_taus(folder / TAUS, self.calibration.calibrations, self.made_with)

    def write_samples(self, out: Path) -> None:
        """The accepted videos in EchoNet layout."""
        samples = self.samples()
        with atomic_dir(out) as tmp:
            (tmp / "Videos").mkdir()
            # Copies: candidates may be links into DVC's cache.
            for name, path in zip(samples["FileName"], samples["path"], strict=True):
                shutil.copyfile(path, video_path(tmp, name))
            write_filelist(tmp / "FileList.csv", samples)
            write_content(tmp)


def refusals(scores: VideoScores, taus: Mapping[str, float]) -> list[str]:
    """The names of the scores that refuse each video, "+" between; "" where none does."""
    by = {name: ~accepted(getattr(scores, name), tau) for name, tau in taus.items()}
    return ["+".join(n for n in by if by[n][i]) for i in range(len(scores))]
