"""Bound how likely a dataset's LIDM reproduces a training heart, by a mark planted in few of them.

python -m pipelines.canary phantom

Trains a second LIDM, as train_lidm does, on hearts some of which carry the mark; it is not kept.
Writes metrics/canary/<dataset>.json and privacy/<dataset>/canary.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    from torch import nn


def main(dataset: str) -> None:
    from echosyn.cluster import fit
    from echosyn.privacy.attacks.canary import CanaryResult
    from echosyn.report.plots import png
    from echosyn.report.privacy_plots import canary_plot
    from echosyn.runtime.files import write_bytes, write_json, write_text
    from echosyn.training.canary import MarkedConfig, MarkedLidm
    from echosyn.training.stage import train

    params = torch_params()
    cfg = MarkedConfig.of(params, dataset)
    latents, out = Path("latents/train") / dataset, Path("privacy") / dataset / "canary"
    beats = Path("beats/train") / dataset
    marked = MarkedLidm.prepare(latents, cfg, params.seed, beats)
    found: list[CanaryResult] = []

    def measure(model: "nn.Module") -> dict[str, float]:
        found.append(marked.measure(model, f"canary {dataset}"))
        return found[-1].numbers()

    def save(model: "nn.Module", folder: Path) -> None:
        table = found[-1].table()
        write_json(folder / "canary.json", {**found[-1].numbers(), **marked.facts()})
        write_text(folder / "curve.csv", table.to_csv(index=False, lineterminator="\n"))
        write_bytes(folder / "canary.png", png(canary_plot(table, found[-1].share)))

    inputs = [latents, beats]
    train(fit, "canary", dataset, cfg, params.seed, marked.task, inputs, out, save, measure)


if __name__ == "__main__":
    command(main, dataset="name under `canary` in params.yaml")
