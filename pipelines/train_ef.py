"""Train the EF regressors of one arm: what of real, reconstructed and synthetic video they may see.

python -m pipelines.train_ef phantom synthetic

Protocol `strict`: the arm's own VAL stops and selects, so the synthetic arm sees no real video
before the test. `synthetic_relabelled` replaces the EF asked for by what the real-trained
regressors measure, and is named so because they have seen real video. Protocol `reference`: every
arm selects on real VAL, as EchoNet-Synthetic does, and is labelled so wherever it is reported.
A dataset that is not labelled with EF gets none.json, which says so, in place of regressors.
"""

from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(dataset: str, arm: str) -> None:
    from echosyn.cluster import fit
    from echosyn.runtime.process import state_root
    from echosyn.training.ef import TrainEfConfig
    from echosyn.training.ef_arms import EfArms, train_arms

    params = torch_params()
    cfg = params.stage("train_ef", TrainEfConfig)
    out, label = Path("models/ef") / dataset / arm, params.dataset(dataset).label
    if label != "ef":
        leave_out(dataset, arm, f"{dataset} has `label: {label}`: no EF to regress", cfg.fps, out)
        return
    arms = EfArms(params, cfg, dataset, state_root() / "frames")
    train_arms(fit, f"{dataset}-{arm}", arms, {"": arm}, out)


def leave_out(dataset: str, arm: str, reason: str, fps: float, out: Path) -> None:
    """The outputs of an arm that cannot be trained: why, in its folder, and no number."""
    from echosyn.runtime.files import atomic_dir
    from echosyn.tracking import stage_run
    from echosyn.training.arms import write_none

    with stage_run("train_ef", f"{dataset}-{arm}", {"reason": reason}) as run:
        with atomic_dir(out) as tmp:
            write_none(tmp, reason, fps)
        run.output(out)
        run.final({}, Path(f"metrics/train_ef/{dataset}-{arm}.json"))
    print(f"train_ef {dataset} {arm}: {reason}; left out")


if __name__ == "__main__":
    command(
        main,
        dataset="name under `generate` in params.yaml",
        arm="real, reconstructed, synthetic, synthetic_relabelled or real_plus_synthetic",
    )
