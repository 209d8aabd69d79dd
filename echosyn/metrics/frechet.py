"""Frechet distance between Gaussians fitted to two sets of features (Heusel et al. 2017).

|mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2). With S_i = F_i' F_i, the last trace is
the sum of the singular values of F_1 F_2': no matrix square root, exact for singular S. Any F_i
will do: the centred features themselves, or their triangular factor. A covariance is never formed,
since the square root of its rounding errors would not be small.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from echosyn.metrics.interval import Estimate, blocks_of, jackknife_interval
from echosyn.runtime.errors import EchosynError


@dataclass(frozen=True)
class _Sample:
    """`count` rows as their mean (D,) and a factor (at most D rows, D) of their scatter F'F."""

    count: int
    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> "_Sample":
        """Rows (N, D) float64, taken in pieces so that a large set is not copied whole."""
        n, d = x.shape
        size = max(4 * d, 1024)
        whole = cls(0, np.zeros(d), np.zeros((0, d)))
        for i in range(0, n, size):
            part = x[i : i + size]
            mean = part.mean(0)
            whole = whole.merged(cls(len(part), mean, part - mean))
        return whole

    def merged(self, other: "_Sample") -> "_Sample":
        """Both together (Chan et al. 1979, in factors): one more row for the means' difference."""
        n = self.count + other.count
        if self.count == 0 or other.count == 0:
            mean = other.mean if self.count == 0 else self.mean
            stacked = other.factor if self.count == 0 else self.factor
        else:
            apart = other.mean - self.mean
            mean = self.mean + apart * (other.count / n)
            between = apart * np.sqrt(self.count / n * other.count)
            stacked = np.concatenate([self.factor, other.factor, between[None]])
        return _Sample(n, mean, _shortened(stacked))


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Distance of features (N, D) and (M, D); covariances divide by N and M, as StyleGAN-V does.

    Right for any N, M and rank; float64 throughout. Biased upwards when N or M is not far above D:
    compare only numbers of the same N, M and D.

    Raises:
        EchosynError: an empty set, sets of different width, a feature that is not finite.
    """
    real, fake = check_features(real, fake)
    return _between(_Sample.of(real), _Sample.of(fake), _nuclear)


def frechet_from_moments(
    mean_real: np.ndarray, cov_real: np.ndarray, mean_fake: np.ndarray, cov_fake: np.ndarray
) -> float:
    """Distance of two Gaussians given as means (D,) and covariances (D, D)."""
    factors = [_root(np.asarray(c, np.float64)) for c in (cov_real, cov_fake)]
    means = np.asarray(mean_real), np.asarray(mean_fake)
    return _distance(means[0], factors[0], means[1], factors[1], _nuclear)


def frechet_interval(
    real: np.ndarray,
    fake: np.ndarray,
    real_groups: np.ndarray | None = None,
    fake_groups: np.ndarray | None = None,
    blocks: int = 20,
) -> Estimate:
    """`frechet_distance` with a 95 % interval, by leaving out a block of both sets at a time.

    `real_groups` (N,) and `fake_groups` (M,) name the video of each row when rows are frames.
    The interval covers sampling error, not the bias of small N.
    """
    real, fake = check_features(real, fake)
    value = _between(_Sample.of(real), _Sample.of(fake), _nuclear)
    parts = []
    for x, groups in ((real, real_groups), (fake, fake_groups)):
        parts.append(blocks_of(np.arange(len(x)) if groups is None else groups, blocks))
    k = min(part.max() + 1 for part in parts)
    if k < 2:
        return Estimate(value, float("nan"), float("nan"))
    left = zip(_leave_outs(real, parts[0] % k, k), _leave_outs(fake, parts[1] % k, k), strict=True)
    return jackknife_interval(value, np.array([_between(a, b, _nuclear_fast) for a, b in left]))


def check_features(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (N, D), (M, D); EchosynError says which is empty, ragged or not finite."""
    made = []
    for name, features in (("real", real), ("fake", fake)):
        x = np.asarray(features, np.float64)
        if x.ndim != 2 or x.size == 0:
            raise EchosynError(f"{name} features: expected a table (N, D), got shape {x.shape}")
        bad = np.flatnonzero(~np.isfinite(x).all(1))
        if len(bad):
            raise EchosynError(
                f"{name} features: row {bad[0]} is not finite ({len(bad)} such rows)"
            )
        made.append(x)
    if made[0].shape[1] != made[1].shape[1]:
        raise EchosynError(f"features of width {made[0].shape[1]} and {made[1].shape[1]} differ")
    return made[0], made[1]


def _leave_outs(x: np.ndarray, part: np.ndarray, blocks: int) -> Iterator[_Sample]:
    """The sample without each block in turn: what lies before it merged with what lies after, so
    that each row is worked on twice, not once for every block that it is not in."""
    block = [np.flatnonzero(part == i) for i in range(blocks)]
    before = after = _Sample.of(x[:0])
    afters = [after]
    for rows in block[:0:-1]:
        after = after.merged(_Sample.of(x[rows]))
        afters.append(after)
    for rows in block:
        yield before.merged(afters.pop())
        before = before.merged(_Sample.of(x[rows]))


def _shortened(factor: np.ndarray) -> np.ndarray:
    """A factor of the same F'F with at most D rows."""
    if len(factor) <= factor.shape[1]:
        return factor
    return torch.linalg.qr(torch.tensor(factor), mode="r").R.numpy()


def _root(cov: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(cov)
    # Below this a variance is rounding error, whose square root would not be small.
    keep = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return (vectors[:, keep] * np.sqrt(values[keep])).T


def _between(a: _Sample, b: _Sample, nuclear: Callable[[np.ndarray], float]) -> float:
    fa, fb = a.factor / np.sqrt(a.count), b.factor / np.sqrt(b.count)
    return _distance(a.mean, fa, b.mean, fb, nuclear)


def _distance(
    mu1: np.ndarray,
    f1: np.ndarray,
    mu2: np.ndarray,
    f2: np.ndarray,
    nuclear: Callable[[np.ndarray], float],
) -> float:
    cross = f1 @ f2.T
    shared = nuclear(cross) if cross.size else 0.0
    value = np.sum((mu1 - mu2) ** 2) + np.sum(f1**2) + np.sum(f2**2) - 2 * shared
    return float(max(value, 0.0))


def _nuclear(cross: np.ndarray) -> float:
    """The sum of the singular values."""
    return float(torch.linalg.svdvals(torch.tensor(cross)).sum())


def _nuclear_fast(cross: np.ndarray) -> float:
    """The same in half the time, from their squares: those below about 1e-7 of the largest are lost
    in rounding and left out. Too coarse for a value, but alike in all replicates of an interval."""
    values = np.linalg.eigvalsh(
        cross @ cross.T if len(cross) <= cross.shape[1] else cross.T @ cross
    )
    keep = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return float(np.sqrt(values[keep]).sum())
