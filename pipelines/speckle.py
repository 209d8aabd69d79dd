"""Learn what the VAE takes from a dataset's pictures: the statistics of speckle.

python -m pipelines.speckle phantom

Compares TRAIN's videos with their reconstructions and writes models/speckle/<dataset>, which
sample_videos paints synthetic videos with.
"""

from pathlib import Path

from echosyn.runtime.stage import command, params_here


def main(dataset: str) -> None:
    from echosyn.data.speckle_pairs import train_pairs
    from echosyn.models.speckle import Speckle, UnlearnedError
    from echosyn.runtime.files import atomic_dir
    from echosyn.tracking import stage_run

    params_here()
    real, rebuilt = Path("data/train") / dataset, Path("reconstructions/train") / dataset
    out = Path("models/speckle") / dataset
    with stage_run("speckle", dataset, {}, inputs=[real, rebuilt]) as run:
        try:
            learned = Speckle.learn(train_pairs(real, rebuilt))
        except UnlearnedError as e:
            print(f"{dataset}: {e}: its synthetic videos stay unpainted")
            learned = Speckle.none()
        with atomic_dir(out) as tmp:
            learned.save(tmp)
        run.output(out)
        run.final(learned.numbers(), Path(f"metrics/speckle/{dataset}.json"))


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
