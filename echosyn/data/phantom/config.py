"""Sizes of a phantom dataset and the population that its patients are drawn from."""

from dataclasses import dataclass, fields

from echosyn.runtime.config import setting

# pathology -> values of the column Class: with it, and without
CLASSES = {"right_heart": ("PAH", "non-PAH"), "thick_wall": ("LVH", "non-LVH")}

# Hearts that are none, settings of Defects: drawn in the apical view alone, or as time that errs.
STRANGE_SHAPES = ("extra_chamber", "missing_wall", "doubled_valve")
STRANGE_TIMES = ("frozen", "reversed")


@dataclass(frozen=True)
class Defects:
    """How many rows of a dataset are made wrong, for tests of what must notice. No row gets two."""

    truncated: int = setting(0, lo=0, help="videos that end in the middle of their data")
    wrong_fps: int = setting(0, lo=0, help="rows whose FPS is twice that of the file")
    wrong_frames: int = setting(0, lo=0, help="rows with 7 more frames than the file has")
    wrong_ef: int = setting(0, lo=0, help="rows whose EF is 20 % off what ESV and EDV say")
    duplicate: int = setting(0, lo=0, help="VAL and TEST videos that are a TRAIN patient's")
    shared_patient: int = setting(0, lo=0, help="VAL and TEST rows with a TRAIN row's Patient")

    extra_chamber: int = setting(0, lo=0, help="hearts with a beating chamber too many")
    missing_wall: int = setting(0, lo=0, help="left ventricles with a gap in the lateral wall")
    doubled_valve: int = setting(0, lo=0, help="hearts with every leaflet twice")
    frozen: int = setting(0, lo=0, help="hearts that stand still while noise goes on")
    reversed: int = setting(0, lo=0, help="hearts that beat backwards")

    @property
    def total(self) -> int:
        return sum(getattr(self, f.name) for f in fields(self))


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

    view: str = setting(
        "a4c", choices=("a4c", "psax"), help="apical four chambers, or the short axis"
    )
    pathology: str = setting(
        "none",
        choices=("none", *CLASSES),
        help="what the ill have: none (no column Class), right_heart (Class PAH: a large right "
        "heart that presses on the septum) or thick_wall (Class LVH)",
    )
    ill: float = setting(0.5, lo=0.05, hi=0.95, help="share of patients with the pathology")
    defects: Defects = setting(Defects(), help="what to make wrong on purpose, for tests")

    @property
    def videos(self) -> int:
        return self.train + self.val + self.test

    def split(self, index: int) -> str:
        """The split of patient `index`: TRAIN first, then VAL, then TEST."""
        if index < self.train:
            return "TRAIN"
        return "VAL" if index < self.train + self.val else "TEST"

    def is_ill(self, index: int) -> bool:
        """Whether patient `index` has the pathology: spread evenly, so over every split too."""
        if self.pathology == "none":
            return False
        return int((index + 1) * self.ill + 1e-9) > int(index * self.ill + 1e-9)

    def label(self, index: int) -> str:
        """The Class of patient `index`; "" without a pathology."""
        if self.pathology == "none":
            return ""
        return CLASSES[self.pathology][0 if self.is_ill(index) else 1]

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
        drawn = [kind for kind in STRANGE_SHAPES if getattr(self.defects, kind)]
        if drawn and self.view != "a4c":
            return f"defects.{drawn[0]} is drawn in view a4c alone, and view is {self.view}"
        across = self.defects.duplicate + self.defects.shared_patient
        rows = self.defects.total + across  # those across splits take a TRAIN row each
        if across > min(self.train, self.val + self.test) or rows > self.videos:
            return (
                f"defects need {rows} rows, {across} of them in TRAIN and as many in VAL and TEST; "
                f"there are {self.train} / {self.val} / {self.test} videos"
            )
        return None
