"""From noise to latents: the denoising loop and guidance."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from echosyn.diffusion.windows import Predict, Whole
from echosyn.runtime.errors import EchosynError

STREAM_APART = 0x9E3779B9  # 2**32 over the golden ratio


def sample_noise(shape: tuple[int, ...], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal (B, *shape), row i from its own generator: a sample is its seed's alone."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators])


def sample_generators(seed: int, indices: Sequence[int], stream: int = 0) -> list[torch.Generator]:
    """One CPU generator per sample index, so that batches and workers never change a sample.

    Args:
        stream: 0 for hearts, 1 for videos, whose first frame else began as their heart's noise.
            PyTorch reads 32 bits of a seed: neighbouring indices never meet, streams hardly.
    """
    start = seed * 1_000_003 + stream * STREAM_APART
    return [torch.Generator().manual_seed((start + i) % 2**32) for i in indices]


def denoise(
    predict: Whole | Sequence[Whole],
    noise: Tensor,
    scheduler: Any,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """Run a diffusers scheduler from noise (B, ...) to a sample of the same shape.

    Args:
        predict: guided model output at (x, t); or one for each of the scheduler's timesteps.
        scheduler: fresh, timesteps set (see Objective.scheduler).
        generators: one per row, for samplers that add noise.

    Raises:
        EchosynError: the sample is not finite.
    """
    extra = {"generator": list(generators)} if _takes_noise(scheduler) and generators else {}
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    steps = [predict] * len(scheduler.timesteps) if callable(predict) else predict
    for t, act in zip(scheduler.timesteps, steps, strict=True):
        x = scheduler.step(act(x, t.to(x.device)), t, x, return_dict=False, **extra)[0]
    if not bool(torch.isfinite(x).all()):
        raise EchosynError(
            "sampling gave values that are not finite: set precision: fp32, or train "
            "the model longer"
        )
    return x


def _takes_noise(scheduler: Any) -> bool:
    return type(scheduler).__name__ in ("DDPMScheduler", "DPMSolverMultistepScheduler")


def guided(
    model: Callable[..., Tensor],
    heart: Tensor,
    condition: Tensor,
    unlabelled: Tensor,
    scale: float,
    heart_scale: float = 1.0,
) -> Predict:
    """Classifier-free guidance on the labels (Ho & Salimans 2022, eq. 6), and on the heart.

    With both, as Brooks et al. 2023 (InstructPix2Pix, eq. 3): v(0, 0) + heart_scale (v(h, 0) -
    v(0, 0)) + scale (v(h, c) - v(h, 0)). A scale of 1 is the plain conditional model and needs no
    pass of its own; 0 ignores the condition.

    Args:
        model: called as model(x, t, heart, condition, start), start being the number of each
            part's first frame in its video, (len(x),).
        heart: (B, 4, h, w). condition, unlabelled: rows with and without the labels, (B, K).
    """
    for name, value in (("guidance scale", scale), ("heart's guidance scale", heart_scale)):
        if value < 0:
            raise EchosynError(f"{name} {value} is below 0")
    passes = [(heart, condition)]
    if scale != 1 or heart_scale != 1:
        passes.append((heart, unlabelled))
    if heart_scale != 1:
        passes.append((torch.zeros_like(heart), unlabelled))

    def predict(x: Tensor, t: Tensor, starts: Sequence[int] = (0,)) -> Tensor:
        n, k = len(passes), len(x) // len(heart)
        hearts, conditions = (
            torch.cat([p.repeat(k, *[1] * (p.ndim - 1)) for p in parts])
            for parts in zip(*passes, strict=True)
        )
        start = torch.tensor(starts, device=x.device).repeat_interleave(len(heart)).repeat(n)
        rows = x.repeat(n, *[1] * (x.ndim - 1))
        out = model(rows, t.expand(n * len(x)), hearts, conditions, start)
        full, *others = out.float().chunk(n)
        if not others:
            return full
        no_label = others[0]
        base = others[1] + heart_scale * (no_label - others[1]) if heart_scale != 1 else no_label
        return base + scale * (full - no_label)

    return predict


def autoguided(predict: Predict, weak: Predict, scale: float) -> Predict:
    """Steer away from a weaker model of the same data (Karras et al. 2024, "Guiding a diffusion
    model with a bad version of itself", eq. 5): weak + scale (predict - weak).

    Where the weaker model errs, the better one errs the same way, but less. Needs no labels.
    """

    def steered(x: Tensor, t: Tensor, starts: Sequence[int] = (0,)) -> Tensor:
        base = weak(x, t, starts)
        return base + scale * (predict(x, t, starts) - base)

    return steered


def guidance_passes(scale: float, heart_scale: float) -> int:
    """Times that each frame goes through the network at a step; see `guided`."""
    return 1 + (scale != 1 or heart_scale != 1) + (heart_scale != 1)
