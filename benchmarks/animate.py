"""Given hearts of a project's TEST patients: animated at EFs, and the very videos at EF +-15.

python -m benchmarks.animate --project . --videos 30

Hearts are the videos' own end-diastolic frames, where their beat is known. Prints the numbers of
docs/results/animate.md. Needs the models of `make demo`.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from echosyn.data.frames import load_frames
from echosyn.data.latents import LatentSet
from echosyn.diffusion.counterfactual import REFINE, counterfactuals
from echosyn.diffusion.settings import GUIDANCE
from echosyn.metrics.image import ssim
from echosyn.runtime.device import set_threads
from echosyn.runtime.process import threads
from echosyn.synthesis.animate import (
    COUNTERFACTUAL,
    Identities,
    counterfactual_numbers,
    ef_numbers,
    unchanged_ssim,
)
from echosyn.synthesis.animate_video import Models, Request

EFS = (25.0, 40.0, 55.0, 70.0)
SHIFT = 15.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.animate", description=__doc__)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--dataset", default="phantom")
    parser.add_argument("--videos", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--refine", type=int, default=REFINE, help="iterations of inversion")
    args = parser.parse_args()
    set_threads(threads())
    models = Models(
        Request(Path(), EFS, Path(), project=args.project, models=args.dataset,
                guidance=args.guidance)
    )  # fmt: skip
    beats = args.project / "beats/train" / args.dataset
    latents = LatentSet(args.project / "latents/train" / args.dataset, "TEST", beats)
    source = args.project / "data/train" / args.dataset
    with tempfile.TemporaryDirectory() as cache:
        frames = load_frames(source, models.fps, cache, splits=("TEST",))
        real = [np.array(frames.video(v)) for v in range(args.videos)]
    report(models, latents, real, args.refine)


def report(models: Models, latents: LatentSet, real: list[np.ndarray], refine: int) -> None:
    """Animate and shift as many TEST videos as `real` has, uint8 (T, H, W) each; print scores."""
    n, sampler, codec = len(real), models.sampler, models.codec
    own, rebuilt = models.ef(real), [codec.decode(latents.mean(v)) for v in range(n)]
    asked = np.clip(np.stack([own, own - SHIFT, own + SHIFT], 1), 0, 100)
    animated, shifted, errors, seconds = [], [], [], np.zeros(2)
    for v in range(n):
        z, heart, begin = latents.mean(v), latents.hearts(v, 1), time.perf_counter()
        hearts = heart.expand(len(EFS), -1, -1, -1)
        made = sampler.animate(hearts, torch.tensor(EFS), [v] * len(EFS), 0, fps=models.fps)
        middle = time.perf_counter()
        efs = tuple(map(float, asked[v]))
        other = counterfactuals(sampler, z, heart[0], efs[0], efs, models.fps, refine)
        errors.append(float((other[0] - z).square().mean().sqrt()))
        seconds += middle - begin, time.perf_counter() - middle
        animated.append([codec.decode(y) for y in made])
        shifted.append([codec.decode(y) for y in other])

    def measured(clips: list[list[np.ndarray]]) -> np.ndarray:
        return models.ef([c for row in clips for c in row]).reshape(n, -1)

    people = Identities(latents, codec, models.encoder)
    found, moved = measured(animated), measured(shifted)
    numbers = ef_numbers(np.tile(EFS, n), found.ravel(), latents.ef[:n], own, seed=0)
    numbers |= {f"mean at {ef:g}": value for ef, value in zip(EFS, found.mean(0), strict=True)}
    changes = (moved - models.ef(rebuilt)[:, None]).mean(0)
    names = ("unchanged", f"-{SHIFT:g}", f"+{SHIFT:g}")
    numbers |= {f"mean change {k}": value for k, value in zip(names, changes, strict=True)}
    numbers["error of unchanged latents, rms"] = np.mean(errors)
    numbers |= people.kept({v: np.concatenate(c) for v, c in enumerate(animated)}, "animate")
    numbers |= counterfactual_numbers(asked, moved, models.ef(rebuilt), seed=0)
    numbers |= unchanged_ssim([(real[v], rebuilt[v], shifted[v][0]) for v in range(n)])
    numbers[f"{COUNTERFACTUAL}/ssim_shifted"] = np.mean(
        [ssim(rebuilt[v], clip) for v in range(n) for clip in shifted[v][1:]]
    )
    for name, kind in (("unchanged", slice(1)), ("shifted", slice(1, None))):
        made_of = {v: np.concatenate(c[kind]) for v, c in enumerate(shifted)}
        numbers |= people.kept(made_of, f"{COUNTERFACTUAL}/{name}")
    numbers |= people.kept(dict(enumerate(rebuilt)), "reconstructed")
    for name, value in numbers.items():
        print(f"{name:<50} {value:8.3f}")
    print(f"seconds per video: {len(EFS)} animations {seconds[0] / n:.0f}, ", end="")
    print(f"inversion and 3 counterfactuals {seconds[1] / n:.0f}")


if __name__ == "__main__":
    main()
