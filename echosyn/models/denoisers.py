"""The image model (LIDM), which draws hearts: a diffusers UNet, told what `ConditionSpec` says.

Latents are padded from 14x14 to 16x16 on the way in and cropped on the way out, since the UNets
halve their input up to three times.
"""

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from echosyn.config import setting
from echosyn.diffusion.condition import ConditionSpec
from echosyn.errors import EchosynError
from echosyn.files import write_bytes
from echosyn.models.padding import crop, pad_to_even
from echosyn.models.store import fill, read_weights
from echosyn.models.vae import LATENT_CHANNELS, load_diffusers

NOTHING = ConditionSpec(ef=False)
PROJECTION = "condition.safetensors"


@dataclass(frozen=True)
class UnetConfig:
    """Sizes of a UNet. `attention` counts levels from the lowest resolution up."""

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


def unet_folder(folder: Path | str) -> Path:
    """The UNet inside a model folder: `unet_ema` (published), `unet` (ours), or itself."""
    folder = Path(folder)
    for sub in ("unet_ema", "unet"):
        if (folder / sub / "config.json").is_file():
            return folder / sub
    if not folder.is_dir():
        raise EchosynError(f"{folder}: no such model folder; run the stage that trains it")
    return folder
