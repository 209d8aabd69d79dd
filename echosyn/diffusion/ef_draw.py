"""Which EFs to ask for."""

import numpy as np

from echosyn.metrics.bands import ef_bands
from echosyn.runtime.errors import EchosynError

UNIFORM = (10.0, 90.0)  # percent


def draw_ef(kind: str, real: np.ndarray, n: int, seed: int) -> np.ndarray:
    """EFs to ask for, percent rounded to 0.1, float64 (n,): `ef_quantile` at evenly spread,
    shuffled ranks."""
    rng = np.random.default_rng([seed, 4])
    ranks = (np.arange(n) + rng.random(n)) / n
    return rng.permutation(ef_quantile(kind, real, ranks))


def ef_quantile(kind: str, real: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The EFs, percent rounded to 0.1, that ranks in [0, 1) have in a distribution, float64 (n,).

    - "real": the real quantiles, so that no value is an actual patient's by construction but the
      distribution is theirs.
    - "uniform": uniform over 10-90.
    - "stratified": equal shares of the clinical bands (echosyn.metrics.bands), and within a band
      the real quantiles of that band. A band without real values gives its share to the others.

    Args:
        real: EFs in percent, (N,); NaN where a video has none.

    Raises:
        EchosynError: no real value to follow.
    """
    ranks = np.asarray(ranks, np.float64)
    if kind == "uniform":
        lo, hi = UNIFORM
        return np.round(lo + (hi - lo) * ranks, 1)
    known = np.asarray(real, np.float64)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        raise EchosynError(
            f"EF cannot be drawn as '{kind}': no TRAIN video has one: set ef: uniform of the stage"
        )
    if kind == "real":
        return np.round(np.quantile(known, ranks), 1)
    parts = [part for band in ef_bands() if len(part := known[band.holds(known)])]
    which = np.minimum((ranks * len(parts)).astype(int), len(parts) - 1)
    within = ranks * len(parts) - which
    ef = np.empty(len(ranks))
    for i, part in enumerate(parts):
        ef[which == i] = np.quantile(part, within[which == i])
    return np.round(ef, 1)
