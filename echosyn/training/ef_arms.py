"""The EF regressors of a dataset's arms: their videos, where they start, their training."""

from functools import cache
from pathlib import Path

from echosyn.data.frames import FrameSet, load_frames
from echosyn.runtime.config import Params
from echosyn.training.arms import choose, folders, parse_arm
from echosyn.training.ef import EfTask, TrainEfConfig, relabelled
from echosyn.training.stage import Fit, train_seeds


class EfArms:
    """The tasks of a dataset's arms. Videos are read once for all of them.

    Args:
        frames: folder that keeps decoded frames.
    """

    def __init__(self, params: Params, cfg: TrainEfConfig, dataset: str, frames: Path) -> None:
        self.cfg, self.seed, self.dataset, self.frames = cfg, params.seed, dataset, frames
        self.models, self.folders = params.root / "models/ef", folders(params.root, dataset)
        self._read: dict[str, FrameSet] = {}

    def prepare(self, name: str, k: int = 0) -> tuple[EfTask, list[Path]]:
        """The task of an arm's k-th regressor, and the folders that it reads of the project."""
        arm, seed, start = parse_arm(name), self.seed + k, None
        inputs = [self.folders[source] for source in arm.sources]
        names = dict(zip(arm.sources, arm.sources, strict=True))
        if arm.kind == "synthetic_relabelled":
            inputs.append(self._real_arm(self.dataset))
            names["synthetic"] = arm.kind
        sets = {source: self._videos(n) for source, n in names.items()}
        real, synthetic = sets.get("real", sets.get("reconstructed")), sets.get("synthetic")
        train, val = (
            choose(arm, real, synthetic, split, seed, self.cfg.real_share)
            for split in ("TRAIN", "VAL")
        )
        if arm.selects_on_real(self.cfg.protocol):
            inputs.append(self.folders["real"])
            val = choose(arm, self._videos("real"), None, "VAL", seed)
        if arm.start is not None:
            inputs.append(self._real_arm(arm.start))
            # The first regressor, where that dataset has fewer than k.
            start = next(f for i in (k, 0) if (f := inputs[-1] / f"seed{i}").is_dir() or not i)
        if self.cfg.init != "none":
            inputs.append(Path(self.cfg.init))
        return EfTask(self.cfg, train, val, start), list(dict.fromkeys(inputs))

    def _videos(self, source: str) -> FrameSet:
        """Of `real`, `reconstructed`, `synthetic` or `synthetic_relabelled`."""
        if source not in self._read:
            if source == "synthetic_relabelled":
                teacher = self._real_arm(self.dataset)
                found = relabelled(self._videos("synthetic"), teacher, self.cfg)
            else:
                found = load_frames(self.folders[source], self.cfg.fps, self.frames)
            self._read[source] = found
        return self._read[source]

    def _real_arm(self, dataset: str) -> Path:
        return self.models / dataset / "real"


def train_arms(fit: Fit, subject: str, arms: EfArms, names: dict[str, str], out: Path) -> None:
    """Train arms with every seed; see echosyn.training.stage.train_seeds.

    Args:
        names: arm by folder under `out`.
    """
    made = cache(arms.prepare)
    inputs = [path for arm in names.values() for path in made(arm, 0)[1]]
    tasks = {name: lambda k, seed, arm=arm: made(arm, k)[0] for name, arm in names.items()}
    train_seeds(
        fit, "train_ef", subject, arms.cfg, arms.seed, tasks, list(dict.fromkeys(inputs)), out,
        lambda model, folder: model.save(folder),
        lambda name, task, model: {
            f"train_ef/{names[name]}/val_{k}": v for k, v in task.validate(model).items()
        },
    )  # fmt: skip
