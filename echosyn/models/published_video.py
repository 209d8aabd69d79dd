"""The reference's video model (EchoNet-Synthetic, MICCAI 2024), layout 'published'.

It knows no frame rate, no beat, no given frames and no length of a step, and has its own sizes.
"""

from pathlib import Path

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from echosyn.models.condition import ConditionSpec
from echosyn.models.padding import crop, pad_to_even
from echosyn.models.published_image import UnetConfig
from echosyn.models.store import CONFIG, read_config, unet_folder
from echosyn.models.vae import LATENT_CHANNELS, load_diffusers
from echosyn.models.video import VideoDenoiser
from echosyn.runtime.errors import EchosynError

PUBLISHED = ConditionSpec(published=True)


class PublishedVideoDenoiser(nn.Module):
    """UNetSpatioTemporalConditionModel over latent clips, conditioned on a heart and an EF.

    forward(x (B, T, 4, h, w), t (B,), heart (B, 4, h, w), condition (B, 1)) -> (B, T, 4, h, w), as
    echosyn.models.video.VideoDenoiser. The heart is repeated over time and concatenated to x; the
    EF is one cross-attention token. `start` makes no difference here.
    """

    continues = False  # knows no given frames
    spec = PUBLISHED

    def __init__(self, net: UNetSpatioTemporalConditionModel) -> None:
        super().__init__()
        self.net = net
        _norms_in_full(net)
        self.multiple = 2 ** (len(net.config.block_out_channels) - 1)
        self.window = int(net.config.num_frames)

    @property
    def size(self) -> int:
        """Height and width of the latents."""
        return int(self.net.config.sample_size)

    @classmethod
    def create(cls, cfg: UnetConfig, window: int, size: int = 14) -> "PublishedVideoDenoiser":
        """A fresh network for clips of `window` frames of latents (4, size, size)."""
        down = tuple(
            "CrossAttnDownBlockSpatioTemporal" if a else "DownBlockSpatioTemporal"
            for a in cfg.attention
        )
        up = tuple(
            "CrossAttnUpBlockSpatioTemporal" if a else "UpBlockSpatioTemporal"
            for a in reversed(cfg.attention)
        )
        net = UNetSpatioTemporalConditionModel(
            sample_size=size,
            in_channels=2 * LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            down_block_types=down,
            up_block_types=up,
            block_out_channels=cfg.widths,
            layers_per_block=cfg.layers,
            num_attention_heads=cfg.heads,
            cross_attention_dim=PUBLISHED.dim,
            addition_time_embed_dim=1,
            projection_class_embeddings_input_dim=1,
            num_frames=window,
        )
        return cls(net)

    @classmethod
    def load(cls, folder: Path | str) -> "PublishedVideoDenoiser":
        """Raises EchosynError: no such network, or one of other channels or conditions."""
        net = load_diffusers(UNetSpatioTemporalConditionModel, unet_folder(folder))
        dims = net.config.cross_attention_dim
        if (dim := int(dims if isinstance(dims, int) else dims[0])) != PUBLISHED.dim:
            raise EchosynError(
                f"{folder}: the network takes {dim} numbers as its condition, but the published "
                f"model describes {PUBLISHED.dim}"
            )
        channels = net.config.in_channels, net.config.out_channels
        if channels != (2 * LATENT_CHANNELS, LATENT_CHANNELS):
            raise EchosynError(
                f"{folder}: a network of {channels[0]} channels to {channels[1]}, but noisy "
                f"latents and heart have {2 * LATENT_CHANNELS} and a video {LATENT_CHANNELS}: "
                "train it on latents of this VAE"
            )
        return cls(net).eval()

    def save(self, folder: Path | str) -> None:
        self.net.save_pretrained(Path(folder) / "unet")

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        heart: Tensor,
        condition: Tensor,
        start: Tensor | None = None,
        known: None = None,
    ) -> Tensor:
        del start, known
        frames = x.shape[1]
        inputs = torch.cat([x, heart[:, None].expand(-1, frames, -1, -1, -1)], dim=2)
        padded, pad = pad_to_even(inputs, self.multiple)
        # The reference feeds zeros as SVD's added ids (fps, motion bucket, noise level).
        ids = x.new_zeros(len(x), 1)
        out = self.net(padded, t, condition[:, None], added_time_ids=ids, return_dict=False)[0]
        return crop(out, pad)


def is_own(folder: Path | str) -> bool:
    """Whether a model folder holds a network of layout 'own'."""
    return (Path(folder) / CONFIG).is_file() and "window" in read_config(folder)


def load_video(folder: Path | str) -> VideoDenoiser | PublishedVideoDenoiser:
    """The video model of a folder, of whichever layout it is, in eval."""
    return (VideoDenoiser if is_own(folder) else PublishedVideoDenoiser).load(folder)


class _LayerNorm(nn.LayerNorm):
    """Computed in full precision on a CPU: torch 2.13 adds up the gradients of its weight and bias
    in bf16 there, which is off by 4 % over 1,000 rows and by half over 8,000."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16)
        return super().forward(x.float() if half else x)


def _norms_in_full(net: nn.Module) -> None:
    for norm in net.modules():
        if type(norm) is nn.LayerNorm:
            norm.__class__ = _LayerNorm
