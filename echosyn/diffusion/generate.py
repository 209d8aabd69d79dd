"""Videos from the LVDM: one seed per sample index."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echosyn.arithmetic.trust import Probe, trusted
from echosyn.diffusion.objectives import load_objective
from echosyn.diffusion.sampling import (
    denoise,
    guidance_passes,
    guided,
    sample_generators,
    sample_noise,
)
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.diffusion.student import read_student
from echosyn.diffusion.windows import (
    Predict,
    Whole,
    blended,
    continued,
    discarded,
    frame_passes,
    shifted,
)
from echosyn.models.published_image import load_image
from echosyn.models.published_video import PublishedVideoDenoiser, load_video
from echosyn.models.video import VideoDenoiser
from echosyn.runtime.device import autocast, pick_device
from echosyn.runtime.errors import EchosynError


class VideoSampler:
    """Animates hearts as asked for, with a trained LVDM folder or a distilled one.

    Args:
        image: folder of the LIDM, for `image_steps`: joint image-video sampling (Reynaud 2024,
            JVID): at those steps the image model moves every frame by itself.
    """

    def __init__(self, folder: Path, cfg: SampleVideosConfig, image: Path | None = None) -> None:
        self.cfg = cfg
        self.objective = load_objective(folder)
        self.objective.scheduler(cfg.sampler, cfg.steps)
        self.device = pick_device()
        self.model = load_video(folder).to(self.device)
        self.student = read_student(folder)
        if self.student:
            self.student.require(cfg, folder)
        if cfg.frames < self.model.window:
            raise EchosynError(
                f"{folder}: {cfg.frames} frames are asked for, but this model's window is "
                f"{self.model.window}: set frames in sample_videos to {self.model.window} or more"
            )
        if cfg.windows == "continue" and not self.model.continues:
            raise EchosynError(
                f"{folder}: windows 'continue' needs a model trained with given frames: set "
                "`continues` of train_lvdm above 0, or choose windows 'shift'"
            )
        self.image = None
        if cfg.image_steps:
            if image is None or load_objective(image).name != self.objective.name:
                raise EchosynError(
                    f"image_steps: {image or 'no image model'} does not share the objective "
                    f"'{self.objective.name}' of {folder}"
                )
            self.image = load_image(image).to(self.device)
        self.precision = trusted(cfg.precision, self.device, window_probe(self.model), str(folder))

    @torch.inference_mode()
    def animate(
        self,
        hearts: Tensor,
        ef: Tensor | None,
        indices: Sequence[int],
        seed: int,
        classes: Sequence[str | None] | None = None,
        fps: float | None = None,
        beat: Tensor | None = None,
    ) -> Tensor:
        """Unit-scale latent videos (B, frames, 4, h, w) on the CPU.

        Args:
            hearts: unit-scale latents (B, 4, h, w). ef: percent (B,), NaN or None for none.
            indices: sample indices, which with the seed decide the noise.
            classes: a class, or None, for each. fps: frames per second, for models
                conditioned on it.
            beat: beats per frame and the first frame's phase, (B, 2), NaN for none, for models
                conditioned on it; None: the usual rate, from end-diastole.

        Raises:
            EchosynError: hearts of a shape that is not the model's, fewer frames than its window,
                an EF or class that it cannot be asked for, or samples that are not finite.
        """
        size = self.model.size
        if hearts.shape[1:] != (4, size, size):
            raise EchosynError(
                f"hearts of shape {tuple(hearts.shape[1:])}, but the video model was trained on "
                f"latents of (4, {size}, {size})"
            )
        generators = sample_generators(seed, indices, stream=1)
        noise = sample_noise((self.cfg.frames, *hearts.shape[1:]), generators)
        rows = self.model.spec.rows(len(hearts), ef, fps, classes, beat).to(self.device)
        return self.denoised(noise, hearts, rows, generators)

    @torch.inference_mode()
    def denoised(
        self,
        noise: Tensor,
        hearts: Tensor,
        condition: Tensor | Sequence[Tensor],
        generators: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Videos (B, T, 4, h, w) on the CPU from noise of that shape and condition rows (B, K); or
        from such rows for each of `evaluations`, but for windows 'continue'."""
        noise, hearts = noise.to(self.device), hearts.to(self.device)
        every = [condition] * self.evaluations if isinstance(condition, Tensor) else condition
        rows = [row.to(self.device) for row in every]

        def window(noise: Tensor, given: Tensor | None, start: int) -> Tensor:
            predict = self._predict(hearts, rows[0], given, start)
            return denoise(predict, noise, self._scheduler(), generators)

        with autocast(self.device, self.precision):
            if self.cfg.windows == "continue":
                return continued(window, noise, self.model.window, self.cfg.overlap).cpu()
            steps = [
                self.windowed(self._step_of(e), self._predict(hearts, row))
                for e, row in enumerate(rows)
            ]
            return denoise(steps, noise, self._scheduler(), generators).cpu()

    def warn(self, ef: Sequence[float] | np.ndarray) -> None:
        """Say on stderr which EFs (percent) are none that the model saw."""
        if note := self.model.spec.beyond(ef):
            print(f"warning: {note}", file=sys.stderr)

    def cost(self) -> str:
        """What a video takes, in frames through the network."""
        cfg, frames = self.cfg, self.frame_passes()
        return (
            f"{cfg.frames} frames x {cfg.steps} steps, windows '{cfg.windows}' of "
            f"{self.model.window}: {frames:,} frames through the network per video, "
            f"{frames / cfg.frames:.1f} per frame made"
        )

    def frame_passes(self) -> int:
        """Frames that go through the video network for one video, guidance included."""
        cfg = self.cfg
        evaluations = sum(self._step_of(e) not in cfg.image_steps for e in range(self.evaluations))
        passes = 1 if self.student else guidance_passes(cfg.guidance, cfg.heart_guidance)
        window, overlap = self.model.window, cfg.overlap
        return passes * frame_passes(cfg.windows, cfg.frames, window, overlap, evaluations)

    @property
    def evaluations(self) -> int:
        """Times that the model is asked for a whole video."""
        return len(self._scheduler().timesteps)

    def _scheduler(self) -> Any:
        return self.objective.scheduler(self.cfg.sampler, self.cfg.steps)

    def _step_of(self, evaluation: int) -> int:
        """Heun evaluates twice a step, but for the last."""
        return (evaluation + 1) // 2 if self.cfg.sampler == "heun" else evaluation

    def _predict(
        self, hearts: Tensor, condition: Tensor, given: Tensor | None = None, first: int = 0
    ) -> Predict:
        """The guided model on windows, whose first frames may be given (B, n, 4, h, w).

        first: the number in the video of the frame that windows count theirs from.
        """
        n = 0 if given is None else given.shape[1]
        span = 1 / self.cfg.steps if self.student else None

        def model(x: Tensor, t: Tensor, heart: Tensor, condition: Tensor, start: Tensor) -> Tensor:
            extra = {}
            if span is not None:
                extra["span"] = torch.full((len(x),), span, device=x.device)
            if given is not None:
                kept = given.repeat(len(x) // len(given), 1, 1, 1, 1)
                x = torch.cat([kept, x[:, n:]], dim=1)
                extra["known"] = (torch.arange(x.shape[1], device=x.device) < n).expand(len(x), -1)
            return self.model(x, t, heart, condition, first + start, **extra)

        if self.student:  # its guidance is learned
            return guided(model, hearts, condition, condition, 1.0)
        unlabelled = self.model.spec.unlabelled(condition)
        cfg = self.cfg
        return guided(model, hearts, condition, unlabelled, cfg.guidance, cfg.heart_guidance)

    def windowed(self, step: int, predict: Predict) -> Whole:
        """The prediction for a whole video at a step, in the windows of `cfg.windows`."""
        cfg, window = self.cfg, self.model.window
        if step in cfg.image_steps:
            return self._frame_by_frame
        if cfg.windows == "shift":
            return shifted(predict, window, step)
        if cfg.windows == "discard":
            return discarded(predict, window)
        # On a CPU more clips at once are an eighth faster; a GPU is full, and its memory too.
        at_once = 2 if self.device.type == "cpu" else 1
        return blended(predict, window, cfg.overlap, at_once)

    def _frame_by_frame(self, x: Tensor, t: Tensor) -> Tensor:
        assert self.image is not None  # image_steps need one
        flat = x.flatten(0, 1)
        return self.image(flat, t.expand(len(flat))).float().unflatten(0, x.shape[:2])


def window_probe(model: VideoDenoiser | PublishedVideoDenoiser) -> Probe:
    """One window of one video through a video model, for a check of the arithmetic."""
    size = model.size
    noise, heart = torch.randn(1, model.window, 4, size, size), torch.randn(1, 4, size, size)
    condition = torch.zeros(1, model.spec.dim)
    return Probe("a window of video", model, (noise, torch.full((1,), 500.0), heart, condition))


def synthetic_name(dataset: str, seed: int, index: int) -> str:
    """FileName of a synthetic video; `SYN` keeps it from ever being taken for a patient's."""
    return f"SYN_{dataset}_{seed}_{index:06d}"
