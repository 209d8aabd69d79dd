"""Refuse hearts that the re-identification encoder finds too close to a patient, and draw more.

python -m pipelines.privacy_filter phantom

Writes privacy/<dataset>/hearts: the accepted hearts, tau, and scores.csv, which stays local.
"""

import dataclasses
from dataclasses import replace
from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.cluster import run_shards
    from echosyn.data.latents import LatentSet
    from echosyn.diffusion.heart_file import Hearts
    from echosyn.diffusion.hearts import HeartSampler, load_hearts, read_shards
    from echosyn.diffusion.moments import MomentMap
    from echosyn.diffusion.settings import SampleHeartsConfig, sampling_of
    from echosyn.privacy.detectors.embedding import HeartEncoder
    from echosyn.privacy.filters.hearts import PrivacyConfig, filter_hearts
    from echosyn.report.plots import privacy_histogram
    from echosyn.runtime.files import atomic_dir
    from echosyn.runtime.process import state_root
    from echosyn.runtime.shards import Make, finish, work_dir
    from echosyn.tracking import stage_run

    params = torch_params()
    cfg = params.stage("privacy_filter", PrivacyConfig)
    sampling = params.stage("sample_hearts", SampleHeartsConfig)
    wanted = sum(sampling_of(params, dataset).counts.values())
    hearts, latents = Path("hearts") / dataset, Path("latents/train") / dataset
    model, generator = Path("models/reid") / dataset, Path("models/lidm") / dataset
    out, inputs = Path("privacy") / dataset / "hearts", [hearts, latents, model, generator]
    settings = {**dataclasses.asdict(cfg), "seed": params.seed, "wanted": wanted}
    everything = {**settings, "sampling": dataclasses.asdict(sampling)}
    work = work_dir(state_root(), "privacy_filter", dataset, everything, inputs)
    moved = MomentMap.load(hearts)
    with stage_run("privacy_filter", dataset, settings, inputs, work) as run:

        def draw(first: int, count: int) -> Hearts:
            def worker() -> Make:
                sampler = HeartSampler(generator, sampling, LatentSet(latents, "TRAIN"))
                return lambda rows, folder: sampler.write_shard(
                    range(first + rows.start, first + rows.stop), folder, params.seed
                )

            part = work / f"from-{first}"
            shards = run_shards(part, count, sampling.shard, worker, "privacy_filter", "heart")
            drawn = read_shards(shards)
            return drawn if moved is None else replace(drawn, latents=moved(drawn.latents))

        encoder = HeartEncoder.load(model)
        result = filter_hearts(
            load_hearts(hearts), latents, encoder, cfg, params.seed, wanted, draw
        )
        with atomic_dir(out) as tmp:
            result.write(tmp)
        run.output(out)
        run.figure(privacy_histogram(result.table(), result.calibration.tau.value), "privacy.png")
        run.final(result.numbers(), Path(f"metrics/privacy_filter/{dataset}.json"))
    finish(work)


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
