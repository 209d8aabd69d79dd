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
FEWEST = 8  # hearts of either kind
WIDEST = 2.0  # most that a position is stretched or shrunk


@dataclass(frozen=True, eq=False)
class MomentMap:
    """x -> scale (x - drawn) + moved, each (4, h, w)."""

    scale: Tensor
    drawn: Tensor
    moved: Tensor

    @classmethod
    def of(cls, drawn: Tensor, real: Tensor) -> "MomentMap":
        """Takes the moments of drawn hearts (N, 4, h, w) to those of real ones (M, 4, h, w).

        Each position's shift and log ratio of spreads is drawn towards its channel's mean by as
        much as chance explains (James & Stein 1961, with the variances of normal samples), so that
        few hearts are moved as a whole and many position by position.

        Raises:
            EchosynError: fewer than 8 of either.
        """
        for name, hearts in (("drawn", drawn), ("of TRAIN", real)):
            if len(hearts) < FEWEST:
                raise EchosynError(
                    f"match_moments of sample_hearts needs {FEWEST} hearts or more, and "
                    f"{len(hearts)} are {name}: set match_moments: false, or draw more (`hearts`)"
                )
        sides = [(x.mean(0), x.var(0).clamp(min=1e-12), len(x)) for x in (drawn, real)]
        (mean, var, n), (real_mean, real_var, m) = sides
        ratio = _shrunk(0.5 * (real_var / var).log(), torch.tensor(0.5 / (n - 1) + 0.5 / (m - 1)))
        chance = (var / n + real_var / m).mean((1, 2), keepdim=True)
        shift = _shrunk(real_mean - mean, chance)
        return cls(ratio.exp().clamp(1 / WIDEST, WIDEST), mean, mean + shift)

    def __call__(self, hearts: Tensor) -> Tensor:
        return self.scale * (hearts - self.drawn) + self.moved

    def save(self, folder: Path) -> None:
        save_file({k: v.contiguous() for k, v in vars(self).items()}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "MomentMap | None":
        """The map of a folder of hearts, None where they are as drawn."""
        path = folder / FILE
        return cls(**load_file(path)) if path.is_file() else None


def _shrunk(x: Tensor, chance: Tensor) -> Tensor:
    """x (4, h, w) drawn towards each channel's mean; chance: the variance that is none of x's."""
    middle = x.mean((1, 2), keepdim=True)
    kept = (1 - chance / x.var((1, 2), keepdim=True).clamp(min=1e-12)).clamp(min=0)
    return middle + kept * (x - middle)


def train_hearts(train: LatentSet) -> Tensor:
    """A heart of each TRAIN video, posterior means (M, 4, h, w)."""
    return torch.cat([train.hearts(i, 1) for i in range(len(train))])
