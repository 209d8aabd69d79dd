"""Refuse hearts that the re-identification encoder finds too close to a patient.

python -m pipelines.privacy_filter phantom

Writes privacy/<dataset>/scores.csv, which stays local: it never enters a release.
"""

import dataclasses
from pathlib import Path

from pipelines._stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.diffusion.generate import read_hearts
    from echosyn.files import atomic_dir
    from echosyn.privacy.embedding import HeartEncoder
    from echosyn.privacy.filter import PrivacyConfig, filter_hearts
    from echosyn.report.plots import privacy_histogram
    from echosyn.tracking import stage_run

    params = torch_params()
    cfg = params.stage("privacy_filter", PrivacyConfig)
    hearts, latents = Path("hearts") / dataset, Path("latents/train") / dataset
    model, out = Path("models/reid") / dataset, Path("privacy") / dataset
    settings = {**dataclasses.asdict(cfg), "seed": params.seed}
    with stage_run("privacy_filter", dataset, settings, [hearts, latents, model]) as run:
        encoder = HeartEncoder.load(model)
        result = filter_hearts(read_hearts(hearts), latents, encoder, cfg, params.seed)
        with atomic_dir(out) as tmp:
            result.write(tmp)
        run.output(out)
        run.figure(privacy_histogram(result.table(), result.calibration.tau.value), "privacy.png")
        run.final(result.numbers(), Path(f"metrics/privacy_filter/{dataset}.json"))


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
