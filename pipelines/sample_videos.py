"""Animate a dataset's accepted hearts with the LVDM, at EFs drawn as params say.

python -m pipelines.sample_videos phantom

Writes candidates/<dataset> in EchoNet layout; EF is the one asked for. filter_videos decides which
of them are released.
"""

import dataclasses
from pathlib import Path

from pipelines._stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.cluster import run_shards
    from echosyn.data.latents import LatentSet
    from echosyn.data.reconstruct import VideoCodec
    from echosyn.diffusion.generate import VideoSampler
    from echosyn.diffusion.settings import SampleVideosConfig
    from echosyn.diffusion.synthesise import finish_samples, plan_samples, sample_shard
    from echosyn.models.vae import Vae
    from echosyn.privacy.filter import AcceptedHearts
    from echosyn.runtime import state_root
    from echosyn.shards import Make, finish, work_dir
    from echosyn.tracking import stage_run

    params = torch_params()
    cfg = params.stage("sample_videos", SampleVideosConfig)
    hearts, latents = Path("privacy") / dataset / "hearts", Path("latents/train") / dataset
    inputs = [hearts, Path("models/lvdm"), Path("models/vae"), latents / "index.csv"]
    settings = {**dataclasses.asdict(cfg), "seed": params.seed}
    work = work_dir(state_root(), "sample_videos", dataset, settings, inputs)
    out = Path("candidates") / dataset
    with stage_run("sample_videos", dataset, settings, inputs, work) as run:
        real = LatentSet(latents, "TRAIN")
        plan = plan_samples(dataset, cfg, AcceptedHearts(hearts), real, params.seed)

        def worker() -> Make:
            sampler = VideoSampler(Path("models/lvdm"), cfg)
            codec = VideoCodec(Vae.load("models/vae"), precision=cfg.precision)
            return lambda rows, folder: sample_shard(
                sampler, codec, plan, rows, folder, params.seed
            )

        shards = run_shards(work, len(plan.table), cfg.shard, worker, "sample_videos", "video")
        finish_samples(shards, plan, out)
        run.output(out)
        run.final(plan.numbers(), Path(f"metrics/sample_videos/{dataset}.json"))
    finish(work)


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
