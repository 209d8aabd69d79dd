"""EF regressors tested on real TEST, arm by arm, and the faithfulness of synthetic EF."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.data.filelist import asked_ef
from echosyn.data.frames import FrameSet
from echosyn.evaluation.config import EvaluateConfig
from echosyn.metrics.ef import cutoff_auc, ef_scores, requested_vs_measured
from echosyn.metrics.ef_meter import predict_ef
from echosyn.metrics.streaming import MapRows
from echosyn.models.ef_regressor import load_seeds
from echosyn.runtime.device import pick_device

COLUMNS = ["arm", "seed", "FileName", "ef_true", "ef_predicted", "ef_one_clip"]


class EfEvaluation:
    """EF predictions gathered arm by arm, and their scores.

    `ef/<arm>/*` is of the mean over a video's clips, `ef_one_clip/<arm>/*` of one clip drawn from
    them, `ef_below/<arm>/auc_<cutoff>` of telling EF below a cut-off; all are means over the arm's
    seeds. `ef/<arm>/r2_seed_sd` is the standard deviation of R2 between seeds.

    Args:
        over: computes over videos, here or on a cluster.
    """

    def __init__(self, cfg: EvaluateConfig, seed: int, over: MapRows) -> None:
        self.cfg, self.seed, self.over = cfg, seed, over
        self.tables: list[pd.DataFrame] = []
        self.numbers: dict[str, float | str] = {}

    def _predict(self, name: str, arm: Path, videos: FrameSet) -> np.ndarray:
        """(V, S, 2): per video and seed the mean over clips, and one clip."""
        cfg, seed = self.cfg, self.seed

        def worker() -> Callable[[range], np.ndarray]:
            nets = [net.to(pick_device()) for net in load_seeds(arm)]

            def predict(rows: range) -> np.ndarray:
                some = videos.take(rows)
                made = [predict_ef(n, some, cfg.test_clips, cfg.precision, seed) for n in nets]
                return np.stack(made, 1)

            return predict

        return self.over(f"ef-{name}", len(videos), worker)

    def add(self, arm: str, model: Path, test: FrameSet) -> None:
        """Test the regressors in folder `model` on videos with a known EF."""
        predicted = self._predict(arm, model, test)
        for k in range(predicted.shape[1]):
            rows = {
                "arm": arm,
                "seed": k,
                "FileName": test.table["FileName"],
                "ef_true": test.ef,
                "ef_predicted": predicted[:, k, 0],
                "ef_one_clip": predicted[:, k, 1],
            }
            self.tables.append(pd.DataFrame(rows).round(dict.fromkeys(COLUMNS[4:], 4)))
        mean, one = predicted[..., 0].T, predicted[..., 1].T  # (S, V)
        resamples = self.cfg.resamples
        for group, values in (("ef", mean), ("ef_one_clip", one)):
            for name, e in ef_scores(test.ef, values, self.seed, resamples).items():
                self.numbers |= e.flat(f"{group}/{arm}/{name}")
        for cutoff, e in cutoff_auc(test.ef, mean, self.seed).items():
            self.numbers |= e.flat(f"ef_below/{arm}/auc_{cutoff}")
        if len(mean) > 1:
            each = [ef_scores(test.ef, row, self.seed, 1)["r2"].value for row in mean]
            if np.isfinite(each).all():
                self.numbers[f"ef/{arm}/r2_seed_sd"] = float(np.std(each, ddof=1))

    def faithfulness(self, model: Path, samples: FrameSet) -> pd.DataFrame:
        """Measure the EF of synthetic videos with the real-trained regressors.

        Against what was asked for, also where the label is already what these regressors measured.
        """
        requested = asked_ef(samples.table).to_numpy(np.float32)
        measured = self._predict("samples", model, samples)[..., 0].mean(1)
        scores = requested_vs_measured(requested, measured, self.seed, self.cfg.resamples)
        for name, e in scores.items():
            self.numbers |= e.flat(f"ef/requested_vs_measured/{name}")
        return pd.DataFrame(
            {
                "FileName": samples.table["FileName"],
                "ef_requested": requested,
                "ef_measured": measured.round(4),
            }
        )

    def predictions(self) -> pd.DataFrame:
        return pd.concat(self.tables)[COLUMNS]
