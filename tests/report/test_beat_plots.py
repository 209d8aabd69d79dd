"""The picture of the beat: where end-diastole is drawn, and what line of a video is shown."""

import numpy as np
import pandas as pd
import pytest
from small_project import write_dataset

from echosyn.report.beat_plots import FoundBeat, beat_figure, m_mode, some_beats
from echosyn.report.plots import png

FPS = 16.0


def found(rate=60.0, phase=0.25, frames=32):
    video = np.zeros((frames, 20, 30), np.uint8)
    return FoundBeat("a", video, FPS, np.cos(np.arange(frames)), rate, phase, 0.9)


@pytest.mark.parametrize(
    ("rate", "phase", "expected"),
    [(60, 0.25, [0.75, 1.75]), (120, 0.0, [0.0, 0.5, 1.0, 1.5]), (60, 0.999, [0.001, 1.001])],
)
def test_end_diastole_is_where_the_phase_is_whole(rate, phase, expected):
    assert found(rate, phase).diastoles == pytest.approx(expected)


def test_a_beat_that_is_not_sure_has_no_diastole():
    assert len(found(np.nan, np.nan).diastoles) == 0


def test_the_line_is_taken_over_time():
    video = np.zeros((3, 10, 7), np.uint8)
    video[1, 4] = np.arange(7)
    assert m_mode(video, 0.4).shape == (7, 3)
    assert m_mode(video, 0.4)[:, 1].tolist() == list(range(7))
    assert not m_mode(video, 1.0).any()


def test_the_figure_says_rate_and_share_and_draws_every_diastole():
    figure = beat_figure([found(), found(np.nan, np.nan)])
    sure, unsure = figure.axes
    assert sure.get_title(loc="left") == "a\n60 a minute (0.90)"
    assert unsure.get_title(loc="left") == "a\nnot sure (0.90)"
    assert (len(sure.lines), len(unsure.lines)) == (3, 1)  # the curve, and two diastoles
    assert png(figure).startswith(b"\x89PNG")


def test_some_videos_are_shown_at_the_rate_of_their_curves(tmp_path):
    names = [f"v{i}" for i in range(5)]
    write_dataset(tmp_path, names, 2 * FPS, 12, seed=0)
    table = pd.DataFrame({"FileName": names, "HeartRate": range(5), "Phase": 0.5, "Share": 0.9})
    curves = [np.full(6, i) for i in range(5)]
    some = some_beats(tmp_path, np.full(5, FPS), table, curves, 3)
    assert [(b.name, b.rate, len(b.frames), b.curve[0]) for b in some] == [
        ("v0", 0, 6, 0), ("v2", 2, 6, 2), ("v4", 4, 6, 4),
    ]  # fmt: skip
    assert len(some_beats(tmp_path, np.full(5, FPS), table, curves, 9)) == 5
