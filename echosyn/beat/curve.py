"""Rate and phase from a curve that repeats with the beat, such as the area of the left ventricle.

The curve is fitted by a trend, a sinusoid at the rate and one at its double, least squares, over a
grid of rates (harmonic regression; Quinn & Hannan 2001, ch. 2). The rate that explains most is
taken, and the phase of the sinusoid at it.
"""

from dataclasses import dataclass

import numpy as np

RATES = np.arange(40.0, 180.5, 0.5)  # beats a minute
SURE = 0.7  # share of a curve's variance that a beat must explain
LEAST = 1.25  # beats that a curve must span


@dataclass(frozen=True, eq=False)
class Beats:
    """Of N curves: rate, beats a minute; phase of the first sample, in beats since the largest
    value of the sinusoid; share of the variance explained, 0-1. All float64 (N,); NaN for rate and
    phase where `sure` is not.
    """

    rate: np.ndarray
    phase: np.ndarray
    share: np.ndarray

    @property
    def sure(self) -> np.ndarray:
        return np.isfinite(self.rate)


def fit_beats(curves: list[np.ndarray], fps: float) -> Beats:
    """The beats of curves (T,), one sample a frame.

    A rate is not sure, so NaN, where it explains less than `SURE` of the curve's variance (an
    irregular beat, noise, nothing that moves) or the curve is shorter than `LEAST` beats.
    """
    found = np.full((len(curves), 3), np.nan)
    lengths = np.array([len(c) for c in curves])
    for length in np.unique(lengths):
        which = np.flatnonzero(lengths == length)
        found[which] = _fit(np.stack([curves[i] for i in which]).astype(np.float64), fps)
    return Beats(*found.T)


def _fit(curves: np.ndarray, fps: float) -> np.ndarray:
    """Rate, phase and share of curves (N, T), float64 (N, 3)."""
    n, frames = curves.shape
    time = np.arange(frames) / fps
    rates = RATES[RATES / 60 * frames / fps >= LEAST]
    none = np.column_stack([np.full((n, 2), np.nan), np.zeros(n)])
    if not len(rates) or frames < 8:
        return none
    angle = 2 * np.pi * rates[:, None] / 60 * time  # (F, T)
    waves = [np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)]
    trend = [np.ones_like(angle), np.broadcast_to(time - time.mean(), angle.shape)]
    basis = np.stack([*trend, *waves], axis=-1)  # (F, T, 6)
    # The share is of what a straight line leaves: breathing and drift are no beat.
    flat, _ = np.linalg.qr(basis[0, :, :2])
    rest = curves - curves @ flat @ flat.T
    whole = np.square(rest).sum(axis=1)
    q, _ = np.linalg.qr(basis)
    explained = np.square(np.einsum("nt,ftk->nfk", rest, q)).sum(axis=-1)
    best = explained.argmax(axis=1)
    share = explained[np.arange(n), best] / np.maximum(whole, np.finfo(float).tiny)
    for i in range(n):
        if share[i] >= SURE and whole[i] > 1e-9 * max(1.0, float(np.square(curves[i]).sum())):
            weights = np.linalg.lstsq(basis[best[i]], curves[i], rcond=None)[0]
            phase = np.arctan2(-weights[3], weights[2]) / (2 * np.pi) % 1
            none[i] = rates[best[i]], phase, share[i]
        else:
            none[i, 2] = share[i]
    return none


def circular_mean(phases: np.ndarray) -> tuple[float, float]:
    """Mean of phases in beats, in -0.5 .. 0.5, and the resultant length: 1 where all agree, about
    0 where they have nothing in common (Mardia & Jupp 2000, sec. 2.2)."""
    mean = np.exp(2j * np.pi * np.asarray(phases)).mean() if len(phases) else 0j
    return float(np.angle(mean) / (2 * np.pi)), float(abs(mean))
