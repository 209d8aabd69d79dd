"""Train the further arms of the EF comparison that `ef_arms` in params.yaml names.

python -m pipelines.train_ef_arms phantom

Mixtures of real and synthetic video at several ratios, few real videos with and without synthetic
ones, and arms that start from another dataset's regressor (echosyn.training.arms has the names).
"""

from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(dataset: str) -> None:
    from echosyn.cluster import fit
    from echosyn.runtime.process import state_root
    from echosyn.training.arms import more_arms
    from echosyn.training.ef import TrainEfConfig
    from echosyn.training.ef_arms import EfArms, train_arms

    params = torch_params()
    cfg = params.stage("train_ef", TrainEfConfig)
    names = more_arms(params.raw, dataset)
    arms = EfArms(params, cfg, dataset, state_root() / "frames")
    out = Path("models/ef") / dataset / "more"
    train_arms(fit, f"{dataset}-more", arms, {name: name for name in names}, out)


if __name__ == "__main__":
    command(main, dataset="name under `ef_arms` in params.yaml")
