"""Settings of the evaluation."""

from dataclasses import dataclass

from echosyn.runtime.config import PRECISIONS, setting


@dataclass(frozen=True)
class EvaluateConfig:
    """Section `evaluate`."""

    test_clips: int = setting(4, lo=0, help="clips per video whose mean is the EF, 0: every one")
    quality_videos: int = setting(2048, lo=2, help="at most this many videos a side in distances")
    frames_per_video: int = setting(4, lo=1, help="frames per video in image distances")
    motion_frames: int = setting(
        16,
        lo=16,
        hi=128,
        help="frames of a clip in the motion distance, fewer if videos are shorter",
    )
    resamples: int = setting(10_000, lo=100, hi=1_000_000, help="bootstrap resamples of EF scores")
    shard: int = setting(64, lo=1, help="videos per unit of work, the unit of resume")
    precision: str = setting("auto", choices=PRECISIONS)
    inception: str = setting(
        "none", help="weights of FID and IS: none, published (`echosyn weights fetch`), or a path"
    )
    i3d: str = setting("none", help="weights of FVD: none, published, or a path")
    strict_names: bool = setting(
        False, help="stop when a published protocol's counts are not met, instead of renaming it"
    )
    protocol_fps: float = setting(32.0, lo=1.0, hi=120.0, help="frame rate of FID, IS and FVD")
