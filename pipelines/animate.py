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
    from echosyn.diffusion.settings import SampleVideosConfig
    from echosyn.runtime.config import build
    from echosyn.runtime.files import read_json
    from echosyn.runtime.process import state_root
    from echosyn.synthesis.animate import AnimateConfig
    from echosyn.synthesis.animate_dataset import MOSAIC, GuestFolders, animate_dataset
    from echosyn.tracking import stage_run

    params = torch_params()
    cfg = build(AnimateConfig, params.entry("animate", dataset), f"params.yaml: animate.{dataset}")
    sample, label = params.stage("sample_videos", SampleVideosConfig), params.dataset(dataset).label
    place, models = Path("guest") / dataset, Path("models")
    folders = GuestFolders(
        videos=Path("data") / place,
        latents=Path("latents") / place,
        reconstructed=Path("reconstructions") / place,
        beats=Path("beats") / place,
        vae=models / "vae",
        video=models / sample.model,
        image=models / "lidm" / cfg.models if sample.image_steps else None,
        encoder=models / "reid" / cfg.models,
        regressor=models / "ef" / cfg.models / "real",
        cache=state_root() / "frames",
    )
    out, settings = Path("animated") / dataset, dataclasses.asdict(cfg)
    settings["sampling"] = dataclasses.asdict(sample)
    with stage_run("animate", dataset, settings, folders.read) as run:
        numbers = read_json(Path(f"metrics/encode/{dataset}.json"))
        numbers |= animate_dataset(folders, label, cfg, sample, params.seed, out)
        run.output(out)
        run.artifact(out / MOSAIC)
        run.final(numbers, Path(f"metrics/animate/{dataset}.json"))


if __name__ == "__main__":
    command(main, dataset="name under `animate` in params.yaml")
