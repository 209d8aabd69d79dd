"""Write a dataset's report, one HTML page for the data steward, and keep it with the release's run.

It says what changed since the last version that was published below this one, of which DVC knows
nothing: git's tags are no dependency. A version does not change, and none is published below
another, so a version's page can only be too old by versions that were tagged after it was made:
`dvc repro -f -s report@phantom` then.

python -m pipelines.report phantom
"""

from pathlib import Path

from echosyn.runtime.stage import command, params_here


def main(dataset: str) -> None:
    import tempfile

    import pandas as pd

    from echosyn.privacy.gate.requirements import AUDIT, Thresholds, hold_against
    from echosyn.release.manifest import MANIFEST, read_manifest
    from echosyn.release.store import published_before
    from echosyn.report.build import attribution_shown, build_report
    from echosyn.runtime import timing
    from echosyn.runtime.config import build
    from echosyn.runtime.files import read_json, sha256_file, write_bytes, write_text
    from echosyn.tracking import recorded_release

    params = params_here()

    def table(path: str) -> pd.DataFrame | None:
        return pd.read_csv(path) if Path(path).exists() else None

    settings, where = params.settings("privacy_audit")
    thresholds = build(Thresholds, settings.get("thresholds"), f"{where}: thresholds")
    asked = {
        name: params.entry("attribution", name)
        for name in params.entries_of("attribution", dataset)
    }
    names = ("all", dataset, f"{dataset}-*")
    found = sorted(path for name in names for path in Path("metrics").glob(f"*/{name}.json"))
    release = Path("releases", dataset)
    manifest = read_manifest(release)
    report = build_report(
        dataset,
        params.dataset(dataset).label,
        manifest=manifest,
        real=Path("data/train", dataset),
        reconstructed=Path("reconstructions/train", dataset),
        samples=Path("samples", dataset),
        requested=table(f"evaluation/{dataset}/requested.csv"),
        predictions=table(f"evaluation/{dataset}/predictions.csv"),
        scores=table(f"privacy/{dataset}/hearts/scores.csv"),
        metrics=read_json(f"metrics/evaluate/{dataset}.json"),
        others={
            f"{path.parent.name} {path.stem}": read_json(path)
            for path in found
            if path.parent.name != "evaluate"
        },
        gate=hold_against(read_json(Path("audit", dataset, AUDIT))["numbers"], thresholds),
        thresholds=thresholds,
        took=timing.kept(timing.folder()),
        previous=published_before(dataset, manifest),
        strangest=Path("privacy", dataset, "videos/strangest.npz"),
        attributions=[
            attribution_shown(
                name,
                entry["model"],
                Path("attribution", name, "attribution.png").read_bytes(),
                read_json(f"metrics/attribution/{name}.json"),
            )
            for name, entry in asked.items()
        ],
    )
    out = Path("reports", dataset, "index.html")
    write_text(out, report.page)
    name = f"{manifest['name']}@v{manifest['version']}"
    with (
        recorded_release(name, sha256_file(release / MANIFEST)) as run,
        tempfile.TemporaryDirectory() as folder,
    ):
        for sheet, picture in report.sheets.items():
            write_bytes(Path(folder, sheet), picture)
        write_text(Path(folder, "report.html"), report.page)
        run.artifact(folder, "report")
    print(f"report: {out}")


if __name__ == "__main__":
    command(main, dataset="name of the dataset in params.yaml")
