"""FID, IS and FVD as the papers measure them, under their names only where the rules are kept.

The published number compares synthetic data with TRAIN, which rewards copying; beside it stand
`_floor` (real TEST in the place of the synthetic data), `_reconstruction` (TRAIN through the VAE in
its place) and `_vs_test` (synthetic data against TEST, as many on both sides). Where one of these
has fewer items than the main number, the synthetic data are also measured at that count, under the
honest name: a number and its floor always have the same counts.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from echosyn.metrics import selection
from echosyn.metrics.extract import Clip
from echosyn.metrics.features import FeatureSpace, ScoredSpace, distance_name
from echosyn.metrics.frechet import frechet_interval
from echosyn.metrics.i3d import I3d
from echosyn.metrics.inception import Inception
from echosyn.metrics.inception_score import score_of_blocks
from echosyn.metrics.interval import Estimate
from echosyn.metrics.moments import frechet_of_blocks
from echosyn.metrics.selection import Name
from echosyn.metrics.streaming import FramePart, MapRows, finite_features, frame_sums
from echosyn.runtime.errors import EchosynError

ROLES = ("train", "test", "reconstructed", "synthetic")
FIXED = {
    "fid50k_full": (
        "distance by eigenvectors and singular values: no matrix square root that diverges",
        "statistics belong to content: the reference keeps them by path, and reads stale ones",
    ),
    "is50k": (
        "bounds of the splits follow the count of frames: the reference has NaN at 45,000 or fewer",
        "a probability of 0 adds 0: in the reference it is NaN",
    ),
    "fvd2048": (
        "real offsets are drawn with a seed: the reference's change from run to run",
        "distance by eigenvectors and singular values: no matrix square root that diverges",
        "statistics belong to content: the reference keeps them by path, and reads stale ones",
    ),
}


class VideoSet(Protocol):
    """Videos and their names; echosyn.data.frames.FrameSet is one."""

    @property
    def table(self) -> pd.DataFrame: ...  # column FileName
    @property
    def lengths(self) -> np.ndarray: ...  # int64 (V,)
    @property
    def fps(self) -> float: ...

    def __len__(self) -> int: ...

    def video(self, i: int) -> np.ndarray:
        """Frames of video i, uint8 (T, H, W)."""


class ProtocolEvaluation:
    """Measures synthetic data by the published protocols.

    Args:
        inception, i3d: the weights' file, found to be the published one when it is loaded; None
            leaves out what needs it. Or what makes another feature space (given the clip policy
            as `clip`, for i3d), whose numbers never carry the published names.
        strict_names: refuse to measure what could not carry its published name.
        over: computes over items, here or on a cluster.
    """

    def __init__(
        self,
        inception: Path | str | Callable[[], ScoredSpace] | None,
        i3d: Path | str | Callable[..., FeatureSpace] | None,
        strict_names: bool,
        seed: int,
        over: MapRows,
    ) -> None:
        self.inception = (
            partial(Inception.load, inception) if isinstance(inception, str | Path) else inception
        )
        self.i3d = partial(I3d.load, i3d) if isinstance(i3d, str | Path) else i3d
        self.strict_names, self.seed, self.over = strict_names, seed, over
        self.numbers: dict[str, float] = {}
        self.protocol: dict[str, dict[str, Any]] = {}  # per metric: plain values

    def measure(
        self, train: VideoSet, test: VideoSet, reconstructed: VideoSet, synthetic: VideoSet
    ) -> None:
        """Fill `numbers` and `protocol`.

        Raises:
            EchosynError: an empty set, frames of different sizes or rates, features that are not
                finite, and with `strict_names` too few frames or videos.
        """
        if self.inception is None and self.i3d is None:
            return
        sets = dict(zip(ROLES, (train, test, reconstructed, synthetic), strict=True))
        check_alike(sets)
        frames = _FrameNumbers(self, self.inception, sets) if self.inception is not None else None
        clips = []
        if self.i3d is not None:
            clips = [
                _ClipNumbers(self, partial(self.i3d, clip=p), p, sets) for p in selection.POLICIES
            ]
        parts = [part for part in (frames, *clips) if part]
        short = [n.short_of for part in parts for n in part.names() if n.short_of]
        # Before anything is computed: it may take hours.
        if self.strict_names and short:
            raise EchosynError(
                "strict_names: " + "; ".join(dict.fromkeys(short)) + ". Make more, or set "
                "strict_names to false: the numbers are then given under names that say the counts"
            )
        for part in parts:
            part.measure()

    def note(self, name: Name, space: FeatureSpace, entry: dict[str, Any]) -> None:
        self.protocol[name.name] = {
            "extractor": space.name,
            "extractor_sha256": space.sha256,
            "resize": getattr(space, "resize", "none"),
            "published_name": name.short_of is None,
            **({"not_published_because": name.short_of} if name.short_of else {}),
            **entry,
        }

    def add(self, key: str, value: Estimate) -> None:
        self.numbers |= value.flat(f"quality/{key}")


class _FrameNumbers:
    """fid50k_full and is50k, or what they are when their rules cannot be kept."""

    def __init__(
        self,
        out: ProtocolEvaluation,
        make: Callable[[], ScoredSpace],
        sets: dict[str, VideoSet],
    ) -> None:
        self.out, self.make, self.sets, self.space = out, make, sets, make()
        have = {role: int(np.sum(s.lengths)) for role, s in sets.items()}
        self.real, self.fake = have["train"], min(selection.FAKE_FRAMES, have["synthetic"])
        # What stands in for the synthetic frames, and how many it has.
        self.others = {
            "_floor": ("test", min(self.fake, have["test"])),
            "_reconstruction": ("reconstructed", min(self.fake, have["reconstructed"])),
        }

    def names(self) -> list[Name]:
        return [
            selection.fid_name(self.space, self.real, self.fake),
            selection.score_name(self.space, self.fake),
        ]

    def measure(self) -> None:
        counts = sorted({self.fake, *(n for _, n in self.others.values())})
        synthetic = self._sums("synthetic", counts, scores=True)
        train = self._sums("train", [self.real], scores=False)[self.real]
        fid, score = self.names()
        for n in counts:
            self._add(n, "", train, synthetic[n])
        for suffix, (role, n) in self.others.items():
            other = self._sums(role, [n], scores=True)[n]
            self._add(n, suffix, train, other)
            if role == "test":
                key = f"{distance_name('fd', self.space, n, n)}_vs_test"
                self.out.add(key, frechet_of_blocks(other.moments, synthetic[n].moments))
        common = {
            "real_frames": self.real,
            "synthetic_frames": self.fake,
            "order": "lexicographic by video and frame, from the first",
            "fps": float(self.sets["train"].fps),
            **{f"frames{suffix}": n for suffix, (_, n) in self.others.items()},
        }
        fixed = {"defects_fixed": "; ".join(FIXED["fid50k_full"])}
        self.out.note(fid, self.space, {**common, "ddof": 0, "real": "TRAIN, all frames", **fixed})
        fixed = {"defects_fixed": "; ".join(FIXED["is50k"])}
        self.out.note(score, self.space, {**common, "splits": selection.SPLITS, "ddof": 0, **fixed})

    def _add(self, n: int, suffix: str, train: FramePart, fake: FramePart) -> None:
        """Distance from TRAIN and inception score of n frames."""
        fid = selection.fid_name(self.space, self.real, n).name + suffix
        self.out.add(fid, frechet_of_blocks(train.moments, fake.moments))
        score = selection.score_name(self.space, n).name + suffix
        estimate, deviation = score_of_blocks(fake.scores)
        self.out.add(score, estimate)
        self.out.numbers[f"quality/{score}_std"] = deviation

    def _sums(self, role: str, cuts: list[int], scores: bool) -> dict[int, FramePart]:
        label = f"{self.space.name}-{role}"
        return frame_sums(self.out.over, label, self.make, self.sets[role], cuts, scores)


class _ClipNumbers:
    """fvd2048 at one clip policy, or what it is when its rules cannot be kept."""

    def __init__(
        self,
        out: ProtocolEvaluation,
        make: Callable[[], FeatureSpace],
        policy: str,
        sets: dict[str, VideoSet],
    ) -> None:
        self.out, self.make, self.policy, self.sets, self.space = out, make, policy, sets, make()
        if self.space.clip != policy:
            raise EchosynError(f"{self.space.name} takes {self.space.clip}, wanted {policy}")
        self.usable = {
            role: selection.long_enough(
                s.lengths, selection.video_order(list(s.table["FileName"])), policy
            )[: selection.CLIPS]
            for role, s in sets.items()
        }

    def names(self) -> list[Name]:
        real, fake = len(self.usable["train"]), len(self.usable["synthetic"])
        return [selection.fvd_name(self.space, real, fake)]

    def measure(self) -> None:
        (name,) = self.names()
        real, fake = len(self.usable["train"]), len(self.usable["synthetic"])
        entry: dict[str, Any] = {
            "real_clips": real,
            "synthetic_clips": fake,
            "clip": self.policy,
            "fps": float(self.sets["train"].fps),
        }
        if skipped := self._too_short(("train", "synthetic")):
            self.out.note(name, self.space, {**entry, "skipped": skipped})
            return
        train, synthetic = self._features("train", True), self._features("synthetic", False)
        others = {
            "_floor": ("test", min(fake, len(self.usable["test"]))),
            "_reconstruction": ("reconstructed", min(fake, len(self.usable["reconstructed"]))),
        }
        for n in sorted({fake, *(n for _, n in others.values() if n)}):
            key = selection.fvd_name(self.space, real, n).name
            self.out.add(key, frechet_interval(train, synthetic[:n]))
        for suffix, (role, n) in others.items():
            entry[f"clips{suffix}"] = n
            if n == 0:
                entry[f"skipped{suffix}"] = self._too_short((role,))
                continue
            key = selection.fvd_name(self.space, real, n).name + suffix
            self.out.add(key, frechet_interval(train, self._features(role, False, n)))
            if role == "test":
                key = f"{distance_name('fd', self.space, n, n)}_vs_test"
                reference = self._features(role, True, n)
                self.out.add(key, frechet_interval(reference, synthetic[:n]))
        entry |= {
            "real": "TRAIN",
            "order": "lexicographic by video, from the first; shorter videos dropped",
            "real_offsets": f"random, seed {self.out.seed}",
            "synthetic_offsets": 0,
            "ddof": 0,
            "defects_fixed": "; ".join(FIXED["fvd2048"]),
        }
        self.out.note(name, self.space, entry)

    def _too_short(self, roles: tuple[str, ...]) -> str:
        """Which of the sets has no video that is long enough; empty when all have."""
        needed = selection.frames_needed(self.policy)
        return "; ".join(
            f"{self.policy} needs videos of {needed} frames or more, the longest of the {role} set "
            f"has {int(np.max(self.sets[role].lengths))}"
            for role in roles
            if len(self.usable[role]) == 0
        )

    def _features(self, role: str, random: bool, limit: int | None = None) -> np.ndarray:
        videos, make, chosen = self.sets[role], self.make, self.usable[role][:limit]
        clips = selection.clips_at_start(chosen, self.policy)
        if random:
            names = list(videos.table["FileName"])
            clips = selection.clips_at_random(
                names, videos.lengths, chosen, self.policy, self.out.seed
            )
        label = f"{self.space.name}-{self.policy}-{role}-{'random' if random else 'start'}"
        return self.out.over(label, len(clips), partial(_clip_worker, make, videos, clips))


def _clip_worker(
    make: Callable[[], FeatureSpace], videos: VideoSet, clips: list[Clip]
) -> Callable[[range], np.ndarray]:
    space = make()
    return lambda rows: finite_features(space, videos, [clips[r] for r in rows])


def check_alike(sets: dict[str, VideoSet]) -> None:
    """Refuse sets that are empty or that no distance should compare."""
    for role, s in sets.items():
        if len(s) == 0 or int(np.sum(s.lengths)) == 0:
            raise EchosynError(f"the {role} set has no frames: nothing to compare")
    for what, of in (("frame sizes", lambda s: s.video(0).shape[1:]), ("fps", lambda s: s.fps)):
        found = {role: of(s) for role, s in sets.items()}
        if len(set(found.values())) > 1:
            text = ", ".join(f"{role} {value}" for role, value in found.items())
            raise EchosynError(f"{what} differ: {text}; decode them alike before comparing")
