"""Draw hearts (latents of one frame) from a dataset's LIDM, more than will be released.

python -m pipelines.sample_hearts phantom
"""

import dataclasses
from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.cluster import run_shards
    from echosyn.data.latents import LatentSet
    from echosyn.diffusion.hearts import HeartSampler, finish_hearts
    from echosyn.diffusion.moments import train_hearts
    from echosyn.diffusion.settings import SampleHeartsConfig
    from echosyn.runtime.process import state_root
    from echosyn.runtime.shards import Make, finish, work_dir
    from echosyn.tracking import stage_run

    params = torch_params()
    cfg = params.stage("sample_hearts", SampleHeartsConfig)
    model, out = Path("models/lidm") / dataset, Path("hearts") / dataset
    latents = Path("latents/train") / dataset
    settings = {**dataclasses.asdict(cfg), "seed": params.seed}
    beats = Path("beats/train") / dataset
    inputs = [model, latents, beats]
    work = work_dir(state_root(), "sample_hearts", dataset, settings, inputs)
    with stage_run("sample_hearts", dataset, settings, inputs, work) as run:

        def worker() -> Make:
            sampler = HeartSampler(model, cfg, LatentSet(latents, "TRAIN"))
            return lambda rows, folder: sampler.write_shard(rows, folder, params.seed)

        shards = run_shards(work, cfg.hearts, cfg.shard, worker, "sample_hearts", "heart")
        real = train_hearts(LatentSet(latents, "TRAIN", beats)) if cfg.match_moments else None
        finish_hearts(shards, out, real)
        run.output(out)
    finish(work)


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
