"""Re-identification: is this one-frame heart (a latent) of the same person as that one?

Two encoders behind one interface. `small` is a contrastive convolutional encoder compared by
cosine; `resnet50` is the reference's Siamese network (Packhaeuser et al. 2022, arXiv 2103.08562),
compared by Pearson correlation, whose published weights load unchanged. The one that is used for
calibration must be the one that filters.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

from echosyn.models.resnet import ResNet50
from echosyn.runtime.config import build, setting


@dataclass(frozen=True)
class ReidConfig:
    """Which encoder and its sizes; the last three are the small encoder's."""

    encoder: str = setting("small", choices=("small", "resnet50"))
    in_channels: int = setting(4, lo=1, hi=64, help="channels of a latent")
    embedding: int = setting(64, lo=2, help="numbers per embedding; 128 in the reference")
    widths: tuple[int, ...] = setting((32, 64, 128), lo=8, help="channels of each convolution")
    temperature: float = setting(0.1, lo=0.001, hi=10.0, help="of the contrastive loss")
    hard_negatives: float = setting(
        0.0,
        lo=0.0,
        hi=10.0,
        help="beta: how much more the nearest other people weigh",
    )

    def check(self) -> str | None:
        if any(w % 8 for w in self.widths):
            return f"widths {self.widths}: GroupNorm(8) needs multiples of 8"
        if self.hard_negatives and self.encoder != "small":
            return f"hard_negatives {self.hard_negatives}: only the small encoder weighs negatives"
        return None


@dataclass(frozen=True)
class AugmentConfig:
    """How far a latent may be changed and still be the same heart. Zeros change nothing."""

    shift: float = setting(1.0, lo=0.0, help="largest shift along each axis, in latent cells")
    zoom: float = setting(0.08, lo=0.0, hi=0.9, help="largest relative zoom in or out")
    gain: float = setting(0.15, lo=0.0, hi=1.0, help="largest relative change of amplitude")
    noise: float = setting(0.15, lo=0.0, help="largest standard deviation of added noise")
    flip: float = setting(0.0, lo=0.0, hi=1.0, help="probability of a left-right mirror image")
    rotation: float = setting(0.0, lo=0.0, hi=180.0, help="largest rotation either way, in degrees")
    blur: float = setting(0.0, lo=0.0, help="largest sd of a Gaussian blur, in latent cells")
    crop: float = setting(0.0, lo=0.0, hi=0.9, help="largest share cut off each axis, scaled back")


def augment_latents(z: Tensor, cfg: AugmentConfig, generator: torch.Generator) -> Tensor:
    """A disguised copy of each latent of (B, C, h, w), drawn from `generator` alone.

    Each latent gets its own shift, zoom, flip, rotation and crop window (together one bilinear
    resampling, borders repeated), then blur, gain and noise level. A change of time is another
    frame of the video, which the caller takes. Units are those of `z`: latents standardised per
    channel are expected.
    """
    b, (h, w) = len(z), z.shape[-2:]

    def uniform(n: int) -> Tensor:
        drawn = torch.rand(b, n, generator=generator, device=generator.device)
        return (2 * drawn - 1).to(z.device, torch.float32)

    shift, zoom, gain = uniform(2) * cfg.shift, 1 + uniform(1) * cfg.zoom, 1 + uniform(1) * cfg.gain
    mirror = torch.where((uniform(1) + 1) / 2 < cfg.flip, -1.0, 1.0)
    level = (uniform(1).abs() * cfg.noise).view(b, 1, 1, 1)
    noise = torch.randn(z.shape, generator=generator, device=generator.device).to(z.device)
    more = uniform(5)
    angle, sd = more[:, 0] * math.radians(cfg.rotation), more[:, 1].abs() * cfg.blur
    window, corner = 1 - more[:, 2:3].abs() * cfg.crop, more[:, 3:]
    if cfg.shift or cfg.zoom or cfg.flip or cfg.rotation or cfg.crop:
        cells = torch.tensor([2 / w, 2 / h], device=z.device)
        scale = (zoom * window)[:, 0]
        cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
        theta = torch.zeros(b, 2, 3, device=z.device)
        theta[:, 0, 0], theta[:, 0, 1] = mirror[:, 0] * cos, -sin * h / w  # turned in cells
        theta[:, 1, 0], theta[:, 1, 1] = mirror[:, 0] * sin * w / h, cos
        theta[:, :, 2] = shift * cells + corner * (1 - window)
        grid = F.affine_grid(theta, list(z.shape), align_corners=False).to(z.dtype)
        z = F.grid_sample(z, grid, padding_mode="border", align_corners=False)
    if cfg.blur:
        z = _smoothing(h, sd).to(z.dtype) @ z @ _smoothing(w, sd).mT.to(z.dtype)
    return z * gain.view(b, 1, 1, 1).to(z.dtype) + (level * noise).to(z.dtype)


def _smoothing(n: int, sd: Tensor) -> Tensor:
    """Matrices (B, 1, n, n) of Gaussian blurs of sd (B,) cells, cut off at the borders."""
    at = torch.arange(n, device=sd.device)
    distance = (at[:, None] - at[None, :]).float()
    kernel = torch.exp(-0.5 * (distance / sd.clamp_min(1e-3).view(-1, 1, 1)) ** 2)
    return (kernel / kernel.sum(-1, keepdim=True)).unsqueeze(1)


def contrastive_loss(
    a: Tensor,
    b: Tensor,
    temperature: float,
    ids: Tensor | None = None,
    hard_negatives: float = 0.0,
) -> Tensor:
    """NT-Xent / InfoNCE over unit embeddings a, b of (B, D); row i of both is one person.

    The negatives of a_i are every other person's b and a (Chen et al. 2020, arXiv 2002.05709,
    equation 1), both ways round. `ids` (B,) marks rows of one person, which are then no negatives
    of each other. With `hard_negatives` beta above 0 a row's negatives j weigh in proportion to
    exp(beta s_j / temperature), their mean weight staying 1 (Robinson et al. 2021, arXiv
    2010.04592, without their correction for false negatives, which `ids` rules out).
    """
    n = len(a)
    both = torch.cat([a, b]).float()
    logits = both @ both.T / temperature  # (2B, 2B)
    ids = torch.arange(n, device=a.device) if ids is None else ids.to(a.device)
    ids = ids.repeat(2)
    rows = torch.arange(2 * n, device=a.device)
    target = (rows + n) % (2 * n)
    ignore = ids[:, None] == ids[None, :]
    if hard_negatives:
        tilt = (hard_negatives * logits).masked_fill(ignore, float("-inf"))
        weight = torch.log_softmax(tilt, 1) + (~ignore).sum(1, keepdim=True).log()
        logits = logits + weight.masked_fill(ignore, 0.0)
    ignore = ignore & (rows[None, :] != target[:, None])
    return F.cross_entropy(logits.masked_fill(ignore, float("-inf")), target)


def siamese_loss(same: Tensor, different: Tensor) -> Tensor:
    """Binary cross-entropy of pair logits, same and different persons weighing half each."""
    return (F.softplus(-same.float()).mean() + F.softplus(different.float()).mean()) / 2


def everyone(rows: Tensor) -> Tensor:
    """Rows (B, ...) of all data-parallel processes in order, with gradients; alone, the same.

    So that a pair meets the negatives of the whole batch, however many devices share it.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    if not rows.is_floating_point():
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)
    return torch.cat(all_gather(rows))


class SmallEncoder(nn.Module):
    """Three stride-2 convolutions; a global and a 2x2 average, so any latent size fits."""

    similarity = "cosine"

    def __init__(self, cfg: ReidConfig) -> None:
        super().__init__()
        self.config = cfg
        layers: list[nn.Module] = []
        inputs = cfg.in_channels
        for i, width in enumerate(cfg.widths):
            stride = 1 if i == 0 else 2
            layers += [
                nn.Conv2d(inputs, width, 3, stride, 1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
            inputs = width
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(inputs * 5, cfg.embedding)

    def embed(self, x: Tensor) -> Tensor:
        """Latents (B, C, h, w) to unit vectors (B, embedding)."""
        x = self.trunk(x)
        coarse = F.adaptive_avg_pool2d(x, 2).flatten(1)
        return F.normalize(self.head(torch.cat([x.mean(dim=(2, 3)), coarse], 1)).float(), dim=1)

    forward = embed

    def pair_loss(self, a: Tensor, b: Tensor, ids: Tensor | None = None) -> Tensor:
        """Loss of latents a, b (B, C, h, w), B >= 2; row i of both is one person."""
        fa, fb = everyone(self.embed(a)), everyone(self.embed(b))
        ids = None if ids is None else everyone(ids)
        cfg = self.config
        return contrastive_loss(fa, fb, cfg.temperature, ids, cfg.hard_negatives)


class SiameseResNet50(nn.Module):
    """The reference's network: sigmoid features, a linear layer on |f1 - f2|, weight names too."""

    similarity = "pearson"

    def __init__(self, cfg: ReidConfig) -> None:
        super().__init__()
        self.config = cfg
        self.model = ResNet50(cfg.in_channels, cfg.embedding)
        self.fc_end = nn.Linear(cfg.embedding, 1)

    def embed(self, x: Tensor) -> Tensor:
        """Latents (B, C, h, w) to features (B, embedding) in 0-1.

        Each latent is scaled to -1..1 by its own extremes. The reference scales so too, but real
        latents per video and synthetic ones over the whole set. Its published weights expect
        latents that are not standardised per channel.
        """
        return torch.sigmoid(self.model(minmax(x)).float())

    forward = embed

    def pair_loss(self, a: Tensor, b: Tensor, ids: Tensor | None = None) -> Tensor:
        """Loss of latents a, b (B, C, h, w), B >= 2; row i of both is one person.

        Row i of `a` with row i + 1 of `b` is the pair of different persons, half of all pairs, so
        batches must be shuffled; such a pair is dropped where `ids` (B,) says it is one person.
        """
        fa, fb = everyone(self.embed(a)), everyone(self.embed(b))
        ids = None if ids is None else everyone(ids)
        other = fb.roll(-1, 0)
        if ids is not None:
            keep = ids != ids.roll(-1, 0)
            if not keep.any():
                raise ValueError("a batch of pairs needs at least two persons")
            different = self.fc_end((fa - other).abs()[keep])
        else:
            different = self.fc_end((fa - other).abs())
        return siamese_loss(self.fc_end((fa - fb).abs()), different)


Encoder = SmallEncoder | SiameseResNet50


def build_reid(values: dict[str, Any]) -> Encoder:
    """The encoder that a mapping of ReidConfig asks for; EchosynError names what is wrong in it."""
    cfg = build(ReidConfig, values, "re-identification config")
    return SmallEncoder(cfg) if cfg.encoder == "small" else SiameseResNet50(cfg)


def minmax(x: Tensor) -> Tensor:
    """Each latent of (B, C, h, w) scaled to -1..1 over all its cells."""
    flat = x.flatten(1)
    lo = flat.amin(1).view(-1, 1, 1, 1)
    hi = flat.amax(1).view(-1, 1, 1, 1)
    return (x - lo) / (hi - lo).clamp_min(1e-12) * 2 - 1
