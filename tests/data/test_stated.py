"""Times and geometry that a file states, in every reader; DICOM files of odd kinds."""

import struct

import nibabel
import numpy as np
import pandas as pd
import pytest
from dicom_files import T, dataset, screen, tissue, write_dicom
from hypothesis import given
from hypothesis import strategies as st
from mp4_files import write_mp4
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from echosyn.data.ingest import ingest
from echosyn.data.ingest.cine import open_cine
from echosyn.data.ingest.dicom import cut_sector
from echosyn.data.ingest.fit import FRAME_SIZE, SquareFit, fit_video
from echosyn.data.ingest.nifti import read_nifti
from echosyn.data.ingest.pace import PAUSE, even_pace
from echosyn.data.ingest.pseudonym import make_key
from echosyn.runtime.errors import EchosynError

# Times


@given(st.floats(1, 200), st.integers(2, 60), st.floats(-1e4, 1e4))
def test_even_times_keep_every_frame(step, n, start):
    pace = even_pace(start + step * np.arange(n))
    assert pace.frames.tolist() == list(range(n))
    assert pace.fps == pytest.approx(1000 / step)
    assert not pace.note


@given(st.lists(st.floats(5, 400), min_size=3, max_size=60))
def test_any_times_become_even_within_one_run(steps):
    times = np.cumsum([0.0, *steps])
    usual = np.median(steps)
    pace = even_pace(times)  # half of the steps are no longer than the usual one: no pauses
    assert (np.diff(pace.frames) >= 0).all()
    used = np.diff(times)[pace.frames[0] : pace.frames[-1]]
    assert (used <= PAUSE * usual + 1e-6).all()  # no pause within
    if pace.note:
        ticks = times[pace.frames[0]] + usual * np.arange(len(pace.frames))
        nearest = np.abs(times[:, None] - ticks).min(0)
        assert np.abs(times[pace.frames] - ticks) == pytest.approx(nearest, abs=1e-6)


@pytest.mark.parametrize(
    ("steps", "frames", "fps"),
    [
        ([20] * 38 + [500], list(range(39)), 50),  # the last pause cuts one frame off
        ([20] * 5 + [500] + [20] * 9, list(range(6, 16)), 50),
        ([20, 20, 40, 20, 20], [0, 1, 2, 2, 3, 4, 5], 50),  # a frame was dropped
        ([20, 20, 20, 10, 10, 20], [0, 1, 2, 3, 5, 6], 50),
    ],
)
def test_uneven_times_are_resampled_or_cut(steps, frames, fps):
    pace = even_pace(np.cumsum([0.0, *steps]))
    assert pace.frames.tolist() == frames
    assert pace.fps == fps
    assert f"{min(steps):g} to {max(steps):g} ms apart" in pace.note


@pytest.mark.parametrize("times", [[0, 20, 20, 40], [0, 20, 10], [0, float("nan"), 40]])
def test_times_that_do_not_increase_are_refused(times):
    with pytest.raises(EchosynError, match="time stamp of frame"):
        even_pace(np.array(times, float))


def test_a_dicom_with_a_pause_keeps_its_speed(tmp_path):
    steps = [20.0] * (T - 4) + [500.0, 20.0, 20.0]
    write_dicom(tmp_path / "raw.dcm", tissue(), FrameTime=None, FrameTimeVector=[0, *steps])
    raw, rejects = tmp_path / "raw", tmp_path / "rejects.csv"
    raw.mkdir()
    (tmp_path / "raw.dcm").rename(raw / "a.dcm")
    report = ingest("dicom", raw, tmp_path / "out", "none", {}, 0, rejects)
    listed = pd.read_csv(tmp_path / "out/FileList.csv")
    assert (listed["FPS"][0], listed["NumberOfFrames"][0]) == (50, T - 3)
    note = f"frames 20 to 500 ms apart: resampled .* longest is kept .frames 1 to {T - 3}."
    assert any(pd.Series(report.notes).str.contains(note))
    (noted,) = pd.read_csv(rejects).query("outcome == 'noted'")["reason"]
    assert pd.Series([noted]).str.contains(note)[0]


def test_an_mp4_of_uneven_times_keeps_its_speed(tmp_path):
    """One of 20 ms a frame, then 40; one with a pause; and one that is even."""
    frames = np.arange(0, 240, 10, np.uint8)[:, None, None].repeat(64, 1).repeat(64, 2)
    even = fit_video(write_mp4(tmp_path / "a.mp4", frames, fps=50))
    assert (even.fps, even.count, even.note) == (50, 24, "")
    slower = fit_video(write_mp4(tmp_path / "b.mp4", frames, steps=[20] * 14 + [40] * 10))
    assert (slower.fps, slower.count) == (50, 14 + 2 * 9 + 1)
    shown = slower.frames[:, 50, 50].astype(float)
    assert shown[20] == pytest.approx(frames[17, 0, 0], abs=6)
    assert "20 to 40 ms apart" in slower.note
    paused = fit_video(write_mp4(tmp_path / "c.mp4", frames, steps=[20] * 15 + [700] + [20] * 8))
    assert (paused.fps, paused.count) == (50, 16)
    assert "longest is kept (frames 1 to 16)" in paused.note


# Geometry


@pytest.mark.parametrize(("pixel", "shown"), [((1, 2), (96, 64)), ((2, 1), (48, 128))])
def test_the_pixels_of_a_video_become_square(tmp_path, pixel, shown):
    """A disc in what is shown, stored as an ellipse."""
    height, width = 96, 128
    y, x = np.mgrid[:height, :width] - np.array([height / 2, width / 2])[:, None, None]
    disc = (x * pixel[0]) ** 2 + (y * pixel[1]) ** 2 < (30 * max(pixel) / 2) ** 2
    frames = np.repeat((255 * disc).astype(np.uint8)[None], 6, 0)
    video = fit_video(write_mp4(tmp_path / "a.mp4", frames, pixel=pixel))
    assert video.square.shown == shown
    rows, columns = (np.flatnonzero((video.frames[0] > 127).any(a)) for a in (1, 0))
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=3)


def test_a_turned_video_turns_with_its_pixels(tmp_path):
    frames = np.zeros((4, 96, 128), np.uint8)
    assert fit_video(write_mp4(tmp_path / "a.mp4", frames, quarter_turn=True)).square.shown == (
        128, 96,
    )  # fmt: skip
    turned = write_mp4(tmp_path / "b.mp4", frames, pixel=(1, 2), quarter_turn=True)
    assert fit_video(turned).square.shown == (64, 96)


@given(st.integers(16, 400), st.integers(16, 400), st.floats(0.2, 5))
def test_points_move_with_pixels_that_become_square(height, width, aspect):
    fit = SquareFit(height, width, aspect)
    (h, w), scale = fit.shown, FRAME_SIZE / fit.side
    left, top = fit.point(0, 0)
    right, bottom = fit.point(width, height)
    assert right - left == pytest.approx(w * scale)
    assert bottom - top == pytest.approx(h * scale)
    assert min(left, top) >= -1e-6
    assert max(right, bottom) <= FRAME_SIZE + 1e-6


def region(**tags):
    r = Dataset()
    r.RegionSpatialFormat, r.RegionDataType = 1, 1
    r.RegionLocationMinX0, r.RegionLocationMinY0 = 0, 0
    r.RegionLocationMaxX1, r.RegionLocationMaxY1 = 319, 239
    for name, value in tags.items():
        setattr(r, name, value)
    return r


CM = {"PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3}
TALL = {
    "ratio": {"PixelAspectRatio": ["2", "1"]},
    "spacing": {"PixelSpacing": ["0.8", "0.4"]},
    "region": {
        "SequenceOfUltrasoundRegions": [region(**CM, PhysicalDeltaX=0.02, PhysicalDeltaY=0.04)]
    },
}


@pytest.mark.parametrize("tags", TALL.values(), ids=TALL)
def test_the_pixels_of_a_dicom_become_square(tmp_path, tags):
    cine = open_cine(write_dicom(tmp_path / "a.dcm", tissue(), **tags), 1000)
    assert cine.aspect == 2
    assert not cine.doubt
    assert next(iter(cine.frames())).shape == (240, 160)
    plain = cut_sector(open_cine(write_dicom(tmp_path / "b.dcm", tissue()), 1000))
    seen, square = (a.any(0) for a in (cut_sector(cine), plain))
    tall, wide = np.ptp(np.flatnonzero(seen.any(1))), np.ptp(np.flatnonzero(seen.any(0)))
    was = np.ptp(np.flatnonzero(square.any(1))) / np.ptp(np.flatnonzero(square.any(0)))
    assert tall / wide == pytest.approx(2 * was, rel=0.08)


@pytest.mark.parametrize(
    "deltas",
    [
        {"PhysicalUnitsXDirection": 4, "PhysicalUnitsYDirection": 3},  # seconds along x
        {**CM, "RegionSpatialFormat": 2},  # an M-mode beside the picture
        {},
    ],
)
def test_deltas_that_are_no_lengths_state_no_aspect(tmp_path, deltas):
    more = region(PhysicalDeltaX=0.02, PhysicalDeltaY=0.04, **deltas)
    path = write_dicom(tmp_path / "a", tissue(), SequenceOfUltrasoundRegions=[region(), more])
    assert open_cine(path, 1000).aspect is None


def test_tags_that_disagree_are_noted(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    same = region(**CM, PhysicalDeltaX=0.02, PhysicalDeltaY=0.02)
    write_dicom(
        raw / "a", tissue(), PixelAspectRatio=["2", "1"], SequenceOfUltrasoundRegions=[same]
    )
    write_dicom(raw / "b", tissue(1))
    notes = "\n".join(ingest("dicom", raw, tmp_path / "out", "none").notes)
    assert "PixelAspectRatio 2 but SequenceOfUltrasoundRegions 1: the first is taken" in notes
    assert "1 without a tag that states the aspect of pixels: taken as square" in notes


# DICOM files of odd kinds


def without_preamble(path, syntax, meta):
    ds = dataset(tissue())
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True, implicit_vr=None)
    data = path.read_bytes()[132:]
    if not meta:
        length = struct.unpack("<L", data[8:12])[0]
        data = data[12 + length :]
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("name", ["a.dcm", "IM0001"])
def test_a_dicom_without_preamble_is_read(tmp_path, syntax, meta, name):
    frames = list(open_cine(without_preamble(tmp_path / name, syntax, meta), 1000).frames())
    assert np.array_equal(frames, tissue())


def test_bytes_that_only_begin_like_a_dicom_are_none(tmp_path):
    raw, rejects = tmp_path / "raw", tmp_path / "rejects.csv"
    raw.mkdir()
    write_dicom(raw / "a good.dcm", tissue())
    (raw / "b.bin").write_bytes(b"\x08\x00\x05\x00" + bytes(range(256)))
    (raw / "c.dcm").write_bytes(b"\x02\x00\x10\x00" + bytes(200))
    ingest("dicom", raw, tmp_path / "out", "none", {}, 1, rejects)
    left = pd.read_csv(rejects).set_index("source")
    assert left.loc["file 2 of 3 by path"].tolist() == ["not a DICOM file", "skipped"]
    damaged = ["not a DICOM file, in spite of its name", "rejected"]
    assert left.loc["file 3 of 3 by path"].tolist() == damaged


def test_a_dicom_without_a_rate_takes_the_option(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", screen(), FrameTime=None)
    assert open_cine(path, 1000, 30.0).pace.fps == 30
    with pytest.raises(EchosynError, match=r"no frame rate.*option fps"):
        open_cine(path, 1000)
    short = write_dicom(tmp_path / "b.dcm", screen(), FrameTime=None, FrameTimeVector=[0, 20.0, 20])
    with pytest.raises(EchosynError, match=f"FrameTimeVector has 3 times for {T} frames"):
        open_cine(short, 1000)
    assert open_cine(short, 1000, 30.0).pace.fps == 30


def test_colour_doppler_is_left_out_and_listed(tmp_path):
    raw, rejects = tmp_path / "raw", tmp_path / "rejects.csv"
    raw.mkdir()
    write_dicom(raw / "a", tissue(), SequenceOfUltrasoundRegions=[region()])
    flow = [region(), region(RegionDataType=2)]
    write_dicom(raw / "b", tissue(1), SequenceOfUltrasoundRegions=flow)
    report = ingest("dicom", raw, tmp_path / "out", "none", {}, 0, rejects)
    assert (report.videos, report.skipped) == (1, 1)
    assert pd.read_csv(rejects)["reason"].tolist() == [
        "colour Doppler: flow is painted over the tissue"
    ]


@pytest.mark.parametrize(("one", "other"), [("0007788", "7788"), ("7788", "7788.0")])
def test_two_ways_of_writing_a_patient_are_noted(tmp_path, one, other):
    raw = tmp_path / "raw"
    raw.mkdir()
    for i, patient in enumerate((one, other, "12")):
        write_dicom(raw / str(i), tissue(i), PatientID=patient)
    key = str(make_key(tmp_path / "key"))
    notes = "\n".join(ingest("dicom", raw, tmp_path / "out", "none", {"key": key}).notes)
    assert "1 of a PatientID nearly that of another file:\n  file" in notes
    assert "taken as two people" in notes
    assert "7788" not in notes


def test_the_pointer_says_which_times_count(tmp_path):
    tags = {"FrameTime": "25", "FrameTimeVector": [20.0] * (T - 1)}
    pointer = {"FrameIncrementPointer": Tag("FrameTimeVector")}
    assert open_cine(write_dicom(tmp_path / "a", screen(), **tags, **pointer), 99).pace.fps == 50
    assert open_cine(write_dicom(tmp_path / "b", screen(), **tags), 99).pace.fps == 40


def test_big_endian_without_meta_is_no_reason_to_skip(tmp_path):
    path = without_preamble(tmp_path / "a.dcm", ExplicitVRBigEndian, True)
    assert np.array_equal(list(open_cine(path, 1000).frames()), tissue())


@pytest.mark.parametrize(
    ("affine", "turned"),
    [
        (np.diag([-0.3, -0.3, 1, 1]), False),  # as ITK writes
        (np.eye(4), False),
        (np.array([[0, 0.3, 0, 0], [0.3, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), True),
        (np.diag([0.3, -0.3, 1, 1]), True),
    ],
)
def test_a_nifti_that_states_another_orientation_is_noted(tmp_path, affine, turned):
    nibabel.save(nibabel.Nifti1Image(np.zeros((20, 30, 4), np.uint8), affine), tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.turned == turned
    assert volume.values.shape == (4, 30, 20)
