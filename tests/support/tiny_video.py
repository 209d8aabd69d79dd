"""A tiny video model whose every weight counts: fresh ones start with outputs of zero."""

import torch

from echosyn.models.condition import ConditionSpec
from echosyn.models.video import VideoConfig, VideoDenoiser

TINY = VideoConfig(width=8, inner=16, outer_blocks=1, inner_blocks=1, heads=1, embedding=16)


def tiny_video(
    window: int, spec: ConditionSpec, size: int = 6, continues: bool = False, seed: int = 0
) -> VideoDenoiser:
    generator = torch.Generator().manual_seed(seed)
    model = VideoDenoiser(TINY, window, spec, size, continues)
    with torch.no_grad():
        for weight in model.parameters():
            fan = weight[0].numel() if weight.ndim > 1 else 100
            weight.copy_(torch.randn(weight.shape, generator=generator) / fan**0.5)
    return model.eval()
