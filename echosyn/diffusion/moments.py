"""Drawn hearts moved to the mean and the spread of TRAIN's, position by position.

What draws each heart well need not draw all of them as bright or as varied as real ones:
autoguidance 2 makes them 5 % too bright and 8 % too varied. An affine map per channel and position
mends the first two moments of the set; each heart keeps its place in it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from echosyn.data.latents import LatentSet
from echosyn.runtime.errors import EchosynError

FILE = "moments.safetensors"
FEWEST = 32  # hearts of either kind; of fewer, the spread is known to no more than an eighth
WIDEST = 2.0  # most that a position is stretched or shrunk


@dataclass(frozen=True, eq=False)
class MomentMap:
    """x -> scale (x - drawn) + real, each (4, h, w)."""

    scale: Tensor
    drawn: Tensor
    real: Tensor

    @classmethod
    def of(cls, drawn: Tensor, real: Tensor) -> "MomentMap":
        """Takes the moments of drawn hearts (N, 4, h, w) to those of real ones (M, 4, h, w).

        Raises:
            EchosynError: fewer than 32 of either.
        """
        for name, hearts in (("drawn", drawn), ("of TRAIN", real)):
            if len(hearts) < FEWEST:
                raise EchosynError(
                    f"match_moments of sample_hearts needs {FEWEST} hearts or more, and "
                    f"{len(hearts)} are {name}: set match_moments: false, or draw more (`hearts`)"
                )
        ratio = real.std(0) / drawn.std(0).clamp(min=1e-6)
        return cls(ratio.clamp(1 / WIDEST, WIDEST), drawn.mean(0), real.mean(0))

    def __call__(self, hearts: Tensor) -> Tensor:
        return self.scale * (hearts - self.drawn) + self.real

    def save(self, folder: Path) -> None:
        save_file({k: v.contiguous() for k, v in vars(self).items()}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "MomentMap | None":
        """The map of a folder of hearts, None where they are as drawn."""
        path = folder / FILE
        return cls(**load_file(path)) if path.is_file() else None


def train_hearts(train: LatentSet) -> Tensor:
    """A heart of each TRAIN video, posterior means (M, 4, h, w)."""
    return torch.cat([train.hearts(i, 1) for i in range(len(train))])
