"""LIDM and LVDM as tasks of the loop: latents of TRAIN, VAL for validation."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.data.latents import LatentSet
from echosyn.diffusion.objectives import make_objective, time_samples
from echosyn.diffusion.settings import OBJECTIVES, WEIGHTINGS, check_weighting
from echosyn.models.condition import ConditionSpec
from echosyn.models.image import ImageConfig, ImageDenoiser
from echosyn.models.published_image import PublishedImageDenoiser, UnetConfig
from echosyn.models.published_video import PublishedVideoDenoiser
from echosyn.models.video import VideoConfig, VideoDenoiser
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.training.loop import LoopConfig

# The mean is easier to learn; samples keep the VAE's whole posterior in the target.
POSTERIORS = ("mean", "sample")
LAYOUTS = ("own", "published")


@dataclass(frozen=True)
class TrainLidmConfig:
    """Section `train_lidm`. Its sizes are `model` for layout 'own', `unet` for 'published'."""

    loop: LoopConfig
    model: ImageConfig | None = setting(None, help="sizes of the network of layout 'own'")
    unet: UnetConfig | None = setting(None, help="sizes of the network of layout 'published'")
    layout: str = setting("own", choices=LAYOUTS, help="our network, or the reference's")
    objective: str = setting("flow", choices=OBJECTIVES)
    times: str = setting("uniform", choices=("uniform", "logit_normal"))
    time_shift: float = setting(0.0, lo=-3.0, hi=3.0, help="mean of logit_normal; above 0: noisier")
    weighting: str = setting("none", choices=WEIGHTINGS, help="of the loss over times")
    posterior: str = setting("mean", choices=POSTERIORS, help="what of a latent is learned")
    condition: str = setting(
        "none", choices=("none", "ef", "class"), help="what the LIDM is conditioned on"
    )
    drop_label: float = setting(0.1, lo=0.0, hi=1.0, help="share of hearts that train without it")
    guide: float = setting(
        0.0, lo=0.0, hi=0.9, help="a second training for `autoguidance`: its share of the steps"
    )
    validation_items: int = setting(64, lo=1, help="VAL hearts for the validation loss")
    weights: str = setting("none", help="none, or a folder of published weights, used as they are")

    def check(self) -> str | None:
        if self.layout == "published" and self.condition != "none":
            return f"layout 'published' is unconditional: condition '{self.condition}' needs 'own'"
        if self.condition != "none" and not 0 < self.drop_label < 1:
            return (
                f"drop_label {self.drop_label:g} with condition '{self.condition}': guidance and "
                "the privacy audit ask the model without a label too; choose a share in between"
            )
        return _sizes_missing(self) or check_weighting(self.objective, self.weighting)

    @property
    def guide_loop(self) -> LoopConfig:
        """How the second training runs: as the first, but for its length."""
        steps = max(1, round(self.guide * self.loop.steps))
        warmup = min(self.loop.warmup, steps - 1)
        return dataclasses.replace(self.loop, steps=steps, warmup=warmup)


@dataclass(frozen=True)
class TrainLvdmConfig:
    """Section `train_lvdm`. Its sizes are `model` for layout 'own', `unet` for 'published'."""

    loop: LoopConfig
    model: VideoConfig | None = setting(None, help="sizes of the network of layout 'own'")
    unet: UnetConfig | None = setting(None, help="sizes of the network of layout 'published'")
    window: int = setting(16, lo=2, help="frames of a clip; at the latents' rate, a beat or more")
    layout: str = setting("own", choices=LAYOUTS, help="our network, or the reference's")
    objective: str = setting("flow", choices=OBJECTIVES)
    times: str = setting("uniform", choices=("uniform", "logit_normal"))
    time_shift: float = setting(0.0, lo=-3.0, hi=3.0, help="mean of logit_normal; above 0: noisier")
    weighting: str = setting("none", choices=WEIGHTINGS, help="of the loss over times")
    strides: tuple[int, ...] = setting((1,), lo=1, hi=16, help="every so many frames make a clip")
    drop_label: float = setting(
        0.1, lo=0.0, hi=1.0, help="share of clips that train without EF and class"
    )
    drop_heart: float = setting(0.0, lo=0.0, hi=1.0, help="share that trains without its heart")
    heart_noise: float = setting(
        0.0, lo=0.0, hi=2.0, help="sd, at most, of noise on the heart in training (Ho et al. 2022)"
    )
    drop_beat: float = setting(0.1, lo=0.0, hi=1.0, help="share that trains without its beat")
    continues: float = setting(
        0.0, lo=0.0, hi=1.0, help="share of clips whose first frames are given, to continue them"
    )
    noise_offset: float = setting(0.0, lo=0.0, help="sd of noise shared over a channel of a clip")
    posterior: str = setting("mean", choices=POSTERIORS, help="what of a latent is learned")
    validation_items: int = setting(32, lo=1, help="VAL clips for the validation loss")
    weights: str = setting("none", help="none, or a folder of published weights, used as they are")

    def check(self) -> str | None:
        if self.layout == "published" and (self.continues or self.strides != (1,)):
            return "layout 'published' knows no frame rate and no given frames: use layout 'own'"
        return _sizes_missing(self) or check_weighting(self.objective, self.weighting)


def _sizes_missing(cfg: TrainLidmConfig | TrainLvdmConfig) -> str | None:
    wanted = "unet" if cfg.layout == "published" else "model"
    if getattr(cfg, wanted) is None:
        return f"layout '{cfg.layout}' takes its sizes from `{wanted}`, which is not set"
    return None


class Pool:
    """Several latent sets as one list of videos."""

    def __init__(self, sets: list[LatentSet]) -> None:
        self.sets = sets
        self.where = [(s, i) for s in sets for i in range(len(s))]

    def __len__(self) -> int:
        return len(self.where)


def video_spec(cfg: TrainLvdmConfig, sets: list[LatentSet]) -> ConditionSpec:
    """What a video model of these datasets is conditioned on beside the heart: the labels that they
    have, which may be none."""
    if cfg.layout == "published":
        return ConditionSpec(published=True)
    efs = np.concatenate([s.ef for s in sets]) if sets else np.zeros(0)
    efs = efs[np.isfinite(efs)]
    ef = len(efs) > 0
    classes = sorted({c for s in sets for c in s.classes if c is not None})
    rates = [s.beats[:, 0] / 60 / s.table["FPS"].to_numpy(np.float64) for s in sets]
    known = np.concatenate(rates)
    known = known[np.isfinite(known)]
    beat = round(float(np.median(known)), 4) if len(known) else None
    span = (round(float(efs.min()), 2), round(float(efs.max()), 2)) if ef else None
    return ConditionSpec(ef, cfg.strides != (1,), tuple(classes), beat=beat, ef_range=span)


def new_video(
    cfg: TrainLvdmConfig, spec: ConditionSpec, size: int
) -> VideoDenoiser | PublishedVideoDenoiser:
    """A fresh video model of these sizes for latents (4, size, size)."""
    if cfg.layout == "published":
        assert cfg.unet is not None  # the settings' check
        return PublishedVideoDenoiser.create(cfg.unet, cfg.window, size)
    assert cfg.model is not None  # the settings' check
    return VideoDenoiser(cfg.model, cfg.window, spec, size, cfg.continues > 0)


def new_image(
    cfg: TrainLidmConfig, spec: ConditionSpec, size: int
) -> ImageDenoiser | PublishedImageDenoiser:
    """A fresh image model of these sizes for latents (4, size, size)."""
    if cfg.layout == "published":
        assert cfg.unet is not None  # the settings' check
        return PublishedImageDenoiser.create(cfg.unet, size)
    assert cfg.model is not None  # the settings' check
    return ImageDenoiser(cfg.model, size, spec)


def heart_spec(cfg: TrainLidmConfig, train: LatentSet) -> ConditionSpec:
    """What an image model is conditioned on.

    Raises:
        EchosynError: the dataset lacks the label that `condition` names.
    """
    if cfg.condition == "ef" and not np.isfinite(train.ef).any():
        raise EchosynError(
            f"{train.folder}: condition 'ef', but no TRAIN video has an EF: set `condition` of "
            "train_lidm to class or none"
        )
    classes = sorted({c for c in train.classes if c is not None})
    if cfg.condition == "class" and not classes:
        raise EchosynError(
            f"{train.folder}: condition 'class', but no TRAIN video has a class: set `condition` "
            "of train_lidm to ef or none"
        )
    return ConditionSpec(
        ef=cfg.condition == "ef", classes=tuple(classes) if cfg.condition == "class" else ()
    )


def _torch_generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def _latents(
    latents: LatentSet, posterior: str, run: tuple[int, int, int], generator: torch.Generator
) -> Tensor:
    """Frames start..stop of video i, run = (i, start, stop), as the config wants them."""
    return latents.mean(*run) if posterior == "mean" else latents.draw(*run, generator)


def _validation_batch(pool: Pool, cfg: Any, draw: Callable) -> dict[str, Tensor] | None:
    """Items on which the loss means the same whatever `cfg` trains on: all times, the EF given."""
    if len(pool) == 0:
        return None
    plain = {
        "times": "uniform",
        "posterior": "mean",
        "drop_label": 0.0,
        "drop_heart": 0.0,
        "heart_noise": 0.0,
        "drop_beat": 0.0,
        "continues": 0.0,
        "noise_offset": 0.0,
    }
    known = {k: v for k, v in plain.items() if hasattr(cfg, k)}
    chosen = np.resize(np.arange(len(pool)), cfg.validation_items)
    return draw(dataclasses.replace(cfg, **known), pool, chosen, np.random.default_rng(0))


def weighted_mse(output: Tensor, target: Tensor, weight: Tensor | None, keep: Tensor) -> Tensor:
    """Squared error, mean over what `keep` (broadcastable, 1 or 0) keeps, weighted per sample."""
    error = F.mse_loss(output.float(), target, reduction="none") * keep
    dims = tuple(range(1, error.ndim))
    per_sample = error.sum(dims) / keep.expand_as(error).sum(dims).clamp_min(1)
    return per_sample.mean() if weight is None else (weight * per_sample).mean()


class LidmTask:
    """Hearts, which are single frames of latents (LatentSet.heart_frames); see
    echosyn.training.loop.Task."""

    def __init__(self, cfg: TrainLidmConfig, train: LatentSet, val: LatentSet) -> None:
        self.cfg = cfg
        self.objective = make_objective(cfg.objective, cfg.weighting)
        self.spec = heart_spec(cfg, train)
        self.frame_size = train.frame_size
        self.pool = Pool([train])
        self.val = _validation_batch(Pool([val]), cfg, self._draw)

    @property
    def size(self) -> int:
        return len(self.pool)

    def build(self) -> ImageDenoiser | PublishedImageDenoiser:
        return new_image(self.cfg, self.spec, self.frame_size)

    def _draw(
        self, cfg: TrainLidmConfig, pool: Pool, indices: np.ndarray, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        generator = _torch_generator(rng)
        frames, labels = [], []
        for i in indices:
            latents, v = pool.where[i]
            f = int(rng.choice(latents.heart_frames(v)))
            frames.append(_latents(latents, cfg.posterior, (v, f, f + 1), generator)[0])
            labels.append(label_row(self.spec, latents, v))
        x = torch.stack(frames)  # (B, 4, h, w)
        noise = torch.randn(x.shape, generator=generator)
        u = time_samples(len(x), cfg.times, generator, cfg.time_shift)
        condition = torch.cat(labels)
        if self.spec.dim:
            condition = self.spec.dropped(condition, cfg.drop_label, generator)
        return {"x": x, "noise": noise, "u": u, "condition": condition}

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        return self._draw(self.cfg, self.pool, indices, rng)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        noisy, target, t = self.objective.noisy(batch["x"], batch["noise"], batch["u"])
        output = model(noisy, t, batch["condition"])
        keep = torch.ones_like(output[:1, :1, :1, :1])
        return weighted_mse(output, target, self.objective.weight(t), keep), {}

    def validate(self, model: nn.Module) -> dict[str, float]:
        return _validate(self, model)


class LvdmTask:
    """Latent clips with a heart of the same video and its labels; see echosyn.training.loop.Task.

    The heart is one of the video's end-diastolic frames where its beat is known, else any frame: it
    is what the image model draws (LatentSet.heart_frames). From a heart of unknown phase the model
    would have to guess how far it has contracted already (docs/results/beat.md).
    """

    def __init__(self, cfg: TrainLvdmConfig, train: list[LatentSet], val: list[LatentSet]) -> None:
        self.cfg = cfg
        self.objective = make_objective(cfg.objective, cfg.weighting)
        self.spec = video_spec(cfg, train)
        self.frame_size = max(latents.frame_size for latents in train)  # 0 of a set without videos
        self.pool = Pool(train)
        self.val = _validation_batch(Pool(val), cfg, self._draw)

    @property
    def size(self) -> int:
        return len(self.pool)

    def build(self) -> VideoDenoiser | PublishedVideoDenoiser:
        return new_video(self.cfg, self.spec, self.frame_size)

    def _draw(
        self, cfg: TrainLvdmConfig, pool: Pool, indices: np.ndarray, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        generator = _torch_generator(rng)
        window = cfg.window
        clips, hearts, labels = [], [], []
        for i in indices:
            latents, v = pool.where[i]
            length = int(latents.lengths[v])
            fitting = [s for s in cfg.strides if (window - 1) * s < length] or [min(cfg.strides)]
            stride = fitting[int(rng.integers(len(fitting)))] if len(fitting) > 1 else fitting[0]
            reach = (window - 1) * stride + 1
            start = int(rng.integers(max(length - reach, 0) + 1))
            run = (v, start, min(start + reach, length))
            clip = _latents(latents, cfg.posterior, run, generator)[::stride]
            if len(clip) < window:  # a short video holds its last frame
                clip = torch.cat([clip, clip[-1:].expand(window - len(clip), -1, -1, -1)])
            clips.append(clip)
            f = int(rng.choice(latents.heart_frames(v)))
            hearts.append(latents.mean(v, f, f + 1)[0])
            labels.append(label_row(self.spec, latents, v, stride, start))
        x = torch.stack(clips)  # (B, T, 4, h, w)
        noise = torch.randn(x.shape, generator=generator)
        if cfg.noise_offset:
            shared = torch.randn(len(x), 1, x.shape[2], 1, 1, generator=generator)
            noise = noise + cfg.noise_offset * shared
        u = time_samples(len(x), cfg.times, generator, cfg.time_shift)
        heart = torch.stack(hearts)  # (B, 4, h, w)
        if cfg.heart_noise:
            sd = cfg.heart_noise * torch.rand(len(x), 1, 1, 1, generator=generator)
            heart = heart + sd * torch.randn(heart.shape, generator=generator)
        if cfg.drop_heart:
            kept = torch.rand(len(x), generator=generator) >= cfg.drop_heart
            heart = heart * kept[:, None, None, None]
        drawn = {
            "x": x,
            "noise": noise,
            "u": u,
            "heart": heart,
            "condition": self.spec.dropped(
                torch.cat(labels), cfg.drop_label, generator, cfg.drop_beat
            ),
        }
        if self.cfg.continues:
            drawn["known"] = _given_frames(len(x), window, cfg.continues, generator)
        return drawn

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        return self._draw(self.cfg, self.pool, indices, rng)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        noisy, target, t = self.objective.noisy(batch["x"], batch["noise"], batch["u"])
        known = batch.get("known")
        if known is None:
            keep = torch.ones_like(noisy[:1, :1, :1, :1, :1])
        else:
            keep = 1 - known[:, :, None, None, None]
            noisy = torch.where(keep > 0, noisy, batch["x"])
        output = model(noisy, t, batch["heart"], batch["condition"], known=known)
        return weighted_mse(output, target, self.objective.weight(t), keep), {}

    def validate(self, model: nn.Module) -> dict[str, float]:
        return _validate(self, model)


def label_row(
    spec: ConditionSpec, latents: LatentSet, v: int, stride: int = 1, start: int = 0
) -> Tensor:
    """The condition (1, K) of video v's true labels and beat, its frames taken from `start`, every
    `stride`."""
    ef = torch.tensor([float(latents.ef[v])]) if spec.ef or spec.published else None
    classes = [latents.classes[v]] if spec.classes else None
    if not (spec.fps or spec.beat is not None):
        return spec.rows(1, ef, classes=classes)
    fps = float(latents.table["FPS"].iloc[v])
    per_frame = latents.beats[v, 0] / 60 / fps
    phase = (latents.beats[v, 1] + per_frame * start) % 1
    beat = torch.tensor([[per_frame * stride, phase]])
    return spec.rows(1, ef, fps / stride, classes, beat)


def _given_frames(n: int, window: int, share: float, generator: torch.Generator) -> Tensor:
    """1 for the frames at a clip's start that are given, (n, window): up to half, or none."""
    count = torch.randint(1, window // 2 + 1, (n,), generator=generator)
    given = torch.rand(n, generator=generator) < share
    return (torch.arange(window)[None] < (count * given)[:, None]).float()


def _validate(task: LidmTask | LvdmTask, model: nn.Module, block: int = 16) -> dict[str, float]:
    """Loss on fixed VAL items with fixed noise and times; nothing when VAL is empty."""
    if task.val is None:
        return {"loss": float("nan")}
    device = next(model.parameters()).device
    n = len(task.val["x"])
    total = 0.0
    for i in range(0, n, block):
        part = {k: v[i : i + block].to(device) for k, v in task.val.items()}
        total += float(task.loss(model, part)[0]) * len(part["x"])
    return {"loss": total / n}
