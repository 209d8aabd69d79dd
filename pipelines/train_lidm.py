"""Train the latent image diffusion model (LIDM), which draws hearts, on one dataset, or take
published `weights` for it.

python -m pipelines.train_lidm phantom
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    from echosyn.models.image import ImageDenoiser
    from echosyn.models.published_image import PublishedImageDenoiser
    from echosyn.tracking import StageRun


def main(dataset: str) -> None:
    from echosyn.cluster import fit
    from echosyn.models.image import GUIDE
    from echosyn.tracking import nested_run
    from echosyn.training.diffusion import TrainLidmConfig
    from echosyn.training.published_denoiser import prepare_lidm
    from echosyn.training.stage import train

    params = torch_params()
    cfg = params.stage("train_lidm", TrainLidmConfig)
    task, folders = prepare_lidm(params, cfg, dataset)
    published = cfg.weights != "none"
    guides = []

    def train_guide(run: "StageRun", work: Path) -> None:
        loop, part = cfg.guide_loop, f"train_lidm/{dataset}/{GUIDE}"
        with nested_run(run, part, {"steps": loop.steps}) as log:
            title = f"train_lidm {dataset} {GUIDE}"
            model = fit(task, loop, params.seed, work / GUIDE, log, title, "train_lidm")
            log.final(
                {"train_lidm/val_loss": task.validate(model)["loss"]}, work / GUIDE / "final.json"
            )
            guides.append(model)

    def save(model: "ImageDenoiser | PublishedImageDenoiser", folder: Path) -> None:
        model.save(folder)
        task.objective.save(folder)
        for guide in guides:
            guide.save(folder / GUIDE)

    train(
        fit, "train_lidm", dataset, cfg, params.seed, task, folders, Path("models/lidm") / dataset,
        save, lambda model: {"train_lidm/val_loss": task.validate(model)["loss"]},
        as_built=published, first=train_guide if cfg.guide and not published else None,
    )  # fmt: skip


if __name__ == "__main__":
    command(main, dataset="name under datasets in params.yaml")
