"""First and second moments of features, summed as they come: a million frames in a few megabytes.

Sums are float64, of float32 features, as in StyleGAN-V. Products are kept as an upper triangle,
D (D + 1) / 2 numbers: 17 MB at D = 2048.
"""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch

from echosyn.metrics.frechet import frechet_from_moments
from echosyn.metrics.interval import Estimate, jackknife_interval
from echosyn.runtime.errors import EchosynError


class Moments:
    """Count, sum (D,) and sum of outer products, packed (D (D + 1) / 2,), of rows."""

    def __init__(self, width: int) -> None:
        self.n = 0
        self.total = np.zeros(width)
        self.products = np.zeros(width * (width + 1) // 2)

    @property
    def width(self) -> int:
        return len(self.total)

    def add(self, rows: np.ndarray) -> "Moments":
        """Take in rows (N, D); EchosynError when one is not finite or D is another."""
        x = np.asarray(rows, np.float64)
        if x.ndim != 2 or x.shape[1] != self.width:
            raise EchosynError(f"expected features (N, {self.width}), got shape {x.shape}")
        bad = np.flatnonzero(~np.isfinite(x).all(1))
        if len(bad):
            raise EchosynError(f"features: row {bad[0]} is not finite ({len(bad)} such rows)")
        self.n += len(x)
        self.total += x.sum(0)
        self.products += (x.T @ x).ravel()[_upper(self.width)]
        return self

    def merge(self, other: "Moments") -> "Moments":
        """Take in the rows behind `other`."""
        self.n += other.n
        self.total += other.total
        self.products += other.products
        return self

    def without(self, part: "Moments") -> "Moments":
        """The moments of the rows that are not in `part`, which must be among them."""
        made = Moments(self.width)
        made.n = self.n - part.n
        made.total = self.total - part.total
        made.products = self.products - part.products
        return made

    def mean(self) -> np.ndarray:
        """(D,)"""
        return self.total / self.n

    def covariance(self) -> np.ndarray:
        """(D, D), divided by n."""
        full = np.empty((self.width, self.width))
        full.ravel()[_upper(self.width)] = self.products / self.n
        lower = np.tril_indices(self.width, -1)
        full[lower] = full.T[lower]
        mean = self.mean()
        return full - np.outer(mean, mean)

    def to_array(self) -> np.ndarray:
        """One float64 row that `from_array` reads."""
        return np.concatenate([[self.n], self.total, self.products])

    @staticmethod
    def length(width: int) -> int:
        """Of the row of moments of that width."""
        return 1 + width + width * (width + 1) // 2

    @classmethod
    def from_array(cls, row: np.ndarray, width: int) -> "Moments":
        made = cls(width)
        if len(row) != cls.length(width):
            raise EchosynError(f"{len(row)} numbers are no moments of width {width}")
        made.n = int(row[0])
        made.total += row[1 : 1 + width]
        made.products += row[1 + width :]
        return made


def merged(parts: Iterable[Moments]) -> Moments:
    """The moments of all rows behind `parts`, of which there is at least one."""
    parts = list(parts)
    made = Moments(parts[0].width)
    for part in parts:
        made.merge(part)
    return made


def frechet_of_moments(real: Moments, fake: Moments) -> float:
    """Frechet distance of the rows behind two moments (echosyn.metrics.frechet)."""
    for name, moments in (("real", real), ("fake", fake)):
        if moments.n == 0:
            raise EchosynError(f"{name} features: no row")
    return frechet_from_moments(real.mean(), real.covariance(), fake.mean(), fake.covariance())


def frechet_of_blocks(real: list[Moments], fake: list[Moments]) -> Estimate:
    """The distance of all rows, with a 95 % interval by leaving out a block of both at a time.

    Args:
        real, fake: moments of disjoint blocks of whole videos; those beyond the shorter list's
            length are left out together with the block at the same place modulo that length.
    """
    whole = [merged(real), merged(fake)]
    value = frechet_of_moments(*whole)
    k = min(len(real), len(fake))
    if k < 2:
        return Estimate(value, float("nan"), float("nan"))
    left = [
        _replicate(whole[0].without(merged(real[i::k])), whole[1].without(merged(fake[i::k])))
        for i in range(k)
    ]
    return jackknife_interval(value, np.array(left))


def _replicate(real: Moments, fake: Moments) -> float:
    """`frechet_of_moments` several times faster, to the digits that an interval needs.

    With S_1 = L L', the eigenvalues of S_1 S_2 are those of L' S_2 L. Their square roots lose
    digits where an eigenvalue is near rounding error, and L exists for a full rank only.
    """
    cov_real, cov_fake = (torch.from_numpy(m.covariance()) for m in (real, fake))
    lower, failed = torch.linalg.cholesky_ex(cov_real)
    if failed:
        return frechet_of_moments(real, fake)
    roots = torch.linalg.eigvalsh(lower.T @ cov_fake @ lower).clamp_min(0).sqrt().sum()
    apart = np.sum((real.mean() - fake.mean()) ** 2)
    return float(apart + cov_real.trace() + cov_fake.trace() - 2 * roots)


@lru_cache(maxsize=2)
def _upper(width: int) -> np.ndarray:
    """Flat positions of the upper triangle in a (width, width) array."""
    return np.flatnonzero(np.triu(np.ones((width, width), bool)))
