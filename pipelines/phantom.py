"""Write the built-in phantom dataset to data/raw/phantom.

python -m pipelines.phantom
"""

from pipelines._stage import command

RAW = "data/raw/phantom"
METRICS = "metrics/phantom/phantom.json"


def main() -> None:
    from echosyn.config import Params
    from echosyn.data.phantom import PhantomConfig, write_dataset
    from echosyn.runtime import project_root, threads
    from echosyn.tracking import stage_run

    root = project_root()
    params = Params(root)
    settings = params.stage("phantom", PhantomConfig)
    with stage_run("phantom", "phantom", settings) as run:
        table = write_dataset(root / RAW, settings, params.seed, threads())
        numbers = {
            "phantom/ef_mean": float(table["EF"].mean()),
            "phantom/ef_sd": float(table["EF"].std()),
            "phantom/videos": float(len(table)),
        }
        run.final(numbers, root / METRICS)


if __name__ == "__main__":
    command(main)
