"""Kernel distance: unbiased squared MMD with a cubic kernel (Binkowski et al. 2018, "KID").

k(x, y) = (x.y / D + 1)^3. Its expectation is 0 for two samples of one distribution at any N, so
that, unlike a Frechet distance, it can be read at a few hundred samples.
"""

import numpy as np

from echosyn.metrics.frechet import check_features
from echosyn.metrics.interval import Estimate, blocks_of, jackknife_interval

TILE = 2048  # rows and columns of the kernel matrix held at once


def kernel_distance(
    real: np.ndarray,
    fake: np.ndarray,
    real_groups: np.ndarray | None = None,
    fake_groups: np.ndarray | None = None,
    blocks: int = 20,
) -> Estimate:
    """Distance of features (N, D) and (M, D) over all pairs, with a 95 % interval.

    Args:
        real_groups: (N,) the video of each row when rows are frames: pairs within a video, which
            are alike in any data, are left out as pairs of a row with itself are.
        fake_groups: (M,) likewise.
        blocks: blocks of whole groups that the interval leaves out one at a time.

    Near 0 the interval is conservative. Memory is two tiles of 2048 x 2048, time is
    O((N + M)^2 D). The value is NaN when a set has a single group, as no pair is left.

    Raises:
        EchosynError: an empty set, sets of different width, a feature that is not finite.
    """
    real, fake = check_features(real, fake)
    sets, groups, parts = (real, fake), [], []
    for x, given in zip(sets, (real_groups, fake_groups), strict=True):
        _, codes = np.unique(np.arange(len(x)) if given is None else given, return_inverse=True)
        groups.append(codes)
        parts.append(blocks_of(codes, blocks))
    k = min(int(part.max()) + 1 for part in parts)
    parts = [part % k for part in parts]
    within = [_block_sums(x, x, p, p, g, g, k) for x, p, g in zip(sets, parts, groups, strict=True)]
    across = _block_sums(real, fake, parts[0], parts[1], None, None, k)
    value = _mmd(within[0], within[1], across, np.ones(k))
    if k < 3 or not np.isfinite(value):
        return Estimate(value, float("nan"), float("nan"))
    left = [_mmd(within[0], within[1], across, 1 - np.eye(k)[i]) for i in range(k)]
    return jackknife_interval(value, np.array(left))


def _block_sums(
    x: np.ndarray,
    y: np.ndarray,
    x_part: np.ndarray,
    y_part: np.ndarray,
    x_group: np.ndarray | None,
    y_group: np.ndarray | None,
    k: int,
) -> np.ndarray:
    """Sums and numbers of kernel values between blocks, (2, k, k), equal groups left out."""
    sums = np.zeros((2, k, k))
    one_hot = np.eye(k)
    for i in range(0, len(x), TILE):
        rows = one_hot[x_part[i : i + TILE]]
        for j in range(0, len(y), TILE):
            columns = one_hot[y_part[j : j + TILE]]
            kernel = (x[i : i + TILE] @ y[j : j + TILE].T / x.shape[1] + 1) ** 3
            used = np.ones_like(kernel)
            if x_group is not None and y_group is not None:
                used[x_group[i : i + TILE, None] == y_group[None, j : j + TILE]] = 0.0
            sums[0] += rows.T @ (kernel * used) @ columns
            sums[1] += rows.T @ used @ columns
    return sums


def _mmd(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray, keep: np.ndarray) -> float:
    """Unbiased squared MMD over the blocks that `keep` (k,) marks with 1."""
    with np.errstate(invalid="ignore"):
        mean = [(keep @ s[0] @ keep) / (keep @ s[1] @ keep) for s in (xx, yy, xy)]
    return float(mean[0] + mean[1] - 2 * mean[2])
