"""Train the VAE on the TRAIN frames of every dataset with role 'train'.

python -m pipelines.train_vae
"""

from pathlib import Path

from pipelines._stage import command, subfolders, torch_params


def main() -> None:
    from echosyn.data.frames import load_frames
    from echosyn.runtime import state_root
    from echosyn.training.vae import TrainVaeConfig, VaeTask, evenly_spaced_frames, standardise
    from pipelines._train import train

    params = torch_params()
    cfg = params.stage("train_vae", TrainVaeConfig)
    folders = subfolders("data/train")
    cache = state_root() / "frames"
    sets = [load_frames(f, cfg.fps, cache, params.dataset(f.name).label) for f in folders]
    fit_frames = [s.split("TRAIN") for s in sets]
    task = VaeTask(cfg, fit_frames, [s.split("VAL") for s in sets])

    def measure(vae) -> dict[str, float]:  # noqa: ANN001
        standardise(vae, evenly_spaced_frames(fit_frames, cfg.standardise_frames))
        scores = task.validate(vae)
        return {f"train_vae/val_{k}": v for k, v in scores.items()}

    train(
        "train_vae", "all", cfg, params.seed, task, folders, Path("models/vae"),
        lambda vae, folder: vae.save(folder), measure,
    )  # fmt: skip


if __name__ == "__main__":
    command(main)
