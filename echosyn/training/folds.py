"""Videos with a class, and their parts in a cross-validation by patient."""

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from echosyn.data.filelist import CLASS, PATIENT
from echosyn.data.frames import FrameSet
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

SEEN = "TRAIN"  # the split that the generator learns from
FOLDS, HELD_OUT = 11, 12  # streams of random numbers


@dataclass(frozen=True)
class ClassifyTask:
    """One entry of section `classify`: two classes of column Class, or EF below a limit."""

    dataset: str = setting(help="name under `generate`")
    positive: str | None = setting(None, help="Class of the positive videos")
    negative: str | None = setting(None, help="Class of the negative videos")
    ef_below: float | None = setting(
        None, lo=0.0, hi=100.0, help="videos of a lower EF, in percent, are the positive ones"
    )

    def check(self) -> str | None:
        named = [self.positive, self.negative]
        if self.ef_below is not None and named == [None, None]:
            return None
        if self.ef_below is not None or None in named:
            return "give either positive and negative (two values of column Class), or ef_below"
        if self.positive == self.negative:
            return f"positive and negative are both {self.positive!r}"
        return None


@dataclass(frozen=True)
class Labelled:
    """Videos of a task: positive bool (V,), patient str (V,)."""

    frames: FrameSet
    positive: np.ndarray
    patient: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, rows: np.ndarray) -> "Labelled":
        """Some videos: indices, or a mask."""
        index = np.arange(len(self))[rows]
        return Labelled(self.frames.take(index), self.positive[index], self.patient[index])

    @property
    def seen(self) -> np.ndarray:
        """Which of real videos the generator has learned from, bool (V,)."""
        return (self.frames.table["Split"] == SEEN).to_numpy()


def label_videos(frames: FrameSet, task: ClassifyTask, where: Path | str) -> Labelled:
    """The videos that belong to one of the task's classes.

    Args:
        where: the FileList, for messages.

    Raises:
        EchosynError: no column Class, or no video of one of the classes.
    """
    table = frames.table
    if task.ef_below is not None:
        ef = table["EF"].to_numpy(np.float64)
        rows = np.flatnonzero(np.isfinite(ef))
        positive = ef[rows] < task.ef_below
        if not 0 < positive.sum() < len(positive):
            found = f"{ef[rows].min():g} to {ef[rows].max():g}" if len(rows) else "empty"
            raise EchosynError(
                f"{where}: ef_below {task.ef_below:g} makes no two classes: EF is {found}"
            )
    else:
        if CLASS not in table:
            raise EchosynError(
                f"{where}: column '{CLASS}' is missing; a task of classes {task.positive!r} and "
                f"{task.negative!r} needs it, one value per video (or set ef_below instead)"
            )
        values = table[CLASS].astype(str).str.strip()
        for wanted, other in ((task.positive, task.negative), (task.negative, task.positive)):
            _require_class(values, str(wanted), str(other), where)
        rows = np.flatnonzero(values.isin([task.positive, task.negative]))
        positive = (values == task.positive).to_numpy()[rows]
    names = table["FileName"].to_numpy(str)
    people = table[PATIENT].fillna("").to_numpy(str) if PATIENT in table else names
    # A video of an unknown patient counts as a patient of its own.
    patient = np.where(np.char.strip(people) == "", names, people)[rows]
    return Labelled(frames.take(rows), positive, patient)


def _require_class(values: pd.Series, wanted: str, other: str, where: Path | str) -> None:
    counts = values.value_counts()
    if wanted in counts.index:
        return
    near = difflib.get_close_matches(wanted, counts.index.drop(other, errors="ignore"), n=1)
    hint = f" (is {near[0]!r} meant?)" if near else ""
    found = ", ".join(f"{name or 'empty'!r} ({n})" for name, n in sorted(counts.items()))
    raise EchosynError(f"{where}: no video has {CLASS} {wanted!r}{hint}; found: {found}")


def patient_folds(videos: Labelled, folds: int, seed: int) -> np.ndarray:
    """Fold of every real video, int (V,) in 0 .. folds - 1; no patient is in two.

    Patients are shuffled and dealt out class by class (a patient with any positive video is a
    positive one), and within a class those whom the generator has seen last, so that the counts of
    each class in two folds differ by one or not. The order of the rows does not matter.

    Raises:
        EchosynError: a class with fewer patients than folds.
    """
    names, owner = np.unique(videos.patient, return_inverse=True)
    positive = np.bincount(owner, videos.positive) > 0
    unseen = np.bincount(owner, ~videos.seen) > 0
    for kind, count in (("positive", positive.sum()), ("negative", (~positive).sum())):
        if count < folds:
            raise EchosynError(
                f"{count} real patients are {kind}, fewer than the {folds} folds: lower folds in "
                "conf/<scale>/classify.yaml, or give more patients"
            )
    order = np.random.default_rng([seed, FOLDS]).permutation(len(names))
    order = order[np.lexsort((~unseen[order], ~positive[order]))]
    fold = np.empty(len(names), np.int64)
    fold[order] = np.arange(len(names)) % folds
    return fold[owner]


def hold_out(videos: Labelled, share: float, seed: int) -> np.ndarray:
    """Which videos select a model's weights instead of training it, bool (V,).

    A share of the patients of each class, at least one of two or more; none when `share` is 0.
    """
    names, owner = np.unique(videos.patient, return_inverse=True)
    positive = np.bincount(owner, videos.positive) > 0
    order = np.random.default_rng([seed, HELD_OUT]).permutation(len(names))
    chosen = np.zeros(len(names), bool)
    for kind in (positive, ~positive):
        people = order[kind[order]]
        if share and len(people) > 1:
            chosen[people[: max(1, int(share * len(people)))]] = True
    return chosen[owner]
