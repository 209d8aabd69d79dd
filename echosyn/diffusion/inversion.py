"""From a video back to the noise that a flow draws it from (Hertz et al. 2023, sec. 4; Song 2021).

Sampling goes from noise (t = 1) to data (t = 0) in equal Euler steps, each of which asks for the
velocity at its noisy end. Going back, that end is what is looked for: the step is an equation,
solved by fixed-point iteration (Pan et al. 2023, AIDI, eq. 10; Garibi et al. 2024, ReNoise,
sec. 4.1) instead of by the velocity of the wrong end.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from echosyn.diffusion.windows import Whole
from echosyn.runtime.errors import EchosynError

TIME_RANGE = 1000  # the network's time is 1000 t


def invert(predict: Whole | Sequence[Whole], x: Tensor, steps: int, refine: int) -> Tensor:
    """The noise (B, ...) from which `steps` Euler steps of a flow come to x (B, ...).

    Args:
        predict: the velocity noise - data at (x, 1000 t); or one for each sampling step, in the
            order of sampling.
        refine: fixed-point iterations per step beyond the first guess; each costs an evaluation.
            Where a step contracts (step length times Lipschitz constant of the velocity below 1)
            they lead to its exact inverse.

    Raises:
        EchosynError: the noise is not finite.
    """
    acts = [predict] * steps if callable(predict) else list(predict)
    if len(acts) != steps or refine < 0:
        raise ValueError(f"{len(acts)} predictions for {steps} steps, {refine} refinements")
    for k in reversed(range(steps)):
        t = x.new_tensor(TIME_RANGE * (steps - k) / steps)
        cleaner = x
        for _ in range(1 + refine):
            x = cleaner + acts[k](x, t) / steps
    if not bool(torch.isfinite(x).all()):
        raise EchosynError(
            "inverting gave values that are not finite: set precision: fp32, or train "
            "the model longer"
        )
    return x
