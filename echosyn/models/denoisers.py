"""The two denoisers: hearts (LIDM) and videos (LVDM), diffusers UNets inside.

Latents are padded from 14x14 to 16x16 on the way in and cropped on the way out, since the UNets
halve their input up to three times.
"""

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel, UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from echosyn.config import setting
from echosyn.diffusion.condition import ConditionSpec
from echosyn.errors import EchosynError
from echosyn.files import write_bytes
from echosyn.models.store import fill, read_weights
from echosyn.models.vae import LATENT_CHANNELS, load_diffusers

NOTHING = ConditionSpec(ef=False)
PROJECTION = "condition.safetensors"
SPAN_DIM = 32  # sinusoids that a distilled model reads the length of its step from
TIME_RANGE = 1000  # as the time embedding's


@dataclass(frozen=True)
class UnetConfig:
    """Sizes shared by both UNets. `attention` counts levels from the lowest resolution up."""

    widths: tuple[int, ...] = setting((32, 64, 96), lo=32)
    layers: int = setting(1, lo=1, hi=8, help="residual blocks per level")
    attention: tuple[bool, ...] = setting((False, True, True), help="per level, outermost first")
    heads: tuple[int, ...] = setting((1, 2, 2), lo=1, help="attention heads per level")
    groups: int = setting(
        32, lo=1, hi=32, help="of the image model's GroupNorm; fewer for narrow networks"
    )

    def check(self) -> str | None:
        if not len(self.widths) == len(self.attention) == len(self.heads):
            return "widths, attention and heads need one value per level each"
        if len(self.widths) > 5:
            return "more than five levels: a 16x16 latent cannot be halved that often"
        if any(w % self.groups for w in self.widths):
            return (
                f"widths {self.widths}: GroupNorm({self.groups}) needs multiples of {self.groups}"
            )
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
    """UNet2DModel over heart latents, told what `spec` says, if anything.

    forward(x (B, 4, h, w), t (B,), condition (B, K) or None) -> (B, 4, h, w).
    The condition is projected onto the UNet's time embedding; None is "nothing given". Both reach a
    block as a shift of each channel before a GroupNorm (Wu & He 2018), which takes it away again
    where a group is a single channel: 32 channels want fewer groups than the usual 32.
    """

    def __init__(self, net: UNet2DModel, spec: ConditionSpec = NOTHING) -> None:
        super().__init__()
        self.net, self.spec = net, spec
        self.multiple = 2 ** (len(net.config.block_out_channels) - 1)
        width = 4 * net.config.block_out_channels[0]
        self.project = nn.Linear(spec.dim, width) if spec.dim else None

    @property
    def size(self) -> int:
        """Height and width of the latents that it draws."""
        return int(self.net.config.sample_size)

    @classmethod
    def create(cls, cfg: UnetConfig, size: int, spec: ConditionSpec = NOTHING) -> "ImageDenoiser":
        """A fresh network for latents (4, size, size)."""
        down = tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in cfg.attention)
        up = tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(cfg.attention))
        head_dims = {w // h for w, h in zip(cfg.widths, cfg.heads, strict=True)}
        net = UNet2DModel(
            sample_size=size,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            down_block_types=down,
            up_block_types=up,
            block_out_channels=cfg.widths,
            layers_per_block=cfg.layers,
            attention_head_dim=min(head_dims),
            norm_num_groups=cfg.groups,
            class_embed_type="identity" if spec.dim else None,
        )
        return cls(net, spec)

    @classmethod
    def load(cls, folder: Path | str) -> "ImageDenoiser":
        net = load_diffusers(UNet2DModel, unet_folder(folder))
        path = Path(folder) / PROJECTION
        if not path.is_file():
            return cls(net).eval()
        weights = read_weights(path)
        model = cls(net, ConditionSpec.load(folder, weights["weight"].shape[1]))
        fill(model.project, weights, path)
        return model.eval()

    def save(self, folder: Path | str) -> None:
        folder = Path(folder)
        self.net.save_pretrained(folder / "unet")
        if self.project is not None:
            self.spec.save(folder)
            state = {k: v.detach().cpu() for k, v in self.project.state_dict().items()}
            write_bytes(folder / PROJECTION, safetensors.torch.save(state))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        padded, pad = pad_to_even(x, self.multiple)
        labels = None
        if self.project is not None:
            given = x.new_zeros(len(x), self.spec.dim) if condition is None else condition
            labels = self.project(given)
        return crop(self.net(padded, t, class_labels=labels, return_dict=False)[0], pad)


class VideoDenoiser(nn.Module):
    """UNetSpatioTemporalConditionModel over latent clips, told a heart and what `spec` says.

    forward(x (B, T, 4, h, w), t (B,), heart (B, 4, h, w), condition (B, K),
            span (B,) or None, known (B, T) or None) -> (B, T, 4, h, w).
    The heart is repeated over time and concatenated to x, zeros for "no heart given"; the
    condition is one cross-attention token. `span` is the length of the step that the output is the
    mean velocity of, as a share of the whole path, for a distilled model. `known` marks frames of
    x that are clean and given, for a model that continues videos. Norms have four channels or more
    to a group, but for the published layout.
    """

    def __init__(self, net: UNetSpatioTemporalConditionModel, spec: ConditionSpec) -> None:
        super().__init__()
        self.net, self.spec = net, spec
        if not spec.published:
            _regroup(net)
        _norms_in_full(net)
        self.multiple = 2 ** (len(net.config.block_out_channels) - 1)
        self.window = int(net.config.num_frames)
        self.continues = net.config.in_channels > 2 * LATENT_CHANNELS
        self.spans = net.config.addition_time_embed_dim > 1  # the reference has 1, always fed zero

    @classmethod
    def create(
        cls,
        cfg: UnetConfig,
        window: int,
        spec: ConditionSpec,
        size: int = 14,
        continues: bool = False,
    ) -> "VideoDenoiser":
        """A fresh network for clips of `window` frames of latents (4, size, size)."""
        down = tuple(
            "CrossAttnDownBlockSpatioTemporal" if a else "DownBlockSpatioTemporal"
            for a in cfg.attention
        )
        up = tuple(
            "CrossAttnUpBlockSpatioTemporal" if a else "UpBlockSpatioTemporal"
            for a in reversed(cfg.attention)
        )
        span_dim = 1 if spec.published else SPAN_DIM
        net = UNetSpatioTemporalConditionModel(
            sample_size=size,
            in_channels=2 * LATENT_CHANNELS + continues,
            out_channels=LATENT_CHANNELS,
            down_block_types=down,
            up_block_types=up,
            block_out_channels=cfg.widths,
            layers_per_block=cfg.layers,
            num_attention_heads=cfg.heads,
            cross_attention_dim=spec.dim,
            addition_time_embed_dim=span_dim,
            projection_class_embeddings_input_dim=span_dim,
            num_frames=window,
        )
        return cls(net, spec)

    @classmethod
    def load(cls, folder: Path | str) -> "VideoDenoiser":
        net = load_diffusers(UNetSpatioTemporalConditionModel, unet_folder(folder))
        dims = net.config.cross_attention_dim
        dim = int(dims if isinstance(dims, int) else dims[0])
        made = cls(net, ConditionSpec.load(folder, dim)).eval()
        channels = net.config.in_channels - made.continues, net.config.out_channels
        if channels != (2 * LATENT_CHANNELS, LATENT_CHANNELS):
            raise EchosynError(
                f"{folder}: a network of {channels[0]} channels to {channels[1]}, but noisy "
                f"latents and heart have {2 * LATENT_CHANNELS} and a video {LATENT_CHANNELS}: "
                "train it on latents of this VAE"
            )
        return made

    def save(self, folder: Path | str) -> None:
        self.net.save_pretrained(Path(folder) / "unet")
        if not self.spec.published:
            self.spec.save(folder)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        heart: Tensor,
        condition: Tensor,
        span: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        frames = x.shape[1]
        inputs = [x, heart[:, None].expand(-1, frames, -1, -1, -1)]
        if self.continues:
            mask = x.new_zeros(x.shape[:2]) if known is None else known.to(x)
            inputs.append(mask[:, :, None, None, None].expand(-1, -1, 1, *x.shape[3:]))
        padded, pad = pad_to_even(torch.cat(inputs, dim=2), self.multiple)
        # The reference feeds zeros as SVD's added ids (fps, motion bucket, noise level).
        ids = x.new_zeros(len(x), 1) if span is None else TIME_RANGE * span.to(x)[:, None]
        out = self.net(padded, t, condition[:, None], added_time_ids=ids, return_dict=False)[0]
        return crop(out, pad)


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


def _regroup(net: nn.Module) -> None:
    """Four channels or more to a group: the network's class has 32 groups for any width, and a
    group of one channel takes the time's shift away again (see ImageDenoiser).
    """
    for norm in net.modules():
        if isinstance(norm, nn.GroupNorm):
            norm.num_groups = min(32, norm.num_channels // 4)


def unet_folder(folder: Path | str) -> Path:
    """The UNet inside a model folder: `unet_ema` (published), `unet` (ours), or itself."""
    folder = Path(folder)
    for sub in ("unet_ema", "unet"):
        if (folder / sub / "config.json").is_file():
            return folder / sub
    if not folder.is_dir():
        raise EchosynError(f"{folder}: no such model folder")
    return folder
