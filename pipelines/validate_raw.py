"""Gate: may models learn from this dataset, and has it what they need?

python -m pipelines.validate_raw phantom
"""

from pathlib import Path

from echosyn.runtime.stage import command, params_here


def main(dataset: str) -> None:
    from echosyn.tracking import stage_run
    from echosyn.validation import ValidateConfig, run_gate
    from echosyn.validation.demands import read_demands

    params = params_here()
    entry = params.dataset(dataset)
    config = params.stage("validate_raw", ValidateConfig)
    folder = Path("data") / entry.role / dataset
    passed = Path("gates") / "raw" / entry.role / f"{dataset}.json"
    docs = Path("gates") / "docs" / "raw" / dataset
    with stage_run("validate_raw", dataset, config, inputs=[folder]) as run:
        result = run_gate(
            "raw", folder, entry.label, config, passed=passed, docs=docs, counts=entry.splits,
            source=entry.source, datasets=params.raw.get("datasets") or {},
            demands=read_demands(params, dataset),
        )  # fmt: skip
        run.artifact(result.page, "gate")
        run.artifact(result.record, "gate")
        result.require()
        run.final(result.metrics(), Path("metrics") / "validate_raw" / f"{dataset}.json")


if __name__ == "__main__":
    command(main, dataset="entry of datasets in params.yaml")
