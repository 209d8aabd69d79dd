import io
import re

import numpy as np
import pandas as pd
import pytest
from html_page import problems
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_project import METRICS, REAL, SYNTHETIC, make_project

from echosyn.report import mosaic, plots
from echosyn.report.numbers import LABELS, collect, plain, privacy_sentences, tables


def movie(level: int, frames: int = 5) -> np.ndarray:
    return np.full((frames, 4, 6), level, np.uint8)


def test_grid_places_videos_in_reading_order():
    tiles = mosaic.grid([movie(10), movie(20), movie(30, frames=3)], columns=2)
    gap = mosaic.GAP
    assert tiles.shape == (3, 2 * 4 + gap, 2 * 6 + gap)  # the shortest gives the length
    assert (tiles[:, :4, :6] == 10).all()
    assert (tiles[:, :4, 6 + gap :] == 20).all()
    assert (tiles[:, 4 + gap :, :6] == 30).all()
    assert (tiles[:, 4 + gap :, 6:] == 0).all()


def test_grid_refuses_videos_of_two_sizes():
    with pytest.raises(ValueError, match="one height and width"):
        mosaic.grid([movie(1), np.zeros((5, 4, 5), np.uint8)], columns=2)


@pytest.mark.parametrize("encode", [mosaic.webp, mosaic.gif])
def test_animation_keeps_frames_and_frame_rate(encode):
    video = np.arange(32, dtype=np.uint8)[:, None, None] * np.full((1, 16, 16), 8, np.uint8)
    data = encode([video, video], fps=32.0, columns=2)
    assert data == encode([video, video], fps=32.0, columns=2)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 32
        total = 0
        for i in range(image.n_frames):
            image.seek(i)
            image.load()
            total += image.info["duration"]
        assert total == 1000
        assert image.info["loop"] == 0


def test_clip_resamples_to_the_frame_rate_of_the_others():
    frames = np.arange(100, dtype=np.uint8)[:, None, None]
    assert mosaic.clip(frames, 50, 10, seconds=1.0)[:, 0, 0].tolist() == list(range(0, 50, 5))
    assert len(mosaic.clip(frames, 50, 10, seconds=60)) == 20


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=30),
    st.lists(st.floats(0, 100), min_size=1, max_size=30),
)
def test_nearest_never_shows_a_video_twice(values, targets):
    chosen = mosaic.nearest(np.array(values), np.array(targets))
    assert len(set(chosen.tolist())) == len(chosen) == min(len(values), len(targets))
    first = np.abs(np.array(values) - targets[0])
    assert first[chosen[0]] == first.min()


def test_spread_covers_the_range():
    values = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    assert values[mosaic.spread(values, 3)].tolist() == [1.0, 3.0, 5.0]
    assert len(mosaic.spread(values, 16)) == 5


def test_collect_attaches_intervals_and_references():
    numbers = collect(
        {"q/x": 3.0, "q/x_lo": 2.0, "q/x_hi": 4.0, "q/x_floor": 1.0, "q/x_floor_lo": 0.5}
    )
    assert list(numbers) == ["q/x"]
    assert str(numbers["q/x"]) == "3 (2 to 4)"
    assert numbers["q/x"].references["floor: real data"].value == 1.0


def test_no_two_numbers_are_called_the_same():
    assert len(set(LABELS.values())) == len(LABELS)


def test_a_name_that_only_looks_like_an_interval_is_a_number():
    assert set(collect({"vae/halo_lo": 1.0, "vae/dance_floor": 2.0})) == {
        "vae/halo_lo",
        "vae/dance_floor",
    }


part = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
keys = st.lists(part, min_size=2, max_size=3).map("/".join)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, st.floats(-1e6, 1e6), max_size=12))
def test_every_number_stands_in_exactly_one_place(metrics):
    shown = [
        number.value
        for group in tables(metrics).values()
        for table in group
        for row in table.rows.values()
        for number in row
    ]
    assert sorted(shown) == sorted(metrics.values())


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9712, "0.971"), (1.0, "1"), (0.0, "0"), (12345.6, "12,346"), (-0.09, "-0.09"),
     (0.00001234, "1.23e-05"), (26.71, "26.7"), (0.1 + 0.2, "0.3"), (999.96, "1,000")],
)  # fmt: skip
def test_plain_numbers(value, text):
    assert plain(value) == text


def test_privacy_says_only_what_was_measured():
    assert privacy_sentences({}) == []
    (said,) = privacy_sentences({"privacy/rejection_rate": 0.125, "privacy/rejection_rate_lo": 0.1,
                                 "privacy/rejection_rate_hi": 0.15})  # fmt: skip
    assert said == "This threw out 12.5% (10% to 15%) of the candidates."


def frames_of_numbers() -> tuple[pd.DataFrame, pd.DataFrame]:
    ef = np.linspace(20, 80, 20)
    requested = pd.DataFrame({"ef_requested": ef, "ef_measured": 40 + 0.5 * (ef - 40)})
    scores = pd.DataFrame({"kind": ["heldout", "synthetic"] * 10, "similarity": ef / 100})
    return requested, scores


def test_plots_repeat_and_do_not_share_ids():
    requested, scores = frames_of_numbers()
    first = plots.svg(plots.requested_vs_measured(requested), "a")
    assert first == plots.svg(plots.requested_vs_measured(requested), "a")
    second = plots.svg(plots.privacy_histogram(scores, 0.7), "b")
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg in (first, second):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= ids[0] | ids[1]
        assert "currentColor" in svg
        assert plots.INK not in svg
        assert not re.search(r"<svg[^>]* width=", svg)
    assert "slope 0.50" in first
    assert "τ = 0.7" in second


def test_png_repeats():
    requested, _ = frames_of_numbers()
    assert plots.png(plots.requested_vs_measured(requested)) == plots.png(
        plots.requested_vs_measured(requested)
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    from test_release import released

    from pipelines.report import main

    root = make_project(tmp_path_factory.mktemp("project"))
    released(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        main("phantom")
        text = (root / "reports/phantom/index.html").read_text()
        main("phantom")
        assert (root / "reports/phantom/index.html").read_text() == text
        for table in ("evaluation/phantom", "privacy/phantom/hearts"):
            for path in (root / table).glob("*.csv"):
                path.unlink()
        main("phantom")
        return text, (root / "reports/phantom/index.html").read_text()


@pytest.mark.slow
def test_report_needs_nothing_else_and_everyone_can_use_it(report):
    for page in report:
        assert problems(page) == []
        assert "<script src" not in page
        assert "prefers-reduced-motion" in page


@pytest.mark.slow
def test_one_can_pick_a_video_by_ef_of_synthetic_ones_alone(report):
    page, bare = report
    asked = [float(ef) for ef in re.findall(r'<li data-ef="([^"]+)">', page)]
    assert asked == [30.0 + 8 * i for i in range(6)]
    assert "asked for 30 %, measured 32 %" in page
    explorer = page[page.index('id="explorer-box"') : page.index('<section id="privacy">')]
    assert explorer.count('<img alt="a synthetic video, asked for EF') == len(asked)
    assert 'min="30" max="70"' in explorer
    assert not [name for name in REAL if name in page]
    assert "explorer" not in bare[bare.index("</style>") :]


@pytest.mark.slow
def test_what_stops_a_release_is_said_in_words(report):
    page, _ = report
    assert "Every required check passed, 17 in all." in page
    assert "somebody loosened thresholds" not in page
    assert "A planted mark does not come back" in page


@pytest.mark.slow
def test_report_shows_videos_figures_and_every_number(report):
    page, bare = report
    assert (page.count("<img"), bare.count("<img")) == (3 + len(SYNTHETIC), 3)
    assert page.count("<svg") == 6
    assert "random, seed 3" in page
    assert "Bland and Altman" in page
    assert bare.count("<svg") == 1  # only the EF of the videos themselves
    for number in collect(METRICS).values():
        assert f"<td>{plain(number.value)}<" in page
    assert "2" * 32 + ".dir" in page
    assert "not part of the release" in page


def test_report_escapes_what_people_wrote():
    from echosyn.report.html import render

    page = render(
        "report.html",
        title="<b>x</b>", subtitle="a & b", headlines=[], checks=[], loosened=["<q>"], since=None,
        mosaics=[], clips=[], strange={"sentences": ["<i>"], "pictures": []}, privacy=["<i>"],
        privacy_plot=None, plots=[],
        numbers=tables({"quality/<u>": 1.0}), protocol={"<a>": "<s>"},
        others={"<s>": [("<u>", "<i>")]}, lineage={"data": {"<a>": "1"}}, settings={"k": "<em>"},
        seconds=[],
    )  # fmt: skip
    for raw in ("<b>x", "a & b", "<i>", "<u>", "<s>", "<a>", "<em>", "<q>"):
        assert raw not in page
