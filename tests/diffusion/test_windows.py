"""How windows cover a long video: what they compute, what they join, what they throw away."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn.diffusion.windows import (
    blended,
    continued,
    discarded,
    frame_passes,
    shifted,
    shifted_pieces,
    window_seams,
    window_starts,
)
from echosyn.runtime.errors import EchosynError

T0 = torch.tensor(0.0)


class Counted:
    """Acts frame by frame, 3 x + t, and counts the frames that it is given."""

    def __init__(self):
        self.lengths = []

    def __call__(self, x, t, starts=(0,)):
        self.lengths.append(x.shape[1])
        return 3 * x + t


@given(st.integers(2, 12), st.integers(0, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_windows_cover_every_frame_and_end_flush(window, extra, data):
    overlap = data.draw(st.integers(0, window - 1))
    frames = window + extra
    starts = window_starts(frames, window, overlap)
    covered = {f for s in starts for f in range(s, s + window)}
    assert covered == set(range(frames))
    assert starts[-1] + window == frames
    assert all(b - a <= window - overlap for a, b in pairwise(starts))


def test_windows_refuse_what_they_cannot_cover():
    with pytest.raises(EchosynError, match="window is 16"):
        window_starts(10, 16, 4)
    with pytest.raises(EchosynError, match="overlap 16"):
        window_starts(20, 16, 16)


@given(st.integers(16, 60), st.integers(0, 15))
@settings(max_examples=40, deadline=None)
def test_blended_windows_agree_with_a_model_that_acts_frame_by_frame(frames, overlap):
    x = torch.randn(2, frames, 4, generator=torch.Generator().manual_seed(frames))
    out = blended(lambda x, t, starts=(0,): 3 * x + t, 16, overlap)(x, torch.tensor(1.0))
    assert torch.allclose(out, 3 * x + 1, atol=1e-5)


@pytest.mark.parametrize("at_once", [2, 3, 9])
def test_windows_that_go_through_the_network_together_give_the_same_video(at_once):
    x = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(0))
    seen = []

    def predict(x, t, starts=(0,)):
        seen.append(len(x))
        return x.cumsum(1) + t  # depends on where a window begins

    alone = blended(predict, 16, 4)(x, torch.tensor(1.0))
    together = blended(predict, 16, 4, at_once)(x, torch.tensor(1.0))
    assert torch.equal(alone, together)
    assert seen[:3] == [2, 2, 2]
    assert seen[3:] == {2: [4, 2], 3: [6], 9: [6]}[at_once]


def test_blending_is_continuous_across_a_window_edge():
    """Two windows that predict 0 and 1 must be joined by a ramp, not by a step."""
    calls = iter([0.0, 1.0])

    def predict(x, t, starts=(0,)):
        return torch.full_like(x, next(calls))

    out = blended(predict, 16, 8)(torch.zeros(1, 24, 1), torch.tensor(0.0))[0, :, 0]
    steps = out.diff()
    assert out[0] == 0
    assert out[-1] == 1
    assert steps.max() < 0.15
    assert (steps >= 0).all()


@given(st.integers(2, 16), st.integers(0, 60), st.integers(0, 8))
@settings(max_examples=80, deadline=None)
def test_shifted_pieces_cover_every_frame_once_and_none_is_tiny(window, extra, step):
    frames = window + extra
    pieces = shifted_pieces(frames, window, step)
    assert [f for a, b in pieces for f in range(a, b)] == list(range(frames))
    lengths = [b - a for a, b in pieces]
    assert max(lengths) <= window
    assert min(lengths) >= window // 2


def test_neighbouring_steps_cut_in_other_places():
    cuts = [{a for a, _ in shifted_pieces(192, 16, k)[1:]} for k in range(4)]
    assert all(not a & b for a, b in pairwise(cuts))
    assert cuts[0] == cuts[3]


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("blend", lambda p, step: blended(p, 16, 4)),
        ("shift", lambda p, step: shifted(p, 16, step)),
        ("discard", lambda p, step: discarded(p, 16)),
    ],
)
@pytest.mark.parametrize("frames", [16, 21, 64, 192])
def test_every_kind_agrees_with_a_model_of_single_frames_and_costs_what_it_says(kind, make, frames):
    x = torch.randn(2, frames, 4, generator=torch.Generator().manual_seed(frames))
    counted = Counted()
    for step in range(5):
        out = make(counted, step)(x, torch.tensor(1.0))
        assert torch.allclose(out, 3 * x + 1, atol=1e-5)
    assert sum(counted.lengths) == frame_passes(kind, frames, 16, 4, 5)


def test_the_references_windows_cost_320_frames_for_192():
    assert frame_passes("discard", 192, 64, 0, 64) == 320 * 64
    assert frame_passes("shift", 192, 64, 0, 64) == 192 * 64


def test_discarded_windows_keep_the_earlier_one():
    calls = iter([0.0, 1.0, 2.0])
    out = discarded(lambda x, t, starts=(0,): torch.full_like(x, next(calls)), 8)(
        torch.zeros(1, 16, 1), T0
    )
    assert out[0, :, 0].tolist() == [0.0] * 8 + [1.0] * 4 + [2.0] * 4


def test_continued_windows_are_given_the_end_of_the_one_before():
    seen = []

    def sample(noise, given, start):
        seen.append(None if given is None else given[0, :, 0].tolist())
        return noise + 100

    noise = torch.arange(20.0).view(1, 20, 1)
    out = continued(sample, noise, 8, 2)
    assert torch.equal(out, noise + 100)
    assert seen == [None, [106.0, 107.0], [112.0, 113.0]]
    with pytest.raises(EchosynError, match="overlap of 1 frame"):
        continued(sample, noise, 8, 0)


def test_seams_are_where_the_last_windows_meet():
    assert window_seams("shift", 48, 16, 0, steps=2) == [8, 24, 40]
    assert window_seams("discard", 16, 8, 0, steps=2) == [8, 12]
    assert window_seams("continue", 20, 8, 2, steps=2) == [8, 14]
    assert window_seams("blend", 28, 16, 4, steps=2) == [12, 16]
