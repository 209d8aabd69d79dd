"""Make a dataset's release: videos, FileList, documents, manifest; record it in MLflow.

The manifest is signed when ECHOSYN_SIGNING_KEY names a file with a private ed25519 key.

python -m pipelines.release phantom
"""

from pathlib import Path

from echosyn.runtime.stage import command, params_here


def main(dataset: str) -> None:
    import tempfile

    from echosyn.privacy.gate.requirements import Thresholds
    from echosyn.release.build import ReleaseConfig, build_release, require_audit, require_gate
    from echosyn.release.evidence import write_evidence
    from echosyn.release.manifest import MANIFEST
    from echosyn.release.provenance import provenance
    from echosyn.release.sign import signing_key
    from echosyn.runtime.config import build
    from echosyn.runtime.files import read_json, sha256_file
    from echosyn.tracking import release_run

    params = params_here()
    config = params.stage("release", ReleaseConfig)
    key = signing_key()
    samples, out = Path("samples", dataset), Path("releases", dataset)
    require_gate(Path("gates/release", f"{dataset}.json"), samples)
    settings, where = params.settings("privacy_audit")
    thresholds = build(Thresholds, settings.get("thresholds"), f"{where}: thresholds")
    require_audit(Path("audit", dataset), samples, thresholds)
    manifest = build_release(
        samples,
        Path("data/train", dataset),
        out,
        config=config,
        name=config.name or f"echosyn-{dataset}",
        label=params.dataset(dataset).label,
        provenance=provenance(params.root, dataset),
        metrics=read_json(f"metrics/evaluate/{dataset}.json"),
        key=key,
        tracings=Path("tracings", dataset),
    )
    with tempfile.TemporaryDirectory() as folder:
        write_evidence(
            Path(folder),
            out,
            Path("evaluation", dataset),
            Path("privacy", dataset, "hearts/scores.csv"),
        )
        release_run(manifest, dataset, sha256_file(out / MANIFEST), Path(folder))
    print(f"release: {out}, {manifest['name']} {manifest['version']}, {manifest['videos']} videos")


if __name__ == "__main__":
    command(main, dataset="name of the dataset in params.yaml")
