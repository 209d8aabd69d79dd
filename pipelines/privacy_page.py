"""Draw the data steward's page on the privacy of a dataset's release.

python -m pipelines.privacy_page phantom

Writes pages/<dataset>: privacy.html, which shows patients and stays local, and
privacy_without_patients.html, which the run keeps.
"""

from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(dataset: str) -> None:
    import pandas as pd

    from echosyn.privacy.filters.video_detectors import RealVideos
    from echosyn.privacy.gate.requirements import AUDIT, hold_against
    from echosyn.privacy.release_audit import PLANTED, AuditConfig
    from echosyn.report.privacy_build import build_privacy_pages
    from echosyn.report.privacy_page import PAGE, PUBLIC
    from echosyn.runtime.files import atomic_dir, read_json, write_text
    from echosyn.runtime.process import state_root
    from echosyn.tracking import stage_run

    params = torch_params()
    cfg = params.stage("privacy_audit", AuditConfig)
    audit, privacy, samples, out = (
        Path(p) / dataset for p in ("audit", "privacy", "samples", "pages")
    )
    latents, real = Path("latents/train") / dataset, Path("data/train") / dataset
    with stage_run("privacy_page", dataset, {}, [audit, privacy, samples, latents]) as run:
        numbers = read_json(audit / AUDIT)["numbers"]
        pages = build_privacy_pages(
            dataset,
            hold_against(numbers, cfg.thresholds),
            cfg,
            numbers,
            [pd.read_csv(audit / name) for name in PLANTED.values()],
            privacy,
            samples,
            RealVideos.open(latents, real, state_root() / "frames", params.dataset(dataset).label),
        )
        with atomic_dir(out) as tmp:
            for name, page in pages.items():
                write_text(tmp / name, page)
            run.artifact(tmp / PUBLIC)
    print(f"privacy_page: {out / PAGE}")


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
