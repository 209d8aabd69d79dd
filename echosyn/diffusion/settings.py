"""Settings of sampling, and the names of objectives and samplers; imports nothing heavy."""

from dataclasses import dataclass

from echosyn.runtime.config import PRECISIONS, Params, build, setting

OBJECTIVES = ("flow", "ddpm_v")
SAMPLERS = {"flow": ("euler", "heun"), "ddpm_v": ("ddpm", "dpmpp")}
WEIGHTINGS = ("none", "min_snr")
WINDOWS = ("blend", "shift", "continue", "discard")
EF_DRAWS = ("real", "uniform", "stratified")
GUIDANCE = 1.5  # on EF and class, where nothing else is asked for
EF_TRUTHS = ("keep", "relabel", "reject")
ALL_SAMPLERS = tuple(name for names in SAMPLERS.values() for name in names)


def check_weighting(objective: str, weighting: str) -> str | None:
    if weighting == "min_snr" and objective != "ddpm_v":
        return "weighting 'min_snr' is of objective 'ddpm_v'; for flow choose `times`"
    return None


@dataclass(frozen=True)
class SampleHeartsConfig:
    """Section `sample_hearts`."""

    hearts: int = setting(lo=1, help="hearts to draw; the filter keeps a part of them")
    steps: int = setting(25, lo=1, hi=1000, help="denoising steps")
    sampler: str = setting("euler", choices=ALL_SAMPLERS)
    guidance: float = setting(
        1.0, lo=0.0, hi=20.0, help="classifier-free guidance on EF or class, 1 is none"
    )
    autoguidance: float = setting(
        1.0, lo=1.0, hi=10.0, help="away from the LIDM of the short training, 1 is none"
    )
    match_moments: bool = setting(
        False, help="give latents TRAIN's mean and spread, position by position"
    )
    ef: str = setting(
        "real", choices=EF_DRAWS, help="distribution of EF, if the LIDM is conditioned on it"
    )
    shard: int = setting(64, lo=1, help="hearts denoised together and kept as one unit of resume")
    precision: str = setting("auto", choices=PRECISIONS)


@dataclass(frozen=True)
class SampleVideosConfig:
    """Section `sample_videos`."""

    train: int = setting(lo=1, help="videos of the TRAIN split")
    val: int = setting(lo=0)
    test: int = setting(lo=0)
    frames: int = setting(lo=2, help="frames per video")
    fps: float = setting(0.0, lo=0.0, hi=240.0, help="frames per second; 0: the latents' own")
    model: str = setting("lvdm", help="folder under models/: lvdm, or distilled/<name>")
    windows: str = setting("blend", choices=WINDOWS, help="how a video outgrows the model's window")
    overlap: int = setting(4, lo=0, help="frames that neighbouring windows share")
    steps: int = setting(10, lo=1, hi=1000, help="denoising steps")
    sampler: str = setting("euler", choices=ALL_SAMPLERS)
    guidance: float = setting(
        GUIDANCE, lo=0.0, hi=20.0, help="classifier-free guidance on EF and class, 1 is none"
    )
    heart_guidance: float = setting(1.0, lo=0.0, hi=20.0, help="the same on the heart")
    image_steps: tuple[int, ...] = setting(
        (), lo=0, hi=999, help="steps, from 0, at which the image model acts (JVID)"
    )
    speckle: bool = setting(True, help="paint the speckle that the VAE takes off")
    ef: str = setting("real", choices=EF_DRAWS, help="distribution that EF is drawn from")
    ef_truth: str = setting(
        "keep", choices=EF_TRUTHS, help="what happens to the EF asked for once it is measured"
    )
    ef_tolerance: float = setting(
        5.0, lo=0.0, hi=100.0, help="percent points that ef_truth 'reject' allows"
    )
    ef_attempts: int = setting(4, lo=1, hi=100, help="noises tried by ef_truth 'reject'")
    shard: int = setting(16, lo=1, help="videos kept as one unit of resume")
    batch: int = setting(4, lo=1, help="videos denoised together on a GPU")
    precision: str = setting("auto", choices=PRECISIONS)

    def check(self) -> str | None:
        late = [k for k in self.image_steps if k >= self.steps]
        if late:
            return f"image_steps {late[0]}: there are {self.steps} steps, counted from 0"
        if self.image_steps and self.windows == "continue":
            return "image_steps and windows 'continue' cannot go together: use windows 'shift'"
        return None

    @property
    def counts(self) -> dict[str, int]:
        return {"TRAIN": self.train, "VAL": self.val, "TEST": self.test}


def sampling_of(params: Params, dataset: str) -> SampleVideosConfig:
    """Section `sample_videos`, with as many videos a split as the dataset's own entry asks for.

    Raises:
        EchosynError: a setting is wrong.
    """
    values, where = params.settings("sample_videos")
    asked = params.dataset(dataset).synthetic or {}
    own = {split.lower(): count for split, count in asked.items()}
    return build(SampleVideosConfig, {**values, **own}, f"{where}, datasets.{dataset}.synthetic")
