"""The image model (LIDM), which draws hearts: blocks over space, conditioned on time and labels.

A convolutional network in two resolutions, built as the video model is (echosyn.models.video):
every block is modulated by the conditioning embedding (FiLM, Perez et al. 2018; adaptive layer
norms, Peebles & Xie 2023), and those of the coarse resolution attend over all of its positions.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.models.condition import NOTHING, ConditionSpec
from echosyn.models.layers import (
    TIME_DIM,
    channels_first,
    channels_last,
    fold,
    modulation,
    norm,
    sinusoids,
    unfold,
)
from echosyn.models.padding import crop, pad_to_even
from echosyn.models.store import load_model, read_sizes, save_model
from echosyn.models.vae import LATENT_CHANNELS
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

GUIDE = "guide"  # folder, within a model's, of the weaker one that autoguidance steers away from
FACTS = {"size", "condition", "model"}  # of config.json


@dataclass(frozen=True)
class ImageConfig:
    """Sizes of the image model."""

    width: int = setting(48, lo=8, help="channels at the latents' resolution")
    inner: int = setting(96, lo=8, help="channels at half of it")
    outer_blocks: int = setting(1, lo=1, hi=8, help="blocks at the latents' resolution, each way")
    inner_blocks: int = setting(3, lo=1, hi=32, help="blocks at half of it")
    heads: int = setting(4, lo=1, help="attention heads over the positions")
    embedding: int = setting(128, lo=8, help="width of the conditioning embedding")

    def check(self) -> str | None:
        if self.inner % self.heads:
            return f"inner {self.inner} is no multiple of heads {self.heads}"
        return None


class ImageDenoiser(nn.Module):
    """Predicts over latents of one frame, conditioned on what `spec` says, if anything.

    forward(x (B, 4, h, w), t (B,), condition (B, K) or None) -> (B, 4, h, w), with h = w = `size`.
    Without a condition nothing is given.
    """

    def __init__(self, cfg: ImageConfig, size: int, spec: ConditionSpec = NOTHING) -> None:
        super().__init__()
        self.cfg, self.size, self.spec = cfg, size, spec
        embedding, c, half = cfg.embedding, cfg.width, (size + 1) // 2
        self.time = nn.Sequential(
            nn.Linear(TIME_DIM, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.labels = nn.Linear(spec.dim, embedding) if spec.dim else None
        self.enter = nn.Conv2d(LATENT_CHANNELS, c, 3, padding=1)
        self.before = nn.ModuleList(_Block(c, embedding) for _ in range(cfg.outer_blocks))
        self.down = nn.Linear(4 * c, cfg.inner)
        self.place = nn.Parameter(torch.zeros(half, half, cfg.inner))
        self.middle = nn.ModuleList(
            _Block(cfg.inner, embedding, cfg.heads) for _ in range(cfg.inner_blocks)
        )
        self.up = nn.Linear(cfg.inner, 4 * c)
        self.after = nn.ModuleList(_Block(c, embedding) for _ in range(cfg.outer_blocks))
        self.last = modulation(embedding, 2 * c)
        self.leave = nn.Conv2d(c, LATENT_CHANNELS, 3, padding=1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    @classmethod
    def load(cls, folder: Path | str) -> "ImageDenoiser":
        """The network that `save` wrote, in eval.

        Raises:
            EchosynError: a file is missing, or the weights are not of the network described.
        """

        def made(facts: dict[str, Any]) -> "ImageDenoiser":
            if missing := sorted(FACTS - facts.keys()):
                raise EchosynError(f"{folder}: config.json lacks {missing[0]!r}: train it again")
            cfg = read_sizes(ImageConfig, facts, folder)
            return cls(cfg, facts["size"], ConditionSpec.load(folder, facts["condition"]))

        return load_model(folder, made)

    def save(self, folder: Path | str) -> None:
        facts = {"size": self.size, "condition": self.spec.dim}
        save_model(folder, self, facts | {"model": dataclasses.asdict(self.cfg)})
        self.spec.save(folder)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        embedding = self.time(sinusoids(t)).expand(len(x), -1)
        if self.labels is not None:
            given = x.new_zeros(len(x), self.spec.dim) if condition is None else condition
            embedding = embedding + self.labels(given)
        embedding = F.silu(embedding)
        padded, pad = pad_to_even(x, 2)
        h = channels_last(self.enter(padded.contiguous(memory_format=torch.channels_last)))
        for block in self.before:
            h = block(h, embedding)
        skip = h
        h = self.down(fold(h)) + self.place
        for block in self.middle:
            h = block(h, embedding)
        h = skip + unfold(self.up(h))
        for block in self.after:
            h = block(h, embedding)
        scale, shift = self.last(embedding)[:, None, None].chunk(2, dim=-1)
        return crop(self.leave(channels_first(norm(h) * (1 + scale) + shift)), pad)


class _Block(nn.Module):
    """A convolution over space; with `heads`, then attention over space beside a feed-forward. x is
    (B, h, w, C), modulated by the embedding (B, D).
    """

    def __init__(self, channels: int, embedding: int, heads: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = modulation(embedding, (6 if heads else 3) * channels)
        self.space = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix = nn.Linear(channels, channels)
        if heads:
            self.qkv = nn.Linear(channels, 3 * channels)
            self.project = nn.Linear(channels, channels)
            self.widen = nn.Linear(channels, 2 * channels)
            self.narrow = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift, gate, *more = self.modulation(embedding)[:, None, None].chunk(
            6 if self.heads else 3, dim=-1
        )
        h = norm(x) * (1 + scale) + shift
        h = self.mix(F.silu(channels_last(self.space(channels_first(h)))))
        x = x + h * (1 + gate)
        if not self.heads:
            return x
        scale, shift, gate = more
        h = norm(x) * (1 + scale) + shift
        feed_forward = self.narrow(F.silu(self.widen(h)))
        return x + (self._attention(h) + feed_forward) * (1 + gate)

    def _attention(self, h: Tensor) -> Tensor:
        b, height, width, c = h.shape
        qkv = self.qkv(h).reshape(b, height * width, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, h w, d)
        a = F.scaled_dot_product_attention(q, k, v)
        return self.project(a.transpose(1, 2).reshape(h.shape))
