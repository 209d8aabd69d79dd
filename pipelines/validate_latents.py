"""Gate: may models learn from these latents?  python -m pipelines.validate_latents phantom"""

from pathlib import Path

from echosyn.runtime.stage import command, params_here


def main(dataset: str) -> None:
    from echosyn.tracking import stage_run
    from echosyn.validation import LatentsConfig, run_latents_gate

    params = params_here()
    role = params.dataset(dataset).role
    config = params.stage("validate_latents", LatentsConfig)
    latents, folder = Path("latents") / role / dataset, Path("data") / role / dataset
    passed = Path("gates") / "latents" / role / f"{dataset}.json"
    docs = Path("gates") / "docs" / "latents" / dataset
    with stage_run("validate_latents", dataset, config, inputs=[latents, folder]) as run:
        result = run_latents_gate(
            latents, folder, config, passed=passed, docs=docs,
            datasets=params.raw.get("datasets") or {},
        )  # fmt: skip
        run.artifact(result.page, "gate")
        run.artifact(result.record, "gate")
        result.require()
        run.final(result.metrics(), Path("metrics") / "validate_latents" / f"{dataset}.json")


if __name__ == "__main__":
    command(main, dataset="entry of datasets in params.yaml")
