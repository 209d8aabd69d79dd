"""Precision, recall, density and coverage of generated features (Naeem et al. 2020).

Fidelity (are fakes where reals are: precision, density) apart from diversity (are reals where
fakes are: recall, coverage), which one distance mixes. Precision and recall after Kynkaanniemi et
al. 2019. All in 0-1, but density, whose expectation for equal distributions is 1.
"""

import numpy as np
from scipy.spatial.distance import cdist

from echosyn.metrics.frechet import check_features
from echosyn.runtime.errors import EchosynError


def prdc(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict[str, float]:
    """The four numbers from features (N, D) and (M, D), with balls that reach the k-th neighbour.

    Holds an N x M table of distances: meant for up to some ten thousand rows. Like a Frechet
    distance they depend on N and M.

    Raises:
        EchosynError: as `frechet_distance`, or a set of k or fewer rows.
    """
    real, fake = check_features(real, fake)
    if min(len(real), len(fake)) <= k:
        raise EchosynError(f"{len(real)} real and {len(fake)} fake rows; need more than k = {k}")
    real_radius, fake_radius = (_kth_distance(x, k) for x in (real, fake))
    distance = cdist(real, fake)
    in_real = distance < real_radius[:, None]
    return {
        "precision": float(in_real.any(0).mean()),
        "recall": float((distance < fake_radius[None, :]).any(1).mean()),
        "density": float(in_real.sum(0).mean() / k),
        "coverage": float((distance.min(1) < real_radius).mean()),
    }


def _kth_distance(x: np.ndarray, k: int) -> np.ndarray:
    """Distance of each row to its k-th nearest other row; 0 to itself is the zeroth."""
    return np.partition(cdist(x, x), k, axis=1)[:, k]
