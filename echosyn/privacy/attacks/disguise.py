"""Copies of videos as a thief might disguise them, in pixels."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from echosyn.models.reid import AugmentConfig, augment_latents

CELL = 8  # pixels along either side of a latent cell
GREY = 50.0  # grey levels for one sd of the latents: about the sd of a frame within its sector
CLIPS = 8  # disguised at once


def augment_videos(
    clips: Tensor | np.ndarray, cfg: AugmentConfig, generator: torch.Generator
) -> Tensor:
    """A disguised copy of each clip, uint8 (N, T, H, W), drawn from `generator` alone.

    One shift, zoom, turn, flip, crop, blur, gain and noise level for all frames of a clip; the
    noise itself is new in every pixel. `cfg` is in the units of latents, so that one setting
    disguises hearts and videos alike: shift and blur count latent cells, of 8 pixels; noise counts
    standard deviations of the latents, of 50 grey levels; gain multiplies grey levels, black stays.
    """
    scaled = dataclasses.replace(
        cfg, shift=cfg.shift * CELL, blur=cfg.blur * CELL, noise=cfg.noise * GREY
    )
    parts = []
    for some in torch.as_tensor(clips).split(CLIPS):
        # Frames go in as channels, which share what is drawn for a clip.
        moved = augment_latents(some.float(), scaled, generator)
        parts.append(moved.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts)
