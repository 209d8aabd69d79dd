"""The two denoisers: hearts (LIDM) and videos (LVDM), diffusers UNets inside.

Latents are padded from 14x14 to 16x16 on the way in and cropped on the way out, since the UNets
halve their input up to three times.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel, UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from echosyn.config import setting
from echosyn.errors import EchosynError
from echosyn.models.vae import LATENT_CHANNELS, load_diffusers


@dataclass(frozen=True)
class UnetConfig:
    """Sizes shared by both UNets. `attention` counts levels from the lowest resolution up."""

    widths: tuple[int, ...] = setting((32, 64, 96), lo=32)
    layers: int = setting(1, lo=1, hi=8, help="residual blocks per level")
    attention: tuple[bool, ...] = setting((False, True, True), help="per level, outermost first")
    heads: tuple[int, ...] = setting((1, 2, 2), lo=1, help="attention heads per level")

    def check(self) -> str | None:
        if not len(self.widths) == len(self.attention) == len(self.heads):
            return "widths, attention and heads need one value per level each"
        if len(self.widths) > 5:
            return "more than five levels: a 16x16 latent cannot be halved that often"
        if any(w % 32 for w in self.widths):
            return f"widths {self.widths}: the UNets' GroupNorm(32) needs multiples of 32"
        if any(w % h for w, h in zip(self.widths, self.heads, strict=True)):
            return f"widths {self.widths} are not multiples of heads {self.heads}"
        return None


def pad_to_even(x: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Zero-pad the last two axes symmetrically to a multiple; returns the padding for `crop`."""
    h, w = x.shape[-2:]
    dh, dw = -h % multiple, -w % multiple
    pad = (dw // 2, dw - dw // 2, dh // 2, dh - dh // 2)
    return F.pad(x, pad), pad


def crop(x: Tensor, pad: tuple[int, int, int, int]) -> Tensor:
    left, right, top, bottom = pad
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


class ImageDenoiser(nn.Module):
    """UNet2DModel over heart latents. forward(x (B, 4, h, w), t (B,)) -> (B, 4, h, w)."""

    def __init__(self, net: UNet2DModel) -> None:
        super().__init__()
        self.net = net
        self.multiple = 2 ** (len(net.config.block_out_channels) - 1)

    @classmethod
    def create(cls, cfg: UnetConfig) -> "ImageDenoiser":
        down = tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in cfg.attention)
        up = tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(cfg.attention))
        head_dims = {w // h for w, h in zip(cfg.widths, cfg.heads, strict=True)}
        return cls(
            UNet2DModel(
                sample_size=16,
                in_channels=LATENT_CHANNELS,
                out_channels=LATENT_CHANNELS,
                down_block_types=down,
                up_block_types=up,
                block_out_channels=cfg.widths,
                layers_per_block=cfg.layers,
                attention_head_dim=min(head_dims),
            )
        )

    @classmethod
    def load(cls, folder: Path | str) -> "ImageDenoiser":
        return cls(load_diffusers(UNet2DModel, unet_folder(folder))).eval()

    def save(self, folder: Path | str) -> None:
        self.net.save_pretrained(Path(folder) / "unet")

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        padded, pad = pad_to_even(x, self.multiple)
        return crop(self.net(padded, t, return_dict=False)[0], pad)


class VideoDenoiser(nn.Module):
    """UNetSpatioTemporalConditionModel over latent clips, conditioned on a heart and on EF.

    forward(x (B, T, 4, h, w), t (B,), heart (B, 4, h, w), condition (B, K)) -> (B, T, 4, h, w).
    The heart is repeated over time and concatenated to x; the condition is one cross-attention
    token (see echosyn.diffusion.condition for K).
    """

    def __init__(self, net: UNetSpatioTemporalConditionModel) -> None:
        super().__init__()
        self.net = net
        self.multiple = 2 ** (len(net.config.block_out_channels) - 1)
        self.window = int(net.config.num_frames)
        dims = net.config.cross_attention_dim
        self.condition_dim = int(dims if isinstance(dims, int) else dims[0])

    @classmethod
    def create(cls, cfg: UnetConfig, window: int, condition_dim: int) -> "VideoDenoiser":
        down = tuple(
            "CrossAttnDownBlockSpatioTemporal" if a else "DownBlockSpatioTemporal"
            for a in cfg.attention
        )
        up = tuple(
            "CrossAttnUpBlockSpatioTemporal" if a else "UpBlockSpatioTemporal"
            for a in reversed(cfg.attention)
        )
        return cls(
            UNetSpatioTemporalConditionModel(
                sample_size=16,
                in_channels=2 * LATENT_CHANNELS,
                out_channels=LATENT_CHANNELS,
                down_block_types=down,
                up_block_types=up,
                block_out_channels=cfg.widths,
                layers_per_block=cfg.layers,
                num_attention_heads=cfg.heads,
                cross_attention_dim=condition_dim,
                addition_time_embed_dim=1,
                projection_class_embeddings_input_dim=1,
                num_frames=window,
            )
        )

    @classmethod
    def load(cls, folder: Path | str) -> "VideoDenoiser":
        return cls(load_diffusers(UNetSpatioTemporalConditionModel, unet_folder(folder))).eval()

    def save(self, folder: Path | str) -> None:
        self.net.save_pretrained(Path(folder) / "unet")

    def forward(self, x: Tensor, t: Tensor, heart: Tensor, condition: Tensor) -> Tensor:
        frames = x.shape[1]
        both = torch.cat([x, heart[:, None].expand(-1, frames, -1, -1, -1)], dim=2)
        padded, pad = pad_to_even(both, self.multiple)
        # The reference feeds zeros as SVD's added ids (fps, motion bucket, noise level).
        ids = x.new_zeros(len(x), 1)
        out = self.net(padded, t, condition[:, None], added_time_ids=ids, return_dict=False)[0]
        return crop(out, pad)


def unet_folder(folder: Path | str) -> Path:
    """The UNet inside a model folder: `unet_ema` (published), `unet` (ours), or itself."""
    folder = Path(folder)
    for sub in ("unet_ema", "unet"):
        if (folder / sub / "config.json").is_file():
            return folder / sub
    if not folder.is_dir():
        raise EchosynError(f"{folder}: no such model folder")
    return folder
