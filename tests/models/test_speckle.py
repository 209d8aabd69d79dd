"""Speckle: learned back from what was painted, repeatable, and where it belongs."""

import dataclasses

import cv2
import numpy as np
import pytest
from plain_speckle import plain_speckle

from echosyn.data.phantom import PhantomConfig, render_patient
from echosyn.metrics.ultrasound import compare_statistics, image_statistics
from echosyn.models.sharpening import RINGS
from echosyn.models.speckle import BANDS, FILE, KNOTS, REACH, Speckle, UnlearnedError
from echosyn.runtime.errors import EchosynError

T = 24


def smooth_videos(n=12, seed=0):
    """Blurred noise that drifts slowly, uint8 (T, 112, 112), 40 to 200."""
    rng = np.random.default_rng(seed)
    videos = []
    for _ in range(n):
        field = cv2.GaussianBlur(rng.normal(size=(112, 112 + T)).astype(np.float32), (0, 0), 9)
        field = 120 + 40 * field / field.std()
        videos.append(np.stack([field[:, t : t + 112] for t in range(T)]).clip(40, 200))
    return [np.rint(v).astype(np.uint8) for v in videos]


@pytest.mark.parametrize(
    ("size", "lateral", "still", "memory"),
    [(6.0, 0.9, 0.0, 0.0), (12.0, 1.6, 0.15, 0.25), (20.0, 1.2, 0.4, 0.6)],
)
def test_what_was_painted_is_learned_back(size, lateral, still, memory):
    known = plain_speckle(size, 0.9, lateral, still, memory)
    rng = np.random.default_rng(1)
    found = Speckle.learn((known.paint(v, rng), v) for v in smooth_videos())
    lit = (KNOTS >= 64) & (KNOTS <= 176)
    assert found.size[lit] == pytest.approx(known.size[lit], rel=0.1)
    assert found.still == pytest.approx(still, abs=0.05)
    assert found.memory == pytest.approx(memory, abs=0.06)
    near = slice(REACH - 1, REACH + 2)
    for band in range(BANDS):
        assert found.grain[band, near, near] == pytest.approx(
            known.grain[band, near, near], abs=0.06
        )
    assert found.gain.mean() == pytest.approx(1, abs=0.05), "nothing was blurred"


def test_edges_that_are_off_by_much_do_not_count_as_size():
    known, rng = plain_speckle(8.0), np.random.default_rng(1)
    pairs = []
    for v in smooth_videos():
        real = known.paint(v, rng)
        edges = rng.random(v.shape) < 0.03
        pairs.append((np.where(edges, 255 - v, real).astype(np.uint8), v))
    found = Speckle.learn(pairs)
    lit = (KNOTS >= 64) & (KNOTS <= 112) | (KNOTS == 176)
    off = np.mean([(r.astype(float) - v)[(v > 60) & (v < 180)].std() for r, v in pairs])
    assert off > 1.2 * 8
    assert found.size[lit] == pytest.approx(known.size[lit], rel=0.12)


def test_texture_has_unit_size_the_grain_and_the_memory_asked_for():
    known = plain_speckle(still=0.2, memory=0.5)
    x = known.texture(200, 112, np.random.default_rng(0))
    assert x.std() == pytest.approx(1, abs=0.03)

    def correlation(a, b):
        return float((a * b).mean() / (x * x).mean())

    assert correlation(x[1:], x[:-1]) == pytest.approx(0.2 + 0.8 * 0.5, abs=0.03)
    assert correlation(x[20:], x[:-20]) == pytest.approx(0.2, abs=0.04)
    beside = known.grain[1, REACH, REACH + 1]
    assert correlation(x[:, :, 1:], x[:, :, :-1]) == pytest.approx(beside, abs=0.03)


def test_painting_repeats_by_its_seed_and_leaves_the_outside_black():
    video = smooth_videos(1)[0]
    video[:, :, 80:] = 0
    known = plain_speckle()
    one, again, other = (known.paint(video, np.random.default_rng(s)) for s in (3, 3, 4))
    assert one.tobytes() == again.tobytes()
    assert (one != other).mean() > 0.3
    assert not one[:, :, 90:].any()
    assert one.dtype == np.uint8
    nothing = dataclasses.replace(known, size=np.zeros_like(known.size))
    assert np.array_equal(nothing.paint(video, np.random.default_rng(0)), video)


@pytest.mark.slow
def test_painted_phantoms_have_the_texture_of_real_ones():
    """Smoothed, a phantom loses its speckle; painted, it is twice as near."""
    cfg = PhantomConfig(train=1, val=1, test=1, frames=T)
    real = [render_patient(i, cfg, 0).frames for i in range(24)]
    smooth = [np.stack([cv2.GaussianBlur(f, (0, 0), 2.5) for f in v]) for v in real]
    learned = Speckle.learn(zip(real[:12], smooth[:12], strict=True))
    painted = [learned.paint(v, np.random.default_rng(i)) for i, v in enumerate(smooth)]
    rows = {k: np.stack([image_statistics(v) for v in s[12:]])
            for k, s in (("real", real), ("smooth", smooth), ("painted", painted))}  # fmt: skip
    before = compare_statistics(rows["real"], rows["smooth"])
    after = compare_statistics(rows["real"], rows["painted"])
    for key in ("us/snr", "us/spectrum_db", "us/temporal"):
        assert after[key].value < before[key].value / 2, key


def test_statistics_are_kept_to_the_byte(tmp_path):
    gain = np.linspace(1, 2, RINGS, dtype=np.float32)
    known = dataclasses.replace(plain_speckle(), gain=gain)
    known.save(tmp_path)
    first = (tmp_path / FILE).read_bytes()
    found = Speckle.load(tmp_path)
    assert np.array_equal(found.size, known.size)
    assert np.array_equal(found.grain, known.grain)
    assert np.array_equal(found.gain, known.gain)
    found.save(tmp_path)
    assert (tmp_path / FILE).read_bytes() == first


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_a_file_that_is_none_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(EchosynError, match=r"speckle\.safetensors"):
        Speckle.load(tmp_path)


@pytest.mark.parametrize(
    ("frames", "words"),
    [(4, "no TRAIN video has more than 8 frames"), (T, "no pixel of TRAIN's videos is brighter")],
)
def test_what_cannot_be_learned_from_is_said(frames, words):
    dark = np.zeros((frames, 112, 112), np.uint8)
    with pytest.raises(UnlearnedError, match=words):
        Speckle.learn([(dark, dark)])


def test_without_speckle_nothing_is_painted(tmp_path):
    video = smooth_videos(1)[0]
    Speckle.none().save(tmp_path)
    assert np.array_equal(Speckle.load(tmp_path).paint(video, np.random.default_rng(0)), video)
