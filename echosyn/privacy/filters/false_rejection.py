"""Whether the filter refuses held-out people as rarely as its threshold was calibrated to."""

import numpy as np

from echosyn.metrics.interval import Estimate
from echosyn.privacy.attacks.planted import share_interval
from echosyn.privacy.filters.calibration import accepted
from echosyn.runtime.errors import EchosynError


def false_rejection(
    similarities: np.ndarray, people: np.ndarray, tau: Estimate, level: float = 0.95
) -> Estimate:
    """Share of held-out people's hearts that the filter refuses by chance.

    The promise is kept when the calibrated rate lies in the interval. It spans the interval of the
    share at both ends of tau's own: tau was placed with few people too, and would otherwise be
    blamed for their luck.

    Args:
        similarities: (N,) maxima over the filter's gallery of hearts that tau never saw.
        people: (N,) the person of each.

    Raises:
        EchosynError: no hearts, or a tau that is not finite.
    """
    if not np.isfinite([tau.value, tau.lo, tau.hi]).all():
        raise EchosynError(f"tau is {tau}, not finite: run privacy_filter again")
    at = [
        share_interval(~accepted(similarities, t), people, level)
        for t in (tau.lo, tau.value, tau.hi)
    ]
    return Estimate(at[1].value, min(e.lo for e in at), max(e.hi for e in at))
