"""Hearts from the LIDM, videos from the LVDM: one seed per sample index."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from echosyn.device import autocast, pick_device
from echosyn.diffusion.condition import ef_condition
from echosyn.diffusion.objectives import load_objective
from echosyn.diffusion.sampling import denoise, guided, sample_generators, sample_noise, windowed
from echosyn.diffusion.settings import SampleHeartsConfig, SampleVideosConfig
from echosyn.errors import EchosynError
from echosyn.files import atomic_dir
from echosyn.models.denoisers import ImageDenoiser, VideoDenoiser

HEARTS = "hearts.safetensors"


class HeartSampler:
    """Draws hearts, unit-scale latents (B, 4, h, w), from a trained LIDM folder."""

    def __init__(self, folder: Path, cfg: SampleHeartsConfig, size: int) -> None:
        self.cfg = cfg
        self.shape = (4, size, size)
        self.objective = load_objective(folder)
        self.objective.scheduler(cfg.sampler, cfg.steps)  # refuses a sampler that does not fit
        self.device = pick_device()
        self.model = ImageDenoiser.load(folder).to(self.device)

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


class VideoSampler:
    """Animates hearts at given EFs with a trained LVDM folder."""

    def __init__(self, folder: Path, cfg: SampleVideosConfig) -> None:
        self.cfg = cfg
        self.objective = load_objective(folder)
        self.objective.scheduler(cfg.sampler, cfg.steps)
        self.device = pick_device()
        self.model = VideoDenoiser.load(folder).to(self.device)

    @torch.inference_mode()
    def animate(self, hearts: Tensor, ef: Tensor, indices: Sequence[int], seed: int) -> Tensor:
        """Unit-scale latent videos (B, frames, 4, h, w) on the CPU.

        Args:
            hearts: unit-scale latents (B, 4, h, w). ef: percent (B,).
            indices: sample indices, which with the seed decide the noise.
        """
        generators = sample_generators(seed, indices)
        noise = sample_noise((self.cfg.frames, *hearts.shape[1:]), generators).to(self.device)
        condition = ef_condition(ef, self.model.condition_dim).to(self.device)
        predict = guided(self.model, hearts.to(self.device), condition, self.cfg.guidance)
        predict = windowed(predict, self.model.window, self.cfg.overlap)
        scheduler = self.objective.scheduler(self.cfg.sampler, self.cfg.steps)
        with autocast(self.device, self.cfg.precision):
            return denoise(predict, noise, scheduler, generators).cpu()


def draw_ef(kind: str, real: np.ndarray, n: int, seed: int) -> np.ndarray:
    """EFs to ask for, percent rounded to 0.1, float64 (n,).

    "real" draws the real quantiles at evenly spread, shuffled ranks, so that no value is an actual
    patient's by construction but the distribution is theirs; "uniform" is uniform over 10-90.
    """
    rng = np.random.default_rng([seed, 4])
    ranks = (np.arange(n) + rng.random(n)) / n
    if kind == "uniform":
        ef = 10 + 80 * ranks
    else:
        known = real[np.isfinite(real)]
        if len(known) == 0:
            raise EchosynError(
                "EF cannot be drawn from the real distribution: no TRAIN video has one"
            )
        ef = np.quantile(known, ranks)
    return np.round(rng.permutation(ef), 1)


def synthetic_name(dataset: str, seed: int, index: int) -> str:
    """FileName of a synthetic video; `SYN` keeps it from ever being taken for a patient's."""
    return f"SYN_{dataset}_{seed}_{index:06d}"
