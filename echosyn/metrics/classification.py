"""How well a probability tells two classes of videos apart, with intervals over patients.

Videos of one patient are alike, so intervals resample patients, each with all of its videos. They
hold what another choice of patients would change, not what another training run would.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from echosyn.metrics.interval import Estimate, percentile_interval, resample_counts
from echosyn.metrics.roc import Roc
from echosyn.runtime.errors import EchosynError

RESAMPLES = 2000
THRESHOLD = 0.5
NAMES = (
    "auc",
    "auc_within_folds",
    "accuracy",
    "balanced_accuracy",
    "f1",
    "sensitivity",
    "specificity",
)
COMPARED = ("auc", "auc_within_folds", "balanced_accuracy")  # with `real`, in pairs


@dataclass(frozen=True)
class Scores:
    """Each of NAMES on the videos themselves (7,), and on resampled patients (R, 7).

    Draws of the same patients with the same seed are the same, so two Scores compare in pairs.
    """

    values: np.ndarray
    drawn: np.ndarray

    def estimates(self) -> dict[str, Estimate]:
        """By name, with 95 % percentile intervals; NaN where a class that it needs is absent."""
        return _estimates(self.values, self.drawn)

    def minus(self, other: "Scores") -> dict[str, Estimate]:
        """Differences to scores of the same videos, patient by patient, by name."""
        return _estimates(self.values - other.values, self.drawn - other.drawn)


def classification_scores(
    truth: np.ndarray,
    probability: np.ndarray,
    patients: np.ndarray,
    folds: np.ndarray,
    seed: int,
    resamples: int = RESAMPLES,
) -> Scores:
    """Score probabilities of the positive class.

    - `auc`: chance that a positive video scores above a negative one, ties counted half.
    - `auc_within_folds`: the same over pairs of videos of one fold. Models of different folds
      differ in scale, which `auc` takes for error and this does not.
    - `accuracy`, `f1` (of the positive class), `sensitivity`, `specificity` and their mean
      `balanced_accuracy`: with a probability of 0.5 and more called positive.

    Args:
        truth: bool (V,), True for the positive class. probability: (V,), in 0-1.
        patients: (V,), whose video it is. folds: int (V,), of the cross-validation.

    Raises:
        EchosynError: no videos, different lengths, a probability outside 0-1 or not finite.
    """
    truth, probability = np.asarray(truth, bool), np.asarray(probability, np.float64)
    patients, folds = np.asarray(patients), np.asarray(folds)
    shapes = {truth.shape, probability.shape, patients.shape, folds.shape}
    if len(shapes) > 1 or truth.ndim != 1 or len(truth) == 0:
        raise EchosynError(f"truth, probability, patients, folds: shapes {shapes}, want (V,), V>0")
    bad = np.flatnonzero(~((probability >= 0) & (probability <= 1)))
    if len(bad):
        raise EchosynError(
            f"probability {probability[bad[0]]} at position {bad[0]} is not between 0 and 1"
        )
    _, owner = np.unique(patients, return_inverse=True)
    called = probability >= THRESHOLD
    cells = np.stack([truth & called, ~truth & called, ~truth & ~called, truth & ~called], 1)
    pairs = _Pairs(truth, probability, folds)

    def scores(counts: np.ndarray) -> np.ndarray:
        weights = counts[:, owner]  # (R, V)
        aucs = np.array([pairs.aucs(w) for w in weights])
        return np.concatenate([aucs, _at_threshold(weights @ cells.astype(np.float64))], 1)

    people = owner.max() + 1
    chunks = resample_counts(people, resamples, seed, width=len(truth))
    drawn = np.concatenate([scores(c) for c in chunks])
    return Scores(scores(np.ones((1, people)))[0], drawn)


def classification_numbers(
    table: pd.DataFrame, name: str, seed: int, resamples: int = RESAMPLES
) -> dict[str, float]:
    """Everything a task reports, as `classify/<name>/...`.

    - `<arm>/<score>`: on the real VAL and TEST videos, which the generator has not learned from.
    - `<arm>/on_train/auc`: on the real TRAIN videos. Clean for an arm of real videos alone; an arm
      with synthetic ones may know these through the generator.
    - `<arm>_minus_real/<score>`: differences on the same videos, with paired intervals.
    - `videos`, `patients`, `positive_patients` (with any positive video), `majority_accuracy` (of
      always naming the larger class): of the VAL and TEST videos.

    Args:
        table: one row per arm and real video, in the same order for every arm: arm, fold, Split,
            Patient, truth (1 positive, 0 negative), probability.
    """

    def scores(rows: pd.DataFrame) -> Scores:
        columns = ("truth", "probability", "Patient", "fold")
        truth, probability, people, folds = (rows[c].to_numpy() for c in columns)
        return classification_scores(truth, probability, people, folds, seed, resamples)

    def put(key: str, estimates: dict[str, Estimate]) -> None:
        for score, estimate in estimates.items():
            numbers.update(estimate.flat(f"classify/{name}/{key}/{score}"))

    train = table["Split"] == "TRAIN"
    arms = list(dict.fromkeys(table["arm"]))
    tested = {arm: table[(table["arm"] == arm) & ~train] for arm in arms}
    one = tested[arms[0]]
    share = float(one["truth"].mean())
    facts = {
        "videos": len(one),
        "patients": one["Patient"].nunique(),
        "positive_patients": one.loc[one["truth"] == 1, "Patient"].nunique(),
        "majority_accuracy": max(share, 1 - share),
    }
    numbers = {f"classify/{name}/{key}": float(value) for key, value in facts.items()}
    measured = {arm: scores(rows) for arm, rows in tested.items()}
    for arm, found in measured.items():
        put(arm, found.estimates())
        if arm != "real" and "real" in measured:
            differences = found.minus(measured["real"])
            put(f"{arm}_minus_real", {score: differences[score] for score in COMPARED})
        known = table[(table["arm"] == arm) & train]
        if len(known):
            put(f"{arm}/on_train", {"auc": scores(known).estimates()["auc"]})
    return numbers


def roc_points(truth: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates (K,) each, from (0, 0) to (1, 1), a point per threshold.

    Raises:
        EchosynError: a class is absent.
    """
    truth, probability = np.asarray(truth, bool), np.asarray(probability)
    Roc(probability[truth], probability[~truth])  # refuses what has no curve
    order = np.argsort(-probability, kind="stable")
    last = np.flatnonzero(np.diff(probability[order], append=np.inf))  # of equal scores
    rates = [
        np.concatenate([[0.0], np.cumsum(side[order])[last] / side.sum()])
        for side in (~truth, truth)
    ]
    return rates[0], rates[1]


class _Pairs:
    """Pairs of a positive and a negative video: of all folds, and of one fold at a time."""

    def __init__(self, truth: np.ndarray, probability: np.ndarray, folds: np.ndarray) -> None:
        parts = [np.ones(len(truth), bool), *(folds == f for f in np.unique(folds))]
        sides = [(np.flatnonzero(p & truth), np.flatnonzero(p & ~truth)) for p in parts]
        self.parts = [
            (Roc(probability[p], probability[n]), p, n) if len(p) and len(n) else None
            for p, n in sides
        ]

    def aucs(self, weights: np.ndarray) -> tuple[float, float]:
        """`auc` and `auc_within_folds` with a weight per video (V,)."""
        won, total = np.zeros(len(self.parts)), np.zeros(len(self.parts))
        for i, part in enumerate(self.parts):
            if part is None:
                continue
            roc, p, n = part
            total[i] = weights[p].sum() * weights[n].sum()
            if total[i]:
                won[i] = roc.auc(weights[p], weights[n]) * total[i]
        whole, within = _ratio(won[0], total[0]), _ratio(won[1:].sum(), total[1:].sum())
        return float(whole), float(within)


def _at_threshold(cells: np.ndarray) -> np.ndarray:
    """(R, 4) sums of true and false positives, true and false negatives to (R, 5) scores."""
    tp, fp, tn, fn = cells.T
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    both = (sensitivity + specificity) / 2
    # Without a negative, F1 is the share found: defined, but of another question.
    f1 = np.where(np.isfinite(both), _ratio(2 * tp, 2 * tp + fp + fn), np.nan)
    return np.stack([_ratio(tp + tn, cells.sum(1)), both, f1, sensitivity, specificity], 1)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(b) > 0, np.divide(a, b), np.nan)


def _estimates(values: np.ndarray, drawn: np.ndarray) -> dict[str, Estimate]:
    """A score that is undefined on the videos themselves has no interval either."""
    ends = [
        percentile_interval(drawn[:, i]) if np.isfinite(value) else (np.nan, np.nan)
        for i, value in enumerate(values)
    ]
    return {name: Estimate(float(v), *e) for name, v, e in zip(NAMES, values, ends, strict=True)}
