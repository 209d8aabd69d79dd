"""Animate a guest's own hearts at the EFs asked for, with the models of another dataset.

python -m pipelines.animate my_clips

Writes animated/<dataset>: the videos in EchoNet layout and mosaic.webp, a row per video: real,
reconstructed, then each EF.
"""

import dataclasses
from pathlib import Path

from pipelines._stage import command, torch_params


def main(dataset: str) -> None:
    import numpy as np

    from echosyn.animate import (
        AnimateConfig,
        animate_guest,
        ef_numbers,
        identity_numbers,
        side_by_side,
    )
    from echosyn.config import build
    from echosyn.data.frames import load_frames
    from echosyn.data.latents import LatentSet
    from echosyn.data.reconstruct import VideoCodec
    from echosyn.diffusion.generate import VideoSampler
    from echosyn.diffusion.settings import SampleVideosConfig
    from echosyn.errors import EchosynError
    from echosyn.files import atomic_dir, read_json, write_bytes
    from echosyn.models.vae import Vae
    from echosyn.privacy.embedding import HeartEncoder
    from echosyn.report.mosaic import webp
    from echosyn.runtime import state_root
    from echosyn.tracking import stage_run
    from echosyn.training.ef import EfRegressor, measure_ef

    params = torch_params()
    entries = params.raw.get("animate") or {}
    if dataset not in entries:
        raise EchosynError(f"params.yaml: no '{dataset}' under animate; known: {list(entries)}")
    cfg = build(AnimateConfig, entries[dataset], f"params.yaml: animate.{dataset}")
    sample, entry = params.stage("sample_videos", SampleVideosConfig), params.dataset(dataset)
    data, latents_folder = Path("data/guest") / dataset, Path("latents/guest") / dataset
    reconstructed = Path("reconstructions/guest") / dataset
    reid, regressor = Path("models/reid") / cfg.models, Path("models/ef") / cfg.models / "real"
    inputs = [latents_folder, Path("models/vae"), Path("models/lvdm"), reid, regressor]
    out, cache = Path("animated") / dataset, state_root() / "frames"
    settings = {**dataclasses.asdict(cfg), "sampling": dataclasses.asdict(sample)}
    with stage_run("animate", dataset, settings, inputs) as run:
        latents = LatentSet(latents_folder)
        codec = VideoCodec(Vae.load("models/vae"), precision=sample.precision)
        sampler = VideoSampler(Path("models/lvdm"), sample)
        with atomic_dir(out) as tmp:
            animate_guest(latents, cfg.ef, sampler, codec, tmp, params.seed)
            rows = side_by_side(data, reconstructed, tmp, cfg.ef, sample.frames)
            fps = float(latents.table["FPS"].iloc[0])
            tiles = [clip for row in rows for clip in row]
            write_bytes(tmp / "mosaic.webp", webp(tiles, fps, columns=2 + len(cfg.ef)))

        fps = EfRegressor.load(regressor / "seed0").fps
        real = load_frames(data, fps, cache, entry.label)
        generated = load_frames(out, fps, cache)
        encoder = HeartEncoder.load(reid)
        own = [
            np.concatenate([generated.video(v * len(cfg.ef) + k) for k in range(len(cfg.ef))])
            for v in range(len(latents))
        ]
        numbers = {
            **read_json(Path(f"metrics/encode/{dataset}.json")),
            **identity_numbers(latents, own, codec, encoder),
            **ef_numbers(
                generated.ef, measure_ef(regressor, generated, 4), real.ef,
                measure_ef(regressor, real, 4), params.seed,
            ),
        }  # fmt: skip
        run.output(out)
        run.artifact(out / "mosaic.webp")
        run.final(numbers, Path(f"metrics/animate/{dataset}.json"))


if __name__ == "__main__":
    command(main, dataset="name under `animate` in params.yaml")
