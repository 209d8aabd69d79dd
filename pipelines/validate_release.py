"""Gate: is the synthetic dataset what it says?  python -m pipelines.validate_release phantom"""

from pathlib import Path

from echosyn.runtime.stage import command, params_here


def main(dataset: str) -> None:
    from echosyn.diffusion.settings import sampling_of
    from echosyn.tracking import stage_run
    from echosyn.validation import ValidateConfig, run_gate

    params = params_here()
    entry = params.dataset(dataset)
    config = params.stage("validate_release", ValidateConfig)
    counts = sampling_of(params, dataset).counts
    folder = Path("samples") / dataset
    passed = Path("gates") / "release" / f"{dataset}.json"
    docs = Path("gates") / "docs" / "release" / dataset
    with stage_run("validate_release", dataset, config, inputs=[folder]) as run:
        result = run_gate(
            "release", folder, entry.label, config, passed=passed, docs=docs, counts=counts,
            datasets=params.raw.get("datasets") or {},
        )  # fmt: skip
        run.artifact(result.page, "gate")
        run.artifact(result.record, "gate")
        result.require()
        run.final(result.metrics(), Path("metrics") / "validate_release" / f"{dataset}.json")


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
