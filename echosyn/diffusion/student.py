"""What a distilled video model can do: kept in its folder as student.json."""

from dataclasses import asdict, dataclass
from pathlib import Path

from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json, write_json

FILE = "student.json"


@dataclass(frozen=True)
class Student:
    """Numbers of steps it was distilled for, and the guidance that it learned."""

    steps: tuple[int, ...]
    guidance: float
    heart_guidance: float

    def save(self, folder: Path | str) -> None:
        write_json(Path(folder) / FILE, asdict(self))

    def require(self, cfg: SampleVideosConfig, folder: Path | str) -> None:
        """Raises EchosynError when `cfg` asks for what this student did not learn."""
        if cfg.steps not in self.steps:
            known = ", ".join(map(str, self.steps))
            raise EchosynError(f"{folder}: distilled for {known} steps, not for {cfg.steps}")
        if cfg.sampler != "euler":
            raise EchosynError(f"{folder}: a distilled model samples with 'euler' only")
        for name in ("guidance", "heart_guidance"):
            if getattr(cfg, name) != getattr(self, name):
                raise EchosynError(
                    f"{folder}: distilled at {name} {getattr(self, name):g}, which it cannot "
                    f"change: set {name}: {getattr(self, name):g} in sample_videos"
                )


def read_student(folder: Path | str) -> Student | None:
    """The facts of a distilled model, None for one that is not."""
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    facts = read_json(path)
    return Student(tuple(facts["steps"]), facts["guidance"], facts["heart_guidance"])
