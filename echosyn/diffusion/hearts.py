"""Hearts from the LIDM, latents of one frame: one seed per sample index."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from echosyn.device import autocast, pick_device
from echosyn.diffusion.objectives import load_objective
from echosyn.diffusion.sampling import denoise, sample_generators, sample_noise
from echosyn.diffusion.settings import SampleHeartsConfig
from echosyn.errors import EchosynError
from echosyn.files import atomic_dir
from echosyn.models.denoisers import ImageDenoiser

HEARTS = "hearts.safetensors"


class HeartSampler:
    """Draws hearts, unit-scale latents (B, 4, h, w), from a trained LIDM folder."""

    def __init__(self, folder: Path, cfg: SampleHeartsConfig) -> None:
        self.cfg = cfg
        self.objective = load_objective(folder)
        self.objective.scheduler(cfg.sampler, cfg.steps)  # refuses a sampler that does not fit
        self.device = pick_device()
        self.model = ImageDenoiser.load(folder).to(self.device)
        self.shape = (4, self.model.size, self.model.size)

    @torch.inference_mode()
    def draw(self, indices: Sequence[int], seed: int) -> Tensor:
        """Hearts of these sample indices, on the CPU."""
        generators = sample_generators(seed, indices)
        noise = sample_noise(self.shape, generators).to(self.device)
        scheduler = self.objective.scheduler(self.cfg.sampler, self.cfg.steps)
        with autocast(self.device, self.cfg.precision):
            x = denoise(
                lambda x, t: self.model(x, t.expand(len(x))).float(), noise, scheduler, generators
            )
        return x.cpu()

    def write_shard(self, indices: range, folder: Path, seed: int) -> None:
        """Draw hearts into `folder`, one tensor per file."""
        save_file({"hearts": self.draw(indices, seed)}, folder / f"{indices.start:06d}.safetensors")


def read_shards(shards: list[Path]) -> Tensor:
    """The hearts (N, 4, h, w) of all shards of HeartSampler."""
    parts = [load_file(f)["hearts"] for s in shards for f in sorted(s.glob("*.safetensors"))]
    return torch.cat(parts)


def finish_hearts(shards: list[Path], out: Path) -> None:
    """Join the shards of HeartSampler into out/hearts.safetensors: `hearts` (N, 4, h, w)."""
    with atomic_dir(out) as tmp:
        save_file({"hearts": read_shards(shards)}, tmp / HEARTS)


def read_hearts(folder: Path) -> Tensor:
    """All unit-scale heart latents, float32 (N, 4, h, w), in the order of their sample indices.

    Raises:
        EchosynError: there are none in `folder`.
    """
    path = folder / HEARTS
    if not path.is_file():
        raise EchosynError(f"{path} does not exist; run sample_hearts")
    return load_file(path)["hearts"]
