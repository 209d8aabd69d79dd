"""What every source becomes: grey 112x112 AVIs beside a FileList.csv."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from echosyn.errors import EchosynError

FRAME_SIZE = 112  # pixels; EchoNet-Dynamic's, and what the models are built for


@dataclass(frozen=True)
class IngestReport:
    """What was written, and in `notes` what was left out and why."""

    videos: int
    frames: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SquareFit:
    """How a frame is padded to a square and scaled to FRAME_SIZE, keeping its proportions."""

    height: int
    width: int

    @property
    def side(self) -> int:
        return max(self.height, self.width)

    @property
    def top(self) -> int:
        return (self.side - self.height) // 2

    @property
    def left(self) -> int:
        return (self.side - self.width) // 2

    @property
    def identity(self) -> bool:
        return self.height == self.width == FRAME_SIZE

    def apply(self, frames: np.ndarray) -> np.ndarray:
        """Frames uint8 (T, height, width) to (T, 112, 112): black padding, area when shrinking."""
        area = self.side >= FRAME_SIZE
        how = cv2.INTER_AREA if area else cv2.INTER_LINEAR
        out = np.empty((len(frames), FRAME_SIZE, FRAME_SIZE), np.uint8)
        square = np.zeros((self.side, self.side), np.uint8)
        for i, frame in enumerate(frames):
            square[self.top : self.top + self.height, self.left : self.left + self.width] = frame
            out[i] = cv2.resize(square, (FRAME_SIZE, FRAME_SIZE), interpolation=how)
        return out


def refuse_all(problems: Iterable[str], of: int, what: str) -> None:
    """Raise one EchosynError that lists the first problems, if there are any."""
    problems = list(problems)
    if problems:
        more = [f"... and {len(problems) - 5} more"] if len(problems) > 5 else []
        listed = "\n  ".join([*problems[:5], *more])
        raise EchosynError(f"{len(problems)} of {of} {what} cannot be ingested:\n  {listed}")
