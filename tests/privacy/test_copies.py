"""The copy detector: masked NCC against its definition, and planted copies on the phantom."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn.data.frames import FrameSet
from echosyn.data.latents import LatentSet
from echosyn.data.phantom import PhantomConfig, render_patient
from echosyn.privacy.detectors.copies import (
    CopyConfig,
    CopyDetector,
    first_best,
    frame_rows,
    masked_ncc,
)
from echosyn.privacy.detectors.embedding import frames_of_video
from echosyn.runtime.errors import EchosynError

TRAIN, HELDOUT, FRAMES = 16, 8, 32
EVERY = 8  # frames of the heartbeat that tests look at


@pytest.fixture(scope="module")
def hearts():
    """Frames uint8 (people, FRAMES, 112, 112) of TRAIN and of held-out patients."""
    cfg = PhantomConfig(train=TRAIN, val=HELDOUT, test=1, frames=FRAMES)
    frames = np.stack([render_patient(i, cfg, 3).frames for i in range(TRAIN + HELDOUT)])
    return frames[:TRAIN], frames[TRAIN:]


@pytest.fixture(scope="module")
def detector(hearts):
    data = hearts[0].reshape(-1, 112, 112)
    return CopyDetector(data, np.arange(len(data)), CopyConfig())


@pytest.fixture(scope="module")
def highest_unrelated(hearts, detector):
    """The highest ncc of any frame of a patient who is not in the gallery."""
    return float(detector(hearts[1].reshape(-1, 112, 112)).ncc.max())


def moved(frames, down, right):
    matrix = np.float32([[1, 0, right], [0, 1, down]])
    return np.stack([cv2.warpAffine(x, matrix, (112, 112)) for x in frames])


def some(train):
    """Every EVERY-th frame of each patient, and the gallery row of each."""
    rows = np.arange(TRAIN * FRAMES).reshape(TRAIN, FRAMES)[:, ::EVERY].ravel()
    return train.reshape(-1, 112, 112)[rows], rows


def brute_ncc(a, mask_a, b, mask_b, reach):
    n = len(a)
    out = np.zeros((2 * reach + 1, 2 * reach + 1))
    for i, dy in enumerate(range(-reach, reach + 1)):
        for j, dx in enumerate(range(-reach, reach + 1)):
            pairs = [
                (a[y, x], b[y + dy, x + dx])
                for y in range(n)
                for x in range(n)
                if 0 <= y + dy < n and 0 <= x + dx < n
                if mask_a[y, x] and mask_b[y + dy, x + dx]
            ]
            p = np.array(pairs, np.float64)
            out[i, j] = np.corrcoef(p.T)[0, 1]
    return out


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3))
def test_masked_ncc_is_the_correlation_over_the_overlap(seed, reach):
    r = np.random.default_rng(seed)
    a, b = r.normal(3, 10, (2, 12, 12)).astype(np.float32)
    mask_a, mask_b = (r.random((2, 12, 12)) < 0.8).astype(bool)
    tensors = (torch.from_numpy(x) for x in (a[None], mask_a, b[None], mask_b))
    found = masked_ncc(*tensors, reach, 16)[0].numpy()
    assert np.allclose(found, brute_ncc(a, mask_a, b, mask_b, reach), atol=1e-4)


@pytest.mark.slow
def test_an_exact_copy_is_named_frame_by_frame(hearts, detector):
    frames, rows = some(hearts[0])
    found = detector(frames)
    assert (found.row == rows).all()
    assert (found.ncc > 0.999).all()
    assert (found.down == 0).all()
    assert (found.right == 0).all()
    assert not found.mirrored.any()


@pytest.mark.slow
@pytest.mark.parametrize(("down", "right"), [(2, -4), (-6, 6), (8, 0)])
@pytest.mark.parametrize("mirror", [False, True])
def test_a_moved_copy_is_found_with_its_shift(hearts, detector, down, right, mirror):
    frames, rows = some(hearts[0])
    copies = moved(frames[:, :, ::-1] if mirror else frames, down, right)
    found = detector(copies)
    named = found.row // FRAMES == rows // FRAMES
    assert named.mean() > 0.95
    assert (found.down[named] == down).all()
    assert (found.right[named] == right).all()
    assert (found.mirrored[named] == mirror).all()
    assert np.median(found.ncc) > 0.95


def brighter(x, r):
    return np.clip(1.2 * x + 10.0 * (x > 0), 0, 255)


def noised(x, r):
    return np.clip(x + r.normal(0, 15, x.shape), 0, 255)


def blurred(x, r):
    return np.stack([cv2.GaussianBlur(f, (0, 0), 2) for f in x])


def cropped(x, r):
    matrix = cv2.getRotationMatrix2D((55.5, 55.5), 0, 1.03)
    return np.stack([cv2.warpAffine(f, matrix, (112, 112)) for f in x])


def rotated(x, r):
    matrix = cv2.getRotationMatrix2D((55.5, 55.5), 2, 1)
    return np.stack([cv2.warpAffine(f, matrix, (112, 112)) for f in x])


def everything(x, r):
    x = noised(brighter(x, r), r).astype(np.uint8)
    return moved(np.stack([cv2.GaussianBlur(f, (0, 0), 0.7) for f in x]), 3, -3)[:, :, ::-1]


@pytest.mark.parametrize("disguise", [brighter, noised, blurred, cropped, rotated, everything])
def test_a_disguised_copy_lies_above_every_unrelated_frame(
    hearts, detector, highest_unrelated, disguise
):
    frames, rows = some(hearts[0])
    copies = np.ascontiguousarray(disguise(frames, np.random.default_rng(0)).astype(np.uint8))
    videos = rows // FRAMES
    found = detector(copies).per_video(videos)
    assert (found.row // FRAMES == np.arange(TRAIN)).all()
    assert (found.ncc > highest_unrelated).all()


def test_unrelated_patients_stay_well_below_one(highest_unrelated):
    assert 0.3 < highest_unrelated < 0.92


def test_a_frame_scores_alike_alone_and_with_others(hearts, detector):
    frames = hearts[1].reshape(-1, 112, 112)[::5]
    together, alone = detector(frames), detector(frames[7:8])
    assert alone.row[0] == together.row[7]
    assert alone.ncc[0] == pytest.approx(together.ncc[7], abs=1e-5)


def test_a_frame_without_texture_is_a_copy_of_nothing(detector):
    flat = np.stack([np.zeros((112, 112), np.uint8), np.full((112, 112), 90, np.uint8)])
    assert (detector(flat).ncc == 0).all()


def test_the_gallery_is_the_rows_that_were_named(hearts):
    data = hearts[0].reshape(-1, 112, 112)
    rows = np.arange(FRAMES, 3 * FRAMES)  # patients 1 and 2 alone
    found = CopyDetector(data, rows, CopyConfig())(data[[0, FRAMES + 3]])
    assert found.ncc[0] < 0.95
    assert found.row[1] == 3
    assert found.ncc[1] > 0.999


def test_a_detector_made_of_what_another_kept_is_the_same(hearts, detector):
    data = hearts[0].reshape(-1, 112, 112)
    again = CopyDetector(data, detector.rows, detector.cfg, kept=detector.state())
    frames = hearts[1].reshape(-1, 112, 112)[::9]
    expected, found = detector(frames), again(frames)
    for name, values in vars(expected).items():
        assert np.array_equal(getattr(found, name), values), name


class NumberedLatents(LatentSet):
    """Whose latents are the row numbers of their frames."""

    def __init__(self, starts, lengths):
        self.starts, self.videos = starts, lengths

    def mean(self, i, start=0, stop=None):
        return torch.arange(self.starts[i], self.starts[i] + self.videos[i])[start:stop]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=5), st.integers(0, 40))
def test_gallery_rows_are_the_frames_that_latents_are_taken_at(lengths, count):
    starts = np.cumsum([0, *lengths[:-1]])
    frames = FrameSet(np.zeros((sum(lengths), 1, 1)), None, starts, np.array(lengths), 16.0)
    latents = NumberedLatents(starts, lengths)
    rows, videos = frame_rows(frames, count)
    for v in range(len(lengths)):
        taken = frames_of_video(latents, v, count)
        assert (rows[videos == v] == taken.numpy()).all()


def test_a_gallery_of_one_frame_works(hearts):
    data = hearts[0][0]
    found = CopyDetector(data, np.array([4]), CopyConfig())(data[4:6])
    assert found.row.tolist() == [0, 0]
    assert found.ncc[0] > 0.999


def test_the_first_of_equal_frames_stands_for_a_video():
    scores, videos = np.array([1.0, 3, 3, 5, 0]), np.array([2, 0, 0, 2, 1])
    assert first_best(scores, videos).tolist() == [1, 4, 3]


def test_what_cannot_be_compared_is_refused(detector):
    frames = np.zeros((2, 112, 112), np.uint8)
    with pytest.raises(EchosynError, match="no training frames"):
        CopyDetector(frames, np.array([], np.int64), CopyConfig())
    with pytest.raises(EchosynError, match="nothing brighter than 8"):
        CopyDetector(frames, np.arange(2), CopyConfig())
    with pytest.raises(EchosynError, match=r"frames of \(64, 64\) pixels"):
        detector(frames[:, :64, :64])
    with pytest.raises(EchosynError, match="expected uint8 frames"):
        detector(frames.astype(np.float32))
