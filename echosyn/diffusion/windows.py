"""Videos of any length from a model of `window` frames: which frames it sees together, and when.

- `blend`: overlapping windows, averaged at every step where they overlap (Bar-Tal 2023).
- `shift`: windows side by side, cut elsewhere at every step, so that a cut of one step lies inside
  a window of the next (as Swin's shifted windows, Liu 2021, sec. 3.2, along time): no frame is
  computed twice.
- `continue`: one window after the other, each given the last frames of the one before; for models
  trained with given frames.
- `discard`: the reference's: windows overlapping by half, of which the later one's half is thrown
  away.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from echosyn.runtime.errors import EchosynError


class Predict(Protocol):
    """What a model predicts of parts of videos."""

    def __call__(self, x: Tensor, t: Tensor, starts: Sequence[int] = (0,)) -> Tensor:
        """Model output of the shape of x.

        Args:
            x: k parts of the same B videos, (k B, T, ...), of every video the first, then the
                second. t: scalar. starts: the first frame of each part in its video.
        """


Whole = Callable[[Tensor, Tensor], Tensor]  # the same of whole videos, by x and t alone
Piece = tuple[int, int]  # first frame, and the frame after the last
# Lengths of the first piece, as shares of the window, in turn: neighbouring steps cut far apart.
FIRST_PIECES = (1.0, 0.5, 0.75)


def window_starts(frames: int, window: int, overlap: int) -> list[int]:
    """First frames of the windows that cover `frames`, the last one flush with the end.

    Raises:
        EchosynError: fewer frames than the window, or an overlap that leaves no new frame.
    """
    if frames < window:
        raise EchosynError(f"{frames} frames asked for, but the video model's window is {window}")
    if not 0 <= overlap < window:
        raise EchosynError(
            f"overlap {overlap} of sample_videos must be at least 0 and below the model's window "
            f"of {window} frames: set overlap: {window // 2}"
        )
    last = frames - window
    return [*range(0, last, window - overlap), last]


def shifted_pieces(frames: int, window: int, step: int) -> list[Piece]:
    """Pieces of at most `window` frames that cover `frames` once, cut elsewhere at every step.

    No piece is shorter than half a window, where a video has that many frames.
    """
    window_starts(frames, window, 0)  # refuses too few frames
    if frames == window:
        return [(0, frames)]
    first = max(1, round(FIRST_PIECES[step % len(FIRST_PIECES)] * window))
    cuts = [0, *range(min(first, frames), frames, window), frames]
    if cuts[-1] - cuts[-2] < window / 2 and len(cuts) > 2:
        cuts[-2] = (cuts[-3] + frames) // 2  # two middling pieces instead of a long and a short one
    return [(a, b) for a, b in pairwise(cuts) if b > a]


def frame_passes(kind: str, frames: int, window: int, overlap: int, steps: int) -> int:
    """Frames that go through the network for one video in `steps` evaluations."""
    if kind == "shift":
        return frames * steps
    if kind == "discard":
        overlap = window // 2
    return len(window_starts(frames, window, overlap)) * window * steps


def blended(predict: Predict, window: int, overlap: int, at_once: int = 1) -> Whole:
    """Overlapping windows, averaged where they overlap, weighted by the distance to their edge, so
    that neighbours agree on one trajectory (Bar-Tal 2023, MultiDiffusion, eq. 5, along time).

    at_once: windows that go through the network together.
    """
    ramp = torch.minimum(torch.arange(1, window + 1), torch.arange(window, 0, -1)).float()
    ramp = ramp.clamp(max=overlap + 1)

    def blend(x: Tensor, t: Tensor) -> Tensor:
        starts = window_starts(x.shape[1], window, overlap)
        if len(starts) == 1:
            return predict(x, t)
        total = torch.zeros_like(x)
        weight = x.new_zeros(x.shape[1])
        w = ramp.to(x)
        for i in range(0, len(starts), at_once):
            some = starts[i : i + at_once]
            made = predict(torch.cat([x[:, s : s + window] for s in some]), t, some)
            for s, part in zip(some, made.chunk(len(some)), strict=True):
                total[:, s : s + window] += part * w.view(1, -1, *[1] * (x.ndim - 2))
                weight[s : s + window] += w
        return total / weight.view(1, -1, *[1] * (x.ndim - 2))

    return blend


def shifted(predict: Predict, window: int, step: int) -> Whole:
    """The windows of step `step`, side by side; see `shifted_pieces`."""

    def side_by_side(x: Tensor, t: Tensor) -> Tensor:
        pieces = shifted_pieces(x.shape[1], window, step)
        return torch.cat([predict(x[:, a:b], t, (a,)) for a, b in pieces], dim=1)

    return side_by_side


def discarded(predict: Predict, window: int) -> Whole:
    """Windows overlapping by half; a frame's prediction is that of the first window it is in."""

    def first_come(x: Tensor, t: Tensor) -> Tensor:
        parts, done = [], 0
        for s in window_starts(x.shape[1], window, window // 2):
            parts.append(predict(x[:, s : s + window], t, (s,))[:, done - s :])
            done = s + window
        return torch.cat(parts, dim=1)

    return first_come


def continued(
    sample: Callable[[Tensor, Tensor | None, int], Tensor],
    noise: Tensor,
    window: int,
    overlap: int,
) -> Tensor:
    """One window after the other (B, T, ...), each given `overlap` frames of what is there.

    Args:
        sample: (noise of a window (B, window, ...), its given first frames (B, n, ...) or None, the
            number of its first frame) to the finished window.
    """
    frames = noise.shape[1]
    if overlap < 1:
        raise EchosynError("windows that continue each other need an overlap of 1 frame or more")
    first, *later = window_starts(frames, window, overlap)
    made = sample(noise[:, first : first + window], None, first)
    for s in later:
        given = made[:, s:]
        made = torch.cat([made, sample(noise[:, s : s + window], given, s)[:, given.shape[1] :]], 1)
    return made


def window_seams(kind: str, frames: int, window: int, overlap: int, steps: int) -> Sequence[int]:
    """Frames before which the windows of the last step end: where a seam would show, ascending."""
    if kind == "shift":
        return [a for a, _ in shifted_pieces(frames, window, steps - 1)[1:]]
    starts = window_starts(frames, window, window // 2 if kind == "discard" else overlap)
    if kind == "blend":
        return sorted({e for s in starts for e in (s, s + window) if 0 < e < frames})
    return [s + window for s in starts[:-1]]
