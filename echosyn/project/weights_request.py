"""What a test of published generators is asked for, and the protocol that it samples by.

People who loaded the reference's weights could not reproduce its numbers (EchoNet-Synthetic, issue
5). The protocol is that of its lidm/README.md and lvdm/README.md: 64 ancestral steps without
guidance, 50,000 hearts, 2,048 videos of 192 frames at 32 a second, EFs drawn evenly from 10 to 90,
windows overlapping by half, against the real TRAIN videos.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echosyn.diffusion.settings import SampleHeartsConfig, SampleVideosConfig
from echosyn.project.weights_figures import PUBLISHED
from echosyn.runtime.errors import EchosynError

FPS = 32.0


@dataclass(frozen=True)
class Request:
    """What `echosyn weights test` is asked for; its --help says what each is."""

    folder: Path
    real: Path
    out: Path
    dataset: str = "dynamic"
    hearts: int = 50_000
    videos: int = 2_048
    frames: int = 192
    steps: int = 64
    hearts_from: str = "lidm"  # or real
    inception: Path | None = None
    i3d: Path | None = None
    regressor: Path | None = None
    evaluated: Path | None = None
    figures: Path | None = None
    seed: int = 0

    @property
    def parts(self) -> tuple[str, ...]:
        """The networks that are needed."""
        return ("vae", "lidm", "lvdm") if self.hearts_from == "lidm" else ("vae", "lvdm")

    @property
    def hearts_config(self) -> SampleHeartsConfig:
        return SampleHeartsConfig(
            hearts=max(self.hearts, self.videos), steps=self.steps, sampler="ddpm", shard=256
        )

    @property
    def videos_config(self) -> SampleVideosConfig:
        return SampleVideosConfig(
            train=self.videos, val=0, test=0, frames=self.frames, windows="discard",
            steps=self.steps, sampler="ddpm", guidance=1.0, speckle=False, ef="uniform", batch=8,
        )  # fmt: skip

    @property
    def protocol(self) -> dict[str, Any]:
        """How videos are made: numbers of two protocols cannot be compared."""
        cfg = self.videos_config
        kept = ("frames", "windows", "steps", "sampler", "guidance", "ef")
        return {k: getattr(cfg, k) for k in kept} | {"fps": FPS}

    def check(self) -> None:
        """Raises EchosynError for what can be seen to be wrong before anything is loaded."""
        for name in ("hearts", "videos", "steps"):
            if getattr(self, name) < 1 + (name != "steps"):
                raise EchosynError(f"--{name} {getattr(self, name)}: too few to measure anything")
        if not (self.real / "FileList.csv").is_file():
            raise EchosynError(
                f"{self.real}: no FileList.csv: give a real dataset as `dvc repro ingest@NAME` "
                "leaves it in data/train/NAME; without one nothing can be compared"
            )
        if self.figures is None and self.dataset not in PUBLISHED:
            raise EchosynError(
                f"no published figures are known of dataset '{self.dataset}', only of "
                f"{', '.join(PUBLISHED)}: give --figures with the result.json of an earlier test"
            )
