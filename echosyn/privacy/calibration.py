"""The privacy threshold tau: how similar to a training patient is too similar.

Symmetric (the default): hearts of people the models never saw are compared with the very gallery
that synthetic hearts will be compared with, encoded and scaled alike. A maximum over more
comparisons is larger, so only equal galleries make equal maxima; tau is then the level that a
stated share of unrelated people exceeds by chance, which is the false-rejection rate.

Reference (EchoNet-Synthetic): the 95th percentile, over training first frames, of the maximum
correlation with the test first frames, applied to maxima over all the training frames.
"""

from dataclasses import dataclass

import numpy as np

from echosyn.config import setting
from echosyn.errors import EchosynError
from echosyn.metrics.interval import Estimate, percentile_interval, resample_counts
from echosyn.privacy.similarity import max_similarity


@dataclass(frozen=True)
class CalibrationConfig:
    """How tau is found."""

    rule: str = setting("symmetric", choices=("symmetric", "reference"))
    false_rejection: float = setting(
        0.05, lo=0.0001, hi=0.5, help="share of unrelated people's hearts refused by chance"
    )
    resamples: int = setting(2000, lo=100, hi=100_000, help="bootstrap resamples of people")


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it rests on; hearts with similarity >= tau are refused."""

    rule: str
    tau: Estimate
    false_rejection: float
    comparisons: int  # gallery rows behind each maximum
    hearts: int
    people: int
    similarities: np.ndarray  # (hearts,) the maxima that tau is a quantile of


def accepted(similarities: np.ndarray, tau: float) -> np.ndarray:
    """Which hearts may be released: bool (N,), similarity strictly below tau."""
    return np.asarray(similarities) < tau


def calibrate_symmetric(
    heldout: np.ndarray,
    people: np.ndarray,
    gallery: np.ndarray,
    cfg: CalibrationConfig,
    seed: int,
) -> Calibration:
    """Tau from held-out hearts against the gallery that the filter uses.

    Args:
        heldout: (N, D) unit embeddings of real hearts, several frames per person.
        people: (N,) the person of each, none of whom is in the gallery.
        gallery: (M, D) unit embeddings of TRAIN frames, all those that the filter compares with.

    The interval resamples people, whose frames are alike, not frames.

    Raises:
        EchosynError: fewer than two people, or an empty gallery.
    """
    people = np.asarray(people)
    if len(np.unique(people)) < 2:
        raise EchosynError(
            f"{len(np.unique(people))} held-out people; tau needs at least two, and about "
            f"{int(np.ceil(1 / cfg.false_rejection))} to place its quantile"
        )
    similarities, _ = max_similarity(heldout, gallery)
    tau = quantile_interval(similarities, people, cfg, seed)
    return Calibration(
        "symmetric", tau, cfg.false_rejection, len(gallery), len(heldout), len(np.unique(people)),
        similarities,
    )  # fmt: skip


def calibrate_reference(
    train_first: np.ndarray, test_first: np.ndarray, cfg: CalibrationConfig, seed: int
) -> Calibration:
    """Tau by EchoNet-Synthetic's rule, for comparison with its tables.

    Args:
        train_first: (M, D) unit embeddings of each training video's first frame.
        test_first: (K, D) of each test video's first frame. With K below M the maxima are too
            low for what tau is applied to, and the filter refuses more than `false_rejection`.
    """
    similarities, _ = max_similarity(train_first, test_first)
    tau = quantile_interval(similarities, np.arange(len(train_first)), cfg, seed)
    return Calibration(
        "reference", tau, cfg.false_rejection, len(test_first), len(train_first), len(train_first),
        similarities,
    )  # fmt: skip


def quantile_interval(
    similarities: np.ndarray, people: np.ndarray, cfg: CalibrationConfig, seed: int
) -> Estimate:
    """The lowest observed tau that refuses at most the stated share, and its interval."""
    order = np.argsort(similarities, kind="stable")
    ascending = similarities[order].astype(np.float64)
    names, person = np.unique(people, return_inverse=True)
    person = person[order]
    drawn = [
        _weighted_tau(ascending, counts[:, person], cfg.false_rejection)
        for counts in resample_counts(len(names), cfg.resamples, seed, width=len(people))
    ]
    point = _weighted_tau(ascending, np.ones((1, len(ascending))), cfg.false_rejection)
    return Estimate(float(point[0]), *percentile_interval(np.concatenate(drawn)))


def _weighted_tau(ascending: np.ndarray, weights: np.ndarray, share: float) -> np.ndarray:
    """Per row of weights (R, N): the lowest value with at most `share` of the weight at or above.

    With too few hearts for any, the highest value: refusing more is the safe side.
    """
    total = weights.sum(1, keepdims=True)
    above = weights[:, ::-1].cumsum(1)[:, ::-1]  # weight at or after each position
    above = above[:, np.searchsorted(ascending, ascending)]  # equal values are refused together
    below = above <= share * total * (1 + 1e-12)
    first = np.where(below.any(1), below.argmax(1), len(ascending) - 1)
    return ascending[first]
