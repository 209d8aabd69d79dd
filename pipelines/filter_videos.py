"""Refuse finished videos that show a patient's, animate other hearts in their place.

python -m pipelines.filter_videos phantom

For a dataset under `anomaly` in params.yaml, the strangest too, as its detector finds them. Writes
samples/<dataset>, the videos that may be released, and privacy/<dataset>/videos: scores and taus,
which stay local.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.cluster import run_shards
    from echosyn.diffusion.settings import sampling_of
    from echosyn.encoding.codec import EncodeConfig
    from echosyn.models.anomaly import AnomalyDetector
    from echosyn.privacy.filters.video_scores import VideoFilterConfig
    from echosyn.runtime.files import atomic_dir
    from echosyn.runtime.process import state_root
    from echosyn.runtime.shards import Make, finish, work_dir
    from echosyn.synthesis.replace import Sources, filter_finished
    from echosyn.synthesis.strangest import write_strangest
    from echosyn.synthesis.video_writer import VideoModels
    from echosyn.tracking import stage_run

    params = torch_params()
    cfg = params.stage("filter_videos", VideoFilterConfig)
    sampling = sampling_of(params, dataset)
    encoding = params.stage("encode", EncodeConfig)
    models, train = VideoModels.of(sampling, Path("models"), dataset), Path("train") / dataset
    sources = Sources(
        dataset, Path("candidates") / dataset, Path("privacy") / dataset / "hearts",
        Path("latents") / train, Path("data") / train, Path("models/reid") / dataset, models,
        state_root() / "frames", params.dataset(dataset).label,
        Path("detectors") / dataset if dataset in (params.raw.get("anomaly") or {}) else None,
    )  # fmt: skip
    inputs = [sources.candidates, sources.hearts, sources.latents, sources.videos, sources.encoder]
    inputs += models.read_by(sampling) + ([sources.anomaly] if sources.anomaly else [])
    settings = {**dataclasses.asdict(cfg), "seed": params.seed}
    others = {"sampling": dataclasses.asdict(sampling), "encoding": dataclasses.asdict(encoding)}
    work = work_dir(state_root(), "filter_videos", dataset, {**settings, **others}, inputs)
    scores, out = Path("privacy") / dataset / "videos", Path("samples") / dataset
    with stage_run("filter_videos", dataset, settings, inputs, work) as run:

        def shards(
            folder: Path, items: int, size: int, worker: Callable[[], Make], label: str
        ) -> list[Path]:
            return run_shards(folder, items, size, worker, "filter_videos", "video", label)

        result = filter_finished(sources, cfg, sampling, encoding, params.seed, work, shards)
        with atomic_dir(scores) as tmp:
            result.write(tmp)
            if sources.anomaly:
                write_strangest(tmp, result, AnomalyDetector.load(sources.anomaly))
        result.write_samples(out)
        run.output(scores)
        run.output(out)
        run.final(result.numbers(), Path(f"metrics/filter_videos/{dataset}.json"))
    finish(work)


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
