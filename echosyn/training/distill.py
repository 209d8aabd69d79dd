"""A student that samples in a few steps, distilled from a trained LVDM by the one loop.

The student starts as the teacher, is conditioned on the length of its step, and learns the
teacher's mean velocity over it: Salimans & Ho 2022 distil steps into one; Meng et al. 2023 distil
the guided teacher, so that guidance costs no pass any more; Yan et al. 2024 (PeRFlow) keep to
pieces of the path; Frans et al. 2024 condition on the step's length, so that one student serves
every number of steps.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from echosyn.data.latents import LatentSet
from echosyn.diffusion.objectives import TRAIN_STEPS, load_objective
from echosyn.diffusion.sampling import guided
from echosyn.diffusion.settings import GUIDANCE
from echosyn.diffusion.student import Student
from echosyn.diffusion.windows import Whole
from echosyn.models.published_video import PublishedVideoDenoiser, load_video
from echosyn.models.video import VideoDenoiser
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.training.diffusion import LvdmTask, TrainLvdmConfig, weighted_mse
from echosyn.training.loop import LoopConfig

# Distilled are the labels and the heart as sampling gives them, from standard normal noise.
VALIDATION_BLOCK = 8  # clips at once
AS_SAMPLED: dict[str, Any] = {
    "times": "uniform",
    "drop_label": 0.0,
    "drop_heart": 0.0,
    "drop_beat": 0.0,
    "noise_offset": 0.0,
}


@dataclass(frozen=True)
class DistillConfig:
    """An entry of section `distill`, over conf/<scale>/distill_lvdm.yaml."""

    loop: LoopConfig
    guidance: float = setting(GUIDANCE, lo=0.0, hi=20.0, help="on EF and class, learned for good")
    heart_guidance: float = setting(1.0, lo=0.0, hi=20.0, help="on the heart, learned for good")
    steps: tuple[int, ...] = setting((1, 2, 4), lo=1, hi=64, help="numbers of steps it serves")
    teacher_steps: int = setting(8, lo=1, hi=1000, help="Euler steps of the teacher, noise to data")
    validation_items: int = setting(16, lo=1, help="VAL clips for the validation loss")

    def check(self) -> str | None:
        if not self.steps or len(set(self.steps)) < len(self.steps):
            return f"steps {list(self.steps)}: expected different numbers, one or more"
        for k in self.steps:
            if self.teacher_steps % k:
                return f"teacher_steps {self.teacher_steps} is not a multiple of {k} of `steps`"
        return None

    @property
    def student(self) -> Student:
        return Student(self.steps, self.guidance, self.heart_guidance)


class DistillTask:
    """Single steps of the guided teacher from noised real clips; see echosyn.training.loop.Task.

    For a number of steps K drawn from `steps` and a piece k / K to (k - 1) / K of the path, the
    teacher goes on from x_t = (1 - t) x + t noise, t = k / K, by `teacher_steps` / K Euler steps,
    to the end of the piece; the student learns (x_t - end) K.

    Args:
        teacher: folder of the LVDM. clips: its own settings, by which clips, hearts, labels, frame
            rates and given frames are drawn.

    Raises:
        EchosynError: a teacher that is not of objective 'flow', or of layout 'published', or
            conditioned on other things than these datasets have.
    """

    def __init__(
        self,
        cfg: DistillConfig,
        teacher: Path,
        clips: TrainLvdmConfig,
        train: list[LatentSet],
        val: list[LatentSet],
    ) -> None:
        self.cfg, self.folder = cfg, Path(teacher)
        self.objective = load_objective(teacher)
        if self.objective.name != "flow":
            raise EchosynError(
                f"{teacher}: trained with objective '{self.objective.name}', but only the straight "
                "paths of 'flow' are distilled: set train_lvdm.objective: flow, or sample it with "
                "sampler 'dpmpp'"
            )
        plain = dataclasses.replace(clips, validation_items=cfg.validation_items, **AS_SAMPLED)
        self.clips = LvdmTask(plain, train, val)
        if self.teacher.spec.published:
            raise EchosynError(
                f"{teacher}: a model of layout 'published' cannot be conditioned on the length of "
                "its step: set train_lvdm.layout: own"
            )
        if self.teacher.spec != self.clips.spec:
            raise EchosynError(
                f"{teacher}: was conditioned on {self.teacher.spec}, but its settings and datasets "
                f"make that {self.clips.spec}: train it again"
            )

    def __getstate__(self) -> dict:
        """Workers read the teacher's weights themselves."""
        return {k: v for k, v in self.__dict__.items() if k not in ("teacher", "_held_blocks")}

    @cached_property
    def teacher(self) -> VideoDenoiser | PublishedVideoDenoiser:
        return load_video(self.folder).requires_grad_(False)

    @property
    def size(self) -> int:
        return self.clips.size

    def build(self) -> VideoDenoiser:
        """The teacher, for a step of any length: its weights for the length start from nothing."""
        return VideoDenoiser.load(self.folder).student()

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        return self.clips.batch(indices, rng)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        t, span = drawn_pieces(batch["u"], self.cfg.steps)
        known, keep = batch.get("known"), _free(batch)
        at = t[:, None, None, None, None]
        x = (1 - at * keep) * batch["x"] + at * keep * batch["noise"]
        target = self.mean_velocity(x, t, span, batch)
        given = batch["heart"], batch["condition"]
        output = model(x, TRAIN_STEPS * t, *given, span=span, known=known)
        return weighted_mse(output, target, None, keep), {}

    @torch.no_grad()
    def mean_velocity(self, x: Tensor, t: Tensor, span: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The teacher's over its path from x (B, T, 4, h, w) at times t to t - span, both (B,)."""
        end, steps = x.clone(), self.cfg.teacher_steps
        for j in range(steps):
            rows = torch.nonzero(span * steps > j + 0.5)[:, 0]  # whose piece is not over yet
            if not len(rows):
                break
            part = {k: v[rows] for k, v in batch.items()}
            end[rows] -= self._velocity(end[rows], t[rows] - j / steps, part) / steps
        return (x - end) / span[:, None, None, None, None]

    @torch.no_grad()
    def teacher_path(self, batch: dict[str, Tensor], steps: int) -> list[Tensor]:
        """The guided teacher's states (B, T, 4, h, w) at times 1, 1 - 1/steps, ..., 0."""
        return _euler(lambda x, t: self._velocity(x, t.expand(len(x)), batch), batch, steps)

    def _velocity(self, x: Tensor, t: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The guided teacher's at times t (B,) in 0 .. 1; none for given frames."""
        teacher, known = self.teacher.to(x.device), batch.get("known")

        def asked(x: Tensor, _: Tensor, heart: Tensor, condition: Tensor, start: Tensor) -> Tensor:
            n = len(x) // len(t)  # `guided` knows one time for all, here every clip has its own
            given = None if known is None else known.repeat(n, 1)
            return teacher(x, TRAIN_STEPS * t.repeat(n), heart, condition, start, known=given)

        condition, cfg = batch["condition"], self.cfg
        unlabelled = teacher.spec.unlabelled(condition)
        scales = (cfg.guidance, cfg.heart_guidance)
        predict = guided(asked, batch["heart"], condition, unlabelled, *scales)
        return predict(x, t.new_zeros(())) * _free(batch)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """On fixed VAL clips and noise: the loss, and how far samples of K steps are from the
        teacher's of `teacher_steps`, as a mean square over unit-scale latents: `apart_<K>` the
        student's, `teacher_apart_<K>` the teacher's own.
        """
        if self.clips.val is None:
            return {"loss": float("nan")}
        device = next(model.parameters()).device
        numbers: dict[str, float] = {}
        for batch, end, own in self._held_out(self.clips.val, device):
            share = len(end) / self.cfg.validation_items
            found = {"loss": float(self.loss(model, batch)[0])}
            for k in self.cfg.steps:
                found[f"apart_{k}"] = _apart(student_path(model, batch, k)[-1], end)
                found[f"teacher_apart_{k}"] = _apart(own[k], end)
            for name, value in found.items():
                numbers[name] = numbers.get(name, 0.0) + value * share
        return numbers

    def _held_out(
        self, val: dict[str, Tensor], device: torch.device
    ) -> list[tuple[dict, Tensor, dict[int, Tensor]]]:
        """VAL in blocks, each with the teacher's samples: finest, and in fewer steps; made once."""
        if "_held_blocks" not in self.__dict__:
            self._held_blocks = []
            for i in range(0, self.cfg.validation_items, VALIDATION_BLOCK):
                batch = {k: v[i : i + VALIDATION_BLOCK].to(device) for k, v in val.items()}
                end = self.teacher_path(batch, self.cfg.teacher_steps)[-1]
                own = {k: self.teacher_path(batch, k)[-1] for k in self.cfg.steps}
                self._held_blocks.append((batch, end, own))
        return self._held_blocks


def drawn_pieces(u: Tensor, steps: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Time t = k / K at the start of a piece and its length 1 / K, (B,) each, from uniform u (B,).

    Every K of `steps` is as likely, and so is each of its pieces k = 1 .. K.
    """
    scaled = u * len(steps)
    which = scaled.long().clamp(max=len(steps) - 1)
    count = torch.tensor(steps, device=u.device)[which]
    piece = torch.minimum(((scaled - which) * count).long() + 1, count)
    return piece / count, 1 / count


def student_path(model: nn.Module, batch: dict[str, Tensor], steps: int) -> list[Tensor]:
    """A student's states (B, T, 4, h, w) in so many steps, from noise to data."""
    span = batch["noise"].new_full((len(batch["noise"]),), 1 / steps)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        given, known = (batch["heart"], batch["condition"]), batch.get("known")
        out = model(x, TRAIN_STEPS * t.expand(len(x)), *given, span=span, known=known)
        return out.float() * _free(batch)

    return _euler(predict, batch, steps)


def _euler(predict: Whole, batch: dict[str, Tensor], steps: int) -> list[Tensor]:
    """States of equal Euler steps from noise to data; given frames are clean, and stay."""
    keep = _free(batch)
    x = (1 - keep) * batch["x"] + keep * batch["noise"]
    states = [x]
    for i in range(steps):
        x = x - predict(x, x.new_tensor(1 - i / steps)) / steps
        states.append(x)
    return states


def _free(batch: dict[str, Tensor]) -> Tensor:
    """1 for frames to make, 0 for given ones, (B or 1, T or 1, 1, 1, 1)."""
    if (known := batch.get("known")) is None:
        return batch["noise"].new_ones(1, 1, 1, 1, 1)
    return 1 - known[:, :, None, None, None]


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean())
