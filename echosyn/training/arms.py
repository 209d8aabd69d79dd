"""The arms of the EF comparison: what video each regressor may see, by name.

`real`, `reconstructed` (real video through the VAE), `synthetic` (labelled with the EF asked for),
`synthetic_relabelled` (with the EF that the real-trained regressor measures, which has seen real
video) and `real_plus_synthetic` are always trained. More, as `ef_arms` in params.yaml asks:

- `real_plus_synthetic_50`: all real videos, and half as many synthetic ones;
- `few_real_10`: 10 % of the real TRAIN and VAL videos; `few_real_10_plus_synthetic` adds all
  synthetic ones: the data-scarce curve;
- `<arm>_from_<dataset>`: starts from that dataset's real-trained regressor (pediatric from adult),
  which has seen that dataset's real video.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echosyn.data.frames import FrameSet
from echosyn.runtime.config import build, setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json, write_json

ARMS = ("real", "reconstructed", "synthetic", "synthetic_relabelled", "real_plus_synthetic")
PROTOCOLS = ("strict", "reference")
# Arms whose own VAL is not of real videos alone: the reference selects on real ones instead.
OWN_VAL = ("reconstructed", "synthetic", "synthetic_relabelled", "real_plus_synthetic")
SUBSETS = 7  # stream of random numbers that draws subsets
NONE = "none.json"  # in an arm's folder that holds no regressor


@dataclass(frozen=True)
class Arm:
    """One arm.

    kind: one of ARMS or `few_real`; real_percent: share of real TRAIN and VAL used; ratio_percent:
    synthetic videos in percent of the real ones, None for all; start: dataset whose real-trained
    regressor training starts from.
    """

    name: str
    kind: str
    real_percent: int = 100
    ratio_percent: int | None = None
    start: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """Which of `real`, `reconstructed` and `synthetic` videos it learns from."""
        return {
            "real": ("real",),
            "few_real": ("real",),
            "reconstructed": ("reconstructed",),
            "synthetic": ("synthetic",),
            "synthetic_relabelled": ("synthetic",),
            "real_plus_synthetic": ("real", "synthetic"),
        }[self.kind]

    def label(self, protocol: str) -> str:
        """Its name in metrics, which says so when it is not selected on VAL of its own kind."""
        return f"{self.name}_reference" if self.selects_on_real(protocol) else self.name

    def selects_on_real(self, protocol: str) -> bool:
        """Whether the protocol has it select on real VAL instead of its own."""
        return protocol == "reference" and self.kind in OWN_VAL


@dataclass(frozen=True)
class MoreArms:
    """One entry of `ef_arms`: arms beyond the usual ones for a dataset."""

    arms: tuple[str, ...] = setting(help="such as few_real_10 or real_from_dynamic")
    start: str = setting(help="dataset whose real-trained regressor `_from_` arms start from")

    def check(self) -> str | None:
        for name in self.arms:
            try:
                arm = parse_arm(name)
            except EchosynError as e:
                return f"arms: {e}"
            if name in ARMS:
                return f"arms: {name!r} is always trained; take it out of the list"
            if arm.start not in (None, self.start):
                return f"arms: {name!r} starts from {arm.start!r}, but start is {self.start!r}"
        if len(set(self.arms)) < len(self.arms):
            return "arms: a name stands there twice"
        return None


def parse_arm(name: str) -> Arm:
    """The arm of a name.

    Raises:
        EchosynError: a name that is none.
    """
    text, _, start = name.partition("_from_")
    if text in ARMS and name.count("_from_") <= 1 and ("_from_" not in name or start):
        return Arm(name, text, start=start or None)
    if found := re.fullmatch(r"real_plus_synthetic_(\d{1,4})", text):
        percent = int(found[1])
        if percent >= 1:
            return Arm(name, "real_plus_synthetic", ratio_percent=percent, start=start or None)
    if found := re.fullmatch(r"few_real_(\d{1,2})(_plus_synthetic)?", text):
        percent, kind = int(found[1]), "real_plus_synthetic" if found[2] else "few_real"
        if percent >= 1:
            return Arm(name, kind, real_percent=percent, start=start or None)
    raise EchosynError(
        f"arm {name!r} is not one of {', '.join(ARMS)}, real_plus_synthetic_<1-9999 percent>, "
        "few_real_<1-99 percent>, few_real_<percent>_plus_synthetic, or one of these with "
        "_from_<dataset>"
    )


def folders(root: Path, dataset: str) -> dict[str, Path]:
    """Where the videos of each source are in a project."""
    return {
        "real": root / "data/train" / dataset,
        "reconstructed": root / "reconstructions/train" / dataset,
        "synthetic": root / "samples" / dataset,
    }


def subset(frames: FrameSet, count: int, seed: int) -> FrameSet:
    """`count` videos drawn at random, in their order; a smaller draw is part of a larger one.

    Raises:
        EchosynError: fewer videos than that.
    """
    if count > len(frames):
        raise EchosynError(f"{count} videos asked for, {len(frames)} there")
    order = np.random.default_rng([seed, SUBSETS]).permutation(len(frames))
    return frames.take(np.sort(order[:count]))


def choose(
    arm: Arm,
    real: FrameSet | None,
    synthetic: FrameSet | None,
    split: str,
    seed: int,
    real_share: float = 0.0,
) -> list[FrameSet]:
    """The videos of a split that an arm takes from the real (or reconstructed) and synthetic sets.

    Args:
        real, synthetic: of the arm's sources, else None.
        seed: draws the subsets, so that seeds differ in them as well.
        real_share: of TRAIN's videos that are to be real beside synthetic ones, below 1. Fewer are
            repeated, so that synthetic labels do not outweigh measured ones.

    Raises:
        EchosynError: fewer synthetic videos than the arm's ratio asks for.
    """
    chosen = []
    count = 0
    if real is not None:
        real = real.split(split)
        count = len(real)
        if arm.real_percent < 100:
            count = max(round(len(real) * arm.real_percent / 100), min(2, len(real)))
            real = subset(real, count, seed)
        chosen.append(real)
    if synthetic is not None:
        synthetic = synthetic.split(split)
        if arm.ratio_percent is not None:
            wanted = max(round(count * arm.ratio_percent / 100), 1)
            try:
                synthetic = subset(synthetic, wanted, seed)
            except EchosynError as e:
                raise EchosynError(
                    f"arm {arm.name}: {arm.ratio_percent} % of {count} real {split} videos: {e} "
                    "in samples; sample more (conf/<scale>/sample_videos.yaml) or lower the ratio"
                ) from None
        chosen.append(synthetic)
    if count and synthetic is not None and split == "TRAIN":
        wanted = math.ceil(len(synthetic) * real_share / (1 - real_share))
        chosen[0] = chosen[0].take(np.resize(np.arange(count), max(wanted, count)))
    return chosen


def write_none(folder: Path, reason: str, fps: float) -> None:
    """Mark an arm's folder as one that has nothing to regress.

    Args:
        fps: frame rate at which a regressor would have seen the videos, and at which they are
            compared without one.
    """
    write_json(folder / NONE, {"reason": reason, "fps": fps})


def read_none(folder: Path) -> dict[str, str | float] | None:
    """The `reason` why an arm's folder holds no regressor, and `fps`; None when it should."""
    return read_json(folder / NONE) if (folder / NONE).is_file() else None


def more_arms(params: dict, dataset: str) -> tuple[str, ...]:
    """The arms that `ef_arms` of params.yaml adds for a dataset; none when it has no entry.

    Raises:
        EchosynError: an entry that is not one, or a name that is no arm.
    """
    entries = params.get("ef_arms") or {}
    if not isinstance(entries, dict):
        raise EchosynError(f"params.yaml: ef_arms: expected 'dataset: entry', found {entries!r}")
    if dataset not in entries:
        return ()
    return build(MoreArms, entries[dataset], f"params.yaml: ef_arms.{dataset}").arms
