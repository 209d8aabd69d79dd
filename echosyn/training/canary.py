"""A LIDM trained with a mark in few people's hearts: its data, its detector, its reverse process.

The statistics are echosyn.privacy.attacks.canary's.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from echosyn.data.latents import LatentSet
from echosyn.diffusion.objectives import Objective
from echosyn.diffusion.sampling import denoise, sample_generators
from echosyn.diffusion.settings import SampleHeartsConfig
from echosyn.privacy.attacks.canary import (
    CanaryConfig,
    CanaryResult,
    Detector,
    Sampler,
    canary_audit,
    check_samples,
    make_detector,
    mark_pattern,
    plant,
)
from echosyn.privacy.detectors.embedding import people_of
from echosyn.runtime.config import Params, setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.progress import bar
from echosyn.training.diffusion import LidmTask, TrainLidmConfig
from echosyn.training.loop import LoopConfig


@dataclass(frozen=True)
class MarkedConfig:
    """The mark, and the training and sampling of the generator that it tests."""

    mark: CanaryConfig
    train: TrainLidmConfig
    steps: int = setting(25, lo=1, hi=1000, help="denoising steps from pure noise")

    @classmethod
    def of(cls, params: Params, dataset: str) -> "MarkedConfig":
        """The entry of section `canary` over conf, with the training that the dataset's LIDM has.

        Raises:
            EchosynError: no such entry, or a setting that is unknown or impossible.
        """
        return cls(
            params.named("canary", "canary", dataset, CanaryConfig),
            params.stage("train_lidm", TrainLidmConfig),
            params.stage("sample_hearts", SampleHeartsConfig).steps,
        )

    @property
    def loop(self) -> LoopConfig:
        return self.train.loop


class MarkedLatents(LatentSet):
    """TRAIN latents with the mark on every frame of some people's videos.

    `marked` is bool (V,): which videos. The people are drawn from `seed`.

    Raises:
        EchosynError: fewer than two people, or a share that leaves nobody without the mark.
    """

    def __init__(
        self, folder: Path | str, cfg: CanaryConfig, seed: int, beats: Path | None = None
    ) -> None:
        super().__init__(folder, "TRAIN", beats)
        people = people_of(self)
        names = np.unique(people)
        count = max(1, round(cfg.share * len(names)))
        if count >= len(names):
            raise EchosynError(
                f"{folder}: a mark in {count} of {len(names)} TRAIN people leaves none without "
                "it: lower `share`, or train on more people"
            )
        chosen = np.random.default_rng([seed, 47]).permutation(len(names))[:count]
        self.marked = np.isin(people, names[chosen])
        self.people = count
        self.amplitude = cfg.amplitude
        self.pattern = mark_pattern(tuple(super().mean(0, 0, 1).shape[1:]), seed)

    def _mark(self, i: int, frames: Tensor) -> Tensor:
        return plant(frames, self.pattern, self.amplitude) if self.marked[i] else frames

    def mean(self, i: int, start: int = 0, stop: int | None = None) -> Tensor:
        return self._mark(i, super().mean(i, start, stop))

    def draw(self, i: int, start: int, stop: int, generator: torch.Generator) -> Tensor:
        return self._mark(i, super().draw(i, start, stop, generator))


@dataclass(frozen=True)
class MarkedLidm:
    """All that is fixed before the generator is trained."""

    task: LidmTask
    train: MarkedLatents
    detector: Detector
    cfg: CanaryConfig  # share: of TRAIN videos, which is how training draws
    steps: int
    seed: int

    @classmethod
    def prepare(
        cls, folder: Path, cfg: MarkedConfig, seed: int, beats: Path | None = None
    ) -> "MarkedLidm":
        """Plant the mark in the TRAIN latents of `folder`, and make its detector.

        VAL and TEST people give the detector's error rates.

        Raises:
            EchosynError: too few people, too faint a mark or too few samples to bound anything.
        """
        train = MarkedLatents(folder, cfg.mark, seed, beats)
        rng = np.random.default_rng([seed, 48])
        heldout = [LatentSet(folder, split, beats) for split in ("VAL", "TEST")]
        plain = np.flatnonzero(~train.marked)
        detector = make_detector(
            _one_each(train, plain, cfg.train.posterior, rng),
            torch.cat([_one_each(s, np.arange(len(s)), cfg.train.posterior, rng) for s in heldout]),
            train.pattern,
            cfg.mark.amplitude,
            0.95,
        )
        mark = dataclasses.replace(cfg.mark, share=float(train.marked.mean()))
        check_samples(detector, mark)
        task = LidmTask(cfg.train, train, heldout[0])
        return cls(task, train, detector, mark, cfg.steps, seed)

    def measure(self, model: nn.Module, name: str) -> CanaryResult:
        """Audit the trained generator; `name` stands beside the progress bar."""
        rng = np.random.default_rng([self.seed, 49])
        # Drawn as training draws them, so that they are the distribution that the bound speaks of.
        marked, unmarked = (
            self.task.batch(rng.choice(np.flatnonzero(kind), self.cfg.samples), rng)["x"]
            for kind in (self.train.marked, ~self.train.marked)
        )
        sampler = reverse_sampler(model, self.task.objective, self.steps, self.seed)
        total = 2 * len(self.cfg.times) * self.cfg.samples
        with bar(total, f"{name} audit", "heart") as progress:

            def watched(z: Tensor, t: float) -> Tensor:
                x = sampler(z, t)
                progress.update(len(z))
                return x

            return canary_audit(
                watched, self.task.objective.noisy, marked, unmarked, self.detector, self.cfg,
                self.seed,
            )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """What the result rests on; names nobody."""
        return {
            "marked_people": self.train.people,
            "marked_videos": int(self.train.marked.sum()),
            "videos": len(self.train),
            "amplitude": self.cfg.amplitude,
            "confidence": self.cfg.confidence,
            "samples_per_time_and_kind": self.cfg.samples,
            "denoising_steps": self.steps,
            "objective": self.task.objective.name,
            "threshold": self.detector.threshold,
            "heldout_people": self.detector.trials,
        }


def reverse_sampler(
    model: nn.Module, objective: Objective, steps: int, seed: int, batch: int = 256
) -> Sampler:
    """The reverse process of an image denoiser from any time on.

    flow: Euler. ddpm_v: ancestral sampling, its noise from `seed` and the place of the sample in
    all that this sampler draws. From time t it takes `steps` x t steps, rounded up.
    """
    device = next(model.parameters()).device
    drawn = 0

    @torch.inference_mode()
    def sample(z: Tensor, t: float) -> Tensor:
        nonlocal drawn
        parts = []
        for part in z.split(batch):
            generators = sample_generators(seed, range(drawn, drawn + len(part)))
            drawn += len(part)
            x = denoise(
                lambda x, now: model(x, now.expand(len(x))).float(),
                part.to(device),
                _scheduler_from(objective, steps, t),
                generators,
            )
            parts.append(x.cpu())
        return torch.cat(parts)

    return sample


def _scheduler_from(objective: Objective, steps: int, t: float) -> Any:
    """A scheduler whose timesteps begin at t in (0, 1]."""
    n = int(np.ceil(steps * t))
    if objective.name == "flow":
        scheduler = objective.scheduler("euler", n)
        scheduler.set_timesteps(sigmas=np.linspace(t, t / n, n).tolist())
        return scheduler
    one = torch.ones(1)
    start = int(objective.noisy(one, one, one * t)[2])  # the very time that hearts are noised to
    grid = np.unique(np.linspace(start, 0, n).round().astype(int))[::-1]
    scheduler = objective.scheduler("ddpm", n)
    scheduler.set_timesteps(timesteps=grid.tolist())
    return scheduler


def _one_each(
    latents: LatentSet, rows: np.ndarray, posterior: str, rng: np.random.Generator
) -> Tensor:
    """A heart of every person's first video among `rows`: (P, 4, h, w)."""
    _, first = np.unique(people_of(latents)[rows], return_index=True)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    hearts = []
    for i in rows[np.sort(first)]:
        f = int(rng.choice(latents.heart_frames(i)))
        one = (
            latents.mean(i, f, f + 1)
            if posterior == "mean"
            else latents.draw(i, f, f + 1, generator)
        )
        hearts.append(one)
    return torch.cat(hearts) if hearts else torch.empty(0)
