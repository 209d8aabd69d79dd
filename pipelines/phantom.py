"""Write a built-in phantom dataset to data/raw/<name>.

python -m pipelines.phantom phantom
"""

from pathlib import Path

from echosyn.runtime.stage import command, params_here


def main(name: str) -> None:
    from echosyn.data.phantom import PhantomConfig, write_dataset
    from echosyn.runtime.process import cores
    from echosyn.tracking import stage_run

    params = params_here()
    settings = params.named("phantom", "phantoms", name, PhantomConfig)
    with stage_run("phantom", name, settings) as run:
        table = write_dataset(Path("data/raw") / name, settings, params.seed, cores())
        numbers = {
            "phantom/ef_mean": float(table["EF"].mean()),
            "phantom/ef_sd": float(table["EF"].std()),
            "phantom/videos": float(len(table)),
        }
        run.final(numbers, Path(f"metrics/phantom/{name}.json"))


if __name__ == "__main__":
    command(main, name="entry of phantoms in params.yaml")
