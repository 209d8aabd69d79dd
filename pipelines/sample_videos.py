"""Animate a dataset's accepted hearts with the LVDM, at EFs drawn as params say.

python -m pipelines.sample_videos phantom

Writes candidates/<dataset> in EchoNet layout. EF is the one asked for, or with `ef_truth: relabel`
the one that the real-trained regressors measure. filter_videos decides which of them are released.
"""

import dataclasses
from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.cluster import run_shards
    from echosyn.data.latents import LatentSet
    from echosyn.diffusion.settings import sampling_of
    from echosyn.privacy.filters.hearts import AcceptedHearts
    from echosyn.runtime.process import state_root
    from echosyn.runtime.shards import Make, finish, work_dir
    from echosyn.synthesis.samples import (
        finish_samples,
        plan_samples,
        sample_numbers,
        sample_shard,
    )
    from echosyn.synthesis.video_writer import VideoModels
    from echosyn.tracking import stage_run

    params = torch_params()
    cfg = sampling_of(params, dataset)
    hearts, latents = Path("privacy") / dataset / "hearts", Path("latents/train") / dataset
    models = VideoModels.of(cfg, Path("models"), dataset)
    beats = Path("beats/train") / dataset
    inputs = [hearts, latents / "index.csv", beats / "beats.csv", *models.read_by(cfg)]
    settings = {**dataclasses.asdict(cfg), "seed": params.seed}
    work = work_dir(state_root(), "sample_videos", dataset, settings, inputs)
    out = Path("candidates") / dataset
    with stage_run("sample_videos", dataset, settings, inputs, work) as run:
        real, label = LatentSet(latents, "TRAIN", beats), params.dataset(dataset).label
        plan = plan_samples(dataset, cfg, AcceptedHearts(hearts), real, params.seed, label)
        own_fps = float(real.table["FPS"].iloc[0])
        sampler = models.sampler(cfg, plan.fps, own_fps)  # refuses here what no worker could do
        print(sampler.cost())
        sampler.warn(plan.ef)
        passes = {"sample_videos/frames_through_network": sampler.frame_passes()}
        del sampler

        def worker() -> Make:
            sampler, codec, speckle, meter = models.open(cfg, plan.fps, own_fps, plan.has_ef)
            return lambda rows, folder: sample_shard(
                sampler, codec, plan, rows, folder, params.seed, speckle, meter
            )

        shards = run_shards(work, len(plan.table), cfg.shard, worker, "sample_videos", "video")
        table = finish_samples(shards, plan, out)
        run.output(out)
        numbers = {**sample_numbers(table, shards, cfg, params.seed), **passes}
        run.final(numbers, Path(f"metrics/sample_videos/{dataset}.json"))
    finish(work)


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
