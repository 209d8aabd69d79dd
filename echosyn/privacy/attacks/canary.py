"""Canary bound: how likely is it that the generator reproduces a training heart?

The idea is of Dombrowski & Kainz 2023 (arXiv 2306.01363): plant a mark in training hearts, train,
start the reverse process from noised copies of marked hearts, and see how far back (the largest
time t') a sample is still recognised. The bound below is derived here, and its numbers do not
compare with that paper's tables.

A sample drawn from pure noise passes through time t as z_t. If z_t is distributed as the noised
training set, of which a share s carries the mark, then

    P(recognised) = s P(recognised | z_t from marked) + (1 - s) P(recognised | z_t from unmarked),

and a reproduced marked heart is recognised with the detector's sensitivity c, so that

    P(reproduces a marked heart) <= P(recognised) / c                                  (*)

for every t, each probability being replaced by the end of its one-sided Clopper-Pearson interval
and all ends holding together (Bonferroni); the least over t is the bound. Late times t < 1 need
the assumption that the model's marginal is the noised training set's. Time 1 does not: both starts
are pure noise there, and (*) is plain sampling. What no bound here covers: a copy in which the
mark was lost, since the mark stands for what identifies a patient.

A generator that only repeats its training hearts reproduces marked ones at their share s, however
small s is: what tells is the bound relative to s. 1 is repeating, and to bound it well below 1
takes many more than 1 / s samples.

Mark few people. A mark that many carry is learned as if it were anatomy, and returns in new hearts
of a generator that copies nobody: the bound then holds, but says nothing about memorising.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from echosyn.metrics.interval import Estimate, clopper_pearson
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

Sampler = Callable[[Tensor, float], Tensor]  # (z_t (B, ...), t in (0, 1]) to samples (B, ...)
Noisy = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]  # Objective.noisy


@dataclass(frozen=True)
class CanaryConfig:
    """The mark, and the times at which the reverse process starts."""

    amplitude: float = setting(0.5, lo=0.01, hi=10.0, help="of the mark, in sd of the latents")
    share: float = setting(
        0.01, lo=0.0001, hi=0.999, help="of TRAIN people, who carry the mark; one at least"
    )
    times: tuple[float, ...] = setting(
        (0.2, 0.4, 0.6, 0.8, 0.9, 1.0), lo=0.01, hi=1.0, help="1 is pure noise"
    )
    samples: int = setting(500, lo=1, help="per time, from marked and from unmarked hearts each")
    confidence: float = setting(0.95, lo=0.5, hi=0.9999, help="that the bound holds")

    def check(self) -> str | None:
        if 1.0 not in self.times or len(set(self.times)) < len(self.times):
            return f"times {self.times} must differ and include 1.0 (pure noise)"
        return None


@dataclass(frozen=True)
class Detector:
    """Matched filter: recognised when the mean of heart x pattern exceeds `threshold`."""

    pattern: Tensor
    threshold: float
    false_alarm: Estimate
    sensitivity: Estimate
    trials: int  # hearts of each kind behind both rates

    def __call__(self, hearts: Tensor) -> np.ndarray:
        """bool (N,) of hearts (N, C, h, w)."""
        return _scores(hearts, self.pattern) > self.threshold


@dataclass(frozen=True)
class CanaryResult:
    """Recognised shares by time and what follows from them."""

    times: np.ndarray  # (T,) ascending, the last 1
    marked: list[Estimate]
    unmarked: list[Estimate]
    bounds: np.ndarray  # (T,) of (*), at time 1 without an assumption
    reach: float  # t', 0 when no noised copy was recognised more often than by chance
    detector: Detector
    share: float  # of what the generator was trained on that carries the mark
    samples: int  # per time and kind

    @property
    def relative(self) -> float:
        """The bound from pure noise, which assumes nothing, over what a generator that only repeats
        its training hearts would reach."""
        return float(self.bounds[-1]) / self.share

    def table(self) -> pd.DataFrame:
        """A row per time: time, marked and unmarked with _lo and _hi (95 %), bound."""
        columns = {"time": self.times}
        for name, shares in (("marked", self.marked), ("unmarked", self.unmarked)):
            columns[name] = np.array([e.value for e in shares])
            columns[f"{name}_lo"] = np.array([e.lo for e in shares])
            columns[f"{name}_hi"] = np.array([e.hi for e in shares])
        return pd.DataFrame({**columns, "bound": self.bounds})

    def numbers(self, prefix: str = "privacy") -> dict[str, float]:
        return {
            f"{prefix}/canary_bound": float(self.bounds.min()),
            f"{prefix}/canary_bound_from_noise": float(self.bounds[-1]),
            f"{prefix}/canary_relative": self.relative,
            f"{prefix}/canary_share": self.share,
            f"{prefix}/canary_reach": self.reach,
            **self.detector.false_alarm.flat(f"{prefix}/canary_false_alarm"),
            **self.detector.sensitivity.flat(f"{prefix}/canary_sensitivity"),
        }


def mark_pattern(shape: tuple[int, ...], seed: int) -> Tensor:
    """The mark: +1 or -1 in every cell of a heart, fixed by `seed`; no anatomy looks like it."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, shape, generator=generator) * 2.0 - 1.0


def plant(hearts: Tensor, pattern: Tensor, amplitude: float) -> Tensor:
    """Hearts (N, C, h, w), or clips (N, T, C, h, w), with the mark added."""
    return hearts + amplitude * pattern.to(hearts)


def make_detector(
    train: Tensor, heldout: Tensor, pattern: Tensor, amplitude: float, level: float
) -> Detector:
    """A detector whose error rates are measured on people who did not place its threshold.

    Args:
        train: (M, C, h, w) unmarked; the threshold is midway between these and the same marked.
        heldout: (N, C, h, w) unmarked, of people held out from training, one heart of each.
        level: confidence of both error rates' intervals.

    Raises:
        EchosynError: no hearts, or so faint a mark, or so few of them, that recognising the marked
            cannot be distinguished from false alarms.
    """
    if len(train) == 0 or len(heldout) == 0:
        raise EchosynError(
            f"a mark's detector needs hearts of both kinds, not {len(train)} of TRAIN and "
            f"{len(heldout)} held out"
        )
    middle = float(_scores(train, pattern).mean()) + amplitude / 2
    alarms = _scores(heldout, pattern) > middle
    found = _scores(plant(heldout, pattern, amplitude), pattern) > middle
    detector = Detector(
        pattern,
        middle,
        clopper_pearson(float(alarms.mean()), len(heldout), level),
        clopper_pearson(float(found.mean()), len(heldout), level),
        len(heldout),
    )
    if detector.sensitivity.lo <= detector.false_alarm.hi:
        raise EchosynError(
            f"a mark of amplitude {amplitude} is recognised in {found.mean():.0%} of marked and "
            f"{alarms.mean():.0%} of unmarked hearts of {len(heldout)} held-out people: raise "
            "`amplitude`, or hold out more people"
        )
    return detector


def reproduction_bounds(
    marked: np.ndarray,
    unmarked: np.ndarray,
    samples: int,
    share: float,
    sensitivity: float,
    confidence: float,
) -> np.ndarray:
    """(*) at every time, (T,): at most 1, all holding together with `confidence`.

    Args:
        marked, unmarked: (T,) counts recognised of `samples` started from each kind, by ascending
            time. The last started from pure noise, which is of no kind: they count together.
        share: of the training set that carries the mark.
        sensitivity: lower end for the detector's, which may err by `bound_tail`.
    """
    marked, unmarked = np.asarray(marked), np.asarray(unmarked)
    tail = bound_tail(len(marked), confidence)
    high = [_upper(counts, samples, tail) for counts in (marked, unmarked)]
    recognised = share * high[0] + (1 - share) * high[1]
    recognised[-1] = _upper(marked[-1:] + unmarked[-1:], 2 * samples, tail)[0]
    return np.minimum(recognised / sensitivity, 1.0)


def bound_tail(times: int, confidence: float) -> float:
    """What each of the 2 T one-sided ends behind the bounds may err: two for each time but the
    last, one for that, one for the detector."""
    return (1 - confidence) / (2 * times)


def detector_low(detector: Detector, tail: float) -> float:
    """Lower one-sided end of the detector's sensitivity, which errs by `tail`."""
    return clopper_pearson(detector.sensitivity.value, detector.trials, 1 - 2 * tail).lo


def check_samples(detector: Detector, cfg: CanaryConfig) -> None:
    """Refuse an audit that could not tell even if no mark came back at all.

    Args:
        cfg: its `share` is the one that really carries the mark.

    Raises:
        EchosynError: too few samples to bound the reproduction below that of a generator which
            only repeats its training hearts; says how many it takes.
    """
    tail = bound_tail(len(cfg.times), cfg.confidence)
    low = detector_low(detector, tail)
    # 1 - tail^(1 / 2n), the end for none of 2n, must be below share x sensitivity.
    needed = int(np.log(tail) / (2 * np.log1p(-cfg.share * low))) + 1
    if cfg.samples < needed:
        raise EchosynError(
            f"{cfg.samples} samples per time cannot bound how often a mark in {cfg.share:.2%} of "
            f"the training set comes back: set `samples` to {needed} at least, better "
            f"{4 * needed}, or raise `share`"
        )


def furthest_recognised(
    times: np.ndarray, marked: np.ndarray, samples: int, false_alarm: float, confidence: float
) -> float:
    """t': the largest time whose marked copies are recognised more often than `false_alarm`.

    "More often": the lower Clopper-Pearson end, Bonferroni over times, exceeds it. 0 if at none.
    """
    times, marked = np.asarray(times, np.float64), np.asarray(marked)
    tail = (1 - confidence) / len(times)
    low = stats.beta.ppf(tail, marked, samples - marked + 1)
    above = np.where(marked > 0, low, 0.0) > false_alarm
    return float(times[above].max(initial=0.0))


def canary_audit(
    sampler: Sampler,
    noisy: Noisy,
    marked: Tensor,
    unmarked: Tensor,
    detector: Detector,
    cfg: CanaryConfig,
    seed: int,
) -> CanaryResult:
    """Start the reverse process from noised training hearts, and count the marks that come back.

    Args:
        sampler: of a generator trained with the mark in `cfg.share` of its people.
        noisy: the forward process, Objective.noisy.
        marked, unmarked: (N, C, h, w) draws from what the generator was trained on, at least
            `cfg.samples` of each; fewer are used again.
        cfg: its `share` is the one that really carries the mark.

    Raises:
        EchosynError: no hearts of a kind.
    """
    if len(marked) == 0 or len(unmarked) == 0:
        raise EchosynError(f"{len(marked)} marked and {len(unmarked)} unmarked hearts; need both")
    times = np.sort(np.array(cfg.times))
    generator = torch.Generator().manual_seed(seed)
    counts = np.zeros((len(times), 2), np.int64)
    for i, t in enumerate(times):
        for j, hearts in enumerate((marked, unmarked)):
            rows = torch.arange(cfg.samples) % len(hearts)
            noise = torch.randn((cfg.samples, *hearts.shape[1:]), generator=generator)
            u = torch.full((cfg.samples,), float(t))
            z = noise if t == 1 else noisy(hearts[rows], noise, u)[0]
            counts[i, j] = np.count_nonzero(detector(sampler(z, float(t))))
    tail = bound_tail(len(times), cfg.confidence)
    bounds = reproduction_bounds(
        counts[:, 0], counts[:, 1], cfg.samples, cfg.share, detector_low(detector, tail),
        cfg.confidence,
    )  # fmt: skip
    shares = [
        [clopper_pearson(c / cfg.samples, cfg.samples) for c in counts[:, j]] for j in range(2)
    ]
    reach = furthest_recognised(
        times, counts[:, 0], cfg.samples, detector.false_alarm.hi, cfg.confidence
    )
    return CanaryResult(
        times, shares[0], shares[1], bounds, reach, detector, cfg.share, cfg.samples
    )


def _scores(hearts: Tensor, pattern: Tensor) -> np.ndarray:
    return (hearts.double() * pattern.double()).flatten(1).mean(1).cpu().numpy()


def _upper(counts: np.ndarray, n: int, tail: float) -> np.ndarray:
    """Upper one-sided Clopper-Pearson ends of counts of n trials."""
    return np.where(
        counts < n, stats.beta.ppf(1 - tail, counts + 1, np.maximum(n - counts, 1)), 1.0
    )
