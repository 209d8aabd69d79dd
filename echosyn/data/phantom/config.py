"""Sizes of a phantom dataset and the population that its patients are drawn from."""

from dataclasses import dataclass

from echosyn.config import setting


@dataclass(frozen=True)
class PhantomConfig:
    """Settings of the phantom stage.

    The EF of the population follows EchoNet-Dynamic (Ouyang et al., Nature 2020: 55.7 +- 12.5 %).
    """

    train: int = setting(lo=1, help="videos in split TRAIN, one per patient")
    val: int = setting(lo=1, help="videos in split VAL")
    test: int = setting(lo=1, help="videos in split TEST")
    frames: int = setting(64, lo=2, help="frames per video")
    fps: float = setting(32.0, lo=8, hi=200, help="frames per second")
    size: int = setting(112, lo=56, hi=448, help="height and width of a frame in pixels")
    ef_mean: float = setting(56.0, lo=20, hi=80, help="mean EF of the population in percent")
    ef_sd: float = setting(12.0, lo=0.1, hi=20, help="standard deviation of EF in percent")
    ef_lo: float = setting(10.0, lo=5, hi=90, help="least EF in percent")
    ef_hi: float = setting(90.0, lo=10, hi=92, help="greatest EF in percent")
    bpm_lo: float = setting(60.0, lo=40, hi=180, help="slowest heart in beats per minute")
    bpm_hi: float = setting(105.0, lo=40, hi=180, help="fastest heart in beats per minute")

    @property
    def videos(self) -> int:
        return self.train + self.val + self.test

    def split(self, index: int) -> str:
        """The split of patient `index`: TRAIN first, then VAL, then TEST."""
        if index < self.train:
            return "TRAIN"
        return "VAL" if index < self.train + self.val else "TEST"

    def check(self) -> str | None:
        if not self.ef_lo < self.ef_mean < self.ef_hi:
            return (
                f"ef_mean {self.ef_mean} is not between ef_lo {self.ef_lo} and ef_hi {self.ef_hi}"
            )
        if self.bpm_lo > self.bpm_hi:
            return f"bpm_lo {self.bpm_lo} is above bpm_hi {self.bpm_hi}"
        beat = 60 / self.bpm_lo * self.fps
        if self.frames < beat:
            return (
                f"frames {self.frames} is shorter than one beat at bpm_lo {self.bpm_lo} "
                f"({beat:.0f} frames at {self.fps:g} fps), so ED and ES may both be missing"
            )
        return None
