"""The video model (LVDM): blocks over space and time, conditioned on labels and the beat per frame.

A convolutional network in two resolutions. Every block is modulated, frame by frame, by the
conditioning embedding (FiLM, Perez et al. 2018; adaptive layer norms, Peebles & Xie 2023), of the
time of the diffusion, the labels, and the phase of the beat. Attention along time is in every block
of the coarse resolution, with rotary positions (Su et al. 2021), so that any number of frames can
be made.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.models.condition import ConditionSpec
from echosyn.models.layers import (
    TIME_DIM,
    TIME_RANGE,
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

FACTS = {"window", "size", "continues", "spans", "condition", "model"}  # of config.json
LABEL_GAIN = 3.0  # of the first weights that see labels and beat, over the usual ones
ROTARY = 100.0  # longest period of rotary positions, frames


@dataclass(frozen=True)
class VideoConfig:
    """Sizes of the video model."""

    width: int = setting(48, lo=8, help="channels at the latents' resolution")
    inner: int = setting(96, lo=8, help="channels at half of it")
    outer_blocks: int = setting(1, lo=1, hi=8, help="blocks at the latents' resolution, each way")
    inner_blocks: int = setting(3, lo=1, hi=32, help="blocks at half of it")
    heads: int = setting(2, lo=1, help="attention heads along time")
    embedding: int = setting(128, lo=8, help="width of the conditioning embedding")

    def check(self) -> str | None:
        if self.inner % (2 * self.heads):
            return f"inner {self.inner} is no multiple of twice the heads, {2 * self.heads}"
        return None


class VideoDenoiser(nn.Module):
    """Predicts over latent clips, conditioned on a heart and on what `spec` says.

    forward(x (B, T, 4, h, w), t (B,), heart (B, 4, h, w), condition (B, K), start (B,) or None,
            span (B,) or None, known (B, T) or None) -> (B, T, 4, h, w).
    The heart is repeated over time and concatenated to x, zeros for "no heart given". `start` is
    the number of the first frame, counted from the one whose phase the condition tells. `span` is
    the length of the step that the output is the mean velocity of, as a share of the whole path,
    for a distilled model. `known` marks frames of x that are clean and given, for a model that
    continues videos. `window`: frames of a clip in training. `continues`, `spans`: whether it
    takes `known`, and `span`.
    """

    def __init__(
        self,
        cfg: VideoConfig,
        window: int,
        spec: ConditionSpec,
        size: int = 14,
        continues: bool = False,
        spans: bool = False,
    ) -> None:
        super().__init__()
        self.cfg, self.window, self.spec = cfg, window, spec
        self.size, self.continues, self.spans = size, continues, spans
        embedding, c = cfg.embedding, cfg.width
        # Apart and larger, or few numbers would count for little beside the sinusoids of the time.
        self.time = nn.Sequential(
            nn.Linear(TIME_DIM, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.labels = None
        if spec.frame_dim:  # else it knows the heart alone
            first = nn.Linear(spec.frame_dim, embedding)
            with torch.no_grad():
                first.weight.mul_(LABEL_GAIN)
            self.labels = nn.Sequential(first, nn.SiLU(), nn.Linear(embedding, embedding))
        self.span = modulation(TIME_DIM, embedding) if spans else None
        self.enter = nn.Conv2d(2 * LATENT_CHANNELS + continues, c, 3, padding=1)
        self.before = nn.ModuleList(_Block(c, embedding) for _ in range(cfg.outer_blocks))
        self.down = nn.Linear(4 * c, cfg.inner)
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
    def load(cls, folder: Path | str) -> "VideoDenoiser":
        """The network that `save` wrote, in eval.

        Raises:
            EchosynError: a file is missing, or the weights are not of the network described.
        """

        def made(facts: dict[str, Any]) -> "VideoDenoiser":
            if missing := sorted(FACTS - facts.keys()):
                raise EchosynError(f"{folder}: config.json lacks {missing[0]!r}: train it again")
            cfg = read_sizes(VideoConfig, facts, folder)
            spec = ConditionSpec.load(folder, facts["condition"])
            flags = facts["continues"], facts["spans"]
            return cls(cfg, facts["window"], spec, facts["size"], *flags)

        return load_model(folder, made)

    def save(self, folder: Path | str) -> None:
        facts: dict[str, Any] = {"window": self.window, "size": self.size}
        facts |= {"continues": self.continues, "spans": self.spans}
        facts |= {"condition": self.spec.dim, "model": dataclasses.asdict(self.cfg)}
        save_model(folder, self, facts)
        self.spec.save(folder)

    def student(self) -> "VideoDenoiser":
        """The same network, conditioned on a span, which makes no difference as yet."""
        made = VideoDenoiser(
            self.cfg, self.window, self.spec, self.size, self.continues, spans=True
        )
        made.load_state_dict(self.state_dict(), strict=self.spans)
        return made

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        heart: Tensor,
        condition: Tensor,
        start: Tensor | None = None,
        span: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        b, frames, _, height, width = x.shape
        embedding = self._embedding(t, condition, frames, start, span)
        inputs = [x, heart[:, None].expand(-1, frames, -1, -1, -1)]
        if self.continues:
            mask = x.new_zeros(x.shape[:2]) if known is None else known.to(x)
            inputs.append(mask[:, :, None, None, None].expand(-1, -1, 1, height, width))
        padded, pad = pad_to_even(torch.cat(inputs, dim=2).flatten(0, 1), 2)
        h = padded.contiguous(memory_format=torch.channels_last)
        h = channels_last(self.enter(h)).unflatten(0, (b, frames))
        for block in self.before:
            h = block(h, embedding)
        skip = h
        h = self.down(fold(h))
        turns = _turns(frames, self.cfg.inner // self.cfg.heads, h)
        for block in self.middle:
            h = block(h, embedding, turns)
        h = skip + unfold(self.up(h))
        for block in self.after:
            h = block(h, embedding)
        scale, shift = self.last(embedding)[:, :, None, None].chunk(2, dim=-1)
        h = norm(h) * (1 + scale) + shift
        return crop(self.leave(channels_first(h.flatten(0, 1))), pad).unflatten(0, (b, frames))

    def _embedding(
        self,
        t: Tensor,
        condition: Tensor,
        frames: int,
        start: Tensor | None,
        span: Tensor | None,
    ) -> Tensor:
        """The conditioning embedding of every frame, (B, T, D)."""
        embedding = self.time(sinusoids(t))[:, None].expand(len(condition), frames, -1)
        if self.labels is not None:
            per_frame = self.spec.per_frame(condition.float(), frames, start)
            embedding = embedding + self.labels(per_frame)
        if self.span is not None and span is not None:
            embedding = embedding + self.span(sinusoids(TIME_RANGE * span.to(t)))[:, None]
        return F.silu(embedding)


class _Block(nn.Module):
    """A convolution over space and one along time; with `heads`, then attention along time beside
    a feed-forward. x is (B, T, h, w, C), modulated by the embedding (B, T, D).
    """

    def __init__(self, channels: int, embedding: int, heads: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = modulation(embedding, (6 if heads else 3) * channels)
        self.space = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        if heads:
            self.qkv = nn.Linear(channels, 3 * channels)
            self.project = nn.Linear(channels, channels)
            self.widen = nn.Linear(channels, 2 * channels)
            self.narrow = nn.Linear(2 * channels, channels)

    def forward(
        self, x: Tensor, embedding: Tensor, turns: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        b, frames, height, width, _ = x.shape
        scale, shift, gate, *more = self.modulation(embedding)[:, :, None, None].chunk(
            6 if self.heads else 3, dim=-1
        )
        h = norm(x) * (1 + scale) + shift
        h = F.silu(channels_last(self.space(channels_first(h.flatten(0, 1)))))
        # Frames and pixels as the two axes of an image: the same memory, so nothing is copied.
        h = h.reshape(b, frames, height * width, -1)
        h = channels_last(self.time(channels_first(h))).reshape(b, frames, height, width, -1)
        x = x + h * (1 + gate)
        if turns is None:
            return x
        scale, shift, gate = more
        h = norm(x) * (1 + scale) + shift
        return x + (self._attention(h, turns) + self._feed_forward(h)) * (1 + gate)

    def _attention(self, h: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        b, frames, height, width, c = h.shape
        qkv = self.qkv(h).reshape(b, frames, height * width, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 4, 1, 5).unbind(0)  # (B, h w, heads, T, d)
        a = F.scaled_dot_product_attention(_turned(q, turns), _turned(k, turns), v)
        return self.project(a.permute(0, 3, 1, 2, 4).reshape(h.shape))

    def _feed_forward(self, h: Tensor) -> Tensor:
        return self.narrow(F.silu(self.widen(h)))


def _turns(frames: int, dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines that turn queries and keys of frame k by k times their rates, (T, d/2)."""
    half = dim // 2
    rates = torch.exp(-math.log(ROTARY) * torch.arange(half, device=like.device) / half)
    angles = torch.arange(frames, device=like.device)[:, None] * rates
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def _turned(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = turns
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
