"""How good generated videos are, for benchmarks that compare ways to make them.

Distances to real videos in two spaces: the pooled features of an EF regressor trained on real
videos (`efnet`, what moves EF and what it looks like) and `motion` (the beat, and as little as
possible of the picture); the EF that was asked for against the EF measured; seams in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from echosyn.data.frames import FrameSet
from echosyn.data.spaced import evenly_spaced
from echosyn.evaluation.quality import LEAST_MOTION, clips_of, efnet
from echosyn.metrics.ef import ef_scores, requested_vs_measured
from echosyn.metrics.ef_meter import measure_ef
from echosyn.metrics.extract import extract
from echosyn.metrics.features import FeatureSpace
from echosyn.metrics.frechet import frechet_interval
from echosyn.metrics.interval import Estimate, bootstrap_sums, percentile_interval
from echosyn.metrics.kernel import kernel_distance
from echosyn.metrics.motion import MotionFeatures
from echosyn.runtime.errors import EchosynError

RESAMPLES = 10_000


@dataclass(frozen=True)
class Quality:
    """Of one set of videos, each number with its 95 % interval.

    kd_*: kernel distance, unbiased; fd_*: Frechet distance, comparable at equal `videos` alone;
    r, slope, mae: EF measured against EF asked for (1, 1 and 0 are faithful; mae in percent).
    """

    videos: int
    kd_efnet: Estimate
    fd_efnet: Estimate
    kd_motion: Estimate
    fd_motion: Estimate
    r: Estimate
    slope: Estimate
    mae: Estimate


class Judge:
    """Measures sets of videos against the same real ones, with the same regressors.

    Args:
        real: videos that no model was trained on.
        arm: folder of the regressors seed0, seed1, ... trained on real videos; the features of
            seed0 are the space `efnet`, the mean of all measures EF.
        frames: of a clip in the motion space; shorter videos are refused.
        test_clips: clips of a video whose mean is its EF.

    Raises:
        EchosynError: no regressors in `arm`, or real videos shorter than `frames`.
    """

    def __init__(
        self, real: FrameSet, arm: Path, frames: int, test_clips: int = 4, seed: int = 0
    ) -> None:
        self.real, self.arm, self.test_clips, self.seed = real, Path(arm), test_clips, seed
        self.spaces: dict[str, FeatureSpace] = {
            "efnet": efnet(self.arm / "seed0"),
            "motion": MotionFeatures(frames, real.fps),
        }
        self.frames = frames
        self._check(real)

    def measure(self, videos: Sequence[np.ndarray], asked: np.ndarray) -> Quality:
        """Of generated videos uint8 (T, H, W) at the real ones' rate, for the EFs asked (N,).

        Raises:
            EchosynError: fewer than two videos, one shorter than a clip, an EF that is not finite.
        """
        made = frame_set(videos, asked, self.real.fps)
        measured = measure_ef(self.arm, made, self.test_clips)
        faithful = requested_vs_measured(asked, measured, self.seed, RESAMPLES)
        mae = ef_scores(asked, measured, self.seed, RESAMPLES)["mae"]
        return Quality(
            len(made), **self.distances(made), r=faithful["r"], slope=faithful["slope"], mae=mae
        )

    def distances(self, videos: FrameSet) -> dict[str, Estimate]:
        """Kernel and Frechet distance to as many real videos; of real videos, the floor."""
        self._check(videos)
        n = min(len(videos), len(self.real))
        if n < 2:
            raise EchosynError("distances need at least two videos on each side")
        rows, numbers = evenly_spaced(len(self.real), n), {}
        for name, space in self.spaces.items():
            ours = self._features(space, videos.take(evenly_spaced(len(videos), n)))
            theirs = self._real[name][rows]
            numbers[f"kd_{name}"] = kernel_distance(theirs, ours)
            numbers[f"fd_{name}"] = frechet_interval(theirs, ours)
        return numbers

    @cached_property
    def _real(self) -> dict[str, np.ndarray]:
        return {name: self._features(space, self.real) for name, space in self.spaces.items()}

    def _features(self, space: FeatureSpace, videos: FrameSet) -> np.ndarray:
        return extract(space, videos, clips_of(space, videos, 1, self.seed))

    def _check(self, videos: FrameSet) -> None:
        shortest = int(videos.lengths.min()) if len(videos) else 0
        if not LEAST_MOTION <= self.frames <= shortest:
            raise EchosynError(
                f"clips of {self.frames} frames: the motion space needs {LEAST_MOTION} or more, "
                f"and the shortest video has {shortest}"
            )


def frame_set(videos: Sequence[np.ndarray], ef: np.ndarray, fps: float) -> FrameSet:
    """Videos in memory, uint8 (T, H, W) of one size, as a set that knows their EFs (N,)."""
    lengths = np.array([len(v) for v in videos], np.int64)
    table = pd.DataFrame({"FileName": [f"v{i:06d}" for i in range(len(videos))], "EF": ef})
    return FrameSet(np.concatenate(videos), table, np.cumsum(lengths) - lengths, lengths, fps)


def seam_score(latents: Tensor, seams: Sequence[int], seed: int = 0) -> Estimate:
    """Mean absolute change of latents (N, T, ...) at seams over that at all other frames.

    1 is no seam, 2 a jump twice as large as from one frame to the next elsewhere. The interval is
    a bootstrap over videos.

    Args:
        seams: frames before which a window ends or starts (diffusion.windows.window_seams), each
            in 1 .. T - 1.

    Raises:
        EchosynError: no seams, nothing else, or a seam outside the video.
    """
    steps = (latents[:, 1:] - latents[:, :-1]).abs().flatten(2).mean(2).double().numpy()  # (N, T-1)
    at = np.isin(np.arange(1, latents.shape[1]), list(seams))
    if not at.any() or at.all() or at.sum() < len(set(seams)):
        raise EchosynError(
            f"seams {list(seams)} of {latents.shape[1]} frames: expected one or more, inside the "
            "video, and frames between them"
        )
    terms = np.stack([steps[:, at].mean(1), steps[:, ~at].mean(1)], 1)
    value, drawn = bootstrap_sums(terms, lambda s: s[..., 0] / s[..., 1], RESAMPLES, seed)
    return Estimate(float(value), *percentile_interval(drawn))
