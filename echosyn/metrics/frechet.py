"""Frechet distance between Gaussians fitted to two sets of features (Heusel et al. 2017).

|mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2). With S_i = F_i' F_i, the last trace is
the sum of the singular values of F_1 F_2': no matrix square root, exact for singular S.
"""

import numpy as np

from echosyn.errors import EchosynError
from echosyn.metrics.interval import Estimate, blocks_of, jackknife_interval


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Distance of features (N, D) and (M, D); covariances divide by N and M, as StyleGAN-V does.

    Right for any N, M and rank; float64 throughout. Biased upwards when N or M is not far above D:
    compare only numbers of the same N, M and D.

    Raises:
        EchosynError: an empty set, sets of different width, a feature that is not finite.
    """
    real, fake = check_features(real, fake)
    return _distance(real.mean(0), _factor(real), fake.mean(0), _factor(fake))


def frechet_from_moments(
    mean_real: np.ndarray, cov_real: np.ndarray, mean_fake: np.ndarray, cov_fake: np.ndarray
) -> float:
    """Distance of two Gaussians given as means (D,) and covariances (D, D)."""
    factors = [_root(np.asarray(c, np.float64)) for c in (cov_real, cov_fake)]
    return _distance(np.asarray(mean_real), factors[0], np.asarray(mean_fake), factors[1])


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
    value = frechet_distance(real, fake)
    parts = []
    for x, groups in ((real, real_groups), (fake, fake_groups)):
        parts.append(blocks_of(np.arange(len(x)) if groups is None else groups, blocks))
    k = min(part.max() + 1 for part in parts)
    if k < 2:
        return Estimate(value, float("nan"), float("nan"))
    left = [frechet_distance(real[parts[0] % k != i], fake[parts[1] % k != i]) for i in range(k)]
    return jackknife_interval(value, np.array(left))


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


def _factor(x: np.ndarray) -> np.ndarray:
    """F of at most min(N, D) rows with F'F the covariance of x (N, D)."""
    n, d = x.shape
    centred = x - x.mean(0)
    if n < d:
        return centred / np.sqrt(n)
    return _root(centred.T @ centred / n)


def _root(cov: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(cov)
    # Below this a variance is rounding error, whose square root would not be small.
    keep = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return (vectors[:, keep] * np.sqrt(values[keep])).T


def _distance(mu1: np.ndarray, f1: np.ndarray, mu2: np.ndarray, f2: np.ndarray) -> float:
    cross = f1 @ f2.T
    nuclear = np.linalg.svd(cross, compute_uv=False).sum() if cross.size else 0.0
    value = np.sum((mu1 - mu2) ** 2) + np.sum(f1**2) + np.sum(f2**2) - 2 * nuclear
    return float(max(value, 0.0))
