"""Which EFs to ask for."""

import numpy as np

from echosyn.errors import EchosynError


def draw_ef(kind: str, real: np.ndarray, n: int, seed: int) -> np.ndarray:
    """EFs to ask for, percent rounded to 0.1, float64 (n,).

    "real" draws the real quantiles at evenly spread, shuffled ranks, so that no value is an actual
    patient's by construction but the distribution is theirs; "uniform" is uniform over 10-90.
    """
    rng = np.random.default_rng([seed, 4])
    ranks = (np.arange(n) + rng.random(n)) / n
    if kind == "uniform":
        ef = 10 + 80 * ranks
    else:
        known = real[np.isfinite(real)]
        if len(known) == 0:
            raise EchosynError(
                "EF cannot be drawn from the real distribution: no TRAIN video has one"
            )
        ef = np.quantile(known, ranks)
    return np.round(rng.permutation(ef), 1)
