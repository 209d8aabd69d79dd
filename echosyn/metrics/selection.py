"""Which frames and clips the published protocols use, and when a number may carry their names.

The rules are those of StyleGAN-V's metric code, with which EchoNet-Synthetic's numbers were made:
items in lexicographic order of their paths, the first so many of them, nothing shuffled.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from echosyn.metrics.extract import Clip
from echosyn.metrics.features import FeatureSpace, distance_name
from echosyn.metrics.i3d import clip_frames

FAKE_FRAMES = 50_000  # of fid50k_full and is50k
CLIPS = 2048  # a side, of fvd2048
SPLITS = 10  # of is50k
POLICIES = ("16f", "128f", "128f_subsample8f")


def video_order(names: Sequence[str]) -> np.ndarray:
    """Numbers of the videos in lexicographic order of their names."""
    return np.array(sorted(range(len(names)), key=lambda i: names[i]), np.int64)


def frame_order(names: Sequence[str]) -> np.ndarray:
    """Numbers of the videos in the order of their frames' paths, `<name>/<frame>`, which differs
    where a name begins with another one: "a-b/0" comes before "a/0"."""
    return np.array(sorted(range(len(names)), key=lambda i: f"{names[i]}/"), np.int64)


def first_frames(lengths: np.ndarray, order: np.ndarray, limit: int | None) -> np.ndarray:
    """Rows (video, number of its first frames) of the first `limit` frames of all (None: all)."""
    counts = np.asarray(lengths, np.int64)[order]
    if limit is not None:
        before = np.cumsum(counts) - counts
        counts = np.clip(limit - before, 0, counts)
    return np.stack([order, counts], 1)[counts > 0]


def frames_needed(policy: str) -> int:
    """The shortest video that is used: 128 frames also for 16 at stride 8."""
    frames, step = clip_frames(policy)
    return frames * step


def long_enough(lengths: np.ndarray, order: np.ndarray, policy: str) -> np.ndarray:
    """The videos of `order` that are not dropped for being too short."""
    return order[np.asarray(lengths)[order] >= frames_needed(policy)]


def offset_range(length: int, policy: str) -> int:
    """The largest start of a clip in a video: from it the clip ends on the last frame."""
    frames, step = clip_frames(policy)
    return length - (frames - 1) * step - 1


def clips_at_start(videos: np.ndarray, policy: str) -> list[Clip]:
    """Clips of fake videos: offset 0."""
    frames, step = clip_frames(policy)
    return [Clip(int(v), np.arange(frames) * step) for v in videos]


def clips_at_random(
    names: Sequence[str], lengths: np.ndarray, videos: np.ndarray, policy: str, seed: int
) -> list[Clip]:
    """Clips of real videos: a uniform offset that depends on the seed, the video's name and the
    policy, and on nothing else that is measured. (The reference draws without a seed.)"""
    frames, step = clip_frames(policy)
    clips = []
    for v in videos:
        key = [seed, zlib.crc32(names[v].encode()), frames, step]
        start = np.random.default_rng(key).integers(offset_range(int(lengths[v]), policy) + 1)
        clips.append(Clip(int(v), start + np.arange(frames) * step))
    return clips


def split_of(count: int, splits: int = SPLITS) -> np.ndarray:
    """The split of each of `count` frames in order, (count,): bounds i * count // splits.

    The reference takes the bounds of 50,000 frames whatever the count is, so that some splits are
    empty, and the score is NaN, at 45,000 frames or fewer.
    """
    bounds = np.arange(1, splits) * count // splits
    return np.searchsorted(bounds, np.arange(count), side="right")


@dataclass(frozen=True)
class Name:
    """What a number is called, and why it is not called as in the papers (None: it is)."""

    name: str
    short_of: str | None = None


def _published(space: FeatureSpace) -> bool:
    """Only a network that was loaded through the hash check says so of itself."""
    return getattr(space, "published", False) is True


def fid_name(space: FeatureSpace, real: int, fake: int) -> Name:
    """Of the distance of all `real` frames to the first `fake` ones."""
    return _named("fid50k_full", distance_name("fd", space, real, fake), space, [
        (fake, FAKE_FRAMES, "synthetic frames"),
    ])  # fmt: skip


def score_name(space: FeatureSpace, fake: int) -> Name:
    """Of the inception score of the first `fake` frames."""
    wanted = [(fake, FAKE_FRAMES, "synthetic frames")]
    return _named("is50k", f"is_{space.name}_n{fake}", space, wanted)


def fvd_name(space: FeatureSpace, real: int, fake: int) -> Name:
    """Of the distance of `real` to `fake` clips of the space's policy."""
    honest = distance_name("fd", space, real, fake)
    if space.clip not in POLICIES:
        return Name(honest, f"fvd2048 needs a clip policy of {', '.join(POLICIES)}")
    what = f"videos of {frames_needed(space.clip)} frames or more"
    wanted = [(real, CLIPS, f"real {what}"), (fake, CLIPS, f"synthetic {what}")]
    return _named(f"fvd2048_{space.clip}", honest, space, wanted)


def _named(
    official: str, honest: str, space: FeatureSpace, wanted: list[tuple[int, int, str]]
) -> Name:
    short = [f"{n:,} {what}, there are {have:,}" for have, n, what in wanted if have != n]
    if not _published(space):
        short.append(f"the published weights, those of {space.name} are others")
    return Name(honest, f"{official} needs {'; '.join(short)}") if short else Name(official)
