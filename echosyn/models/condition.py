"""What a denoiser is conditioned on: a row of numbers per sample.

Our columns: EF as (standardised, 1), or (0, 0) for "not given", so that leaving it out is not the
same as asking for the mean EF; the frame rate in octaves from 32 per second; the class, one-hot;
the beat as (beats per frame, phase of the first frame in beats, 1), or zeros for "not given".
The reference's video model knows one column: EF as a fraction, 0 for none.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from echosyn.data.filelist import EF_CENTRE, EF_SCALE
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json, write_json

FILE = "condition.json"
FPS_CENTRE = 32.0
BEAT_OCTAVES = 3.5  # added to those of beats per frame: 85 a minute at 16 frames a second is 0
HARMONICS = 2  # of the phase
ROUNDING = 0.05  # percent, of an EF that is asked for


@dataclass(frozen=True)
class ConditionSpec:
    """The columns of a condition row; kept with the model as condition.json."""

    ef: bool = True
    fps: bool = False
    classes: tuple[str, ...] = ()
    published: bool = False  # the reference's single column
    beat: float | None = None  # the usual beats per frame, for a model conditioned on the beat
    ef_range: tuple[float, float] | None = None  # least and greatest of TRAIN, percent, if known

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
            tuples = {k: tuple(v) for k, v in facts.items() if isinstance(v, list)}
            spec = cls(**{**facts, **tuples})
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
        return 1 if self.published else self._still + 3 * (self.beat is not None)

    @property
    def _still(self) -> int:
        """Columns that are the same for every frame."""
        return 2 * self.ef + self.fps + len(self.classes)

    @property
    def frame_dim(self) -> int:
        """Numbers that `per_frame` makes."""
        return self._still + (2 * HARMONICS + 2) * (self.beat is not None)

    def per_frame(self, rows: Tensor, frames: int, start: Tensor | None = None) -> Tensor:
        """The condition of each frame, (n, frames, frame_dim), from rows (n, dim): the beat
        as cosine and sine of its phase and of its double, the rate in octaves, and 1 if given.

        Args:
            start: number of the first frame (n,), 0 being the one whose phase the row tells.
        """
        still = rows[:, None, : self._still].expand(-1, frames, -1)
        if self.beat is None:
            return still
        rate, phase, given = rows[:, self._still :, None].unbind(1)  # (n, 1) each
        number = torch.arange(frames, device=rows.device)[None]
        if start is not None:
            number = number + start[:, None].to(rows.device)
        turn = 2 * math.pi * (phase + rate * number)
        parts = [f(k * turn) for k in range(1, 1 + HARMONICS) for f in (torch.cos, torch.sin)]
        octaves = rate.clamp_min(1e-3).log2() + BEAT_OCTAVES
        parts += [octaves.expand_as(turn), torch.ones_like(turn)]
        return torch.cat([still, torch.stack(parts, dim=-1) * given[..., None]], dim=-1)

    def rows(
        self,
        n: int,
        ef: Tensor | None = None,
        fps: float | None = None,
        classes: Sequence[str | None] | None = None,
        beat: Tensor | None = None,
    ) -> Tensor:
        """Condition rows, float32 (n, dim).

        Args:
            ef: percent (n,), NaN for a sample without one; None: no sample has one.
            fps: frames per second, for a model conditioned on it.
            classes: a name, or None for a sample without one.
            beat: beats per frame, and the phase of the first frame in beats from end-diastole,
                (n, 2), NaN for a sample without; None: the usual rate, from end-diastole. A model
                not conditioned on the beat ignores it.

        Raises:
            EchosynError: an EF outside 0-100, an unknown class, or a condition that this model was
                not trained with, or needs.
        """
        if ef is not None:
            _check_ef(ef)
        if self.published:
            if classes is not None and any(c is not None for c in classes):
                raise EchosynError(
                    "a class is asked for, but a video model of layout 'published' knows none: set "
                    "layout: own of train_lvdm"
                )
            return torch.zeros(n, 1) if ef is None else ef.float().nan_to_num(0.0)[:, None] / 100
        parts = []
        if self.ef:
            ef = torch.full((n,), torch.nan) if ef is None else ef.float()
            given = ~ef.isnan()
            scaled = torch.where(given, (ef - EF_CENTRE) / EF_SCALE, 0.0)
            parts.append(torch.stack([scaled, given.float()], dim=1))
        elif ef is not None and not bool(ef.isnan().all()):
            raise EchosynError(
                "an EF is asked for, but this model was trained without EF: train it on a dataset "
                "with label: ef"
            )
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
        if self.beat is not None:
            beat = torch.tensor([[self.beat, 0.0]]).expand(n, 2) if beat is None else beat.float()
            given = beat.isfinite().all(dim=1, keepdim=True)
            parts.append(torch.cat([torch.where(given, beat, 0.0), given.float()], dim=1))
        return torch.cat(parts, dim=1) if parts else torch.zeros(n, 0)

    def beyond(self, ef: Sequence[float] | np.ndarray) -> str:
        """What to say of EFs (percent) outside TRAIN's, which the model never saw; else nothing."""
        if self.ef_range is None:
            return ""
        lo, hi = self.ef_range
        asked = np.asarray(ef, np.float64)
        outside = asked[(asked < lo - ROUNDING) | (asked > hi + ROUNDING)]
        if not len(outside):
            return ""
        return (
            f"{len(outside)} of {len(asked)} EFs asked for, {outside.min():g} to "
            f"{outside.max():g}, are outside the {lo:.1f} to {hi:.1f} percent of TRAIN: what is "
            "made of them is a guess; look at the EF that is measured on it"
        )

    def unlabelled(self, rows: Tensor) -> Tensor:
        """The rows without EF and class, as classifier-free guidance needs them; frame rate and
        beat stay."""
        kept = rows.clone()
        if self.published:
            return kept.zero_()
        at = 2 * self.ef
        kept[:, :at] = 0
        kept[:, at + self.fps : self._still] = 0
        return kept

    def unbeaten(self, rows: Tensor) -> Tensor:
        """The rows without the beat."""
        if self.beat is None:
            return rows
        return torch.cat([rows[:, : self._still], torch.zeros_like(rows[:, self._still :])], dim=1)

    def dropped(
        self, rows: Tensor, probability: float, generator: torch.Generator, beat: float = 0.0
    ) -> Tensor:
        """Each row without its label with `probability` (Ho & Salimans 2022, algorithm 1), and
        without its beat with probability `beat`."""
        drop = torch.rand(len(rows), generator=generator) < probability
        rows = torch.where(drop[:, None], self.unlabelled(rows), rows)
        if self.beat is None or not beat:
            return rows
        drop = torch.rand(len(rows), generator=generator) < beat
        return torch.where(drop[:, None], self.unbeaten(rows), rows)


NOTHING = ConditionSpec(ef=False)  # of an unconditional model


def _check_ef(ef: Tensor) -> None:
    wrong = (ef < 0) | (ef > 100) | ef.isinf()
    if bool(wrong.any()):
        raise EchosynError(f"EF {ef[wrong][0].item():g} is outside 0-100 percent")
