"""Ultrasound statistics on speckle whose statistics are known."""

import cv2
import numpy as np
import pytest

from echosyn.metrics.ultrasound import (
    BINS,
    SPECKLE,
    STATISTICS,
    compare_statistics,
    image_statistics,
    set_means,
)
from echosyn.runtime.errors import EchosynError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def envelope(frames: int, axial: float, lateral: float, seed: int = 0, size: int = 112):
    """Fully developed speckle float32 (T, size, size), mean square 1: circular complex Gaussian
    noise through a Gaussian point spread of these sigmas in pixels."""
    z = rng(seed).normal(size=(frames, size, size, 2)).astype(np.float32)
    z = np.stack([cv2.GaussianBlur(x, (0, 0), sigmaX=lateral, sigmaY=axial) for x in z])
    return np.hypot(z[..., 0], z[..., 1]) / np.sqrt(2 * z.var())


def compressed(x: np.ndarray, decibels: float = 50.0, mean: float = 140.0) -> np.ndarray:
    """Log compression to grey levels, 255 for `decibels`."""
    grey = mean + 255 / decibels * 20 * np.log10(np.maximum(x, 1e-4))
    return np.clip(grey, 0, 255).round().astype(np.uint8)


def statistics(video: np.ndarray) -> dict[str, float]:
    return dict(zip(STATISTICS, image_statistics(video), strict=True))


def spectrum(video: np.ndarray) -> np.ndarray:
    return image_statistics(video)[len(SPECKLE) :]


def test_the_envelope_of_developed_speckle_has_snr_191():
    measured = statistics((envelope(8, 0.5, 0.5) * 70).clip(0, 255).astype(np.uint8))
    assert measured["snr"] == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.04)


def test_log_compressed_speckle_has_a_deviation_of_557_db_at_any_mean():
    for mean in (130.0, 170.0):
        measured = statistics(compressed(envelope(8, 0.5, 0.5), 60.0, mean))
        # The mean of log Rayleigh lies 2.51 dB below its mean square.
        expected = (mean - 2.51 * 255 / 60) / (5.57 * 255 / 60)
        assert measured["snr"] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("axial", "lateral"), [(0.7, 0.7), (1.0, 1.5), (1.5, 1.0)])
def test_the_size_of_the_point_spread_is_recovered(axial, lateral):
    # The field's correlation at distance d is mu = exp(-d^2 / 4 s^2); that of log intensity is
    # Li2(mu^2) / Li2(1), one half where mu^2 = 0.661.
    half = np.sqrt(-2 * np.log(0.661))
    measured = statistics(compressed(envelope(8, axial, lateral)))
    assert measured["axial_px"] == pytest.approx(half * axial, rel=0.1)
    assert measured["lateral_px"] == pytest.approx(half * lateral, rel=0.1)


def test_the_spectrum_of_white_noise_is_flat_at_its_variance():
    noise = rng().normal(128, 10, (16, 112, 112)).round().astype(np.uint8)
    measured = spectrum(noise)
    assert measured == pytest.approx(np.full(BINS, 20.0), abs=1.5)
    assert measured[8:].mean() == pytest.approx(20.0, abs=0.1)
    # Outside the ring the corners: share of the square beyond 0.25 cycles per pixel.
    assert statistics(noise)["high_share"] == pytest.approx(1 - np.pi / 16, abs=0.01)


def test_a_wave_lies_in_its_ring():
    x = np.arange(96)
    for f in (0.1, 0.3):
        wave = 128 + 50 * np.sin(2 * np.pi * f * x) * np.ones((2, 96, 1))
        assert spectrum(wave.astype(np.uint8)).argmax() == int(f * 64)


def test_the_black_round_a_sector_does_not_count():
    video = compressed(envelope(8, 0.7, 0.7))
    y, x = np.mgrid[:112, :112]
    inside = (np.abs(x - 56) < 8 + 0.8 * y) & (np.hypot(x - 56, y) < 108)
    whole, fan = statistics(video), statistics(video * inside.astype(np.uint8))
    for name in ("snr", "axial_px", "lateral_px", "temporal"):
        assert fan[name] == pytest.approx(whole[name], abs=0.05 * abs(whole[name]) + 0.02)
    difference = spectrum(video * inside.astype(np.uint8)) - spectrum(video)
    assert np.abs(difference[4:]).max() < 1.5


@pytest.mark.parametrize("width", [20, 56])
def test_dark_blood_beside_tissue_does_not_count(width):
    video = compressed(envelope(8, 0.7, 0.7))
    blood = (np.arange(112) // width) % 2 == 1
    mixed = np.where(blood, (video * 0.2).astype(np.uint8), video)
    whole, beside = statistics(video), statistics(mixed)
    for name in ("snr", "axial_px", "lateral_px", "temporal"):
        assert beside[name] == pytest.approx(whole[name], abs=0.08 * abs(whole[name]) + 0.08)


def test_temporal_correlation_is_that_of_the_speckle():
    fresh = envelope(8, 1.0, 1.0)
    assert statistics(compressed(fresh))["temporal"] == pytest.approx(0, abs=0.03)
    frozen = np.repeat(compressed(fresh)[:1], 8, axis=0)
    assert statistics(frozen)["temporal"] == 1
    # Noise of AR(1) memory 0.6, no speckle: the correlation is the memory.
    steps = rng(1).normal(size=(40, 64, 64))
    for t in range(1, 40):
        steps[t] = 0.6 * steps[t - 1] + 0.8 * steps[t]
    grey = (128 + 15 * steps).clip(0, 255).astype(np.uint8)
    assert statistics(grey)["temporal"] == pytest.approx(0.6, abs=0.02)


def rows(seed: int, n: int = 24, blur: float = 0.0, size: int = 48) -> np.ndarray:
    """Statistics of n short videos whose gain and grain vary."""
    made = []
    for i in range(n):
        r = rng(1000 * seed + i)
        s = r.uniform(0.8, 1.2)
        x = compressed(envelope(2, s, s, seed=1000 * seed + i, size=size), mean=r.uniform(120, 160))
        made.append(np.stack([cv2.GaussianBlur(f, (0, 0), blur) for f in x]) if blur else x)
    return np.stack([image_statistics(x) for x in made])


def test_blur_is_seen_and_grows():
    real = rows(0)
    floor = compare_statistics(real, rows(1))
    blurred = [compare_statistics(real, rows(1, blur=s)) for s in (0.5, 1.0, 2.0)]
    for name in ("us/spectrum_db", "us/snr", "us/axial_px", "us/lateral_px", "us/high_share"):
        values = [e[name].value for e in (floor, *blurred)]
        assert values == sorted(values)
        assert blurred[1][name].lo > floor[name].hi
    assert rows(1, n=2, blur=1.0)[:, -1].max() < rows(1, n=2)[:, -1].min() - 10  # dB


def test_frozen_texture_is_seen_by_the_temporal_correlation_alone():
    video = [compressed(envelope(2, 1, 1, seed=i, size=64)) for i in range(48)]
    real = np.stack([image_statistics(x) for x in video[:24]])
    frozen = np.stack([image_statistics(np.repeat(x[:1], 2, 0)) for x in video[24:]])
    distances = compare_statistics(real, frozen)
    assert distances["us/temporal"].lo > 10
    assert max(e.value for k, e in distances.items() if k.startswith("us/s")) < 1


def test_wasserstein_of_shifted_sets_is_the_shift():
    real = rng().normal(size=(60, len(STATISTICS)))
    real[:, 0] = 3 * (real[:, 0] - real[:, 0].mean()) / real[:, 0].std()
    moved = real[rng(1).permutation(60)].copy()
    moved[:, 0] += 6.0
    moved[:, len(SPECKLE) :] += 2.5
    distances = compare_statistics(real, moved)
    assert list(distances) == [*(f"us/{name}" for name in SPECKLE), "us/spectrum_db"]
    assert distances["us/snr"].value == pytest.approx(2.0)
    assert distances["us/snr"].lo < 2.0 < distances["us/snr"].hi
    assert distances["us/axial_px"].value == pytest.approx(0, abs=1e-12)
    assert distances["us/spectrum_db"].value == pytest.approx(2.5)
    same = compare_statistics(real, real)
    assert max(abs(x) for e in same.values() for x in (e.value, e.lo, e.hi)) < 1e-12


def test_intervals_cover_the_shift_of_two_populations():
    inside = 0
    for seed in range(40):
        real, fake = rng(seed).normal(size=(2, 100, len(STATISTICS)))
        e = compare_statistics(real, fake + 1.0)["us/snr"]
        inside += e.lo <= 1.0 <= e.hi
    assert inside >= 34


def test_means_of_a_set():
    made = rng().normal(size=(100, len(STATISTICS))) + 5
    means = set_means(made)
    assert list(means) == [f"us/{name}_mean" for name in SPECKLE]
    e = means["us/temporal_mean"]
    assert e.value == pytest.approx(made[:, 3].mean())
    # 1.96 standard errors of the mean either side.
    assert e.hi - e.value == pytest.approx(0.196, rel=0.35)


@pytest.mark.parametrize(
    "video",
    [
        np.zeros((4, 32, 32), np.uint8),
        np.full((2, 16, 16), 90, np.uint8),
        np.full((3, 200, 40), 255, np.uint8),
        np.repeat(np.eye(32, dtype=np.uint8)[None] * 255, 3, 0),
    ],
)
def test_videos_without_speckle_have_finite_statistics(video):
    row = image_statistics(video)
    assert row.shape == (len(STATISTICS),)
    assert row.dtype == np.float64
    assert np.isfinite(row).all()
    assert row[3] == 1
    if video.std() == 0:
        assert row[5:] == pytest.approx(np.full(BINS, 10 * np.log10(1 / 12)))
        assert row[[1, 2, 4]].tolist() == [0, 0, 0]


def test_a_real_set_without_spread_has_no_unit():
    real = np.ones((4, len(STATISTICS)))
    assert compare_statistics(real, real)["us/snr"].value == 0
    assert compare_statistics(real, real + 1)["us/snr"].flat("us/snr") == {}


@pytest.mark.parametrize(
    "video",
    [
        np.zeros((1, 32, 32), np.uint8),
        np.zeros((4, 12, 32), np.uint8),
        np.zeros((4, 32, 32)),
        np.zeros((32, 32), np.uint8),
    ],
)
def test_videos_that_cannot_be_measured_are_refused(video):
    with pytest.raises(EchosynError, match="two frames or more of 16x16 pixels or more, got"):
        image_statistics(video)


def test_rows_that_cannot_be_compared_are_refused():
    good = np.zeros((4, len(STATISTICS)))
    bad = good.copy()
    bad[2, 1] = np.nan
    for real, fake, match in (
        (good, bad, "fake rows: axial_px of video 2 is not finite"),
        (good[:, :5], good, "real rows: expected a row of 37 statistics"),
        (good, good[:1], "fake rows: expected .* two videos or more"),
        (good, good[:3], "4 real and 3 fake videos"),
    ):
        with pytest.raises(EchosynError, match=match):
            compare_statistics(real, fake)
