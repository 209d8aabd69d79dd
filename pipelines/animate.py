"""Animate a guest's own hearts at the EFs asked for, with the models of another dataset.

python -m pipelines.animate my_clips

Writes animated/<dataset>: the videos in EchoNet layout and mosaic.webp, a row per video: real,
reconstructed, then each EF. With `counterfactual: true` also the folder `counterfactual` in it,
alike: each very video unchanged, then at each EF.
"""

import dataclasses
from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(dataset: str) -> None:
    import numpy as np

    from echosyn.data.frames import load_frames
    from echosyn.data.latents import LatentSet
    from echosyn.diffusion.generate import VideoSampler
    from echosyn.diffusion.settings import SampleVideosConfig
    from echosyn.encoding.codec import VideoCodec
    from echosyn.metrics.ef_meter import CLIPS, measure_ef
    from echosyn.models.ef_regressor import EfRegressor
    from echosyn.models.vae import Vae
    from echosyn.privacy.detectors.embedding import HeartEncoder
    from echosyn.report.mosaic import webp
    from echosyn.runtime.config import build
    from echosyn.runtime.files import atomic_dir, read_json, write_bytes
    from echosyn.runtime.process import state_root
    from echosyn.synthesis.animate import (
        COUNTERFACTUAL,
        AnimateConfig,
        Identities,
        animate_guest,
        animated_names,
        clips_by_video,
        counterfactual_guest,
        counterfactual_names,
        counterfactual_numbers,
        ef_numbers,
        side_by_side,
        unchanged_ssim,
    )
    from echosyn.tracking import stage_run

    params = torch_params()
    cfg = build(AnimateConfig, params.entry("animate", dataset), f"params.yaml: animate.{dataset}")
    sample, entry = params.stage("sample_videos", SampleVideosConfig), params.dataset(dataset)
    data, latents_folder = Path("data/guest") / dataset, Path("latents/guest") / dataset
    reconstructed, beats = Path("reconstructions/guest") / dataset, Path("beats/guest") / dataset
    reid, regressor = Path("models/reid") / cfg.models, Path("models/ef") / cfg.models / "real"
    lvdm = Path("models") / sample.model
    image = Path("models/lidm") / cfg.models if sample.image_steps else None
    inputs = [
        latents_folder,
        beats,
        Path("models/vae"),
        lvdm,
        reid,
        regressor,
        *([image] if image else []),
    ]
    out, cache = Path("animated") / dataset, state_root() / "frames"
    settings = {**dataclasses.asdict(cfg), "sampling": dataclasses.asdict(sample)}
    with stage_run("animate", dataset, settings, inputs) as run:
        latents = LatentSet(latents_folder, beats=beats)
        codec = VideoCodec(Vae.load("models/vae"), precision=sample.precision)
        sampler = VideoSampler(lvdm, sample, image)
        sampler.warn(cfg.ef)
        people = Identities(latents, codec, HeartEncoder.load(reid))
        fps = EfRegressor.load(regressor / "seed0").fps
        real = load_frames(data, fps, cache, entry.label)
        real_ef = measure_ef(regressor, real, CLIPS)

        def compared(
            folder: Path, names: list[list[str]], frames: int | None = None
        ) -> list[list[np.ndarray]]:
            """The clips side by side, and their mosaic written to the folder."""
            rows = side_by_side(data, reconstructed, folder, names, frames)
            rate, tiles = (
                float(latents.table["FPS"].iloc[0]),
                [clip for row in rows for clip in row],
            )
            write_bytes(folder / "mosaic.webp", webp(tiles, rate, columns=len(rows[0])))
            return rows

        with atomic_dir(out) as tmp:
            animate_guest(latents, cfg.ef, sampler, codec, tmp, params.seed)
            compared(tmp, animated_names(latents, cfg.ef), sample.frames)
            if cfg.counterfactual:
                part, own_ef = tmp / "counterfactual", np.clip(real_ef, 0, 100)
                used = counterfactual_guest(latents, own_ef, cfg.ef, sampler, codec, part)
                names = counterfactual_names(latents, used, cfg.ef)
                clips = compared(part, names)

        generated = load_frames(out, fps, cache)
        made = clips_by_video(generated, np.arange(len(latents)))
        numbers = {
            **read_json(Path(f"metrics/encode/{dataset}.json")),
            **people.verification(),
            **people.kept(made, "animate"),
            **ef_numbers(
                generated.ef, measure_ef(regressor, generated, CLIPS), real.ef, real_ef, params.seed
            ),
        }
        if cfg.counterfactual:
            generated = load_frames(out / "counterfactual", fps, cache)
            rebuilt = load_frames(reconstructed, fps, cache, "none").take(used)
            grid = len(used), -1  # a row per video, the unchanged one first
            numbers |= counterfactual_numbers(
                generated.ef.reshape(grid),
                measure_ef(regressor, generated, CLIPS).reshape(grid),
                measure_ef(regressor, rebuilt, CLIPS),
                params.seed,
            )
            numbers |= unchanged_ssim([row[:3] for row in clips])
            numbers |= people.kept(clips_by_video(generated, used), COUNTERFACTUAL)
        run.output(out)
        run.artifact(out / "mosaic.webp")
        run.final(numbers, Path(f"metrics/animate/{dataset}.json"))


if __name__ == "__main__":
    command(main, dataset="name under `animate` in params.yaml")
