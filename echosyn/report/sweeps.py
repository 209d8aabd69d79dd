"""What a video model does with one heart: at every EF or class, and in more and more steps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from echosyn.data.latents import LatentSet
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.objectives import load_objective
from echosyn.diffusion.settings import GUIDANCE, SampleVideosConfig
from echosyn.diffusion.student import read_student
from echosyn.encoding.codec import VideoCodec
from echosyn.models.published_video import load_video
from echosyn.models.vae import Vae
from echosyn.report.mosaic import gif
from echosyn.report.sheet import contact_sheet
from echosyn.runtime.files import write_bytes

EFS = (20.0, 35.0, 50.0, 65.0)  # percent
STEPS = (1, 2, 4, 8, 16)
SAMPLER = {"flow": "euler", "ddpm_v": "dpmpp"}

Clip = tuple[str, np.ndarray]  # label, uint8 (T, H, W)


class Sweeps:
    """Clips of one window from a model folder, all of one heart and one noise.

    Args:
        folder: of the LVDM, or of a student, which is asked for its own numbers of steps alone.
        real: whose first video gives the heart.
        codec: of the VAE that the model's latents are from.
    """

    def __init__(self, folder: Path, real: LatentSet, codec: VideoCodec) -> None:
        self.folder, self.real, self.codec = folder, real, codec
        self.student = read_student(folder)
        self.steps: Sequence[int] = sorted(self.student.steps) if self.student else STEPS
        self.fps = float(real.table["FPS"].iloc[0])

    def labels(self) -> list[Clip]:
        """The real clip, then the heart at every EF of `EFS`, or in every class, or as it is if the
        model knows neither, at most steps."""
        sampler = self._sampler(self.steps[-1])
        spec = sampler.model.spec
        asked = EFS if spec.ef or spec.published else spec.classes or (None,)
        known = {"ef": asked} if asked == EFS else {"classes": asked}
        words = [f"EF {x:.0f}" if asked == EFS else str(x or "no label") for x in asked]
        made = self._clips(sampler, len(asked), **known)
        return [self._real(sampler.model.window), *zip(words, made, strict=True)]

    def by_steps(self) -> list[Clip]:
        """The heart at its own label, in ever more steps."""
        clips = []
        for n in self.steps:
            sampler = self._sampler(n)
            spec = sampler.model.spec
            own = float(self.real.ef[0])
            label = (
                {"ef": [own]} if spec.ef or spec.published else {"classes": self.real.classes[:1]}
            )
            clips.append((f"{n} step{'s' * (n > 1)}", self._clips(sampler, 1, **label)[0]))
        return [self._real(sampler.model.window), *clips]

    def _sampler(self, steps: int) -> VideoSampler:
        window = _window(self.folder)
        cfg = SampleVideosConfig(
            train=1, val=0, test=0, frames=window, overlap=0, steps=steps,
            sampler=SAMPLER[load_objective(self.folder).name],
            guidance=self.student.guidance if self.student else GUIDANCE,
            heart_guidance=self.student.heart_guidance if self.student else 1.0,
        )  # fmt: skip
        return VideoSampler(self.folder, cfg)

    def _clips(
        self,
        sampler: VideoSampler,
        n: int,
        ef: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
    ) -> list[np.ndarray]:
        heart = self.real.hearts(0, 1).expand(n, -1, -1, -1)
        asked = None if ef is None else torch.tensor(ef)
        made = sampler.animate(heart, asked, [0] * n, 0, classes, self.fps)
        return [self.codec.decode(z) for z in made]

    def _real(self, window: int) -> Clip:
        n = min(window, int(self.real.lengths[0]))
        label = f"real EF {self.real.ef[0]:.0f}" if np.isfinite(self.real.ef[0]) else "real"
        return label, self.codec.decode(self.real.mean(0, 0, n))


def _window(folder: Path) -> int:
    return load_video(folder).window


def draw_sweeps(folder: Path, vae: Path, sets: Sequence[LatentSet], out: Path) -> None:
    """labels.png, labels.gif and steps.png of the video model in `folder`, written to `out`.

    Args:
        vae: folder of the VAE. sets: the first that has a video gives the heart.
    """
    real = next(s for s in sets if len(s))
    sweeps = Sweeps(folder, real, VideoCodec(Vae.load(vae)))
    labels = sweeps.labels()
    write_bytes(out / "labels.png", contact_sheet(labels))
    write_bytes(out / "labels.gif", gif([clip for _, clip in labels], sweeps.fps, len(labels)))
    write_bytes(out / "steps.png", contact_sheet(sweeps.by_steps()))
