"""Attack the filters and the released samples, and hold the numbers against what a release needs.

python -m pipelines.privacy_audit phantom

Writes audit/<dataset>: audit.json, without which there is no release, and what became of planted
copies. `privacy_page` shows it.
"""

import dataclasses
from functools import partial
from pathlib import Path

from echosyn.runtime.stage import command, torch_params

OTHERS = 4  # released videos among which planted ones are scored, each by itself


def main(dataset: str) -> None:
    from echosyn.data.filelist import read_filelist
    from echosyn.data.latents import LatentSet
    from echosyn.diffusion.hearts import read_hearts
    from echosyn.diffusion.objectives import load_objective
    from echosyn.diffusion.settings import SampleVideosConfig
    from echosyn.encoding.codec import EncodeConfig
    from echosyn.models.published_image import load_image
    from echosyn.models.speckle import Speckle
    from echosyn.privacy.attacks.disguise import augment_videos
    from echosyn.privacy.attacks.membership import denoising_losses
    from echosyn.privacy.detectors.embedding import Gallery, HeartEncoder
    from echosyn.privacy.filters.calibration import read_taus
    from echosyn.privacy.filters.hearts import TAUS, AcceptedHearts, PrivacyConfig
    from echosyn.privacy.filters.video_detectors import RealVideos, VideoFilter
    from echosyn.privacy.filters.video_scores import VideoFilterConfig
    from echosyn.privacy.gate.requirements import AUDIT, hold_against
    from echosyn.privacy.release_audit import (
        PLANTED,
        AuditConfig,
        as_released,
        audit_hearts,
        audit_videos,
        released_clips,
        released_latents,
        training_clips,
    )
    from echosyn.runtime.files import atomic_dir, read_json, sha256_file, write_json
    from echosyn.runtime.process import state_root
    from echosyn.synthesis.samples import released_hearts
    from echosyn.tracking import stage_run

    params = torch_params()
    seed, cfg = params.seed, params.stage("privacy_audit", AuditConfig)
    hearts_cfg = params.stage("privacy_filter", PrivacyConfig)
    videos_cfg = params.stage("filter_videos", VideoFilterConfig)
    latents, real = Path("latents/train") / dataset, Path("data/train") / dataset
    privacy, samples, out = (Path(p) / dataset for p in ("privacy", "samples", "audit"))
    reid, lidm, vae = Path("models/reid") / dataset, Path("models/lidm") / dataset, "models/vae"
    beats, texture = Path("beats/train") / dataset, Path("models/speckle") / dataset
    painted = params.stage("sample_videos", SampleVideosConfig).speckle
    inputs = [Path("hearts") / dataset, privacy, samples, latents, beats, reid, lidm, Path(vae)]
    inputs += [texture] if painted else []
    settings = {**dataclasses.asdict(cfg), "seed": seed}
    with stage_run("privacy_audit", dataset, settings, inputs) as run:
        sets = {name: LatentSet(latents, name, beats) for name in ("TRAIN", "VAL", "TEST")}
        encoder, accepted = HeartEncoder.load(reid), AcceptedHearts(privacy / "hearts")
        made_with = hearts_cfg.made_with(latents, encoder)
        tau = read_taus(privacy / "hearts" / TAUS, made_with)["hearts"]
        gallery = Gallery.of(encoder, sets["TRAIN"], hearts_cfg.gallery_frames, hearts_cfg.mirrors)
        generator, objective = load_image(lidm).to(encoder.device), load_objective(lidm)
        losses = partial(denoising_losses, generator, objective, cfg=cfg.attacks, seed=seed)
        hearts = audit_hearts(
            sets, gallery, tau, read_hearts(inputs[0]), released_hearts(accepted, samples),
            losses, cfg, seed,
        )  # fmt: skip

        label = params.dataset(dataset).label
        videos = RealVideos.open(latents, real, state_root() / "frames", label)
        encoding = params.stage("encode", EncodeConfig)
        refuse = VideoFilter.load(privacy / "videos", videos, reid, Path(vae), videos_cfg, encoding)
        copies, fps = cfg.planted_videos.copies, videos.fps
        clips, people = training_clips(videos.split("TRAIN"), refuse.frames, copies, seed)
        released = released_latents(samples, cfg.frames_per_video, fps, refuse.scorer.embeddable)
        others = released_clips(samples, refuse.frames, OTHERS, fps, seed)
        speckle = Speckle.load(texture) if painted else None
        rebuild = as_released(refuse.scorer.rebuild, speckle, seed)
        finished = audit_videos(
            sets, gallery, released, read_filelist(samples / "FileList.csv", "none"), clips, people,
            others, refuse, augment_videos, rebuild, cfg, seed,
        )  # fmt: skip

        measured = {**hearts.numbers, **finished.numbers}
        if dataset in (params.raw.get("canary") or {}):
            measured |= read_json(Path(f"metrics/canary/{dataset}.json"))
        numbers = dict(measured)
        for stage in ("train_reid", "privacy_filter", "filter_videos"):
            numbers |= read_json(Path(f"metrics/{stage}/{dataset}.json"))
        outcome = hold_against(numbers, cfg.thresholds)
        with atomic_dir(out) as tmp:
            listed = sha256_file(samples / "FileList.csv")
            write_json(tmp / AUDIT, {"filelist_sha256": listed, "numbers": numbers})
            hearts.planted.to_csv(tmp / PLANTED["hearts"], index=False)
            finished.planted.to_csv(tmp / PLANTED["videos"], index=False)
        run.final({**measured, **outcome.numbers()}, Path(f"metrics/privacy_audit/{dataset}.json"))
    print(f"privacy_audit: {len(outcome.failures())} checks stop a release")


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
