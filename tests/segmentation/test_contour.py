"""Contours, their lines and masks, the method of discs, and Dice."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echosyn.beat.tracings import read_tracings
from echosyn.data.phantom import PhantomConfig, render_patient
from echosyn.data.phantom.anatomy import MM_PER_PIXEL
from echosyn.segmentation.contour import (
    CHORDS,
    area,
    chords,
    dice,
    disc_volume,
    filled,
    largest_contour,
    outline,
)
from echosyn.segmentation.trace import Tracing, volume_table, write_tracings

SIZE = 112
SQUARE = np.array([[10, 10], [20, 10], [20, 20], [10, 20]], float)


def ellipse(x, y, half_length, half_width, tilt):
    """Of a long axis `tilt` degrees off the vertical: (720, 2)."""
    angle, turn = np.linspace(0, 2 * np.pi, 720, endpoint=False), np.deg2rad(tilt)
    u, v = half_length * np.cos(angle), half_width * np.sin(angle)
    return np.column_stack(
        [x + u * np.sin(turn) + v * np.cos(turn), y + u * np.cos(turn) - v * np.sin(turn)]
    )


ELLIPSES = st.builds(
    ellipse,
    x=st.floats(45, 65),
    y=st.floats(45, 65),
    half_length=st.floats(18, 35),
    half_width=st.floats(8, 14),
    tilt=st.floats(-35, 35),
)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], 1.0),
        ([1, 1, 0, 0], [0, 0, 1, 1], 0.0),
        ([1, 1, 0, 0], [0, 1, 1, 0], 0.5),  # 2 * 1 / (2 + 2)
        ([1, 1, 1, 0], [1, 0, 0, 0], 0.5),  # 2 * 1 / (3 + 1)
        ([0, 0, 0, 0], [0, 0, 0, 0], 1.0),
        ([0, 0, 0, 0], [0, 0, 0, 1], 0.0),
    ],
)
def test_dice_is_twice_the_overlap_over_both(a, b, expected):
    assert dice(np.array(a, bool), np.array(b, bool)) == expected


@given(ELLIPSES)
def test_a_contour_comes_back_from_its_chords(contour):
    lines = chords(contour)
    assert lines.shape == (1 + CHORDS, 4)
    again = outline(lines)
    assert dice(filled(contour, SIZE), filled(again, SIZE)) > 0.97
    assert area(again) == pytest.approx(area(contour), rel=0.03)
    found = largest_contour(filled(contour, SIZE).astype(np.float32))
    assert dice(filled(found, SIZE), filled(contour, SIZE)) > 0.98


@given(ELLIPSES)
def test_chords_are_across_an_axis_from_apex_to_base_in_order(contour):
    lines = chords(contour)
    axis = lines[0, 2:] - lines[0, :2]
    assert axis[1] > 0  # the apex is above
    ends = lines[1:].reshape(-1, 2, 2)
    assert np.abs((ends[:, 1] - ends[:, 0]) @ axis).max() < 1e-6
    assert (ends[:, 0, 0] < ends[:, 1, 0]).all()
    depth = (ends.mean(axis=1) - lines[0, :2]) @ axis / (axis @ axis)
    assert depth == pytest.approx((np.arange(CHORDS) + 0.5) / CHORDS)


@given(st.floats(15, 40), st.floats(6, 15), st.floats(-35, 35))
def test_the_volume_of_an_ellipsoid_is_that_of_the_formula(a, b, tilt):
    b = min(b, 0.8 * a)  # or no axis is the long one
    volume = disc_volume(chords(ellipse(56, 56, a, b, tilt)))
    assert volume == pytest.approx(4 / 3 * np.pi * a * b**2, rel=0.01)


def test_a_cylinders_volume_is_exact():
    lines = np.array([[0, 0, 0, 20]] + [[-5, y, 5, y] for y in range(1, 21)], float)
    assert disc_volume(lines) == pytest.approx(np.pi / 4 * 10**2 * 20)


def test_a_mask_holds_the_pixels_whose_greater_part_is_inside():
    mask = filled(SQUARE + 0.5, SIZE)  # from the edge of a pixel to the edge of another
    assert mask.sum() == 100
    assert mask[11:21, 11:21].all()
    assert area(SQUARE) == 100


def test_the_largest_component_is_taken_and_its_holes_are_filled():
    probability = np.zeros((SIZE, SIZE), np.float32)
    probability[20:60, 30:50] = 0.9
    probability[35:40, 38:42] = 0.1
    probability[80:90, 80:90] = 1.0
    found = filled(largest_contour(probability), SIZE)
    expected = np.zeros((SIZE, SIZE), bool)
    expected[20:60, 30:50] = True
    assert dice(found, expected) > 0.97
    assert largest_contour(np.full((SIZE, SIZE), 0.5, np.float32)) is None


def test_order_and_direction_of_lines_do_not_matter():
    contour = ellipse(56, 56, 30, 12, 10)
    lines = chords(contour)
    flipped = np.vstack([lines[:1], lines[:0:-1]])
    flipped[3] = flipped[3][[2, 3, 0, 1]]
    assert area(outline(flipped)) == pytest.approx(area(outline(lines)))


def test_a_phantoms_own_contour_gives_its_tracing_and_volume():
    patient = render_patient(1, PhantomConfig(train=2, val=1, test=1, frames=36), 0)
    for tracing, stated in zip(patient.tracings, (patient.edv, patient.esv), strict=True):
        exact, rows = patient.contours[tracing.frame], tracing.rows()
        ml = disc_volume(rows) * MM_PER_PIXEL**3 / 1000
        assert ml == pytest.approx(stated, rel=1e-6)
        assert disc_volume(chords(exact)) == pytest.approx(disc_volume(rows), rel=0.005)
        assert dice(filled(outline(rows), SIZE), filled(exact, SIZE)) > 0.99


def test_the_written_file_is_read_back_by_the_ingest(tmp_path):
    """As a stranger's EchoNet dataset: its lines are those that were written."""
    from echonet_layout import make

    from echosyn.data.ingest import ingest

    raw = make(tmp_path / "raw")
    lines = np.stack([chords(ellipse(56, 56, 30, 12, 5)), chords(ellipse(56, 56, 24, 9, 5))])
    none = np.full_like(lines, np.nan)
    tracings = [Tracing("traced", (2, 1), lines), Tracing("no ventricle", (0, 1), none)]
    table = volume_table(["v0", "v1"], tracings, None)
    write_tracings(raw, table, tracings)
    assert (raw / "VolumeTracings.csv").read_text().startswith("FileName,X1,Y1,X2,Y2,Frame\nv0.avi")
    ingest("echonet", raw, tmp_path / "out", "ef")
    found = read_tracings(tmp_path / "out/VolumeTracings.csv")
    assert list(found) == ["v0"]
    assert list(found["v0"]) == [1, 2]  # end-systole first, as EchoNet-Dynamic
    for frame, wanted in ((2, lines[0]), (1, lines[1])):
        assert found["v0"][frame] == pytest.approx(wanted, abs=1e-4)
    assert disc_volume(found["v0"][2]) == pytest.approx(table["EDV"][0], rel=1e-4)
    assert table["EFTraced"][0] == pytest.approx(100 * (1 - table["ESV"][0] / table["EDV"][0]))
    assert table.iloc[1][["ESV", "EDV", "EFTraced"]].isna().all()
    assert cv2.contourArea(outline(found["v0"][2]).astype(np.float32)) > 900
