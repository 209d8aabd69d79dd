"""How EF enters the video model: one cross-attention token of K numbers.

K = 2 (ours): (standardised EF, 1), and (0, 0) for "no EF given", so that leaving the EF out is not
the same as asking for the mean EF. K = 1 (the reference): EF as a fraction, and 0 for none.
"""

import torch
from torch import Tensor

from echosyn.errors import EchosynError

EF_CENTRE = 55.0
EF_SCALE = 12.0
CONDITION_DIM = 2


def ef_condition(ef: Tensor, dim: int = CONDITION_DIM) -> Tensor:
    """EF in percent (B,) to condition tokens (B, dim).

    Raises:
        EchosynError: an EF outside 0-100, or a dim that no known model has.
    """
    if not bool(((ef >= 0) & (ef <= 100)).all()):
        bad = ef[~((ef >= 0) & (ef <= 100))][0].item()
        raise EchosynError(f"EF {bad:g} is outside 0-100 percent")
    if dim == 1:
        return ef[:, None] / 100
    if dim == CONDITION_DIM:
        return torch.stack([(ef - EF_CENTRE) / EF_SCALE, torch.ones_like(ef)], dim=1)
    raise EchosynError(f"a video model with cross_attention_dim {dim}; known: 1, {CONDITION_DIM}")


def drop_condition(condition: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Null each row with `probability`, for classifier-free guidance (Ho & Salimans 2022)."""
    keep = torch.rand(len(condition), generator=generator) >= probability
    return condition * keep.to(condition)[:, None]
