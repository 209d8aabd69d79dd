"""Train the EF regressors of one arm: what of real, reconstructed and synthetic video they may see.

python -m pipelines.train_ef phantom synthetic

Protocol `strict`: the arm's own VAL stops and selects, so the synthetic arm sees no real video
before the test. `synthetic_relabelled` replaces the EF asked for by what the real-trained
regressors measure, and is named so because they have seen real video. Protocol `reference`: every
arm selects on real VAL, as EchoNet-Synthetic does, and is labelled so wherever it is reported.
A dataset that is not labelled with EF gets none.json, which says so, in place of regressors.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.runtime.config import Params
from echosyn.runtime.stage import command, torch_params

if TYPE_CHECKING:
    from echosyn.data.frames import FrameSet
    from echosyn.training.ef import EfTask, TrainEfConfig


def prepare(
    params: Params,
    cfg: "TrainEfConfig",
    dataset: str,
    arm: str,
    k: int = 0,
    seed: int | None = None,
    videos: "Callable[[str], FrameSet] | None" = None,
) -> "tuple[EfTask, list[Path]]":
    """The task of the k-th regressor, and the folders it reads; `videos` as of `sources_of`."""
    from echosyn.training.arms import choose, folders, parse_arm
    from echosyn.training.ef import EfTask

    plan, seed = parse_arm(arm), params.seed if seed is None else seed
    of, videos = folders(dataset), videos or sources_of(dataset, cfg)
    inputs = [of[source] for source in plan.sources]
    names = dict(zip(plan.sources, plan.sources, strict=True))
    if plan.kind == "synthetic_relabelled":
        inputs.append(_real_arm(dataset))
        names["synthetic"] = plan.kind
    sets = {source: videos(name) for source, name in names.items()}
    real = sets.get("real", sets.get("reconstructed"))
    train, val = (
        choose(plan, real, sets.get("synthetic"), s, seed, cfg.real_share) for s in ("TRAIN", "VAL")
    )
    if plan.selects_on_real(cfg.protocol):
        inputs.append(of["real"])
        val = choose(plan, videos("real"), None, "VAL", seed)
    start = None
    if plan.start is not None:
        start = _start(plan.start, k)
        inputs.append(_real_arm(plan.start))
    if cfg.init != "none":
        inputs.append(Path(cfg.init))
    return EfTask(cfg, train, val, start), list(dict.fromkeys(inputs))


def sources_of(dataset: str, cfg: "TrainEfConfig") -> "Callable[[str], FrameSet]":
    """Reads `real`, `reconstructed`, `synthetic` or `synthetic_relabelled` videos, each once."""
    from echosyn.data.frames import load_frames
    from echosyn.runtime.process import state_root
    from echosyn.training.arms import folders
    from echosyn.training.ef import relabelled

    @cache
    def read(source: str) -> "FrameSet":
        if source == "synthetic_relabelled":
            return relabelled(read("synthetic"), _real_arm(dataset), cfg)
        return load_frames(folders(dataset)[source], cfg.fps, state_root() / "frames")

    return read


def _real_arm(dataset: str) -> Path:
    return Path("models/ef") / dataset / "real"


def _start(dataset: str, k: int) -> Path:
    """The k-th real-trained regressor of a dataset, or the first when there are not so many."""
    arm = _real_arm(dataset)
    return arm / f"seed{k}" if (arm / f"seed{k}").is_dir() else arm / "seed0"


def train_arms(
    subject: str,
    params: Params,
    cfg: "TrainEfConfig",
    dataset: str,
    arms: dict[str, str],
    out: Path,
) -> None:
    """Train `arms` (folder under `out`: arm) with every seed."""
    from echosyn.stages.train import train_seeds

    videos = sources_of(dataset, cfg)
    made = cache(partial(prepare, params, cfg, dataset, videos=videos))
    inputs = [path for arm in arms.values() for path in made(arm, 0, params.seed)[1]]
    tasks = {name: lambda k, seed, arm=arm: made(arm, k, seed)[0] for name, arm in arms.items()}
    train_seeds(
        "train_ef", subject, cfg, params.seed, tasks, list(dict.fromkeys(inputs)), out,
        lambda model, folder: model.save(folder),
        lambda name, task, model: {
            f"train_ef/{arms[name]}/val_{k}": v for k, v in task.validate(model).items()
        },
    )  # fmt: skip


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


def main(dataset: str, arm: str) -> None:
    from echosyn.training.ef import TrainEfConfig

    params = torch_params()
    cfg = params.stage("train_ef", TrainEfConfig)
    out, label = Path("models/ef") / dataset / arm, params.dataset(dataset).label
    if label != "ef":
        leave_out(dataset, arm, f"{dataset} has `label: {label}`: no EF to regress", cfg.fps, out)
        return
    train_arms(f"{dataset}-{arm}", params, cfg, dataset, {"": arm}, out)


if __name__ == "__main__":
    command(
        main,
        dataset="name under `generate` in params.yaml",
        arm="real, reconstructed, synthetic, synthetic_relabelled or real_plus_synthetic",
    )
