"""Whether a map points at a region: the pointing game, and intersection over union."""

import numpy as np

from echosyn.metrics.interval import Estimate, percentile_interval, resample_counts, wilson
from echosyn.runtime.errors import EchosynError


def top_pixels(values: np.ndarray, seen: np.ndarray, count: int) -> np.ndarray:
    """The `count` largest of `values` (H, W) among the pixels `seen`, bool (H, W)."""
    within = np.where(seen, values, -np.inf)
    order = np.argsort(-within, axis=None, kind="stable")[:count]
    top = np.zeros(values.size, bool)
    top[order] = True
    return top.reshape(values.shape) & seen


def pointing_scores(
    maps: np.ndarray, regions: np.ndarray, seen: np.ndarray
) -> dict[str, np.ndarray]:
    """Of each map (N, H, W) and its region, bool (N, H, W), each (N,):

    - `pointing`: 1 where the greatest value lies in the region (Zhang et al. 2018, without
      tolerance), and `pointing_chance`, for a pixel drawn from those that are seen;
    - `iou`: of the region and as many pixels, those of the greatest values; `iou_chance` for as
      many drawn pixels: p / (2 - p) for a region of a share p of the pixels.

    Args:
        seen: bool (N, H, W), the pixels that show anything.

    Raises:
        EchosynError: maps and regions of different sizes.
    """
    if maps.shape != regions.shape:
        raise EchosynError(
            f"maps of {maps.shape[1:]} pixels, but masks of {regions.shape[1:]}: ingest the "
            "dataset again, so that its tracings are of the frames that the models draw"
        )
    rows = []
    for values, region, within in zip(maps, regions & seen, seen, strict=True):
        share = region.sum() / max(within.sum(), 1)
        top = top_pixels(values, within, int(region.sum()))
        place = np.unravel_index(np.where(within, values, -np.inf).argmax(), values.shape)
        iou = (top & region).sum() / max((top | region).sum(), 1)
        rows.append((float(region[place]), share, float(iou), share / (2 - share)))
    names = ("pointing", "pointing_chance", "iou", "iou_chance")
    return dict(zip(names, np.array(rows).T, strict=True))


def pointing_numbers(
    maps: np.ndarray, regions: np.ndarray, seen: np.ndarray, resamples: int, seed: int
) -> dict[str, float]:
    """Means of `pointing_scores` over hearts, with 95 % intervals: Wilson's of the pointing game, a
    bootstrap's of IoU. A map that is 0 everywhere points nowhere and counts as a miss."""
    scores = pointing_scores(maps, regions, seen)
    still = maps.reshape(len(maps), -1).max(axis=1) <= 0
    hits, iou = np.where(still, 0.0, scores["pointing"]), np.where(still, 0.0, scores["iou"])
    numbers = wilson(float(hits.mean()), len(hits)).flat("pointing")
    numbers |= mean_estimate(iou, resamples, seed).flat("iou")
    for chance in ("pointing_chance", "iou_chance"):
        numbers[chance] = float(scores[chance].mean())
    return numbers


def mean_estimate(values: np.ndarray, resamples: int, seed: int) -> Estimate:
    """The mean of a value a heart (N,), NaN left out, with its 95 % bootstrap interval."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Estimate(float("nan"), float("nan"), float("nan"))
    drawn = [c @ known / len(known) for c in resample_counts(len(known), resamples, seed)]
    return Estimate(float(known.mean()), *percentile_interval(np.concatenate(drawn)))
