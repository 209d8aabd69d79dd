"""Sharpening: the power that a blur took comes back, and nothing is made of nothing."""

import cv2
import numpy as np
import pytest

from echosyn.models.sharpening import (
    BROAD,
    MOST,
    RINGS,
    closer_gain,
    no_gain,
    ring_power,
    sharpened,
)


def pictures(n=6, side=112, blur=0.0):
    """Discs of random size on black, uint8."""
    rng, found = np.random.default_rng(0), []
    for _ in range(n):
        x = np.zeros((side, side), np.float32)
        for _ in range(12):
            centre = tuple(int(v) for v in rng.integers(10, side - 10, 2))
            cv2.circle(x, centre, int(rng.integers(3, 9)), int(rng.integers(60, 180)), -1)
        x = cv2.GaussianBlur(x, (0, 0), 0.8)
        found.append(cv2.GaussianBlur(x, (0, 0), blur) if blur else x)
    return np.rint(found).astype(np.uint8)


def test_edges_that_a_blur_took_come_back():
    real, decoded = pictures(), pictures(blur=0.9)
    power = ring_power(real), ring_power(decoded)
    gain = closer_gain(no_gain(), power[0], power[1], power[1])
    assert gain.max() > 1.3
    made = ring_power(sharpened(decoded, gain))
    middle = slice(BROAD, 25)
    before = np.abs(10 * np.log10(power[1] / power[0]))[middle].mean()
    after = np.abs(10 * np.log10(made / power[0]))[middle].mean()
    assert after < before / 3
    error = [np.abs(x.astype(float) - real).mean() for x in (decoded, sharpened(decoded, gain))]
    assert error[1] < error[0], "what comes back lies where it was"


def test_a_gain_of_one_changes_nothing():
    frames = pictures()
    assert np.array_equal(sharpened(frames, no_gain()), frames)
    assert np.array_equal(closer_gain(no_gain(), *[ring_power(frames)] * 3), no_gain())


def test_only_the_ring_of_a_wave_is_raised():
    wave = 100 + 40 * np.sin(2 * np.pi * 14 * np.arange(112) / 112)
    frames = np.rint(np.tile(wave, (1, 112, 1))).astype(np.uint8)
    power = ring_power(frames)
    assert power[1:].argmax() + 1 == 14
    for ring, swing in ((14, 80), (30, 40)):
        gain = no_gain()
        gain[ring] = 2
        out = sharpened(frames, gain)
        assert np.ptp(out) / 2 == pytest.approx(swing, rel=0.03)
        assert out.mean() == pytest.approx(100, abs=0.5)


def test_the_gain_is_bounded_and_leaves_what_cannot_be_amplified():
    real = np.full(RINGS, 100.0)
    decoded = np.full(RINGS, 5.0)
    decoded[30] = 1.0  # below FAINT
    gain = closer_gain(no_gain(), real, decoded, decoded)
    assert (gain[:BROAD] == 1).all()
    assert gain[30] == 1
    assert (np.delete(gain, [*range(BROAD), 30]) == np.float32(MOST)).all()
    assert (closer_gain(no_gain(), decoded, real, real) == 1).all(), "never below 1"
    assert (closer_gain(no_gain(), real, 0 * real, 0 * real) == 1).all(), "nothing decoded"
