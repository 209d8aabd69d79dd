"""The filter on hearts: calibrate tau on held-out people, refuse what reaches it, draw more."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor

from echosyn.data.filelist import read_filelist
from echosyn.data.latents import LatentSet
from echosyn.diffusion.heart_file import HEARTS, Hearts, read_labels
from echosyn.metrics.interval import Estimate
from echosyn.privacy.detectors.embedding import Gallery, HeartEncoder, first_frames, join
from echosyn.privacy.filters.calibration import (
    TAUS,
    Calibration,
    CalibrationConfig,
    accepted,
    calibrate_maxima,
    calibrate_reference,
    save_taus,
)
from echosyn.privacy.filters.false_rejection import false_rejection
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import digest, write_text

SCORES = "scores.csv"
Draw = Callable[[int, int], Hearts]  # (first sample index, how many)


@dataclass(frozen=True)
class PrivacyConfig:
    """Section `privacy_filter`."""

    calibration: CalibrationConfig
    gallery_frames: int = setting(8, lo=1, help="frames per TRAIN video that hearts meet")
    heldout_frames: int = setting(8, lo=1, help="frames per held-out video that set tau")
    mirror: bool = setting(True, help="compare a heart's mirror image too, and take the nearer")
    spare: float = setting(
        0.2, lo=0.0, hi=10.0, help="accepted hearts beyond the videos wanted, as a share of them"
    )
    limit: float = setting(
        5.0, lo=1.0, hi=1000.0, help="draw at most this many times `hearts` of sample_hearts"
    )

    @property
    def mirrors(self) -> bool:
        """The reference's rule knows no mirror images."""
        return self.mirror and self.calibration.rule == "symmetric"

    def made_with(self, latents: Path, encoder: HeartEncoder) -> dict[str, Any]:
        """What a tau of this filter holds for."""
        return {
            "encoder": encoder.identity,
            "latents": digest(None, [latents]),
            "gallery_frames": self.gallery_frames,
            "mirror": self.mirrors,
        }


@dataclass(frozen=True)
class FilterResult:
    """Decisions and what they rest on; similarities are maxima over the TRAIN gallery."""

    calibration: Calibration
    hearts: Hearts  # all that were drawn, by sample index
    synthetic: np.ndarray  # (N,)
    heldout: np.ndarray  # (M,) TEST hearts, which tau was not calibrated on
    false_rejection: Estimate  # of those; resamples people
    made_with: dict[str, Any]
    accepted: np.ndarray = field(init=False)  # bool (N,)

    def __post_init__(self) -> None:
        decided = accepted(self.synthetic, self.calibration.tau.value)
        object.__setattr__(self, "accepted", decided)

    def numbers(self) -> dict[str, float]:
        tau = self.calibration.tau
        return {
            **tau.flat("privacy/tau"),
            "privacy/rejection_rate": float(1 - self.accepted.mean()),
            "privacy/false_rejection_calibrated": self.calibration.false_rejection,
            **self.false_rejection.flat("privacy/false_rejection_heldout"),
            "privacy/comparisons": self.calibration.comparisons,
            "privacy/calibration_people": self.calibration.people,
            "privacy/hearts": len(self.synthetic),
            "privacy/accepted": int(self.accepted.sum()),
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
        """`scores.csv` with the rows of `table`, the accepted hearts, and tau."""
        write_text(folder / SCORES, self.table().to_csv(index=False, lineterminator="\n"))
        rows = np.flatnonzero(self.accepted)
        self.hearts.take(rows).write(folder / HEARTS, indices=torch.from_numpy(rows))
        save_taus(folder / TAUS, {"hearts": self.calibration}, self.made_with)


def filter_hearts(
    hearts: Hearts,
    latents: Path,
    encoder: HeartEncoder,
    cfg: PrivacyConfig,
    seed: int,
    wanted: int = 1,
    draw: Draw | None = None,
) -> FilterResult:
    """Decide which synthetic hearts may be animated, and draw more where too few are.

    The gallery is `gallery_frames` of every TRAIN video. Tau comes from VAL hearts against that
    same gallery; TEST hearts then check the false-rejection rate that was asked for.

    Args:
        wanted: videos that will be made; `spare` more hearts are accepted if `draw` can give them.
        draw: makes hearts of further sample indices; None: there are no more.

    Raises:
        EchosynError: no videos of a split, too few VAL people, or fewer accepted hearts than
            `wanted` after as many draws as `limit` allows.
    """
    sets = {name: LatentSet(latents, name) for name in ("TRAIN", "VAL", "TEST")}
    for name, found in sets.items():
        if len(found) == 0:
            raise EchosynError(
                f"{latents}: no {name} videos; the privacy filter needs all splits: put patients "
                f"into {name}"
            )
    gallery = Gallery.of(encoder, sets["TRAIN"], cfg.gallery_frames, cfg.mirrors)
    if cfg.calibration.rule == "symmetric":
        val, people = join([sets["VAL"]], cfg.heldout_frames)
        calibration = calibrate_maxima(
            gallery.nearest(val)[0], people, len(gallery.rows), cfg.calibration, seed
        )
    else:
        calibration = calibrate_reference(
            encoder(first_frames(sets["TRAIN"])),
            encoder(first_frames(sets["TEST"])),
            cfg.calibration,
            seed,
        )
    heldout, others = join([sets["TEST"]], cfg.heldout_frames)
    similarity, _ = gallery.nearest(heldout)
    hearts, synthetic = _enough(hearts, gallery, calibration.tau.value, cfg, wanted, draw)
    return FilterResult(
        calibration,
        hearts,
        synthetic,
        similarity,
        false_rejection(similarity, others, calibration.tau),
        cfg.made_with(latents, encoder),
    )


def _enough(
    hearts: Hearts,
    gallery: Gallery,
    tau: float,
    cfg: PrivacyConfig,
    wanted: int,
    draw: Draw | None,
) -> tuple[Hearts, np.ndarray]:
    """Hearts and their similarities, with more drawn until enough lie below tau."""
    target, limit = int(np.ceil(wanted * (1 + cfg.spare))), int(len(hearts) * cfg.limit)
    similarity, _ = gallery.nearest(hearts.latents)
    while (passed := int(accepted(similarity, tau).sum())) < target and draw is not None:
        rate = max(passed / len(hearts), 0.02)
        more = min(int(np.ceil(1.1 * (target - passed) / rate)), limit - len(hearts))
        if more <= 0:
            break
        drawn = draw(len(hearts), more)
        hearts = Hearts.join([hearts, drawn])
        similarity = np.concatenate([similarity, gallery.nearest(drawn.latents)[0]])
    if passed < wanted:
        low, middle = np.quantile(similarity, [0.05, 0.5])
        needed = f"about {int(1.1 * wanted * len(hearts) / passed)}" if passed else "more"
        raise EchosynError(
            f"{passed} of {len(hearts)} hearts were accepted, but {wanted} videos are wanted. Tau "
            f"is {tau:.4f}; half of the hearts are more alike than {middle:.4f} to a training "
            f"frame, all but 5% more than {low:.4f}. Allow {needed} draws (`limit`, now "
            f"{cfg.limit:g} times `hearts` of sample_hearts), ask for fewer videos, or train a "
            "generator that copies less"
        )
    return hearts, similarity


class AcceptedHearts:
    """Hearts that passed the filter, on disk, read where needed. Pickles to its path.

    indices: int64 (A,) sample indices, ascending. ef: percent, float64 (A,), and classes: a name
    each; what the hearts were asked to be, None when their model is not
    conditioned on it.

    Raises:
        EchosynError: there is no such file in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / HEARTS
        if not self.path.is_file():
            raise EchosynError(f"{self.path} does not exist; run privacy_filter")
        with safe_open(self.path, framework="np") as file:
            self.indices: np.ndarray = file.get_tensor("indices")
            self.ef, names = read_labels(file)
        self.classes = None if names is None else list(names)

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, indices: np.ndarray) -> Tensor:
        """Hearts of these sample indices, float32 (len(indices), 4, h, w).

        Raises:
            EchosynError: one of them was not accepted.
        """
        rows = np.searchsorted(self.indices, indices)
        found = self.indices[np.minimum(rows, len(self) - 1)] == indices
        if not np.all(found):
            missing = np.asarray(indices)[~found][0]
            raise EchosynError(
                f"{self.path}: heart {missing} is not among those accepted: run sample_videos again"
            )
        with safe_open(self.path, framework="pt") as file:
            hearts = file.get_slice("hearts")
            return torch.cat([hearts[int(r) : int(r) + 1] for r in rows])

    def shown_in(self, samples: Path) -> Tensor:
        """The hearts (N, 4, h, w) that a sample folder's videos show, in its order.

        Raises:
            EchosynError: a video of a heart that the filter did not accept.
        """
        names = read_filelist(samples / "FileList.csv", label="none")["FileName"]
        return self.take(np.array([int(name.rsplit("_", 1)[1]) for name in names]))
