"""Detail that a decoder blurs: a gain for each spatial frequency, learned on TRAIN.

A decoder trained on squared error shrinks what it is unsure of, and so edges more than broad
structure. The gain brings a ring of frequencies back to the power that real pictures have there; it
cannot bring back what the latent does not hold.
"""

from functools import lru_cache

import numpy as np
from scipy import fft

RINGS = 57  # of frequencies, 1/112 cycles per pixel wide, from 0 to 0.5
BROAD = 4  # rings below are brightness and broad structure, which a decoder keeps
MOST = 3.0  # greatest gain
FAINT = 0.02  # share of the real power below which the decoded has nothing to amplify


def no_gain() -> np.ndarray:
    """1 in each of the RINGS."""
    return np.ones(RINGS, np.float32)


def sharpened(frames: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Frames uint8 (T, side, side), each frequency times the gain of its ring (RINGS,); float32,
    within 0 to 255."""
    if (gain == 1).all():
        return frames.astype(np.float32)
    side = frames.shape[-1]
    waves = fft.rfft2(frames.astype(np.float32))
    waves *= np.append(gain, 1).astype(np.float32)[_rings(side)]
    return fft.irfft2(waves, s=(side, side)).clip(0, 255)


def ring_power(frames: np.ndarray) -> np.ndarray:
    """Power of frames (T, side, side) in each ring, summed over frames, float64 (RINGS,)."""
    power = (np.abs(fft.rfft2(frames.astype(np.float32))) ** 2).sum(axis=0, dtype=np.float64)
    rings = _rings(frames.shape[-1])
    return np.bincount(rings.ravel(), power.ravel(), minlength=RINGS + 1)[:RINGS]


def closer_gain(
    gain: np.ndarray, real: np.ndarray, made: np.ndarray, decoded: np.ndarray
) -> np.ndarray:
    """The gain (RINGS,) with which pictures have the power of real ones, to first order.

    Args:
        gain: with which `made` was made. real, made, decoded: power in each ring of real pictures,
            of those made with `gain`, and of those decoded, all (RINGS,).
    """
    there = decoded > FAINT * real
    there[:BROAD] = False
    lack = np.divide(real - made, decoded, out=np.zeros(RINGS), where=there)
    wanted = np.sqrt(np.clip(gain.astype(np.float64) ** 2 + lack, 1, MOST**2))
    return np.where(there, wanted, 1).astype(np.float32)


@lru_cache(maxsize=4)
def _rings(side: int) -> np.ndarray:
    """Ring of each wave of scipy's rfft2, int64 (side, side // 2 + 1); RINGS beyond 0.5 cycles per
    pixel."""
    cycles = np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side))
    return np.minimum(np.rint(cycles * 2 * (RINGS - 1)).astype(np.int64), RINGS)
