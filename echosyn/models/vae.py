"""The VAE: grey uint8 frames to latents and back, a diffusers AutoencoderKL inside.

A 112x112 frame becomes a 4x14x14 latent, or 4x28x28 with one level less. The network's input
channels say how frames enter: c * p^2 for c colour channels after a pixel-unshuffle by p, so 3 is
the reference's plain RGB model and 4 is grey in 2x2 patches, which costs half as much on a CPU at
equal quality.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

LATENT_CHANNELS = 4
FRAME_SIZE = 112
FACTORS = (8, 4)  # by which frames may shrink: to 14x14 or to 28x28
INPUT_LAYOUTS = {1: (1, 1), 3: (3, 1), 4: (1, 2), 12: (3, 2), 16: (1, 4)}  # in_channels: (c, p)


@dataclass(frozen=True)
class VaeConfig:
    """Sizes of the VAE; the patch times the downsampling of the levels must be 8 or 4."""

    widths: tuple[int, ...] = setting((32, 64, 96), lo=8, help="channels of each level")
    layers: int = setting(1, lo=1, hi=8, help="residual blocks per level")
    patch: int = setting(2, choices=(1, 2, 4), help="pixel-unshuffle factor at the input")
    colours: int = setting(1, choices=(1, 3))
    groups: int = setting(8, lo=1, help="groups of GroupNorm")
    mid_attention: bool = setting(False)

    @property
    def factor(self) -> int:
        """Pixels of a frame per latent position, along a side."""
        return self.patch * 2 ** (len(self.widths) - 1)

    @property
    def latent_size(self) -> int:
        """Side of the latents of FRAME_SIZE frames."""
        return FRAME_SIZE // self.factor

    def check(self) -> str | None:
        if self.factor not in FACTORS:
            allowed = " or ".join(
                f"{f} (latents of {FRAME_SIZE // f}x{FRAME_SIZE // f})" for f in FACTORS
            )
            return (
                f"patch {self.patch} and {len(self.widths)} levels shrink by {self.factor}, "
                f"not by {allowed}"
            )
        if any(w % self.groups for w in self.widths):
            return f"widths {self.widths} are not multiples of groups {self.groups}"
        return None


class Vae(nn.Module):
    """AutoencoderKL with the field's pixel scaling and per-channel latent standardisation."""

    def __init__(self, net: AutoencoderKL) -> None:
        super().__init__()
        if net.config.in_channels not in INPUT_LAYOUTS:
            raise EchosynError(
                f"VAE with {net.config.in_channels} input channels; known: {list(INPUT_LAYOUTS)}"
            )
        self.net = net
        self.colours, self.patch = INPUT_LAYOUTS[net.config.in_channels]

    @classmethod
    def create(cls, cfg: VaeConfig) -> "Vae":
        levels = len(cfg.widths)
        channels = cfg.colours * cfg.patch**2
        net = AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=cfg.widths,
            layers_per_block=cfg.layers,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=cfg.groups,
            sample_size=FRAME_SIZE // cfg.patch,
            mid_block_add_attention=cfg.mid_attention,
        )
        with torch.no_grad():  # start near a plain autoencoder: posterior sd e^-2.5
            net.quant_conv.bias[LATENT_CHANNELS:].fill_(-5.0)
        return cls(net)

    @classmethod
    def load(cls, folder: Path | str) -> "Vae":
        """Read a diffusers folder, ours or a published one.

        Raises:
            EchosynError: no such folder, or not an AutoencoderKL.
        """
        return cls(load_diffusers(AutoencoderKL, Path(folder))).eval()

    def save(self, folder: Path | str) -> None:
        self.net.save_pretrained(folder)

    def standardise_by(self, mean: Tensor, std: Tensor) -> None:
        """Keep per-channel mean and sd of training latents, (4,) each, in the model's config."""
        self.net.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())

    def to_input(self, frames: Tensor) -> Tensor:
        """uint8 (N, H, W) to network input in [-1, 1), as the reference: x / 128 - 1."""
        x = (frames.float() / 128 - 1)[:, None]  # (N, 1, H, W)
        return F.pixel_unshuffle(x.expand(-1, self.colours, -1, -1), self.patch)

    def to_grey(self, x: Tensor) -> Tensor:
        """Network input or output to frames (N, 1, H, W) of the same range, the mean of colours."""
        return F.pixel_shuffle(x.float(), self.patch).mean(dim=1, keepdim=True)

    def to_frames(self, x: Tensor) -> Tensor:
        """Network output to uint8 (N, H, W)."""
        return ((self.to_grey(x)[:, 0] + 1) * 128).round().clamp(0, 255).to(torch.uint8)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One training pass: reconstruction of x, posterior mean and log-variance.

        Args:
            x: network input (N, c p^2, H/p, W/p); noise: standard normal (N, 4, h, w).
        """
        mean, logvar = self.posterior(x)
        z = mean + torch.exp(0.5 * logvar) * noise
        return self.net.decode(z).sample, mean, logvar

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (N, 4, h, w) each, log-variance clamped as diffusers does."""
        moments = self.net.encode(x).latent_dist.parameters
        mean, logvar = moments.float().chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and sd of raw latents, (4, 1, 1) each, of the type and device of `like`."""
        mean, std = self.net.config.latents_mean, self.net.config.latents_std
        if mean is None or std is None:
            mean, std = (
                [0.0] * LATENT_CHANNELS,
                [1 / self.net.config.scaling_factor] * LATENT_CHANNELS,
            )
        shape = (-1, 1, 1)
        return like.new_tensor(mean).view(shape), like.new_tensor(std).view(shape)

    def normalise(self, z: Tensor) -> Tensor:
        """Latents (..., 4, h, w) to unit scale: per channel, or by the published scaling factor."""
        mean, std = self.statistics(z)
        return (z - mean) / std

    def denormalise(self, z: Tensor) -> Tensor:
        mean, std = self.statistics(z)
        return z * std + mean

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (N, H, W) to posterior mean and log-variance of raw (not normalised) latents."""
        return self.posterior(self.to_input(frames))

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """Raw latents (N, 4, h, w) to uint8 frames (N, 8 h, 8 w), or 4 h and 4 w."""
        return self.to_frames(self.net.decode(z).sample)


def vae_loss(
    target: Tensor, output: Tensor, mean: Tensor, logvar: Tensor, kl_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """MSE + L1 / 20 + kl_weight KL(q || N(0, I)), the KL summed over a latent (Kingma 2014, B).

    Mostly squared error: with L1 leading, the speckle that no 4x14x14 latent can hold kept the
    network from the anatomy longer, and even L1 ended higher (docs/results/demo.md).
    """
    l1 = F.l1_loss(output.float(), target)
    mse = F.mse_loss(output.float(), target)
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(dim=(1, 2, 3)).mean()
    return mse + 0.05 * l1 + kl_weight * kl, {"l1": l1, "mse": mse, "kl": kl}


def load_diffusers(cls: Any, folder: Path) -> Any:
    """`cls.from_pretrained` on a local folder, with an error that says what is wrong with it."""
    if not (folder / "config.json").is_file():
        raise EchosynError(f"{folder}: no diffusers model here (config.json is missing)")
    try:
        model, read = cls.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, TypeError) as e:
        raise EchosynError(f"{folder}: not a {cls.__name__} that can be loaded: {e}") from None
    missing = read["missing_keys"]
    if missing:  # diffusers leaves them random
        raise EchosynError(
            f"{folder}: weight '{min(missing)}' is missing ({len(missing)} such): the file of "
            "weights is not of this config.json, or not whole"
        )
    return model
