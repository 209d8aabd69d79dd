"""Which recipe draws the best hearts: objective, times, loss weights, EMA, labels, guidance.

python -m benchmarks.lidm --project . --dataset phantom --work DIR

Every recipe trains a LIDM of the project's size for the same steps on the same TRAIN latents and
draws as many hearts. The project has been through `dvc repro`. Models stay in the folder `work`:
the same command goes on where it was stopped. Printed is a row per recipe and way of sampling, each
number a mean over seeds, with its range:

- Frechet distances to held-out TEST and to TRAIN, as many hearts as frames, a few of each video;
  `pixels`: random convolutions of decoded frames, `latents`: latents pooled to 4 x 4. Real hearts
  are decoded by the same VAE, whose loss therefore counts on neither side. The floor is TRAIN
  against TEST, over draws of TRAIN videos.
- Precision and recall of the hearts (k = 5), in pooled latents, against TEST.
- The share that the privacy filter refuses: nearness to TRAIN must not be bought by copying.

Qualities are compared and no speeds, so no line of JSON ends the output.
"""

import argparse
import copy
import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import machine, use_threads

THREADS = 1
use_threads(THREADS)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import adaptive_avg_pool2d  # noqa: E402

from echosyn.data.latents import LatentSet  # noqa: E402
from echosyn.diffusion.hearts import HeartSampler  # noqa: E402
from echosyn.diffusion.settings import SampleHeartsConfig  # noqa: E402
from echosyn.encoding.codec import VideoCodec  # noqa: E402
from echosyn.metrics.features import RandomFeatures2d  # noqa: E402
from echosyn.metrics.frechet import frechet_distance  # noqa: E402
from echosyn.metrics.prdc import prdc  # noqa: E402
from echosyn.models.published_image import UnetConfig  # noqa: E402
from echosyn.models.vae import Vae  # noqa: E402
from echosyn.privacy.detectors.embedding import Gallery, HeartEncoder  # noqa: E402
from echosyn.privacy.filters.calibration import accepted, read_taus  # noqa: E402
from echosyn.privacy.filters.hearts import TAUS, PrivacyConfig  # noqa: E402
from echosyn.runtime.config import Params  # noqa: E402
from echosyn.runtime.files import atomic_dir  # noqa: E402
from echosyn.tracking import NullRun  # noqa: E402
from echosyn.training.checkpoint import load_checkpoint  # noqa: E402
from echosyn.training.diffusion import LidmTask, TrainLidmConfig  # noqa: E402
from echosyn.training.loop import fit  # noqa: E402

# In 480 steps as many seconds of a CPU as our network takes in 1,100; the demo has 450.
UNET = UnetConfig(widths=(32, 64, 96), attention=(False, True, True), heads=(4, 8, 12))
HEARTS, PER_VIDEO, DRAWS = 400, 4, 3
COLUMNS = ("pixels", "pixels to TRAIN", "latents", "latents to TRAIN", "precision", "recall")
REFUSED = "refused"


@dataclass(frozen=True)
class Recipe:
    """How a LIDM is trained, and the ways in which it is then sampled, by name."""

    name: str
    train: dict[str, Any] = field(default_factory=dict)
    sample: dict[str, dict[str, Any]] = field(default_factory=lambda: {"euler 25": {}})
    averaged: bool = True  # the EMA of the weights, or the last weights themselves
    steps: int | None = None  # None: the project's
    lr: float | None = None  # None: the project's


DDPM = {
    "dpmpp 25": {"sampler": "dpmpp"},
    "ddpm 64": {"sampler": "ddpm", "steps": 64},
}
GUIDED = {
    "euler 25, guidance 1": {"guidance": 1.0},
    "euler 25, guidance 2": {"guidance": 2.0},
}
RECIPES = (
    Recipe("flow"),
    Recipe("flow, the published UNet", {"layout": "published", "unet": UNET}, steps=480, lr=2e-3),
    Recipe("flow, last weights", averaged=False),
    Recipe("flow, logit-normal times", {"times": "logit_normal"}),
    Recipe("flow, conditioned on EF", {"condition": "ef"}, GUIDED),
    Recipe("ddpm_v", {"objective": "ddpm_v"}, DDPM),
    Recipe("ddpm_v, min-SNR", {"objective": "ddpm_v", "weighting": "min_snr"}, DDPM),
)


def train(
    recipe: Recipe, base: TrainLidmConfig, latents: Path, seed: int, work: Path
) -> tuple[Path, float]:
    """The folder of a recipe's model, trained unless it is there, and its validation loss.

    Recipes of one training share it: its averaged weights and its last ones.
    """
    loop = dataclasses.replace(
        base.loop, steps=recipe.steps or base.loop.steps, lr=recipe.lr or base.loop.lr
    )
    cfg = dataclasses.replace(base, loop=loop, **recipe.train)
    task = LidmTask(cfg, LatentSet(latents, "TRAIN"), LatentSet(latents, "VAL"))
    slug = re.sub(r"\W+", "-", recipe.name.removesuffix(", last weights")) + f"-seed{seed}"
    out = work / ("averaged" if recipe.averaged else "last") / slug
    if not out.is_dir():
        checkpoints = work / "checkpoints" / slug
        checkpoints.mkdir(parents=True, exist_ok=True)
        model = fit(task, cfg.loop, seed, checkpoints, NullRun(), slug)
        last = copy.deepcopy(model)
        load_checkpoint(checkpoints, last, copy.deepcopy(model), _unused(last))
        for name, made in (("averaged", model), ("last", last)):
            with atomic_dir(work / name / slug) as tmp:
                made.save(tmp)
                task.objective.save(tmp)
    model = HeartSampler(out, _sampling(recipe, {}), LatentSet(latents, "TRAIN")).model
    with torch.no_grad():
        return out, task.validate(model)["loss"]


def _unused(model: nn.Module) -> torch.optim.Optimizer:
    """A checkpoint is read with its optimizer's state."""
    return torch.optim.AdamW(model.parameters())


def _sampling(recipe: Recipe, way: dict[str, Any]) -> SampleHeartsConfig:
    sampler = "dpmpp" if recipe.train.get("objective") == "ddpm_v" else "euler"
    return SampleHeartsConfig(**{"hearts": HEARTS, "sampler": sampler, "precision": "fp32", **way})


class Judge:
    """Real hearts in both feature spaces, and the distances of others to them."""

    def __init__(self, project: Path, dataset: str, cfg: PrivacyConfig) -> None:
        latents = project / "latents/train" / dataset
        self.codec = VideoCodec(Vae.load(project / "models/vae"), precision="fp32")
        self.pixels = RandomFeatures2d()
        self.train, test = LatentSet(latents, "TRAIN"), LatentSet(latents, "TEST")
        self.test = self.features(frames_of_some(test, None))
        draws = [np.random.default_rng(d) for d in range(DRAWS)]
        self.draws = [self.features(frames_of_some(self.train, rng)) for rng in draws]
        encoder = HeartEncoder.load(project / "models/reid" / dataset)
        self.gallery = Gallery.of(encoder, self.train, cfg.gallery_frames, cfg.mirrors)
        made_with = cfg.made_with(latents, encoder)
        self.tau = read_taus(project / "privacy" / dataset / "hearts" / TAUS, made_with)["hearts"]

    def features(self, hearts: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(N, 64) of decoded frames, and (N, 64) of pooled latents."""
        pooled = adaptive_avg_pool2d(hearts, 4).flatten(1).numpy()
        return self.pixels(self.codec.decode(hearts)), pooled

    def numbers(self, hearts: Tensor) -> dict[str, float]:
        """A recipe's row."""
        made = self.features(hearts)
        similarity, _ = self.gallery.nearest(hearts)
        refused = 1 - float(accepted(similarity, self.tau.value).mean())
        return {**self._distances(made, self.draws), REFUSED: refused}

    def floors(self) -> list[dict[str, float]]:
        """The row of real TRAIN hearts, once for each draw, against TEST and the other draws."""
        return [
            self._distances(made, [d for d in self.draws if d is not made]) for made in self.draws
        ]

    def _distances(
        self, made: tuple[np.ndarray, ...], train: list[tuple[np.ndarray, ...]]
    ) -> dict[str, float]:
        row = []
        for k in (0, 1):
            row.append(frechet_distance(self.test[k], made[k]))
            row.append(np.mean([frechet_distance(d[k], made[k]) for d in train]))
        scores = prdc(self.test[1], made[1], k=5)
        row += [scores["precision"], scores["recall"]]
        return dict(zip(COLUMNS, row, strict=True))


def frames_of_some(latents: LatentSet, rng: np.random.Generator | None) -> Tensor:
    """PER_VIDEO frames of as many videos as make HEARTS; of random videos, or of the first."""
    videos = HEARTS // PER_VIDEO
    rows = np.arange(len(latents)) if rng is None else rng.permutation(len(latents))
    if len(rows) < videos:
        raise SystemExit(f"{latents.folder}: {len(rows)} videos, {videos} are compared")
    return torch.cat([latents.frames(int(i), PER_VIDEO) for i in rows[:videos]])


def show(name: str, rows: list[dict[str, float]]) -> None:
    """A line of the table: means over rows, and half their range."""
    cells = []
    for key in (*COLUMNS, REFUSED, "loss"):
        values = [row[key] for row in rows if key in row]
        if not values:
            cells.append("")
            continue
        reach = (max(values) - min(values)) / 2
        cells.append(f"{np.mean(values):.3g}" + (f" ± {reach:.1g}" if len(values) > 1 else ""))
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lidm")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--dataset", default="phantom")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    names = [recipe.name for recipe in RECIPES]
    parser.add_argument("--recipes", nargs="+", choices=names, default=names)
    given = parser.parse_args()
    params = Params(given.project)
    base = params.stage("train_lidm", TrainLidmConfig)
    base = dataclasses.replace(base, loop=dataclasses.replace(base.loop, precision="fp32"))
    latents = given.project / "latents/train" / given.dataset
    judge = Judge(given.project, given.dataset, params.stage("privacy_filter", PrivacyConfig))
    loop = base.loop
    print(f"{loop.steps} steps of {loop.batch}, {given.seeds} seeds, {HEARTS} hearts; {machine()}")
    print(f"\n| | {' | '.join((*COLUMNS, REFUSED, 'loss'))} |\n{'|---' * (len(COLUMNS) + 3)}|")
    show("real TRAIN", judge.floors())
    for recipe in (r for r in RECIPES if r.name in given.recipes):
        rows: dict[str, list[dict[str, float]]] = {way: [] for way in recipe.sample}
        for seed in range(given.seeds):
            folder, loss = train(recipe, base, latents, seed, given.work)
            for way, settings in recipe.sample.items():
                sampler = HeartSampler(folder, _sampling(recipe, settings), judge.train)
                hearts = sampler.draw(range(HEARTS), seed).latents
                rows[way].append({**judge.numbers(hearts), "loss": loss})
        for way, found in rows.items():
            show(f"{recipe.name}; {way}", found)


if __name__ == "__main__":
    main()
