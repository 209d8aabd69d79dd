"""The reference's image model (EchoNet-Synthetic, MICCAI 2024), layout 'published'.

An unconditional diffusers UNet. Latents are padded from 14x14 to 16x16 on the way in and
cropped on the way out, since it halves its input up to three times.
"""

from dataclasses import dataclass
from pathlib import Path

from diffusers import UNet2DModel
from torch import Tensor, nn

from echosyn.models.condition import NOTHING
from echosyn.models.image import ImageDenoiser
from echosyn.models.padding import crop, pad_to_even
from echosyn.models.store import CONFIG, read_config, unet_folder
from echosyn.models.vae import LATENT_CHANNELS, load_diffusers
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

GROUPS = 32  # of diffusers' GroupNorm


@dataclass(frozen=True)
class UnetConfig:
    """Sizes of a UNet. `attention` counts levels from the highest resolution down."""

    widths: tuple[int, ...] = setting((32, 64, 96), lo=32)
    layers: int = setting(1, lo=1, hi=8, help="residual blocks per level")
    attention: tuple[bool, ...] = setting((False, True, True), help="per level, outermost first")
    heads: tuple[int, ...] = setting((1, 2, 2), lo=1, help="attention heads per level")

    def check(self) -> str | None:
        if not len(self.widths) == len(self.attention) == len(self.heads):
            return "widths, attention and heads need one value per level each"
        if len(self.widths) > 5:
            return "more than five levels: a 16x16 latent cannot be halved that often"
        if any(w % GROUPS for w in self.widths):
            return f"widths {self.widths}: GroupNorm({GROUPS}) needs multiples of {GROUPS}"
        if any(w % h for w, h in zip(self.widths, self.heads, strict=True)):
            return f"widths {self.widths} are not multiples of heads {self.heads}"
        return None


class PublishedImageDenoiser(nn.Module):
    """UNet2DModel over heart latents.

    forward(x (B, 4, h, w), t (B,), condition (B, 0) or None) -> (B, 4, h, w), as
    echosyn.models.image.ImageDenoiser.
    """

    spec = NOTHING

    def __init__(self, net: UNet2DModel) -> None:
        super().__init__()
        self.net = net
        self.multiple = 2 ** (len(net.config.block_out_channels) - 1)

    @property
    def size(self) -> int:
        """Height and width of the latents that it draws."""
        return int(self.net.config.sample_size)

    @classmethod
    def create(cls, cfg: UnetConfig, size: int) -> "PublishedImageDenoiser":
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
            norm_num_groups=GROUPS,
        )
        return cls(net)

    @classmethod
    def load(cls, folder: Path | str) -> "PublishedImageDenoiser":
        """Raises EchosynError: no such network, or one of other channels or with a condition."""
        net = load_diffusers(UNet2DModel, unet_folder(folder))
        channels = net.config.in_channels, net.config.out_channels
        if channels != (LATENT_CHANNELS, LATENT_CHANNELS):
            raise EchosynError(
                f"{folder}: a network of {channels[0]} channels to {channels[1]}, but latents have "
                f"{LATENT_CHANNELS}: choose one that was trained on latents of this VAE"
            )
        if net.config.class_embed_type or net.config.num_class_embeds:
            raise EchosynError(
                f"{folder}: a UNet conditioned on a class, in a way that is not known here: "
                "choose an unconditional one, or train one with weights: none"
            )
        return cls(net).eval()

    def save(self, folder: Path | str) -> None:
        self.net.save_pretrained(Path(folder) / "unet")

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        del condition
        padded, pad = pad_to_even(x, self.multiple)
        return crop(self.net(padded, t, return_dict=False)[0], pad)


def is_own_image(folder: Path | str) -> bool:
    """Whether a model folder holds an image network of layout 'own'."""
    return (Path(folder) / CONFIG).is_file() and "model" in read_config(folder)


def load_image(folder: Path | str) -> ImageDenoiser | PublishedImageDenoiser:
    """The image model of a folder, of whichever layout it is, in eval."""
    return (ImageDenoiser if is_own_image(folder) else PublishedImageDenoiser).load(folder)
