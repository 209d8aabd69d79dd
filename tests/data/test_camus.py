"""CAMUS, NIfTI cines and tracings of masks."""

from contextlib import suppress

import cv2
import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_layouts import camus, half_beat, nifti

from echosyn.data.filelist import read_cells, read_filelist
from echosyn.data.ingest import ingest
from echosyn.data.ingest.nifti import grey_frames, read_nifti
from echosyn.data.ingest.tracing import CHORDS, trace
from echosyn.data.video import read_video
from echosyn.runtime.errors import EchosynError


def test_camus_becomes_a_dataset_with_its_own_splits(tmp_path):
    report = ingest("camus", camus(tmp_path / "raw"), tmp_path / "out", "ef")
    assert (report.videos, report.frames, report.rejected) == (8, 48, 0)
    table = read_filelist(tmp_path / "out" / "FileList.csv")
    assert list(table["FileName"][:3]) == ["patient0001_2CH", "patient0001_4CH", "patient0002_2CH"]
    assert list(table["Split"]) == ["TRAIN"] * 4 + ["VAL"] * 2 + ["TEST"] * 2
    assert list(table["EF"]) == [40, 40, 41, 41, 42, 42, 43, 43]
    assert list(table["Patient"].unique()) == [f"patient000{i}" for i in range(1, 5)]
    assert set(table["Sex"]) == {"F"}
    assert list(table["Age"]) == [50, 50, 51, 51, 52, 52, 53, 53]
    assert (table["FPS"] == 45.5).all()
    assert (table["NumberOfFrames"] == 6).all()
    frames, fps = read_video(tmp_path / "out" / "Videos" / "patient0001_4CH.avi")
    assert frames.shape == (6, 112, 112)
    assert fps == 45.5
    # 120 x 160 becomes the middle 84 rows: upright, black above and below
    assert frames[:, :12].max() < 12
    assert frames[:, 100:].max() < 12
    image, _ = half_beat()
    small = frames[0, 14:98].astype(float)
    whole = image[0].reshape(60, 2, 80, 2).mean((1, 3))[::1]
    assert np.corrcoef(small[::7, ::7].ravel(), whole[::5, ::5].ravel())[0, 1] > 0.6


def test_camus_masks_become_tracings(tmp_path):
    ingest("camus", camus(tmp_path / "raw", patients=2, splits=False), tmp_path / "out", "ef")
    table = read_cells(tmp_path / "out" / "VolumeTracings.csv").table
    assert list(table.columns) == ["FileName", "X1", "Y1", "X2", "Y2", "Frame"]
    mine = table[table["FileName"] == "patient0001_4CH.avi"]
    assert list(mine["Frame"]) == ["0"] * (1 + CHORDS) + ["5"] * (1 + CHORDS)
    lines = mine[["X1", "Y1", "X2", "Y2"]].to_numpy(float)
    assert ((lines >= 0) & (lines <= 112)).all()
    axis = lines[0]
    # apex at the top, in the middle of the ventricle, at 0.7 of the size and 14 rows down
    assert axis[1] < axis[3]
    assert axis[[0, 2]] == pytest.approx([70.5 * 0.7] * 2, abs=2)
    assert axis[1] == pytest.approx(14 * 0.7 + 14, abs=1.5)
    squares = ((lines[:, 2:] - lines[:, :2]) ** 2).sum(1)  # of the chords' lengths
    systole = squares[2 + CHORDS :].sum() / squares[1 : 1 + CHORDS].sum()
    assert systole == pytest.approx(0.25, abs=0.05)  # half the width is a quarter of the area


def rasterised(lines, shape):
    outline = np.concatenate([lines[1:, :2], lines[:0:-1, 2:]])
    return cv2.fillPoly(np.zeros(shape, np.uint8), [np.rint(outline - 0.5).astype(int)], 1) > 0


@pytest.mark.parametrize("with_atrium", [True, False])
@pytest.mark.parametrize("angle", [-25, 0, 20])
def test_chords_cover_the_mask(angle, with_atrium):
    mask = np.zeros((200, 200), np.uint8)
    cv2.ellipse(mask, (100, 90), (30, 60), angle, 0, 360, 1, -1)
    atrium = np.zeros_like(mask)
    if with_atrium:
        turn = np.radians(angle)
        below = (int(100 - 75 * np.sin(turn)), int(90 + 75 * np.cos(turn)))
        cv2.circle(atrium, below, 20, 1, -1)
        atrium[mask > 0] = 0
    lines = trace(mask > 0, atrium > 0)
    drawn = rasterised(lines, mask.shape)
    assert (drawn & (mask > 0)).sum() / (drawn | (mask > 0)).sum() > 0.88
    length = np.hypot(*(lines[0, 2:] - lines[0, :2]))
    assert length == pytest.approx(120, abs=5)


def test_a_speck_is_no_ventricle():
    mask = np.zeros((50, 50), bool)
    mask[10:15, 10:15] = True
    assert trace(mask, np.zeros_like(mask)) is None


def test_camus_without_lists_is_split_by_patient(tmp_path):
    raw = camus(tmp_path / "raw", patients=10, splits=False)
    ingest("camus", raw, tmp_path / "out", "ef", {"split": {"seed": 3}})
    table = read_filelist(tmp_path / "out" / "FileList.csv")
    assert (table.groupby("Patient")["Split"].nunique() == 1).all()
    assert table["Split"].value_counts().to_dict() == {"TRAIN": 16, "VAL": 2, "TEST": 2}


def test_camus_one_view(tmp_path):
    raw = camus(tmp_path / "raw")
    report = ingest("camus", raw, tmp_path / "out", "ef", {"views": ["4CH"]})
    assert report.videos == 4


def test_rectangular_pixels_become_square(tmp_path):
    raw = camus(tmp_path / "raw", patients=2, splits=False, spacing=(0.3, 0.15))
    ingest("camus", raw, tmp_path / "out", "ef")
    frames, _ = read_video(tmp_path / "out" / "Videos" / "patient0001_4CH.avi")
    # 160 columns half as wide as 120 rows are high: 120 x 80, so 75 columns of 112
    assert frames[:, :, :16].max() < 12
    assert frames[:, :, 22:90].mean() > 10
    axis = read_cells(tmp_path / "out" / "VolumeTracings.csv").table.iloc[0]
    assert float(axis["X1"]) == pytest.approx((35 + 20) * 112 / 120, abs=1.5)
    assert float(axis["Y1"]) == pytest.approx(14 * 112 / 120, abs=1.5)


def spoil(kind, raw):
    root = raw / "database_nifti" / "patient0002"
    info = root / "Info_4CH.cfg"
    cine = root / "patient0002_4CH_half_sequence.nii.gz"
    text = info.read_text()
    if kind == "no info":
        info.unlink()
    elif kind == "no frame rate":
        info.write_text(text.replace("FrameRate: 45.5\n", ""))
    elif kind == "no EF":
        info.write_text(text.replace("EF: 41\n", ""))
    elif kind == "EF with a comma":
        info.write_text(text.replace("EF: 41", "EF: 41,5"))
    elif kind == "other count":
        info.write_text(text.replace("NbFrame: 6", "NbFrame: 7"))
    elif kind == "ES beyond":
        info.write_text(text.replace("ES: 6", "ES: 9"))
    elif kind == "binary info":
        info.write_bytes(b"\xff\xfe\x00")
    elif kind == "no colon":
        info.write_text(text + "hello\n")
    elif kind == "no cine":
        cine.unlink()
    elif kind == "truncated cine":
        cine.write_bytes(cine.read_bytes()[:-2000])
    elif kind == "text cine":
        cine.write_text("no NIfTI")
    elif kind == "empty masks":
        nifti(root / "patient0002_4CH_half_sequence_gt.nii.gz", np.zeros((6, 120, 160), np.uint8))
    elif kind == "other masks":
        nifti(root / "patient0002_4CH_half_sequence_gt.nii.gz", np.zeros((5, 120, 160), np.uint8))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no info", "Info_4CH.cfg: the file does not exist"),
        ("no frame rate", "Info_4CH.cfg: no FrameRate; set the option 'fps'"),
        ("no EF", "EF '' is not a finite number"),
        ("EF with a comma", "EF '41,5' is not a finite number"),
        ("other count", "6 frames, Info_4CH.cfg says 7"),
        ("ES beyond", "ES 9 is not among 6 frames"),
        ("binary info", "Info_4CH.cfg is UTF-16 text"),
        ("no colon", "Info_4CH.cfg: line 9: 'hello' is not of the form"),
        ("no cine", "half_sequence.nii.gz: the file does not exist"),
        ("truncated cine", "damaged or truncated"),
        ("text cine", "not a NIfTI file"),
        ("empty masks", "no left ventricle in frame 1 (ED)"),
        ("other masks", "masks of (5, 120, 160)"),
    ],
)
def test_a_bad_patient_is_rejected_with_the_reason(tmp_path, kind, reason):
    raw = camus(tmp_path / "raw", patients=3)
    spoil(kind, raw)
    rejects = tmp_path / "rejects.csv"
    report = ingest("camus", raw, tmp_path / "out", "ef", max_rejects=1, rejects=rejects)
    assert (report.videos, report.rejected) == (5, 1)
    row = read_cells(rejects).table.iloc[0]
    assert row["source"] == "patient0002 4CH"
    assert reason in row["reason"]
    assert len(list((tmp_path / "out" / "Videos").iterdir())) == 5


def test_patients_out_of_the_lists_are_rejected(tmp_path):
    raw = camus(tmp_path / "raw")
    lists = raw / "database_split"
    (lists / "subgroup_training.txt").write_text("patient0001\npatient0009\n")
    rejects = tmp_path / "rejects.csv"
    ingest("camus", raw, tmp_path / "out", "ef", max_rejects=2, rejects=rejects)
    assert read_cells(rejects).table["source"].tolist() == ["patient0009", "patient0002"]
    (lists / "subgroup_testing.txt").write_text("patient0001\n")
    with pytest.raises(EchosynError, match="line 1: patient0001 is listed in TRAIN already"):
        ingest("camus", raw, tmp_path / "out", "ef")


def test_not_camus(tmp_path):
    with pytest.raises(EchosynError, match=r"no folder 'patient\*'"):
        ingest("camus", tmp_path, tmp_path / "out", "ef")
    with pytest.raises(EchosynError, match="has an EF and no class"):
        ingest("camus", camus(tmp_path / "raw"), tmp_path / "out", "class")


# ---- NIfTI


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64], ids=lambda d: d.__name__
)
def test_values_within_grey_levels_are_kept(tmp_path, dtype):
    values = np.arange(6 * 20 * 30).reshape(6, 20, 30) % 256
    path = nifti(tmp_path / "a.nii.gz", values.astype(dtype))
    assert np.array_equal(grey_frames(read_nifti(path), path), values)


def test_other_ranges_are_scaled(tmp_path):
    values = np.linspace(-1000, 3000, 4 * 16 * 20).reshape(4, 16, 20)
    path = nifti(tmp_path / "a.nii", values.astype(np.float32))
    grey = grey_frames(read_nifti(path), path)
    assert (grey.min(), grey.max()) == (0, 255)
    assert np.array_equal(grey, np.rint((values + 1000) / 4000 * 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("shape", "step", "units", "fps"),
    [
        ((20, 16, 1, 5), 0.025, 8, 40),
        ((20, 16, 1, 5), 25.0, 16, 40),
        ((20, 16, 1, 5), 1.0, 8, None),
        ((20, 16, 5), 0.025, 8, None),  # the third axis' step is a thickness
    ],
)
def test_four_dimensions_may_state_a_rate(tmp_path, shape, step, units, fps):
    image = nibabel.Nifti1Image(np.ones(shape, np.uint8), np.eye(4))
    image.header["pixdim"][len(shape)] = step
    image.header["xyzt_units"] = 2 + units
    nibabel.save(image, tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")
    assert volume.values.shape == (5, 16, 20)
    assert volume.fps == (fps if fps is None else pytest.approx(fps))


def test_colour_becomes_grey(tmp_path):
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb = np.zeros((20, 16, 5), kind)
    rgb["R"], rgb["G"], rgb["B"] = 30, 60, 90
    rgb["R"][0] = 33
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "a.nii.gz")
    grey = grey_frames(read_nifti(tmp_path / "a.nii.gz"), tmp_path)
    assert grey.shape == (5, 16, 20)
    assert (grey[:, :, 1:] == 60).all()
    assert (grey[:, :, 0] == 61).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite(tmp_path, value):
    values = np.zeros((3, 16, 16), np.float32)
    values[1, 2, 3] = value
    path = nifti(tmp_path / "a.nii", values)
    with pytest.raises(EchosynError, match="not finite"):
        grey_frames(read_nifti(path), path)


def test_no_cine(tmp_path):
    flat = nifti(tmp_path / "flat.nii", np.full((3, 16, 16), 7.0, np.float32))
    with pytest.raises(EchosynError, match="every value is 7"):
        grey_frames(read_nifti(flat), flat)
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 5), np.uint8), np.eye(4)), tmp_path / "2.nii")
    with pytest.raises(EchosynError, match="5x5 values of uint8 are no cine"):
        read_nifti(tmp_path / "2.nii")


def test_a_declared_giant_is_refused_unread(tmp_path):
    path = nifti(tmp_path / "a.nii", np.zeros((3, 16, 16), np.uint8))
    data = bytearray(path.read_bytes())
    data[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    path.write_bytes(bytes(data))
    with pytest.raises(EchosynError, match="30000x30000x30000 values are declared"):
        read_nifti(path)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), packed=st.booleans())
def test_any_damage_to_a_nifti_file_is_survived(tmp_path, data, packed):
    path = nifti(tmp_path / ("a.nii.gz" if packed else "a.nii"), half_beat(3, (40, 30))[0])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(content), 400) - 1))  # the header most of all
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(1, len(content) - 1)) :]
    path.write_bytes(bytes(content))
    with suppress(EchosynError):
        frames = grey_frames(read_nifti(path), path)
        assert frames.ndim == 3
        assert frames.dtype == np.uint8
