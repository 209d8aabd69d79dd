"""Fidelity of reconstructed frames: PSNR and SSIM of uint8 grey videos (T, H, W)."""

import cv2
import numpy as np

from echosyn.runtime.errors import EchosynError

WINDOW, SIGMA = 11, 1.5
PEAK = 255.0


def psnr_db(real: np.ndarray, fake: np.ndarray) -> float:
    """Peak signal-to-noise ratio of a video in decibels, from its mean squared error over frames.

    Infinite for equal videos.
    """
    _check(real, fake, 1)
    difference = real.astype(np.int32) - fake.astype(np.int32)
    mse = float(np.mean(difference * difference))
    return float("inf") if mse == 0 else float(10 * np.log10(PEAK**2 / mse))


def ssim(real: np.ndarray, fake: np.ndarray) -> float:
    """Mean structural similarity over the frames, -1 to 1 (Wang et al. 2004).

    Gaussian window 11x11 of sigma 1.5, K1 0.01, K2 0.03, range 255, averaged over the windows that
    lie inside the frame (torchmetrics also averages windows over a mirrored border).
    """
    _check(real, fake, WINDOW)
    return float(np.mean([_ssim(a, b) for a, b in zip(real, fake, strict=True)]))


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    # float64: a variance is the small difference of two squares of up to 65,025.
    a, b = a.astype(np.float64), b.astype(np.float64)
    half = WINDOW // 2

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (WINDOW, WINDOW), SIGMA)[half:-half, half:-half]

    mu_a, mu_b = blur(a), blur(b)
    products = mu_a * mu_b
    squares = mu_a**2 + mu_b**2
    covariance = blur(a * b) - products
    variances = blur(a * a + b * b) - squares
    similarity = (2 * products + c1) * (2 * covariance + c2)
    return float(np.mean(similarity / ((squares + c1) * (variances + c2))))


def _check(real: np.ndarray, fake: np.ndarray, least: int) -> None:
    if real.shape != fake.shape or real.ndim != 3 or len(real) == 0:
        raise EchosynError(f"videos of shapes {real.shape} and {fake.shape}; need equal (T, H, W)")
    if real.dtype != np.uint8 or fake.dtype != np.uint8:
        raise EchosynError(f"videos of {real.dtype} and {fake.dtype}; both must be uint8")
    if min(real.shape[1:]) < least:
        raise EchosynError(f"frames of {real.shape[1]}x{real.shape[2]}; at least {least} per side")
