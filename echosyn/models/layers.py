"""What the image and the video network share: layers over channels that come last, and modulation.

Channels come last in memory too, where convolutions, norms and linear layers are quickest.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TIME_RANGE = 1000  # of a network's time
TIME_DIM = 64  # sinusoids of the time, and of a step's length
SLOWEST = 10_000.0  # longest period of those


def modulation(embedding: int, channels: int) -> nn.Linear:
    """Scales, shifts and gates that start without effect."""
    made = nn.Linear(embedding, channels)
    nn.init.zeros_(made.weight)
    nn.init.zeros_(made.bias)
    return made


def norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def channels_first(x: Tensor) -> Tensor:
    """Channels from last to first, as convolutions name them; the memory stays."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def fold(x: Tensor) -> Tensor:
    """(..., h, w, C) to (..., h/2, w/2, 4 C)."""
    *batch, h, w, c = x.shape
    x = x.reshape(*batch, h // 2, 2, w // 2, 2, c).transpose(-4, -3)
    return x.reshape(*batch, h // 2, w // 2, 4 * c)


def unfold(x: Tensor) -> Tensor:
    """(..., h, w, C) to (..., 2 h, 2 w, C / 4)."""
    *batch, h, w, c = x.shape
    x = x.reshape(*batch, h, w, 2, 2, c // 4).transpose(-4, -3)
    return x.reshape(*batch, 2 * h, 2 * w, c // 4)


def sinusoids(t: Tensor) -> Tensor:
    """Of times t (B,) in 0 .. 1000, (B, TIME_DIM)."""
    half = TIME_DIM // 2
    rates = torch.exp(-math.log(SLOWEST) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
