"""Frames by their time stamps: evenly spaced where the source's are not.

A video has one frame rate. Where a source states the time of every frame, a mean of uneven steps
would play the motion too fast here and too slow there; a pause would show as a jump.
"""

from dataclasses import dataclass

import numpy as np

from echosyn.runtime.errors import EchosynError

EVEN = 0.1  # of the usual step, or
ROUNDING = 1.5  # milliseconds: by how much a step may differ from the usual one
PAUSE = 3.0  # usual steps; a longer one is a pause, not a late frame


@dataclass(frozen=True, eq=False)
class Pace:
    """Which frames make an even video, and its rate.

    frames: numbers of the source's frames, int64 (N,), in order, some perhaps twice. fps: frames
    per second. note: what was done about uneven steps; "" where they are even.
    """

    frames: np.ndarray
    fps: float
    note: str = ""


def even_pace(times: np.ndarray) -> Pace:
    """The frames nearest to even ticks, of the usual step, within the longest run without a pause.

    Args:
        times: milliseconds, (T,), T at least 2.

    Raises:
        EchosynError: a stamp is no number, or not after the one before it.
    """
    steps = np.diff(times)
    if not np.isfinite(times).all() or not (steps > 0).all():
        late = int(np.flatnonzero(~(steps > 0))[0]) + 2 if len(steps) else 1
        raise EchosynError(f"the time stamp of frame {late} is not after that of the frame before")
    usual = float(np.median(steps))
    if np.abs(steps - usual).max() <= max(ROUNDING, EVEN * usual):
        return Pace(np.arange(len(times)), 1000 / float(steps.mean()))
    spaced = f"frames {steps.min():g} to {steps.max():g} ms apart"
    ends = np.flatnonzero(steps > PAUSE * usual) + 1
    runs = list(zip([0, *ends], [*ends, len(times)], strict=True))
    first, end = max(runs, key=lambda run: (times[run[1] - 1] - times[run[0]], -run[0]))
    run = times[first:end]
    ticks = np.arange(run[0], run[-1] + ROUNDING, usual)
    after = np.clip(np.searchsorted(run, ticks), 1, len(run) - 1)
    nearest = after - (ticks - run[after - 1] <= run[after] - ticks)
    done = f"resampled by their time stamps to one every {usual:g} ms"
    if len(runs) > 1:
        done += f", and of {len(runs)} runs the longest is kept (frames {first + 1} to {end})"
    return Pace(first + nearest, 1000 / usual, f"{spaced}: {done}")
