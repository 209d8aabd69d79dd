"""From noise to latents: the denoising loop, guidance, and videos longer than the window."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from echosyn.errors import EchosynError

Predict = Callable[[Tensor, Tensor], Tensor]  # (x (B, ...), t scalar) -> model output (B, ...)


def sample_noise(shape: tuple[int, ...], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal (B, *shape), row i from its own generator: a sample is its seed's alone."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators])


def sample_generators(seed: int, indices: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per sample index, so that batches and workers never change a sample."""
    return [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in indices]


def denoise(
    predict: Predict,
    noise: Tensor,
    scheduler: Any,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """Run a diffusers scheduler from noise (B, ...) to a sample of the same shape.

    Args:
        predict: guided model output at (x, t).
        scheduler: fresh, timesteps set (see Objective.scheduler).
        generators: one per row, for samplers that add noise.
    """
    extra = {"generator": list(generators)} if _takes_noise(scheduler) and generators else {}
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        x = scheduler.step(predict(x, t.to(x.device)), t, x, return_dict=False, **extra)[0]
    if not bool(torch.isfinite(x).all()):
        raise EchosynError("sampling gave values that are not finite; is the model trained?")
    return x


def _takes_noise(scheduler: Any) -> bool:
    return type(scheduler).__name__ in ("DDPMScheduler", "DPMSolverMultistepScheduler")


def guided(model: Callable[..., Tensor], heart: Tensor, condition: Tensor, scale: float) -> Predict:
    """Classifier-free guidance on the condition (Ho & Salimans 2022, eq. 6).

    scale 1 is the plain conditional model, at half the cost; 0 ignores the condition.
    """
    if scale < 0:
        raise EchosynError(f"guidance scale {scale} is below 0")

    def predict(x: Tensor, t: Tensor) -> Tensor:
        times = t.expand(len(x))
        if scale == 1:
            return model(x, times, heart, condition).float()
        both = model(
            torch.cat([x, x]),
            torch.cat([times, times]),
            torch.cat([heart, heart]),
            torch.cat([condition, torch.zeros_like(condition)]),
        ).float()
        given, none = both.chunk(2)
        return none + scale * (given - none)

    return predict


def window_starts(frames: int, window: int, overlap: int) -> list[int]:
    """First frames of the windows that cover `frames`, the last one flush with the end.

    Raises:
        EchosynError: fewer frames than the window, or an overlap that leaves no new frame.
    """
    if frames < window:
        raise EchosynError(f"{frames} frames asked for, but the video model's window is {window}")
    if not 0 <= overlap < window:
        raise EchosynError(f"overlap {overlap} must be at least 0 and below the window {window}")
    last = frames - window
    return [*range(0, last, window - overlap), last]


def windowed(predict: Predict, window: int, overlap: int) -> Predict:
    """Let a model of `window` frames act on any length: overlapping windows, blended.

    At every denoising step the windows' predictions are averaged where they overlap, weighted by
    the distance to the window's edge, so that neighbours agree on one trajectory and no seam forms
    (Bar-Tal 2023, MultiDiffusion, eq. 5, along time). x is (B, T, ...); nothing is thrown away.
    """
    ramp = torch.minimum(torch.arange(1, window + 1), torch.arange(window, 0, -1)).float()
    ramp = ramp.clamp(max=overlap + 1)

    def blended(x: Tensor, t: Tensor) -> Tensor:
        starts = window_starts(x.shape[1], window, overlap)
        if len(starts) == 1:
            return predict(x, t)
        total = torch.zeros_like(x)
        weight = x.new_zeros(x.shape[1])
        w = ramp.to(x)
        for s in starts:
            part = predict(x[:, s : s + window], t)
            total[:, s : s + window] += part * w.view(1, -1, *[1] * (x.ndim - 2))
            weight[s : s + window] += w
        return total / weight.view(1, -1, *[1] * (x.ndim - 2))

    return blended
