"""Dealing patients out to TRAIN, VAL and TEST where a source brings no splits of its own."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

from echosyn.data.filelist import SPLITS
from echosyn.runtime.config import setting


@dataclass(frozen=True)
class Shares:
    """How much of the patients of every class goes where."""

    train: float = setting(0.8, lo=0, hi=1, help="share of the patients")
    val: float = setting(0.1, lo=0, hi=1, help="share of the patients")
    test: float = setting(0.1, lo=0, hi=1, help="share of the patients")
    seed: int = setting(0, lo=0, help="another seed is another split")

    def check(self) -> str | None:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            return f"train, val and test add to {total:g}, not to 1"
        return None


def split_patients(classes: Mapping[str, str], shares: Shares) -> dict[str, str]:
    """The split of every patient, each class dealt out by itself.

    Args:
        classes: patient -> class; the order does not matter.

    Returns:
        patient -> TRAIN, VAL or TEST. A split with a share above 0 gets at least one patient of a
        class that has as many patients as there are such splits.
    """
    splits: dict[str, str] = {}
    for name in sorted(set(classes.values())):
        patients = [p for p in classes if classes[p] == name]
        patients.sort(key=lambda p: (hashlib.sha256(f"{shares.seed}/{p}".encode()).digest(), p))
        counts = _counts(len(patients), (shares.train, shares.val, shares.test))
        dealt = [split for split, n in zip(SPLITS, counts, strict=True) for _ in range(n)]
        splits.update(zip(patients, dealt, strict=True))
    return splits


def _counts(n: int, shares: tuple[float, ...]) -> list[int]:
    """Whole numbers that add to n, near the shares of it."""
    wanted = [share * n for share in shares]
    least = [int(share > 0) for share in shares]
    if sum(least) > n:
        least = [0] * len(shares)
    counts = [max(a, math.floor(w)) for a, w in zip(least, wanted, strict=True)]
    for _ in range(abs(n - sum(counts))):
        step = 1 if sum(counts) < n else -1
        open_ = [i for i in range(len(counts)) if step > 0 or counts[i] > least[i]]
        i = max(open_, key=lambda i: step * (wanted[i] - counts[i]))
        counts[i] += step
    return counts
