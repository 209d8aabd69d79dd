"""The privacy threshold tau: how similar to a training patient is too similar.

Symmetric (the default): hearts of people the models never saw are compared with the very gallery
that synthetic hearts will be compared with, encoded and scaled alike. A maximum over more
comparisons is larger, so only equal galleries make equal maxima; tau is then the level that a
stated share of unrelated people exceeds by chance, which is the false-rejection rate.

Reference (EchoNet-Synthetic): the 95th percentile, over training first frames, of the maximum
correlation with the test first frames, applied to maxima over all the training frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echosyn.metrics.interval import Estimate, percentile_interval, resample_counts
from echosyn.privacy.detectors.similarity import max_similarity
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json, write_json

TAUS = "calibration.json"  # in the folder of a filter


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


def calibrate_maxima(
    maxima: np.ndarray, people: np.ndarray, comparisons: int, cfg: CalibrationConfig, seed: int
) -> Calibration:
    """Tau from held-out people's maxima over the gallery that the filter uses.

    Args:
        maxima: (N,) one per held-out heart or video, several per person.
        people: (N,) the person of each, none of whom is in the gallery.
        comparisons: gallery rows behind each maximum.

    The interval resamples people, whose frames are alike, not frames.

    Raises:
        EchosynError: so few people that refusing one refuses more than the stated share.
    """
    count, needed = len(np.unique(people)), int(np.ceil(1 / cfg.false_rejection - 1e-9))
    if count < needed:
        raise EchosynError(
            f"{count} held-out people to calibrate with; tau at a false-rejection rate of "
            f"{cfg.false_rejection:g} needs {needed}: hold out more people, or raise "
            "`false_rejection`"
        )
    tau = quantile_interval(maxima, people, cfg, seed)
    return Calibration(
        "symmetric", tau, cfg.false_rejection, comparisons, len(maxima), count, maxima
    )


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
    people = np.arange(len(train_first))
    bounds = quantile_interval(similarities, people, cfg, seed)
    # numpy.percentile, as their code has it, which interpolates.
    value = float(np.quantile(similarities.astype(np.float64), 1 - cfg.false_rejection))
    tau = Estimate(value, min(bounds.lo, value), max(bounds.hi, value))
    return Calibration(
        "reference", tau, cfg.false_rejection, len(test_first), len(train_first), len(train_first),
        similarities,
    )  # fmt: skip


def save_taus(
    path: Path, calibrations: Mapping[str, Calibration], made_with: Mapping[str, Any]
) -> None:
    """Keep thresholds by name, together with what they hold for.

    Args:
        made_with: identities of the encoder and the latents, and how they are compared.
    """
    taus = {
        name: {
            "rule": c.rule,
            "tau": c.tau.value,
            "tau_lo": c.tau.lo,
            "tau_hi": c.tau.hi,
            "false_rejection": c.false_rejection,
            "comparisons": c.comparisons,
            "candidates": c.hearts,
            "people": c.people,
        }
        for name, c in calibrations.items()
    }
    write_json(path, {"made_with": dict(made_with), "taus": taus})


def read_taus(path: Path, made_with: Mapping[str, Any]) -> dict[str, Estimate]:
    """The thresholds that `save_taus` kept, by name.

    Raises:
        EchosynError: no such file, or thresholds that were calibrated with something else: a tau
            means nothing for another encoder, other patients or another way of comparing.
    """
    if not path.is_file():
        raise EchosynError(f"{path} does not exist; run the privacy filter's stage")
    kept = read_json(path)
    for name, value in made_with.items():
        if kept["made_with"].get(name) != value:
            raise EchosynError(
                f"{path}: tau was calibrated with {name} {kept['made_with'].get(name)!r}, but it "
                f"is now {value!r}: run the privacy filter's stage again"
            )
    return {n: Estimate(t["tau"], t["tau_lo"], t["tau_hi"]) for n, t in kept["taus"].items()}


def quantile_interval(
    similarities: np.ndarray, people: np.ndarray, cfg: CalibrationConfig, seed: int
) -> Estimate:
    """The lowest observed tau that refuses at most the stated share, and its interval."""
    order = np.argsort(similarities, kind="stable")
    ascending = similarities[order].astype(np.float64)
    names, person = np.unique(people, return_inverse=True)
    person = person[order]
    drawn = [
        weighted_tau(ascending, counts[:, person], cfg.false_rejection)
        for counts in resample_counts(len(names), cfg.resamples, seed, width=len(people))
    ]
    point = weighted_tau(ascending, np.ones((1, len(ascending))), cfg.false_rejection)
    return Estimate(float(point[0]), *percentile_interval(np.concatenate(drawn)))


def weighted_tau(ascending: np.ndarray, weights: np.ndarray, share: float) -> np.ndarray:
    """Per row of weights (R, N): the lowest value with at most `share` of the weight at or above.

    With too few hearts for any, the highest value: refusing more is the safe side.
    """
    total = weights.sum(1, keepdims=True)
    above = weights[:, ::-1].cumsum(1)[:, ::-1]  # weight at or after each position
    above = above[:, np.searchsorted(ascending, ascending)]  # equal values are refused together
    below = above <= share * total * (1 + 1e-12)
    first = np.where(below.any(1), below.argmax(1), len(ascending) - 1)
    return ascending[first]
