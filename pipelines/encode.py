"""Encode a dataset's videos to VAE latents, and decode them again to see what the VAE keeps.

python -m pipelines.encode phantom

Writes latents/<role>/<dataset> and reconstructions/<role>/<dataset> (EchoNet layout).
"""

import dataclasses
from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.cluster import run_shards
    from echosyn.data.frames import VideoFolder
    from echosyn.encoding.codec import EncodeConfig, VideoCodec
    from echosyn.encoding.encode import encode_shard, finish_encoding
    from echosyn.models.vae import Vae
    from echosyn.runtime.process import state_root
    from echosyn.runtime.shards import Make, finish, work_dir
    from echosyn.tracking import stage_run

    params = torch_params()
    cfg = params.stage("encode", EncodeConfig)
    entry = params.dataset(dataset)
    source, place = Path("data") / entry.role / dataset, Path(entry.role) / dataset
    inputs = [source, Path("models/vae")]
    work = work_dir(state_root(), "encode", dataset, dataclasses.asdict(cfg), inputs)
    with stage_run("encode", dataset, cfg, inputs, work) as run:
        videos = VideoFolder.open(source, cfg.fps, entry.label)

        def worker() -> Make:
            codec = VideoCodec(Vae.load("models/vae"), cfg.batch, cfg.precision)
            return lambda rows, folder: encode_shard(codec, videos, rows, folder)

        shards = run_shards(work, len(videos), cfg.shard, worker, "encode", "video")
        outs = [Path("latents") / place, Path("reconstructions") / place]
        numbers = finish_encoding(shards, videos, *outs)
        for out in outs:
            run.output(out)
        run.final(numbers, Path(f"metrics/encode/{dataset}.json"))
    finish(work)


if __name__ == "__main__":
    command(main, dataset="name under datasets in params.yaml")
