"""Segment the left ventricle without labels: masks from what the video model answers to EF.

python -m pipelines.weak_segmentation phantom

Animates accepted hearts at several EFs, makes masks of the answers and trains a segmenter on these
pairs alone; beside it one on the same frames with the masks of the segmentation model. Both are
tested on real TEST. Writes models/weak_segmentation/<dataset>.
"""

import dataclasses
from pathlib import Path

from echosyn.runtime.stage import command, torch_params

SHARD = 4  # hearts, the unit of resume


def main(dataset: str) -> None:
    import torch

    from echosyn.attribution.experiment import diastolic
    from echosyn.attribution.weak import (
        WeakConfig,
        exact_scores,
        grouped,
        mask_scores,
        pair_maker,
        read_pairs,
        relabelled,
        scores_on_test,
    )
    from echosyn.cluster import fit, run_shards
    from echosyn.data.latents import LatentSet
    from echosyn.diffusion.settings import SampleVideosConfig
    from echosyn.encoding.codec import VideoCodec
    from echosyn.models.segmenter import Segmenter
    from echosyn.models.vae import Vae
    from echosyn.privacy.filters.hearts import AcceptedHearts
    from echosyn.report.plots import png
    from echosyn.report.tracing_plots import mask_rows, real_rows, tracing_figure
    from echosyn.runtime.files import atomic_dir, write_bytes, write_json
    from echosyn.runtime.process import state_root
    from echosyn.runtime.shards import finish, work_dir
    from echosyn.segmentation.files import NONE
    from echosyn.segmentation.task import SegmentationConfig, SegmentationTask, dices, traced_frames
    from echosyn.tracking import nested_run, stage_run

    params = torch_params()
    cfg = params.named("weak_segmentation", "weak_segmentation", dataset, WeakConfig)
    training = params.stage("train_segmentation", SegmentationConfig)
    sampling = params.stage("sample_videos", SampleVideosConfig)
    data, latents, beats = (Path(p, "train", dataset) for p in ("data", "latents", "beats"))
    models, accepted = Path("models"), Path("privacy") / dataset / "hearts"
    metrics = Path(f"metrics/weak_segmentation/{dataset}.json")
    segmenter, out = models / "segmentation" / dataset, models / "weak_segmentation" / dataset
    inputs = [data, latents, beats, accepted, models / "lvdm", models / "vae", segmenter]
    inputs += [models / "speckle" / dataset] if sampling.speckle else []
    settings = {
        **dataclasses.asdict(cfg),
        "train": dataclasses.asdict(training),
        "seed": params.seed,
    }
    others = {"sampling": dataclasses.asdict(sampling)}
    work = work_dir(state_root(), "weak_segmentation", dataset, {**settings, **others}, inputs)
    with stage_run("weak_segmentation", dataset, settings, inputs, work) as run:
        drawn, train = AcceptedHearts(accepted), LatentSet(latents, "TRAIN", beats)
        hearts = drawn.take(drawn.indices[: cfg.hearts])
        # Real hearts go the same way, to hold the masks against tracings that no training sees.
        codec = VideoCodec(Vae.load(models / "vae"), precision=sampling.precision)
        known = traced_frames(data, "TEST", cfg.exact)
        own = codec.encode(known.frames[diastolic(known)])[0] if known.videos else hearts[:0]
        maker = pair_maker(
            models, dataset, sampling, cfg, torch.cat([hearts, own]), train, params.seed
        )
        folders = run_shards(
            work / "pairs", len(maker.hearts), SHARD, maker.worker, "weak_segmentation", "heart"
        )
        pairs = read_pairs(folders, len(hearts))
        numbers, taught = pairs.numbers, {"answers": (pairs.train, pairs.val)}
        if known.videos:
            numbers |= exact_scores(codec, known, pairs.seeds[len(hearts) :], params.seed)
        if pairs.too_few:
            print(f"{dataset}: {pairs.too_few}: no model")
            with atomic_dir(out) as tmp:
                write_json(tmp / NONE, {"reason": pairs.too_few})
            run.output(out)
            run.final(grouped(numbers), metrics)
            return
        nets, tested, test = {}, {}, traced_frames(data, "TEST")
        if not (segmenter / NONE).is_file():
            net = Segmenter.load(segmenter)
            taught["traced"] = relabelled(pairs.train, net), relabelled(pairs.val, net)
            masks = relabelled(pairs.all, net).masks
            numbers |= mask_scores("against_model", masks, pairs.all, params.seed)
            tested["real"] = dices(net, test)
        for name, some in taught.items():
            with nested_run(run, f"weak_segmentation/{dataset}/{name}", {}) as log:
                nets[name] = fit(
                    SegmentationTask(training, *some), training.loop, params.seed, work / name, log,
                    f"weak_segmentation {name}", "weak_segmentation",
                )  # fmt: skip
            tested[name] = dices(nets[name], test)
        if test.videos:
            numbers |= scores_on_test(tested, test, params.seed)
        with atomic_dir(out) as tmp:
            nets["answers"].save(tmp)
            rows = [*mask_rows(pairs.all), *real_rows(data, nets["answers"])]
            write_bytes(tmp / "masks.png", png(tracing_figure(rows)))
            run.artifact(tmp / "masks.png")
        run.output(out)
        run.final(grouped(numbers), metrics)
    finish(work)


if __name__ == "__main__":
    command(main, dataset="name under `weak_segmentation` in params.yaml")
