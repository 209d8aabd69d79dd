"""A small U-Net (Ronneberger et al. 2015) for maps of a frame or a clip."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 8  # channels to a group of GroupNorm


class SmallUnet(nn.Module):
    """Channels at a quarter of a frame's resolution, (B, inputs, H / 4, W / 4), to a map at half of
    it, (B, 1, H / 2, W / 2). H and W are multiples of 16.

    Args:
        width: channels of the first of three levels, a multiple of GROUP.
        norm: of so many channels: what each convolution is followed by.
    """

    def __init__(self, inputs: int, width: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        levels = (width, 2 * width, 3 * width)

        def layer(a: int, b: int, stride: int = 1) -> nn.Module:
            conv = nn.Conv2d(a, b, 3, stride=stride, padding=1)
            return nn.Sequential(conv, norm(b), nn.SiLU())

        self.enter = nn.Sequential(layer(inputs, width), layer(width, width))
        self.down = nn.ModuleList(
            nn.Sequential(layer(a, b, stride=2), layer(b, b)) for a, b in pairwise(levels)
        )
        self.up = nn.ModuleList(layer(a + b, b) for a, b in pairwise(levels[::-1]))
        self.leave = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        passed = []
        for down in self.down:
            passed.append(x)
            x = down(x)
        for up in self.up:
            x = up(torch.cat([F.interpolate(x, scale_factor=2.0), passed.pop()], dim=1))
        return F.pixel_shuffle(self.leave(x), 2)


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // GROUP, channels)
