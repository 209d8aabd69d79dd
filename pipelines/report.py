"""Write a dataset's report, one HTML page for the data steward.

python -m pipelines.report phantom
"""

from pathlib import Path

from echosyn.runtime.stage import command, params_here


def main(dataset: str) -> None:
    import pandas as pd

    from echosyn.privacy.gate.requirements import AUDIT, Thresholds, hold_against
    from echosyn.release.manifest import read_manifest
    from echosyn.report.build import build_report
    from echosyn.runtime import timing
    from echosyn.runtime.config import build
    from echosyn.runtime.files import read_json, write_text

    params = params_here()

    def table(path: str) -> pd.DataFrame | None:
        return pd.read_csv(path) if Path(path).exists() else None

    settings, where = params.settings("privacy_audit")
    thresholds = build(Thresholds, settings.get("thresholds"), f"{where}: thresholds")
    names = ("all", dataset, f"{dataset}-*")
    found = sorted(path for name in names for path in Path("metrics").glob(f"*/{name}.json"))
    page = build_report(
        dataset,
        params.dataset(dataset).label,
        manifest=read_manifest(Path("releases", dataset)),
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
        strangest=Path("privacy", dataset, "videos/strangest.npz"),
    )
    out = Path("reports", dataset, "index.html")
    write_text(out, page)
    print(f"report: {out}")


if __name__ == "__main__":
    command(main, dataset="name of the dataset in params.yaml")
