"""What a denoiser is told beside the noisy latents: a row of numbers per sample.

Our columns: EF as (standardised, 1), or (0, 0) for "not given", so that leaving it out is not the
same as asking for the mean EF; the frame rate in octaves from 32 per second; the class, one-hot.
The reference's video model knows one column: EF as a fraction, 0 for none.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from echosyn.errors import EchosynError
from echosyn.files import read_json, write_json

FILE = "condition.json"
EF_CENTRE = 55.0
EF_SCALE = 12.0
FPS_CENTRE = 32.0


@dataclass(frozen=True)
class ConditionSpec:
    """The columns of a condition row; kept with the model as condition.json."""

    ef: bool = True
    fps: bool = False
    classes: tuple[str, ...] = ()
    published: bool = False  # the reference's single column

    @classmethod
    def load(cls, folder: Path | str, dim: int) -> "ConditionSpec":
        """Of a model folder whose network takes `dim` numbers; without the file, the reference's.

        Raises:
            EchosynError: the file and the network disagree.
        """
        path = Path(folder) / FILE
        spec = cls(published=True)
        if path.is_file():
            facts = read_json(path)
            spec = cls(**{**facts, "classes": tuple(facts["classes"])})
        if spec.dim != dim:
            raise EchosynError(
                f"{folder}: the network takes {dim} numbers as its condition, but "
                f"{path.name if path.is_file() else 'the published model'} describes {spec.dim}"
            )
        return spec

    def save(self, folder: Path | str) -> None:
        write_json(Path(folder) / FILE, asdict(self))

    @property
    def dim(self) -> int:
        return 1 if self.published else 2 * self.ef + self.fps + len(self.classes)

    def rows(
        self,
        n: int,
        ef: Tensor | None = None,
        fps: float | None = None,
        classes: Sequence[str | None] | None = None,
    ) -> Tensor:
        """Condition rows, float32 (n, dim).

        Args:
            ef: percent (n,), NaN for a sample without one; None: no sample has one.
            fps: frames per second, for a model that was told it.
            classes: a name, or None for a sample without one.

        Raises:
            EchosynError: an EF outside 0-100, an unknown class, or a condition that this model was
                not trained with, or needs.
        """
        if ef is not None:
            _check_ef(ef)
        if self.published:
            if classes is not None and any(c is not None for c in classes):
                raise EchosynError("a class is asked for, but the published model knows none")
            return torch.zeros(n, 1) if ef is None else ef.float().nan_to_num(0.0)[:, None] / 100
        parts = []
        if self.ef:
            ef = torch.full((n,), torch.nan) if ef is None else ef.float()
            given = ~ef.isnan()
            scaled = torch.where(given, (ef - EF_CENTRE) / EF_SCALE, 0.0)
            parts.append(torch.stack([scaled, given.float()], dim=1))
        elif ef is not None and not bool(ef.isnan().all()):
            raise EchosynError("an EF is asked for, but this model was trained without EF")
        if self.fps:
            if fps is None:
                raise EchosynError("this model needs the frame rate that is asked for")
            parts.append(torch.full((n, 1), fps / FPS_CENTRE).log2())
        if classes is not None and any(c is not None for c in classes):
            for c in {c for c in classes if c is not None}.difference(self.classes):
                known = ", ".join(self.classes) or "none: it was trained without classes"
                raise EchosynError(f"class {c!r} is not one that this model knows ({known})")
        if self.classes:
            names = [None] * n if classes is None else classes
            parts.append(torch.tensor([[float(c == k) for k in self.classes] for c in names]))
        return torch.cat(parts, dim=1) if parts else torch.zeros(n, 0)

    def unlabelled(self, rows: Tensor) -> Tensor:
        """The rows without EF and class, as classifier-free guidance needs them; the rate stays."""
        if self.published:
            return torch.zeros_like(rows)
        kept = torch.zeros_like(rows)
        if self.fps:
            at = 2 * self.ef
            kept[:, at] = rows[:, at]
        return kept

    def dropped(self, rows: Tensor, probability: float, generator: torch.Generator) -> Tensor:
        """Each row without its label with `probability` (Ho & Salimans 2022, algorithm 1)."""
        drop = torch.rand(len(rows), generator=generator) < probability
        return torch.where(drop[:, None], self.unlabelled(rows), rows)


def _check_ef(ef: Tensor) -> None:
    wrong = (ef < 0) | (ef > 100) | ef.isinf()
    if bool(wrong.any()):
        raise EchosynError(f"EF {ef[wrong][0].item():g} is outside 0-100 percent")
