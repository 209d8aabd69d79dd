"""Statistics of the features of very many frames, shard by shard, in bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from echosyn.metrics.extract import Clip, extract, video_name
from echosyn.metrics.features import FeatureSpace, ScoredSpace
from echosyn.metrics.inception_score import ScoreSums
from echosyn.metrics.moments import Moments
from echosyn.metrics.selection import SPLITS, first_frames, frame_order, split_of
from echosyn.runtime.errors import EchosynError

# Of videos, left out one at a time by the interval; a distance at D = 2048 takes seconds.
BLOCKS = 10
SLAB = 1024  # runs of frames per call: at D = 2048, shards of 64 are 17 MB each
FRAMES = 8192  # whose features are held at once
# name, number of items, worker (see echosyn.cluster.map_rows) -> one array over all items
MapRows = Callable[[str, int, Callable[[], Callable[[range], np.ndarray]]], np.ndarray]


@dataclass(frozen=True)
class Run:
    """Frames [start, stop) of a video; the first of them is number `number` of the sequence.

    segment: between which of the counts asked for; block: of the interval.
    """

    video: int
    start: int
    stop: int
    number: int
    segment: int
    block: int


@dataclass(frozen=True)
class FramePart:
    """Statistics of the first so many frames: per block of videos, without empty blocks."""

    moments: list[Moments]
    scores: list[np.ndarray]


def finite_features(space: FeatureSpace, videos: Any, clips: Sequence[Clip]) -> np.ndarray:
    """`extract`, refusing features that are not finite and naming the video."""
    rows = extract(space, videos, clips, getattr(space, "batch", 16))
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        sizes = [1 if space.clip else len(c.frames) for c in clips]
        clip = clips[int(np.searchsorted(np.cumsum(sizes), bad[0], side="right"))]
        raise EchosynError(
            f"{space.name} features of {video_name(videos, clip.video)} are not finite "
            f"({len(bad)} of {len(rows)} rows): the weights or the frames are damaged"
        )
    return rows


def runs_of(names: Sequence[str], lengths: np.ndarray, cuts: list[int]) -> list[Run]:
    """The first `cuts[-1]` frames in the order of their paths, cut at each count of `cuts`.

    Sorted by segment and block, so that a shard's runs have few of them.
    """
    made, number = [], 0
    edges = [0, *cuts]
    rows = first_frames(lengths, frame_order(names), cuts[-1])
    for k, (video, count) in enumerate(rows.tolist()):
        for segment in range(len(cuts)):
            start = max(edges[segment] - number, 0)
            stop = min(edges[segment + 1] - number, count)
            if start < stop:
                made.append(Run(video, start, stop, number + start, segment, k % BLOCKS))
        number += count
    return sorted(made, key=lambda r: (r.segment, r.block, r.number))


def frame_sums(
    over: MapRows,
    label: str,
    make: Callable[[], ScoredSpace],
    videos: Any,
    cuts: list[int],
    scores: bool,
) -> dict[int, FramePart]:
    """Moments, and with `scores` the sums of the inception score, of the first frames of a set.

    Args:
        over: computes over runs of frames, in calls named by `label` and a number.
        make: the feature space; without `scores` its classes are not asked for.
        cuts: ascending counts of frames, none beyond what the set has.

    Returns:
        per count, the statistics of that many first frames; every frame goes through the network
        once, however many counts there are.
    """
    runs = runs_of(list(videos.table["FileName"]), videos.lengths, cuts)
    moments: dict[tuple[int, int], Moments] = {}
    sums: dict[tuple[int, int], np.ndarray] = {}
    for k, start in enumerate(range(0, len(runs), SLAB)):
        slab = runs[start : start + SLAB]
        worker = partial(_worker, make, videos, slab, cuts, scores)
        for row in over(f"{label}-{k}", len(slab), worker):
            group, width = (int(row[0]), int(row[1])), int(row[2])
            body, tail = np.split(row[3:], [Moments.length(width)])
            part = Moments.from_array(body, width)
            moments[group] = moments[group].merge(part) if group in moments else part
            sums[group] = sums.get(group, 0) + tail
    return {cut: _part(moments, sums, i, len(cuts)) for i, cut in enumerate(cuts)}


def _part(
    moments: dict[tuple[int, int], Moments], sums: dict[tuple[int, int], np.ndarray], i: int, n: int
) -> FramePart:
    """What segments 0 to i of each block add up to; n is the number of segments."""
    made: dict[int, Moments] = {}
    scores: dict[int, np.ndarray] = {}
    for (segment, block), part in sorted(moments.items(), key=lambda item: item[0]):
        if segment <= i:
            made.setdefault(block, Moments(part.width)).merge(part)
            tail = sums[segment, block]
            if tail.size:
                tail = tail.reshape(n, SPLITS, -1)[i]
                scores[block] = scores.get(block, 0) + tail
    return FramePart(list(made.values()), list(scores.values()))


def _worker(
    make: Callable[[], ScoredSpace], videos: Any, runs: list[Run], cuts: list[int], scores: bool
) -> Callable[[range], np.ndarray]:
    space = make()
    splits = [split_of(cut) for cut in cuts] if scores else []

    def work(rows: range) -> np.ndarray:
        """A row per group: segment, block, width, its moments, its score sums per count."""
        made = []
        for group, some in groupby([runs[r] for r in rows], lambda r: (r.segment, r.block)):
            moments = Moments(space.width)
            sums = [ScoreSums(SPLITS, space.classes) for _ in splits]
            for chunk in _chunks(some):
                clips = [Clip(r.video, np.arange(r.start, r.stop)) for r in chunk]
                features = finite_features(space, videos, clips)
                moments.add(features)
                if sums:
                    p = space.probabilities(features)
                    at = np.concatenate([r.number + np.arange(r.stop - r.start) for r in chunk])
                    for i in range(group[0], len(cuts)):
                        sums[i].add(p, splits[i][at])
            tail = [s.sums.ravel() for s in sums]
            made.append(np.concatenate([[*group, space.width], moments.to_array(), *tail]))
        return np.stack(made)

    return work


def _chunks(runs: Iterator[Run]) -> Iterator[list[Run]]:
    """Runs of about FRAMES frames together; a longer one by itself is cut."""
    held: list[Run] = []
    for run in runs:
        for start in range(run.start, run.stop, FRAMES):
            stop = min(start + FRAMES, run.stop)
            number = run.number + start - run.start
            held.append(Run(run.video, start, stop, number, run.segment, run.block))
            if sum(r.stop - r.start for r in held) >= FRAMES:
                yield held
                held = []
    if held:
        yield held
