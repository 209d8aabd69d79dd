"""This very video at another EF (D'ARTAGNAN's task, Reynaud et al. 2022), by a flow model.

The video goes back along the flow to its noise under the EF that it has, and forth again under the
EF that is asked for. What the model does not explain by EF stays in the noise, and so in the video.
"""

import torch
from torch import Tensor

from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.inversion import invert
from echosyn.diffusion.sampling import denoise, guided
from echosyn.diffusion.windows import Whole
from echosyn.runtime.device import autocast
from echosyn.runtime.errors import EchosynError

REFINE = 3  # fixed-point iterations a step; docs/results/animate.md measures what they bring


def check_counterfactual(sampler: VideoSampler) -> None:
    """Raises EchosynError for a model, or windows, whose path cannot be followed back."""
    what = None
    if sampler.objective.name != "flow":
        what = f"a flow model, not one trained with objective '{sampler.objective.name}'"
    elif sampler.student:
        what = "a model that is not distilled: models/lvdm, not one of models/distilled"
    elif sampler.cfg.windows == "continue":
        what = "windows 'blend' or 'shift', not 'continue', whose frames are clean when given"
    if what:
        raise EchosynError(f"a counterfactual needs {what}")


@torch.inference_mode()
def noise_of(
    sampler: VideoSampler, video: Tensor, heart: Tensor, condition: Tensor, refine: int = REFINE
) -> Tensor:
    """The noise (1, T, 4, h, w) from which the sampler, without guidance, draws this video.

    Args:
        video: unit-scale latents (T, 4, h, w), T at least the model's window.
        heart: unit-scale latents (4, h, w) of a frame of that video.
        condition: the row (1, K) of what the video is.
        refine: see `invert`.

    Raises:
        EchosynError: as `check_counterfactual`; a video shorter than the window; noise that is not
            finite.
    """
    check_counterfactual(sampler)
    if len(video) < sampler.model.window:
        raise EchosynError(
            f"{len(video)} frames at the models' frame rate; a counterfactual takes "
            f"{sampler.model.window} or more, the window of the video model"
        )
    x = video.to(sampler.device)[None]
    with autocast(sampler.device, sampler.precision):
        back = _velocities(sampler, heart, condition, condition, 1.0)
        return invert(back, x, sampler.cfg.steps, refine).cpu()


@torch.inference_mode()
def counterfactuals(
    sampler: VideoSampler,
    video: Tensor,
    heart: Tensor,
    own_ef: float,
    efs: tuple[float, ...],
    fps: float,
    refine: int = REFINE,
) -> Tensor:
    """The video at each EF, unit-scale latents (len(efs), T, 4, h, w) on the CPU.

    Steps, windows and guidance are those of the sampler's settings; steps are Euler's. Guidance
    acts on the change of EF: v(own) + guidance (v(asked) - v(own)). So the EF that a video has
    gives that video again, at any guidance, but for what inversion loses.

    Args:
        video, heart, refine: as of `noise_of`.
        own_ef: the EF that the video has, percent. efs: percent.
        fps: of the video, for models conditioned on it.

    Raises:
        EchosynError: as `noise_of`; an EF outside 0-100.
    """
    spec, n = sampler.model.spec, len(efs)
    unknown = torch.full((n, 2), torch.nan)  # the beat stays in the noise, with all else
    own = spec.rows(1, torch.tensor([own_ef]), fps, beat=unknown[:1])
    asked = spec.rows(n, torch.tensor(efs), fps, beat=unknown)
    noise = noise_of(sampler, video, heart, own, refine).expand(n, -1, -1, -1, -1)
    with autocast(sampler.device, sampler.precision):
        forth = _velocities(sampler, heart, asked, own.expand(n, -1), sampler.cfg.guidance)
        scheduler = sampler.objective.scheduler("euler", sampler.cfg.steps)
        return denoise(forth, noise.to(sampler.device), scheduler).cpu()


def _velocities(
    sampler: VideoSampler, heart: Tensor, asked: Tensor, base: Tensor, guidance: float
) -> list[Whole]:
    """For each sampling step, v(base) + guidance (v(asked) - v(base)) in that step's windows."""
    device = sampler.device
    hearts = heart.to(device).expand(len(asked), -1, -1, -1)
    predict = guided(sampler.model, hearts, asked.to(device), base.to(device), guidance)
    return [sampler.windowed(step, predict) for step in range(sampler.cfg.steps)]
