"""Distances between videos of like EF: is what was drawn right for the EF that was asked for?

A distance over all videos does not see their labels: shuffle the EF of a synthetic set and it
stays. Within a band of EF, synthetic videos that were asked for an EF in the band are compared with
real videos whose EF lies in it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from echosyn.data.spaced import evenly_spaced
from echosyn.metrics.interval import Estimate
from echosyn.runtime.errors import EchosynError

EDGES = (40.0, 55.0)  # percent: reduced, mildly reduced and normal EF
MINIMUM = 8  # videos a side below which a band says nothing
Distance = Callable[[np.ndarray, np.ndarray], Estimate]


@dataclass(frozen=True)
class Band:
    """EF from `lo` up to, not including, `hi` percent."""

    name: str  # as in a metric's key: ef_lt40, ef_40to55, ef_ge55
    lo: float
    hi: float

    def holds(self, ef: np.ndarray) -> np.ndarray:
        return (ef >= self.lo) & (ef < self.hi)


@dataclass(frozen=True)
class BandDistances:
    """Distances by band, and their mean over bands.

    bands, counts: distance and number of videos a side of each measured band; left_out: real and
    fake videos of each band that has too few; conditional: mean of the bands' distances, weighted
    by their shares of the real videos; share: of the real videos that lie in a measured band.
    """

    bands: dict[str, Estimate]
    counts: dict[str, int]
    left_out: dict[str, tuple[int, int]]
    conditional: Estimate
    share: float

    def flat(self, name: str, suffix: str = "") -> dict[str, float]:
        """Numbers under their full names.

        For `name` "kd_motion_32f": `kd_motion_32f_ef_lt40_n17x17` of each measured band,
        `kd_motion_32f_ef_conditional` and `..._ef_conditional_share`, each with `suffix` behind;
        nothing without a band.
        """
        numbers: dict[str, float] = {}
        for band, value in self.bands.items():
            n = self.counts[band]
            numbers |= value.flat(f"{name}_{band}_n{n}x{n}{suffix}")
        if self.bands:
            numbers |= self.conditional.flat(f"{name}_ef_conditional{suffix}")
            numbers[f"{name}_ef_conditional_share{suffix}"] = self.share
        return numbers


def ef_bands(edges: Sequence[float] = EDGES) -> tuple[Band, ...]:
    """Bands below, between and from `edges` (percent, rising).

    Raises:
        EchosynError: no edge, edges that do not rise or lie outside 0 to 100.
    """
    rising = all(a < b for a, b in pairwise(edges))
    if not edges or not rising or not 0 < edges[0] <= edges[-1] < 100:
        raise EchosynError(f"EF bands: edges {list(edges)} must rise within 0 to 100 percent")
    text = [f"{e:g}".replace(".", "p") for e in edges]  # a dot would split the key of a metric
    names = [
        f"ef_lt{text[0]}",
        *(f"ef_{a}to{b}" for a, b in pairwise(text)),
        f"ef_ge{text[-1]}",
    ]
    limits = [-np.inf, *edges, np.inf]
    return tuple(Band(*b) for b in zip(names, limits, limits[1:], strict=False))


def band_distances(
    distance: Distance,
    real_features: np.ndarray,
    fake_features: np.ndarray,
    real_ef: np.ndarray,
    fake_ef: np.ndarray,
    edges: Sequence[float] = EDGES,
    minimum: int = MINIMUM,
    most: Mapping[str, int] | None = None,
) -> BandDistances:
    """`distance` within bands of EF, at the same number of videos a side.

    Args:
        distance: `kernel_distance` or `frechet_interval`, of features (N, D) and (M, D).
        real_features: (N, D), a row per video.
        fake_features: (M, D), a row per video.
        real_ef: (N,) percent, measured by people.
        fake_ef: (M,) percent, asked for.
        edges: see `ef_bands`.
        minimum: videos a side that a band needs.
        most: videos a side that a band may use, so that a distance and its floors use as many.

    In a band the side with more videos gives evenly spread ones, by position, so that the numbers
    of one call do not depend on chance. How many videos each side has in a band does not enter: a
    synthetic set with another distribution of EF is not worse for it. The mean over bands is
    comparable between runs for the unbiased kernel distance only: a Frechet distance grows as a
    band's videos get fewer. Where no band can be measured the mean is NaN.

    Raises:
        EchosynError: features and EF that do not pair, an EF that is not finite, a wrong edge.
    """
    sides = {
        "real": (np.asarray(real_features), np.asarray(real_ef)),
        "fake": (np.asarray(fake_features), np.asarray(fake_ef)),
    }
    for name, (features, ef) in sides.items():
        if ef.ndim != 1 or len(features) != len(ef):
            raise EchosynError(
                f"EF bands: {len(features)} rows of {name} features and EF of shape {ef.shape}; "
                "one EF per row is needed"
            )
        bad = np.flatnonzero(~np.isfinite(ef))
        if len(bad):
            raise EchosynError(f"EF bands: EF of {name} video {bad[0]} is {ef[bad[0]]}")
    values, counts, weights, left_out = {}, {}, {}, {}
    for band in ef_bands(edges):
        rows = [np.flatnonzero(band.holds(ef)) for _, ef in sides.values()]
        n = min(map(len, rows))
        n = min(n, most.get(band.name, n)) if most else n
        if n < minimum:
            left_out[band.name] = (len(rows[0]), len(rows[1]))
            continue
        real, fake = (
            features[_evenly(r, n)] for (features, _), r in zip(sides.values(), rows, strict=True)
        )
        values[band.name], counts[band.name] = distance(real, fake), n
        weights[band.name] = len(rows[0])
    inside = sum(weights.values())
    shares = {k: w / inside for k, w in weights.items()}
    share = inside / max(len(real_ef), 1)
    return BandDistances(values, counts, left_out, _mean(values, shares), share)


def _evenly(rows: np.ndarray, n: int) -> np.ndarray:
    return rows[evenly_spaced(len(rows), n)]


def _mean(values: dict[str, Estimate], shares: dict[str, float]) -> Estimate:
    """Weighted mean; bands have no video in common, so their errors add in squares."""
    if not values:
        return Estimate(float("nan"), float("nan"), float("nan"))
    mean = sum(shares[k] * e.value for k, e in values.items())
    error = np.sqrt(sum((shares[k] * (e.hi - e.lo) / 2) ** 2 for k, e in values.items()))
    return Estimate(float(mean), float(mean - error), float(mean + error))
