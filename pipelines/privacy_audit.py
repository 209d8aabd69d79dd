"""Attack the filters and the released samples, and hold the numbers against what a release needs.

python -m pipelines.privacy_audit phantom

Writes audit/<dataset>: audit.json, without which there is no release, and what became of planted
copies. `privacy_page` shows it.
"""

import dataclasses
from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.diffusion.settings import SampleVideosConfig
    from echosyn.encoding.codec import EncodeConfig
    from echosyn.privacy.dataset_audit import AuditedFolders, FilterSettings, audit_dataset
    from echosyn.privacy.filters.hearts import PrivacyConfig
    from echosyn.privacy.filters.video_scores import VideoFilterConfig
    from echosyn.privacy.gate.requirements import AUDIT, hold_against
    from echosyn.privacy.release_audit import PLANTED, AuditConfig
    from echosyn.runtime.files import atomic_dir, read_json, sha256_file, write_json
    from echosyn.runtime.process import state_root
    from echosyn.tracking import stage_run

    params = torch_params()
    seed, cfg = params.seed, params.stage("privacy_audit", AuditConfig)
    filters = FilterSettings(
        params.stage("privacy_filter", PrivacyConfig),
        params.stage("filter_videos", VideoFilterConfig),
        params.stage("encode", EncodeConfig),
    )
    painted = params.stage("sample_videos", SampleVideosConfig).speckle
    samples, train, models = Path("samples") / dataset, Path("train") / dataset, Path("models")
    folders = AuditedFolders(
        drawn=Path("hearts") / dataset,
        privacy=Path("privacy") / dataset,
        samples=samples,
        latents=Path("latents") / train,
        beats=Path("beats") / train,
        videos=Path("data") / train,
        encoder=models / "reid" / dataset,
        image=models / "lidm" / dataset,
        vae=models / "vae",
        speckle=models / "speckle" / dataset if painted else None,
        cache=state_root() / "frames",
    )
    settings, out = {**dataclasses.asdict(cfg), "seed": seed}, Path("audit") / dataset
    with stage_run("privacy_audit", dataset, settings, folders.read) as run:
        label = params.dataset(dataset).label
        hearts, videos = audit_dataset(folders, label, cfg, filters, seed)
        measured = {**hearts.numbers, **videos.numbers}
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
            videos.planted.to_csv(tmp / PLANTED["videos"], index=False)
        run.final({**measured, **outcome.numbers()}, Path(f"metrics/privacy_audit/{dataset}.json"))
    print(f"privacy_audit: {len(outcome.failures())} checks stop a release")


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
