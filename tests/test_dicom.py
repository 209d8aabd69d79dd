import hashlib
import shutil

import cv2
import numpy as np
import pydicom
import pydicom.examples
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import JPEG2000, ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage

from echosyn.data.filelist import read_filelist
from echosyn.data.ingest import ingest
from echosyn.data.ingest.dicom import SkippedError, crop_to_sector, read_cine
from echosyn.data.ingest.sector import find_sector, square_around
from echosyn.data.video import read_video
from echosyn.errors import EchosynError

H, W, T = 240, 320, 12
APEX, RADIUS, HALF_ANGLE = (170, 20), 170, 0.7
CINE = pydicom.examples.get_path("ybr_color")


def true_sector():
    y, x = np.mgrid[:H, :W]
    dx, dy = x - APEX[0], y - APEX[1]
    angle = np.arctan2(dx, dy)
    return (np.abs(angle) < HALF_ANGLE) & (np.hypot(dx, dy) < RADIUS)


def screen(ecg=False):
    """Speckle in a known sector, text and a colour bar around it, and a clock that runs."""
    rng = np.random.default_rng(0)
    frames = np.zeros((T, H, W, 3), np.uint8)
    for t, frame in enumerate(frames):
        tissue = (rng.rayleigh(40, (H, W)) * true_sector()).clip(0, 255)
        frame[:] = cv2.GaussianBlur(tissue, (0, 0), 1).astype(np.uint8)[..., None]
        cv2.putText(frame, "DOE^JANE 1950", (4, 16), cv2.FONT_HERSHEY_PLAIN, 1, (255, 255, 0), 1)
        cv2.putText(frame, f"12:00:{t:02d}", (4, 236), cv2.FONT_HERSHEY_PLAIN, 1, (255,) * 3, 1)
        frame[40:120, 305:312] = np.linspace(0, 255, 80).astype(np.uint8)[:, None, None]
        if ecg:
            for x in range(60, 280):
                y = 200 - (18 if (x + 9 * t) % 50 < 3 else 0)
                frame[y - 2 : y, x] = (0, 255, 0)
    return frames


def write_dicom(path, frames, **tags):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = UltrasoundMultiFrameImageStorage, "1.2.3.4"
    ds.PatientName, ds.PatientID, ds.StudyDate = "DOE^JANE", "MRN-778899", "20160503"
    ds.Modality, ds.FrameTime, ds.NumberOfFrames = "US", "25", len(frames)
    ds.Rows, ds.Columns = frames.shape[1:3]
    colour = frames.ndim == 4
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    bits = frames.dtype.itemsize * 8
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = bits - 1, 0
    ds.PixelData = frames.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    ds.save_as(path, enforce_file_format=True)
    return path


def region(fmt=1, box=(40, 5, 300, 210)):
    r = Dataset()
    r.RegionSpatialFormat = fmt
    r.RegionLocationMinX0, r.RegionLocationMinY0 = box[:2]
    r.RegionLocationMaxX1, r.RegionLocationMaxY1 = box[2:]
    return r


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("ecg", [False, True])
def test_finds_a_known_sector(ecg):
    grey = screen(ecg).mean(-1)
    mask = find_sector(grey.mean(0), grey.std(0))
    assert overlap(mask, true_sector()) > 0.93
    outside = mask & ~cv2.dilate(true_sector().astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert outside.sum() == 0


def test_nothing_moves():
    still = np.repeat(screen()[:1].mean(-1), 5, 0)
    assert find_sector(still.mean(0), still.std(0)) is None
    with pytest.raises(EchosynError, match=r"x\.dcm: no ultrasound sector"):
        crop_to_sector(still.astype(np.uint8), None, "x.dcm")


def test_square_around_pads_what_leaves_the_frame():
    mask = np.zeros((100, 200), bool)
    mask[10:90, 20:190] = True
    rows, columns, pad = square_around(mask)
    assert (rows, columns, pad) == (slice(0, 100), slice(20, 190), ((35, 35), (0, 0)))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The real cine that pydicom carries, ingested."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("data") / "out"
    shutil.copy(CINE, raw / "PLA-204.dcm")
    return ingest("dicom", raw, out, "none"), out


def test_real_cine_facts(shipped):
    report, out = shipped
    assert (report.videos, report.frames) == (1, 30)
    row = read_filelist(out / "FileList.csv", label="none").iloc[0]
    digest = hashlib.sha256(pydicom.dcmread(CINE).PixelData).hexdigest()
    assert row["FileName"] == f"0X{digest[:16].upper()}"
    assert row[["EF", "ESV", "EDV"]].isna().all()
    assert row["Split"] == "TEST"
    frames, fps = read_video(out / "Videos" / f"{row['FileName']}.avi")
    assert frames.shape == (30, 112, 112)
    assert fps == row["FPS"] == pytest.approx(1000 / 33.333, rel=1e-4)


def test_real_cine_keeps_the_sector_alone(shipped):
    frames = read_video(next((shipped[1] / "Videos").iterdir()))[0].astype(float)
    strongest = frames.max(0)
    # The fan's corners and everything beside it are black: no text, scale, mark or colour bar.
    y, x = np.mgrid[:112, :112]
    fan = (np.abs(x - 55.5) < (y - 12) * 1.15 + 6) & (y < 100)
    assert strongest[~fan].max() < 8
    assert frames[:, 30:85, 30:80].mean() > 15
    # Nothing bright stands still: what the machine draws does, tissue does not.
    still = (frames.mean(0) > 40) & (frames.std(0) < 0.01 * frames.mean(0))
    assert still.sum() == 0


def test_no_trace_of_the_patient_survives(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    write_dicom(raw / "DOE_JANE.dcm", screen())
    ingest("dicom", raw, tmp_path / "out", "none")
    for file in (tmp_path / "out").rglob("*.*"):
        for secret in (b"DOE", b"JANE", b"778899", b"20160503", b"1.2.3.4"):
            assert secret not in file.read_bytes()
            assert secret.decode() not in file.name
    frames = read_video(next((tmp_path / "out" / "Videos").iterdir()))[0]
    assert frames[:, :20, :40].max() < 12  # where the name was burned in
    assert frames[:, :60, -8:].max() < 12  # where the colour bar was


@pytest.mark.parametrize(
    ("tags", "fps"),
    [
        ({"FrameTime": "40"}, 25),
        ({"FrameTime": None, "FrameTimeVector": [0, *[20.0] * (T - 1)]}, 50),
        ({"FrameTime": None, "CineRate": 43}, 43),
        ({"FrameTime": "0", "RecommendedDisplayFrameRate": 30}, 30),
    ],
)
def test_frame_rate_comes_from_the_header(tmp_path, tags, fps):
    assert read_cine(write_dicom(tmp_path / "a.dcm", screen(), **tags)).fps == fps


def test_grey_levels(tmp_path):
    ramp = np.stack([np.arange(256).reshape(16, 16)] * 2)
    eight = read_cine(write_dicom(tmp_path / "a.dcm", ramp.astype(np.uint8))).frames
    assert np.array_equal(eight, ramp)
    sixteen = read_cine(write_dicom(tmp_path / "b.dcm", (ramp * 257).astype(np.uint16))).frames
    assert np.array_equal(sixteen, ramp)
    inverted = write_dicom(
        tmp_path / "c.dcm", ramp.astype(np.uint8), PhotometricInterpretation="MONOCHROME1"
    )
    assert np.array_equal(read_cine(inverted).frames, 255 - ramp)


def test_declared_regions(tmp_path):
    frames = screen()
    used = write_dicom(tmp_path / "a.dcm", frames, SequenceOfUltrasoundRegions=[region()])
    assert read_cine(used).box.sum() == 261 * 206
    # A cine exported at half size may keep the coordinates of the full screen.
    beyond = [region(box=(40, 5, 600, 420))]
    assert (
        read_cine(write_dicom(tmp_path / "b.dcm", frames, SequenceOfUltrasoundRegions=beyond)).box
        is None
    )
    spectrum = write_dicom(tmp_path / "c.dcm", frames, SequenceOfUltrasoundRegions=[region(3)])
    with pytest.raises(SkippedError, match="no 2D region"):
        read_cine(spectrum)


def test_skips_with_a_note_and_keeps_the_rest(tmp_path):
    raw = tmp_path / "raw"
    (raw / "sub").mkdir(parents=True)
    frames = screen()
    write_dicom(raw / "sub" / "cine", frames)
    write_dicom(raw / "again.dcm", frames, PatientName="X")
    write_dicom(raw / "still.dcm", frames[:1])
    write_dicom(raw / "ct.dcm", frames, Modality="CT")
    (raw / "README.txt").write_text("hello")
    report = ingest("dicom", raw, tmp_path / "out", "none")
    assert report.videos == 1
    notes = "\n".join(report.notes)
    for part in ("still.dcm: a single image", "ct.dcm: modality CT", "README.txt: not a DICOM"):
        assert part in notes
    assert "1 files hold the pixels of another file" in notes


def broken(kind, raw):
    frames = screen()
    if kind == "no rate":
        write_dicom(raw / "a.dcm", frames, FrameTime=None)
    elif kind == "only stills":
        write_dicom(raw / "a.dcm", frames[:1])
    elif kind == "not dicom":
        (raw / "a.dcm").write_text("hello")
    elif kind == "short pixels":
        write_dicom(raw / "a.dcm", frames, PixelData=frames.tobytes()[:-5000])
    elif kind == "garbage pixels":
        ds = pydicom.dcmread(write_dicom(raw / "a.dcm", frames))
        ds.file_meta.TransferSyntaxUID = JPEG2000
        ds.PixelData = pydicom.encaps.encapsulate([b"no image"] * T)
        ds["PixelData"].is_undefined_length = True
        ds.save_as(raw / "a.dcm")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nothing", "the folder is empty"),
        ("no rate", "a.dcm: no frame rate"),
        ("only stills", "no multi-frame ultrasound DICOM among 1 files"),
        ("not dicom", "a.dcm: not a DICOM file"),
        ("short pixels", "a.dcm: the pixel data"),
        ("garbage pixels", "a.dcm: the pixel data (JPEG 2000 Image Compression) cannot be decoded"),
    ],
)
def test_refusals_leave_nothing(tmp_path, kind, message):
    raw = tmp_path / "raw"
    raw.mkdir()
    broken(kind, raw)
    with pytest.raises(EchosynError) as e:
        ingest("dicom", raw, tmp_path / "data" / "out", "none")
    assert message in str(e.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_cine_has_no_ef(tmp_path):
    with pytest.raises(EchosynError, match="label: none"):
        ingest("dicom", tmp_path, tmp_path / "out", "ef")
