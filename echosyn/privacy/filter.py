"""The filter on hearts: calibrate tau on held-out people, refuse what reaches it, test itself."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from echosyn.config import setting
from echosyn.data.latents import LatentSet
from echosyn.errors import EchosynError
from echosyn.files import write_text
from echosyn.models.reid import AugmentConfig
from echosyn.privacy.audit import planted_recall
from echosyn.privacy.calibration import (
    Calibration,
    CalibrationConfig,
    accepted,
    calibrate_reference,
    calibrate_symmetric,
)
from echosyn.privacy.embedding import HeartEncoder, first_frames, frames_of, join
from echosyn.privacy.similarity import max_similarity

SCORES = "scores.csv"


@dataclass(frozen=True)
class PrivacyConfig:
    """Section `privacy_filter`."""

    calibration: CalibrationConfig
    disguise: AugmentConfig
    gallery_frames: int = setting(8, lo=1, help="frames per TRAIN video that hearts meet")
    heldout_frames: int = setting(8, lo=1, help="frames per held-out video that set tau")


@dataclass(frozen=True)
class FilterResult:
    """Decisions and what they rest on; similarities are maxima over the TRAIN gallery."""

    calibration: Calibration
    synthetic: np.ndarray  # (N,)
    heldout: np.ndarray  # (M,) TEST hearts, which tau was not calibrated on
    accepted: np.ndarray  # bool (N,)
    planted: dict[str, float]

    def numbers(self) -> dict[str, float]:
        tau = self.calibration.tau
        return {
            **tau.flat("privacy/tau"),
            "privacy/rejection_rate": float(1 - self.accepted.mean()),
            "privacy/false_rejection_calibrated": self.calibration.false_rejection,
            "privacy/false_rejection_heldout": float((~accepted(self.heldout, tau.value)).mean()),
            "privacy/comparisons": self.calibration.comparisons,
            "privacy/hearts": len(self.synthetic),
            "privacy/accepted": int(self.accepted.sum()),
            "privacy/planted_exact_recall": self.planted["exact"],
            "privacy/planted_disguised_recall": self.planted["disguised"],
        }

    def table(self) -> pd.DataFrame:
        """Rows of kind synthetic (in sample order) and heldout, with similarity and accepted."""
        similarity = np.concatenate([self.synthetic, self.heldout])
        return pd.DataFrame(
            {
                "kind": ["synthetic"] * len(self.synthetic) + ["heldout"] * len(self.heldout),
                "similarity": similarity.round(6),
                "accepted": accepted(similarity, self.calibration.tau.value),
            }
        )

    def write(self, folder: Path) -> None:
        """`scores.csv` with the rows of `table`."""
        write_text(folder / SCORES, self.table().to_csv(index=False, lineterminator="\n"))


def filter_hearts(
    hearts: Tensor, latents: Path, encoder: HeartEncoder, cfg: PrivacyConfig, seed: int
) -> FilterResult:
    """Decide which synthetic hearts (N, 4, h, w) may be animated.

    The gallery is `gallery_frames` of every TRAIN video. Tau comes from VAL hearts against that
    same gallery; TEST hearts then check the false-rejection rate that was asked for. Copies of
    TRAIN hearts, exact and disguised, check that the filter catches what it is for.

    Raises:
        EchosynError: no VAL or TEST videos to calibrate or check with.
    """
    sets = {name: LatentSet(latents, name) for name in ("TRAIN", "VAL", "TEST")}
    for name, found in sets.items():
        if len(found) == 0:
            raise EchosynError(f"{latents}: no {name} videos; the privacy filter needs all splits")
    frames, _ = frames_of(sets["TRAIN"], cfg.gallery_frames)
    gallery = encoder(frames)
    if cfg.calibration.rule == "symmetric":
        val, people = join([sets["VAL"]], cfg.heldout_frames)
        calibration = calibrate_symmetric(encoder(val), people, gallery, cfg.calibration, seed)
    else:
        calibration = calibrate_reference(
            encoder(first_frames(sets["TRAIN"])),
            encoder(first_frames(sets["TEST"])),
            cfg.calibration,
            seed,
        )
    tau = calibration.tau.value
    synthetic, _ = max_similarity(encoder(hearts), gallery)
    heldout, _ = max_similarity(encoder(join([sets["TEST"]], cfg.heldout_frames)[0]), gallery)
    generator = torch.Generator().manual_seed(seed)
    planted = planted_recall(frames, gallery, tau, encoder, cfg.disguise, generator)
    return FilterResult(calibration, synthetic, heldout, accepted(synthetic, tau), planted)


def read_accepted(folder: Path, hearts: int) -> np.ndarray:
    """Sample indices of the accepted hearts, int64, ascending.

    Raises:
        EchosynError: no scores, or scores of another number of hearts.
    """
    path = folder / SCORES
    if not path.is_file():
        raise EchosynError(f"{path} does not exist; run privacy_filter")
    table = pd.read_csv(path)
    decisions = table.loc[table["kind"] == "synthetic", "accepted"].to_numpy(bool)
    if len(decisions) != hearts:
        raise EchosynError(f"{path} decides on {len(decisions)} hearts, but {hearts} were drawn")
    return np.flatnonzero(decisions)
