"""The motion space: what moves counts, what stands still does not."""

import numpy as np
import pytest

from echosyn.data.phantom import PhantomConfig, render_patient
from echosyn.metrics.features import distance_name
from echosyn.metrics.frechet import frechet_interval
from echosyn.metrics.kernel import kernel_distance
from echosyn.metrics.motion import CENTRES, OFFSETS, SCALES, MotionFeatures
from echosyn.runtime.errors import EchosynError

N, FRAMES, FPS = 40, 32, 16.0
SPACE = MotionFeatures(FRAMES, FPS)
BANDS = slice(4, 32)  # 7 bands of 4 regions, after the amount of movement
ODD = slice(45, 56)  # slopes and modes: what changes sign when time is turned round


def rendered(first: int, fps: float) -> np.ndarray:
    """Phantom patients (N, 32, 112, 112); shown at 16 fps, those of another rate change speed."""
    cfg = PhantomConfig(train=2 * N, val=1, test=1, frames=FRAMES, fps=fps)
    return np.stack([render_patient(i, cfg, seed=0).frames for i in range(first, first + N)])


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    return SPACE(rendered(0, FPS))


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return rendered(N, FPS)


@pytest.fixture(scope="module")
def clean(clips) -> np.ndarray:
    return SPACE(clips)


@pytest.fixture(scope="module")
def floor(real, clean) -> float:
    """Upper end of the distance between two real sets."""
    return frechet_interval(real, clean).hi


def shuffled(clips: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([c[rng.permutation(len(c))] for c in clips])


MOTION = {
    "shuffled": shuffled,
    "neighbours swapped": lambda c: c[:, np.arange(FRAMES) ^ 1],
    "frozen": lambda c: np.repeat(c[:, :1], FRAMES, 1),
    "half frozen": lambda c: c[:, np.minimum(np.arange(FRAMES), FRAMES // 2 - 1)],
    "speed x1.5": lambda c: rendered(N, FPS / 1.5),
    "speed x0.67": lambda c: rendered(N, FPS * 1.5),
}


def noisy(clips: np.ndarray, frames: int) -> np.ndarray:
    """10 % multiplicative noise, drawn for each frame or once for all."""
    rng = np.random.default_rng(1)
    noise = rng.normal(1, 0.1, (len(clips), frames, *clips.shape[2:])).astype(np.float32)
    return np.clip(clips * noise, 0, 255).astype(np.uint8)


STILL = {
    "gain +10 %": lambda c: np.clip(c * 1.1, 0, 255).astype(np.uint8),
    "gain -10 %": lambda c: (c * 0.9).astype(np.uint8),
    "still speckle": lambda c: noisy(c, 1),
    "flickering speckle": lambda c: noisy(c, FRAMES),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MOTION)
def test_broken_motion_is_above_two_real_sets(name, real, clips, clean, floor):
    broken = SPACE(MOTION[name](clips))
    assert frechet_interval(real, broken).lo > 3 * floor
    assert kernel_distance(real, broken).lo > kernel_distance(real, clean).hi


@pytest.mark.slow
@pytest.mark.parametrize("name", STILL)
def test_still_changes_stay_at_the_floor(name, real, clips, floor):
    assert frechet_interval(real, SPACE(STILL[name](clips))).value < floor


def test_a_clip_of_16_frames_will_do(clips):
    space, half = MotionFeatures(16, FPS), N // 2
    a, b = clips[:half, :16], clips[half:, :16]
    floor = frechet_interval(space(a), space(b)).hi
    for broken in (shuffled(b), np.repeat(b[:, :1], 16, 1), b[:, np.arange(16) ^ 1]):
        assert frechet_interval(space(a), space(broken)).lo > 3 * floor


def test_time_turned_round_changes_the_sign_of_what_is_odd_in_time(clips, clean, real):
    forward, backward = SPACE(clips[:8]), SPACE(clips[:8, ::-1])
    assert np.allclose(backward[:, : ODD.start], forward[:, : ODD.start], atol=1e-3)
    assert np.allclose(backward[:, ODD], -forward[:, ODD], atol=1e-3)
    assert np.abs(forward[:, ODD]).max() > 0.5
    # The phantom, like a heart, contracts otherwise than it fills.
    odd = frechet_interval(real[:, ODD], clean[:, ODD]).hi
    assert frechet_interval(real[:, ODD], SPACE(clips[:, ::-1])[:, ODD]).lo > odd


def swaying(hertz: float, frames: int, fps: float, pixels: float = 2.0) -> np.ndarray:
    """One clip (1, frames, 64, 64) of a pattern that sways left and right."""
    y, x = np.mgrid[:64, :64]
    shift = pixels * np.sin(2 * np.pi * hertz * np.arange(frames) / fps + 0.3)
    moved = x - shift[:, None, None]
    return (128 + 60 * np.sin(moved / 4) * np.cos(y / 5)).astype(np.uint8)[None]


@pytest.mark.parametrize(("frames", "fps"), [(32, 16.0), (16, 16.0), (64, 32.0), (48, 30.0)])
@pytest.mark.parametrize("hertz", [1.5, 2.0, 4.0])
def test_bands_are_in_hertz(hertz, frames, fps):
    features = MotionFeatures(frames, fps)(swaying(hertz, frames, fps))[0]
    shares = features[BANDS].reshape(7, 4) * SCALES["bands"] + OFFSETS["bands"]
    assert [CENTRES[i] for i in shares.argmax(0)] == [hertz] * 4


def test_amount_follows_the_displacement_and_not_the_contrast():
    near, far = (SPACE(swaying(2.0, 32, 16.0, pixels))[0, :4] for pixels in (0.5, 1.0))
    # Twice the way is four times the energy.
    assert (far - near) * SCALES["amount"] == pytest.approx(np.full(4, np.log(4)), abs=0.1)
    faint = (swaying(2.0, 32, 16.0, 1.0) * 0.6).astype(np.uint8)
    # Without the division by the local contrast it would be log(0.36) = -1.02.
    change = (SPACE(faint)[0, :4] - far) * SCALES["amount"]
    assert change == pytest.approx(np.zeros(4), abs=0.35)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_clips_have_finite_features_far_from_moving_ones(value, real):
    still = SPACE(np.full((2, FRAMES, 48, 40), value, np.uint8))
    assert np.isfinite(still).all()
    assert np.array_equal(still[0], still[1])
    away = np.linalg.norm(real - still[0], axis=1).min()
    spread = np.linalg.norm(real - real.mean(0), axis=1).max()
    assert away > 2 * spread


def test_features_do_not_depend_on_other_videos_and_are_pinned(clips):
    features = SPACE(clips[:3])
    assert features.shape == (3, 56)
    assert features.dtype == np.float32
    assert np.array_equal(SPACE(clips[2:3])[0], features[2])
    # Numbers compare only at the same settings: a change must be noticed.
    assert SPACE.sha256[:16] == "9a33daa7ce2796a3"
    assert len({MotionFeatures(f, r).sha256 for f in (16, 32) for r in (16.0, 32.0)}) == 4
    made = SPACE(swaying(2.0, 32, 16.0))[0, [0, 5, 20, 33, 38, 42, 48, 54]]
    assert made == pytest.approx(
        [2.433, -8.58, 1.062, 2.578, -4.25, 1.862, 0.387, -0.005], abs=2e-3
    )
    assert distance_name("fd", SPACE, 40, 40) == "fd_motion_32f_n40x40"


@pytest.mark.parametrize(
    ("frames", "match"),
    [
        (np.zeros((2, 32, 48, 48)), "expected uint8 clips"),
        (np.zeros((32, 48, 48), np.uint8), "expected uint8 clips"),
        (np.zeros((0, 32, 48, 48), np.uint8), "expected uint8 clips"),
        (np.zeros((2, 16, 48, 48), np.uint8), "16 frames of 48x48 pixels; motion takes 32"),
        (np.zeros((2, 32, 12, 48), np.uint8), "12x48 pixels; motion takes 32 frames of 16x16"),
    ],
)
def test_clips_of_another_kind_are_refused(frames, match):
    with pytest.raises(EchosynError, match=match):
        SPACE(frames)


@pytest.mark.parametrize(("frames", "fps"), [(8, 16.0), (32, 0.0), (32, float("nan"))])
def test_settings_that_see_no_motion_are_refused(frames, fps):
    with pytest.raises(EchosynError, match="at least 16 frames and a positive frame rate"):
        MotionFeatures(frames, fps)
