"""Turn a raw dataset into the canonical FileList and videos.  python -m pipelines.ingest phantom

What was not taken is listed, with reasons, in gates/docs/ingest/<dataset>/rejects.csv.
"""

from pathlib import Path

from echosyn.runtime.stage import command, params_here


def main(dataset: str) -> None:
    from echosyn.data.ingest import ingest
    from echosyn.tracking import stage_run

    entry = params_here().dataset(dataset)
    out = Path("data") / entry.role / dataset
    rejects = Path("gates/docs/ingest") / dataset / "rejects.csv"
    with stage_run("ingest", dataset, entry, inputs=[entry.path]) as run:
        report = ingest(
            entry.source, Path(entry.path), out, entry.label, entry.options, entry.max_rejects,
            rejects,
        )  # fmt: skip
        for note in report.notes:
            print(f"ingest {dataset}: {note}")
        if report.rejected or report.skipped:
            print(
                f"ingest {dataset}: {report.rejected} rejected and {report.skipped} skipped, each "
                f"with its reason in {rejects}"
            )
        run.output(out)
        run.final(
            {
                "ingest/videos": report.videos,
                "ingest/frames": report.frames,
                "ingest/rejected": report.rejected,
                "ingest/skipped": report.skipped,
            },
            Path("metrics") / "ingest" / f"{dataset}.json",
        )


if __name__ == "__main__":
    command(main, dataset="entry of datasets in params.yaml")
