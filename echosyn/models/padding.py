"""Zeros around latents, for networks that halve them."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_even(x: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Zero-pad the last two axes symmetrically to a multiple; returns the padding for `crop`."""
    h, w = x.shape[-2:]
    dh, dw = -h % multiple, -w % multiple
    pad = (dw // 2, dw - dw // 2, dh // 2, dh - dh // 2)
    return F.pad(x, pad), pad


def crop(x: Tensor, pad: tuple[int, int, int, int]) -> Tensor:
    left, right, top, bottom = pad
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]
