import hashlib
import os
import shutil
import tracemalloc

import cv2
import numpy as np
import pandas as pd
import pydicom
import pydicom.examples
import pytest
from dicom_files import (
    H,
    T,
    W,
    dataset,
    encode,
    region,
    screen,
    tissue,
    true_sector,
    write_dicom,
    write_encapsulated,
)
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from echosyn.data.filelist import read_filelist
from echosyn.data.ingest import dicom, ingest
from echosyn.data.ingest.canonical import SkipError
from echosyn.data.ingest.cine import open_cine
from echosyn.data.ingest.pseudonym import make_key
from echosyn.data.ingest.sector import Motion, find_sector, square_around
from echosyn.data.video import read_video
from echosyn.runtime.errors import EchosynError

CINE = pydicom.examples.get_path("ybr_color")


def cine(path):
    return open_cine(path, 20_000)


def decoded(path):
    return np.stack(list(cine(path).frames()))


def sector_of(frames, box=None):
    motion = Motion()
    for frame in frames:
        motion.add(frame)
    return motion.sector(box)


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


# The sector


@pytest.mark.parametrize("ecg", [False, True])
def test_finds_a_known_sector(ecg):
    grey = screen(ecg).mean(-1)
    mask = find_sector(grey.mean(0), grey.std(0))
    assert overlap(mask, true_sector()) > 0.93
    outside = mask & ~cv2.dilate(true_sector().astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert outside.sum() == 0


def test_nothing_moves():
    still = np.repeat(tissue()[:1], 8, 0)
    assert find_sector(still.mean(0), still.std(0)) is None
    with pytest.raises(EchosynError, match="no ultrasound sector"):
        sector_of(still)


def test_a_few_frames_do_not_tell_tissue_from_text():
    with pytest.raises(EchosynError, match="7 frames are too few"):
        sector_of(tissue(frames=7))


def test_square_around_pads_what_leaves_the_frame():
    mask = np.zeros((100, 200), bool)
    mask[10:90, 20:190] = True
    rows, columns, pad = square_around(mask)
    assert (rows, columns, pad) == (slice(0, 100), slice(20, 190), ((35, 35), (0, 0)))


def test_nothing_outside_the_declared_regions_leaves():
    box = np.zeros((H, W), bool)
    box[60:200, 100:240] = True
    mask = sector_of(tissue(), box)
    assert not (mask & ~box).any()
    assert overlap(mask, true_sector() & box) > 0.85


# Burned-in text: corners, beside the sector, over each of its edges, over the apex, within it
PLACES = {
    "corner": (4, 16),
    "left edge": (30, 110),
    "right edge": (210, 110),
    "over the arc": (120, 195),
    "over the apex": (120, 28),
    "inside": (120, 130),
    "below": (100, 232),
    "far right": (250, 180),
}


@pytest.mark.parametrize("quality", [None, 75])
@pytest.mark.parametrize("place", PLACES)
def test_text_is_gone_and_leaves_no_hole_in_its_shape(place, quality):
    frames, (x, y) = tissue(), PLACES[place]
    words = {word: np.zeros((H, W), np.uint8) for word in ("JANE", "DOE")}
    cv2.putText(words["JANE"], "JANE", (x, y), cv2.FONT_HERSHEY_PLAIN, 1, 255, 1)
    cv2.putText(words["DOE"], "DOE", (x + 44, y), cv2.FONT_HERSHEY_PLAIN, 1, 255, 1)
    for i, frame in enumerate(frames):
        frame[(words["JANE"] | words["DOE"]) > 0] = 255
        if quality:
            coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            frames[i] = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
    mask = sector_of(frames)
    for glyphs in words.values():
        left, top, width, height = cv2.boundingRect(glyphs)
        # A word leaves as a block: what is left between its letters would spell it.
        assert not mask[top : top + height, left : left + width].any()
    assert (mask & true_sector()).sum() > 0.85 * true_sector().sum()  # and little else


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The real cine that pydicom carries, ingested."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("data") / "out"
    shutil.copy(CINE, raw / "PLA-204.dcm")
    return ingest("dicom", raw, out, "none"), out


def test_real_cine_facts(shipped):
    report, out = shipped
    assert (report.videos, report.frames, report.notes) == (1, 30, ())
    row = read_filelist(out / "FileList.csv", label="none").iloc[0]
    digest = hashlib.sha256(pydicom.dcmread(CINE).PixelData).hexdigest()
    assert row["FileName"] == f"0X{digest[:16].upper()}"
    assert row[["EF", "ESV", "EDV"]].isna().all()
    assert row["Split"] == "TEST"
    assert "Patient" not in row
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


@pytest.mark.parametrize(("x", "y"), [(2, 60), (60, 70), (130, 120), (150, 225), (230, 150)])
def test_text_on_the_real_cine_is_gone(x, y):
    frames = decoded(CINE)
    glyphs = np.zeros(frames.shape[1:], np.uint8)
    cv2.putText(glyphs, "DOE^JANE", (x, y), cv2.FONT_HERSHEY_PLAIN, 1, 255, 1)
    before = sector_of(frames)
    frames[:, glyphs > 0] = 230
    mask = sector_of(frames)
    assert not (mask & (glyphs > 0)).any()
    assert mask.sum() > 0.85 * before.sum()


# What leaves


def secrets(header):
    """Every value of a header as text, the numbers apart that say how pixels are stored."""
    for element in header.iterall():
        if element.VR not in ("SQ", "OB", "OW", "US", "SS", "UL"):
            for value in str(element.value).strip("[]").replace("'", "").split(", "):
                if len(value) >= 3:
                    yield value


def test_no_value_of_the_header_survives(tmp_path):
    raw, out = tmp_path / "raw" / "DOE_JANE" / "1950", tmp_path / "out"
    raw.mkdir(parents=True)
    other = region()
    other.add_new(0x00181020, "LO", "Software-9.7.3")
    tags = {
        "PatientBirthDate": "19500417",
        "StudyTime": "101112.131415",
        "InstitutionName": "Saint Elsewhere",
        "ReferringPhysicianName": "HOUSE^GREGORY",
        "AccessionNumber": "ACC-5550123",
        "StudyInstanceUID": "1.2.840.99999.1.20160503.778899",
        "SeriesDescription": "A4C of Jane",
        "DeviceSerialNumber": "SN-31415",
        "PatientComments": "allergic",
        "SequenceOfUltrasoundRegions": [other],
    }
    header = dataset(screen(), **tags)
    header.private_block(0x0011, "Vendor Private", create=True).add_new(1, "LO", "Jane again")
    header.save_as(raw / "DOE_JANE 17.dcm", enforce_file_format=True)
    write_dicom(raw / "DOE_STILL.dcm", screen()[:1], **tags)
    write_dicom(raw / "DOE_CUT.dcm", screen(), Rows=999, **tags)
    key = make_key(tmp_path / "key")
    table = tmp_path / "rejects.csv"
    report = ingest("dicom", raw, out, "none", {"key": str(key)}, 1, table)
    assert (report.videos, report.skipped, report.rejected) == (1, 1, 1)
    looked_for = [*secrets(header), *secrets(header.file_meta), "DOE", "JANE", "Jane", ".dcm"]
    assert len(looked_for) > 20
    written = {str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*") if f.is_file()}
    written |= {"rejects": table.read_bytes(), "notes": "\n".join(report.notes).encode()}
    for secret in looked_for:
        for name, content in written.items():
            assert secret.encode() not in content, f"{secret} in {name}"
            assert secret not in name
    frames = read_video(next((out / "Videos").iterdir()))[0]
    assert frames[:, :20, :40].max() < 12  # where the name was burned in
    assert frames[:, :60, -8:].max() < 12  # where the colour bar was


def keyed(raw, out, key, **options):
    ingest("dicom", raw, out, "none", {"key": str(key), **options})
    return read_filelist(out / "FileList.csv", label="none")


@pytest.mark.slow
def test_a_key_links_the_files_of_one_patient_and_splits_by_patient(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for i in range(12):
        patient = f"mrn-{i // 2} " if i % 2 else f"MRN-{i // 2}"
        write_dicom(raw / f"{i}.dcm", tissue(i, 8), PatientID=patient, PatientName=f"P{i}")
    key, other = make_key(tmp_path / "keys" / "a"), make_key(tmp_path / "keys" / "b")
    shares = {"train": 0.5, "val": 0.25, "test": 0.25, "seed": 2}
    table = keyed(raw, tmp_path / "one", key, **shares)
    assert table["Patient"].nunique() == 6
    assert (table.groupby("Patient").size() == 2).all()
    assert (table.groupby("Patient")["Split"].nunique() == 1).all()
    assert table["Split"].nunique() > 1
    # again, and with patients gone: the same names and splits
    for gone in ("0.dcm", "1.dcm", "7.dcm"):
        (raw / gone).unlink()
    again = keyed(raw, tmp_path / "two", key, **shares)
    both = table.merge(again, on="FileName", suffixes=("", "_2"))
    assert len(again) == len(both) == 9
    assert (both["Patient"] == both["Patient_2"]).all()
    assert (both["Split"] == both["Split_2"]).all()
    # another key: nothing in common; another seed: other splits
    strange = keyed(raw, tmp_path / "three", other, **shares)
    assert not set(strange["Patient"]) & set(table["Patient"])
    assert not set(strange["FileName"]) & set(table["FileName"])
    seeds = [keyed(raw, tmp_path / "s", key, seed=s)["Split"].tolist() for s in range(4)]
    assert any(s != seeds[0] for s in seeds)


def test_the_number_of_threads_changes_nothing(tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    raw.mkdir()
    for i in range(5):
        write_dicom(raw / f"{i}.dcm", tissue(i % 3, 8), FrameTime=str(20 + i % 3))
    written = []
    for threads in ("1", "3"):
        monkeypatch.setenv("ECHOSYN_THREADS", threads)
        ingest("dicom", raw, tmp_path / threads, "none")
        files = (f for f in (tmp_path / threads).rglob("*") if f.is_file())
        written.append({f.name: f.read_bytes() for f in files})
    assert written[0] == written[1]
    assert len(written[0]) == 2 + 3  # with the list and the hashes of all


def test_with_a_key_a_patient_number_is_needed(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    write_dicom(raw / "a.dcm", tissue(), PatientID=" ")
    with pytest.raises(EchosynError, match="file 1 of 1 by path: no PatientID"):
        keyed(raw, tmp_path / "out", make_key(tmp_path / "key"))


# What is read


@pytest.mark.parametrize(
    ("tags", "fps"),
    [
        ({"FrameTime": "40"}, 25),
        ({"FrameTime": None, "FrameTimeVector": [0, *[20.0] * (T - 1)]}, 50),
        ({"FrameTime": None, "CineRate": 43}, 43),
        ({"FrameTime": "0", "RecommendedDisplayFrameRate": 30}, 30),
        ({"FrameTime": "", "FrameTimeVector": 0.0, "RecommendedDisplayFrameRate": 9}, 9),
        ({"FrameTime": "33.333"}, 30),
        ({"FrameTime": None, "ActualFrameDuration": 20}, 50),
        ({"FrameTime": "25", "FrameTimeVector": [20.0] * (T - 1)}, 40),
        ({"FrameTime": "25", "FrameTimeVector": [20.0] * (T - 1),
          "FrameIncrementPointer": Tag("FrameTimeVector")}, 50),
    ],
)  # fmt: skip
def test_frame_rate_comes_from_the_header(tmp_path, tags, fps):
    assert cine(write_dicom(tmp_path / "a.dcm", screen(), **tags)).pace.fps == fps


def test_grey_levels(tmp_path):
    ramp = np.stack([np.arange(256).reshape(16, 16)] * 2)
    assert np.array_equal(decoded(write_dicom(tmp_path / "a", ramp.astype(np.uint8))), ramp)
    wide = write_dicom(tmp_path / "b", (ramp * 257).astype(np.uint16))
    assert np.array_equal(decoded(wide), ramp)
    twelve = (np.rint(ramp * (4095 / 255))).astype(np.uint16)
    twelve = write_dicom(tmp_path / "c", twelve, BitsStored=12, HighBit=11)
    assert np.array_equal(decoded(twelve), ramp)
    inverted = write_dicom(
        tmp_path / "d", ramp.astype(np.uint8), PhotometricInterpretation="MONOCHROME1"
    )
    assert np.array_equal(decoded(inverted), 255 - ramp)


@pytest.mark.parametrize("kind", ["implicit", "big endian", "planar", "palette", "ybr", "ybr 422"])
def test_uncompressed(tmp_path, kind):
    grey = tissue(1, 3)
    colour = np.repeat(grey[..., None], 3, -1)
    tags, frames, syntax = {}, colour, None
    if kind == "implicit":
        syntax = ImplicitVRLittleEndian
    elif kind == "big endian":
        syntax, frames = ExplicitVRBigEndian, (grey.astype(">u2") * 257)
    elif kind == "planar":
        tags = {"PlanarConfiguration": 1, "PixelData": colour.transpose(0, 3, 1, 2).tobytes()}
    elif kind == "palette":  # the table turns the levels round
        frames, tags = 255 - grey, {"PhotometricInterpretation": "PALETTE COLOR"}
        for name in ("Red", "Green", "Blue"):
            tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
            table = (np.arange(255, -1, -1) * 257).astype("<u2").tobytes()
            tags[f"{name}PaletteColorLookupTableData"] = table
    elif kind == "ybr":
        frames = colour.copy()
        frames[..., 1:] = 128
        tags = {"PhotometricInterpretation": "YBR_FULL"}
    elif kind == "ybr 422":
        pairs = np.full((*grey.shape[:2], W // 2, 4), 128, np.uint8)
        pairs[..., :2] = grey.reshape(*grey.shape[:2], W // 2, 2)
        tags = {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": pairs.tobytes()}
    ds = dataset(frames, **tags)
    if kind == "big endian":
        ds.PixelData = frames.tobytes()
    if syntax:
        ds.file_meta.TransferSyntaxUID = syntax
    ds["PixelData"].VR = "OW"
    pydicom.dcmwrite(tmp_path / "a", ds, enforce_file_format=True)
    assert np.array_equal(decoded(tmp_path / "a"), grey)


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("kind", ["baseline", "lossless", "jpeg2000", "rle"])
def test_compressed(tmp_path, kind, colour):
    grey = tissue(2, 3)
    frames = np.repeat(grey[..., None], 3, -1) if colour else grey
    if colour:  # a colour that only a right conversion turns into the same mean
        frames[..., 0] = np.minimum(frames[..., 0], 200)
    expected = np.rint(frames.mean(-1)) if colour else grey
    syntax, coded, photometric = encode(kind, frames)
    if syntax == RLELossless:
        ds = dataset(frames)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(tmp_path / "a", enforce_file_format=True)
    else:
        tags = {"PhotometricInterpretation": photometric} if colour else {}
        write_encapsulated(tmp_path / "a", frames, syntax, coded, **tags)
    error = np.abs(decoded(tmp_path / "a").astype(float) - expected)
    exact = kind in ("lossless", "rle")
    assert error.max() == 0 if exact else error.mean() < 4


def test_lossless_jpeg_that_claims_to_be_jfif(tmp_path):
    """dcmtk writes the marker; libjpeg would turn colours round, which it cannot losslessly."""
    frames = np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3)).astype(np.uint8)
    syntax, coded, photometric = encode("lossless", frames)
    jfif = bytes.fromhex("ffe000104a46494600010100000100010000")
    marked = [c[:2] + jfif + c[2:] for c in coded]
    path = write_encapsulated(tmp_path / "a", frames, syntax, marked,
                              PhotometricInterpretation=photometric)  # fmt: skip
    shown = decoded(path)
    plain = write_encapsulated(tmp_path / "b", frames, syntax, coded,
                               PhotometricInterpretation="YBR_FULL")  # fmt: skip
    assert np.array_equal(shown, decoded(plain))


def test_declared_regions(tmp_path):
    frames = screen()
    used = write_dicom(tmp_path / "a.dcm", frames, SequenceOfUltrasoundRegions=[region()])
    assert cine(used).box.sum() == 261 * 206
    # A cine exported at half size may keep the coordinates of the full screen.
    for name, box in (("b", (40, 5, 600, 420)), ("c", (40, 40, 40, 40))):
        beyond = write_dicom(tmp_path / name, frames, SequenceOfUltrasoundRegions=[region(box=box)])
        assert cine(beyond).box is None
    spectrum = write_dicom(tmp_path / "d", frames, SequenceOfUltrasoundRegions=[region(3)])
    with pytest.raises(SkipError, match="no 2D region"):
        cine(spectrum)


def test_a_large_cine_is_decoded_twice_instead_of_kept(tmp_path, monkeypatch):
    one = cine(write_dicom(tmp_path / "a.dcm", screen()))
    kept = dicom.cut_sector(one)
    monkeypatch.setattr(dicom, "KEPT_BYTES", 0)
    assert np.array_equal(dicom.cut_sector(one), kept)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom, "KEPT_BYTES", 0)
    peaks = []
    for copies in (1, 10):
        frames = np.tile(screen(), (copies, 1, 1, 1))  # 2.8 MB each
        one = cine(write_dicom(tmp_path / "a.dcm", frames))
        del frames
        tracemalloc.start()
        made = dicom.cut_sector(one)
        peaks.append(tracemalloc.get_traced_memory()[1] - made.nbytes)
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 2**18


def test_skips_with_a_note_and_keeps_the_rest(tmp_path):
    raw, table = tmp_path / "raw", tmp_path / "rejects.csv"
    (raw / "sub").mkdir(parents=True)
    frames = screen()
    write_dicom(raw / "sub" / "cine", frames)
    write_dicom(raw / "again.dcm", frames, PatientName="X")
    write_dicom(raw / "ct.dcm", frames, Modality="CT")
    write_dicom(raw / "still.dcm", frames[:1])
    (raw / "README.txt").write_text("hello")
    os.symlink(raw, raw / "sub" / "loop")
    report = ingest("dicom", raw, tmp_path / "out", "none", {}, 0, table)
    assert (report.videos, report.skipped, report.rejected) == (1, 5, 0)
    left = pd.read_csv(table)
    assert (left["outcome"] == "skipped").all()
    assert left["source"].tolist() == [f"file {i} of 6 by path" for i in (1, 3, 4, 5, 6)]
    reasons = [
        "not a DICOM file",
        "another modality than US",
        "a single image, not a cine",
        "the same video as file 2 of 6 by path",
        "a link to a folder, which is not followed",
    ]
    assert left["reason"].tolist() == reasons


def test_a_cine_has_no_ef(tmp_path):
    with pytest.raises(EchosynError, match="label: none"):
        ingest("dicom", tmp_path, tmp_path / "out", "ef")


def test_an_empty_folder(tmp_path):
    with pytest.raises(EchosynError, match="the folder is empty"):
        ingest("dicom", tmp_path, tmp_path / "data" / "out", "none")
