"""Settings of sampling, and the names of objectives and samplers; imports nothing heavy."""

from dataclasses import dataclass

from echosyn.config import PRECISIONS, setting

OBJECTIVES = ("flow", "ddpm_v")
SAMPLERS = {"flow": ("euler", "heun"), "ddpm_v": ("ddpm", "dpmpp")}
ALL_SAMPLERS = tuple(name for names in SAMPLERS.values() for name in names)


@dataclass(frozen=True)
class SampleHeartsConfig:
    """Section `sample_hearts`."""

    hearts: int = setting(lo=1, help="hearts to draw; the filter keeps a part of them")
    steps: int = setting(25, lo=1, hi=1000, help="denoising steps")
    sampler: str = setting("euler", choices=ALL_SAMPLERS)
    shard: int = setting(64, lo=1, help="hearts denoised together and kept as one unit of resume")
    precision: str = setting("auto", choices=PRECISIONS)


@dataclass(frozen=True)
class SampleVideosConfig:
    """Section `sample_videos`."""

    train: int = setting(lo=1, help="videos of the TRAIN split")
    val: int = setting(lo=0)
    test: int = setting(lo=0)
    frames: int = setting(lo=2, help="frames per video, at the latents' frame rate")
    overlap: int = setting(4, lo=0, help="frames that neighbouring windows share")
    steps: int = setting(10, lo=1, hi=1000, help="denoising steps")
    sampler: str = setting("euler", choices=ALL_SAMPLERS)
    guidance: float = setting(
        2.0, lo=0.0, hi=20.0, help="classifier-free guidance on EF, 1 is none"
    )
    ef: str = setting(
        "real", choices=("real", "uniform"), help="distribution that EF is drawn from"
    )
    shard: int = setting(16, lo=1, help="videos kept as one unit of resume")
    batch: int = setting(4, lo=1, help="videos denoised together")
    precision: str = setting("auto", choices=PRECISIONS)

    @property
    def counts(self) -> dict[str, int]:
        return {"TRAIN": self.train, "VAL": self.val, "TEST": self.test}
