"""Damaged, hostile and encrypted DICOM: a reason each, no traceback, nothing large allocated."""

import os
import struct
import tracemalloc

import numpy as np
import pandas as pd
import pydicom
import pytest
from dicom_files import dataset, encode, tissue, write_dicom, write_encapsulated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import MPEG4HP41, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from echosyn.data.ingest import ingest
from echosyn.data.ingest.canonical import SkipError
from echosyn.data.ingest.cine import open_cine
from echosyn.data.ingest.jpeg import declared_size
from echosyn.runtime.errors import EchosynError

FRAMES = tissue(0, 8)


def reason(path):
    """Why a file is refused; the header or, with `frames`, a frame."""
    with pytest.raises(EchosynError) as e:
        for _ in open_cine(path, 20_000).frames():
            pass
    return str(e.value)


def without(path, keyword):
    ds = dataset(FRAMES)
    ds["PixelData"].VR = "OW"  # which pydicom would take from BitsAllocated
    delattr(ds, keyword)
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Rows": 0}, "Rows 0 is not in 1 to 4096"),
        ({"Rows": 60000}, "Rows 60000 is not in 1 to 4096"),
        ({"Columns": 4000}, "bytes are stored"),
        ({"NumberOfFrames": 19_999}, "19999 frames of 240 x 320 are declared"),
        ({"NumberOfFrames": 10**9}, "NumberOfFrames 1000000000 is not in 1 to 20000"),
        ({"NumberOfFrames": 0}, "NumberOfFrames 0 is not in"),
        ({"NumberOfFrames": -3}, "NumberOfFrames -3 is not in"),
        ({"NumberOfFrames": 4}, "4 frames of 240 x 320 are declared (307,200 bytes), 614,400"),
        ({"BitsAllocated": 7}, "BitsAllocated 7 is not in 8 to 16"),
        ({"BitsAllocated": 12}, "BitsAllocated 12 is neither 8 nor 16"),
        ({"BitsAllocated": 16}, "bytes are stored"),
        ({"BitsStored": 9}, "BitsStored 9 is not in 1 to 8"),
        ({"BitsStored": 0}, "BitsStored 0 is not in 1 to 8"),
        ({"HighBit": 3}, "HighBit 3 is not in 7 to 7"),
        ({"PixelRepresentation": 1}, "PixelRepresentation 1 is not in 0 to 0"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel 3 is not in 1 to 1"),
        ({"PhotometricInterpretation": "RGB"}, "SamplesPerPixel 1 is not in 3 to 3"),
        ({"PhotometricInterpretation": "DOE"}, "PhotometricInterpretation is none that is known"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "frame 1 of 8"),
        ({"FrameTime": None}, "no frame rate"),
        ({"FrameTime": "0.0001"}, "a frame rate of 1e+07 per second is not in"),
        ({"FrameTime": "-4"}, "no frame rate"),
    ],
)  # fmt: skip
def test_a_header_that_does_not_fit(tmp_path, tags, message):
    assert message in reason(write_dicom(tmp_path / "a.dcm", FRAMES, **tags))


@pytest.mark.parametrize(
    "keyword", ["Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel",
                "PixelRepresentation", "PhotometricInterpretation"],
)  # fmt: skip
def test_a_header_without(tmp_path, keyword):
    assert f"{keyword} is missing" in reason(without(tmp_path / "a.dcm", keyword))


def test_a_bomb_is_refused_before_anything_is_allocated(tmp_path):
    bombs = [
        write_dicom(tmp_path / "rows", FRAMES[:, :8, :8], Rows=4096, Columns=4096),
        write_dicom(tmp_path / "frames", FRAMES[:, :8, :8], NumberOfFrames=19_000, Rows=4096),
        rle_bomb(tmp_path / "rle"),
        jpeg_bomb(tmp_path / "jpeg"),
        endless(tmp_path / "length"),
    ]
    tracemalloc.start()
    for bomb in bombs:
        reason(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def rle_bomb(path):
    """A frame of 8 x 8 whose run lengths unpack to 64 MB."""
    runs = bytes([129, 0]) * 500_000
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + runs
    return write_encapsulated(path, FRAMES[:2, :8, :8], RLELossless, [frame, frame])


def jpeg_bomb(path):
    """A JPEG that says it is 65,500 pixels wide and high in a header of 8 x 8."""
    _, coded, _ = encode("baseline", FRAMES[:2, :8, :8])
    at = coded[0].index(b"\xff\xc0")
    huge = coded[0][: at + 5] + struct.pack(">2H", 65500, 65500) + coded[0][at + 9 :]
    assert declared_size(huge) == (65500, 65500)
    return write_encapsulated(path, FRAMES[:2, :8, :8], JPEGBaseline8Bit, [coded[1], huge])


def endless(path):
    """A fragment that says it is 4 GB long."""
    write_encapsulated(path, FRAMES[:2], JPEGBaseline8Bit, encode("baseline", FRAMES[:2])[1])
    data = path.read_bytes()
    at = data.rindex(b"\xfe\xff\x00\xe0")
    path.write_bytes(data[: at + 4] + b"\xfe\xff\xff\xff" + data[at + 8 :])
    return path


def test_bombs_say_what_they_are(tmp_path):
    assert "longer than an uncompressed one" in reason(rle_bomb(tmp_path / "a"))
    assert "says it is 65500 x 65500 pixels, the header 8 x 8" in reason(jpeg_bomb(tmp_path / "b"))
    assert "truncated" in reason(endless(tmp_path / "c"))


def test_jpeg_2000_and_jpeg_ls_say_their_size():
    _, coded, _ = encode("jpeg2000", FRAMES[:1])
    assert declared_size(coded[0]) == FRAMES.shape[1:]
    assert declared_size(bytes.fromhex("ffd8fff7000b08 00f0 0140 01011100".replace(" ", ""))) == (
        240,
        320,
    )
    assert declared_size(b"nothing") is None
    assert declared_size(b"\xff\xd8\xff\xe0\x00\x00") is None


@pytest.mark.parametrize("cut", [0, 1, 100, 131, 140, 200, 400, 600, 5000, 60_000, 614_000])
@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_truncated_anywhere(tmp_path, kind, cut):
    path = tmp_path / "a.dcm"
    if kind == "raw":
        write_dicom(path, FRAMES)
    else:
        write_encapsulated(path, FRAMES, JPEGBaseline8Bit, encode("baseline", FRAMES)[1])
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole) - 9)])  # 9: more than the end of the sequence
    with pytest.raises((EchosynError, SkipError)) as e:
        for _ in open_cine(path, 20_000).frames():
            pass
    # Cut before the header says what it is, a file is like a report, which has no image either.
    assert e.type is EchosynError or (str(e.value) == "no image" and cut < 600)
    assert "truncated" in str(e.value) or cut < 5000


def test_a_frame_cut_short_inside_a_whole_file(tmp_path):
    _, coded, _ = encode("baseline", FRAMES)
    coded[5] = coded[5][: len(coded[5]) // 2]
    path = write_encapsulated(tmp_path / "a", FRAMES, JPEGBaseline8Bit, coded)
    assert "frame 6 of 8 (JPEG Baseline (Process 1)) cannot be decoded" in reason(path)


def test_other_numbers_of_fragments_than_frames(tmp_path):
    _, coded, _ = encode("baseline", FRAMES)
    few = write_encapsulated(tmp_path / "a", FRAMES, JPEGBaseline8Bit, coded[:5])
    assert "truncated: 8 frames are declared, 5 are stored" in reason(few)
    many = write_encapsulated(tmp_path / "b", FRAMES[:6], JPEGBaseline8Bit, coded)
    assert "more than the 6 declared frames are stored" in reason(many)


def test_encrypted(tmp_path):
    envelope = bytes.fromhex("30820f00 06092a864886f70d010703 a0820ef1".replace(" ", ""))
    (tmp_path / "cms.dcm").write_bytes(envelope + np.random.default_rng(0).bytes(4000))
    assert reason(tmp_path / "cms.dcm") == "encrypted (a CMS envelope): decrypt it first"
    ds = dataset(FRAMES)
    for keyword in ("PixelData", "Rows", "Columns", "NumberOfFrames"):
        delattr(ds, keyword)
    sealed = Dataset()
    sealed.EncryptedContent = envelope + bytes(2000)
    ds.EncryptedAttributesSequence = [sealed]
    ds.save_as(tmp_path / "sealed.dcm", enforce_file_format=True)
    assert "encrypted: its attributes are sealed" in reason(tmp_path / "sealed.dcm")


def test_no_pixel_data(tmp_path):
    assert "truncated: no pixel data" in reason(without(tmp_path / "a.dcm", "PixelData"))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, MPEG4HP41])
def test_what_nothing_here_decodes_says_how_to_go_on(tmp_path, syntax):
    path = write_encapsulated(tmp_path / "a", FRAMES, syntax, [b"\xff\xd8\xff\xd9"] * len(FRAMES))
    text = reason(path)
    assert syntax.name in text
    assert "decompress the file first" in text


def test_a_private_transfer_syntax_is_not_shown(tmp_path):
    syntax = pydicom.uid.UID("1.2.840.99999.7.8.9")
    path = write_dicom(tmp_path / "a", FRAMES)
    data = path.read_bytes()
    old = b"1.2.840.10008.1.2.1\0"
    path.write_bytes(data.replace(old, str(syntax).encode().ljust(len(old), b"\0"), 1))
    assert "1.2.840" not in reason(path)


def test_everything_bad_at_once_is_listed_and_the_good_one_kept(tmp_path):
    raw, table = tmp_path / "raw", tmp_path / "rejects.csv"
    raw.mkdir()
    write_dicom(raw / "1 good.dcm", tissue())
    (raw / "2 text.dcm").write_text("hello")
    (raw / "3 empty.dcm").write_bytes(b"")
    write_dicom(raw / "4 rows.dcm", FRAMES, Rows=0)
    jpeg_bomb(raw / "5 bomb.dcm")
    write_dicom(raw / "6 still.dcm", np.repeat(FRAMES[:1], 8, 0))
    (raw / "7.dcm").symlink_to(tmp_path / "nowhere")
    (raw / "8.dcm").symlink_to(raw / "8.dcm")
    os.mkfifo(raw / "9")
    with pytest.raises(EchosynError, match="7 of 8 videos are rejected, max_rejects is 6"):
        ingest("dicom", raw, tmp_path / "out", "none", {}, 6, table)
    assert not (tmp_path / "out").exists()
    report = ingest("dicom", raw, tmp_path / "out", "none", {}, 7, table)
    assert (report.videos, report.rejected, report.skipped) == (1, 7, 1)
    left = pd.read_csv(table)
    words = ("not a DICOM", "not a DICOM", "Rows 0", "65500 x 65500", "nothing large moves",
             "No such file", "Too many levels of symbolic links", "not a file")  # fmt: skip
    for word, text in zip(words, left["reason"], strict=True):
        assert word in text
        assert str(tmp_path) not in text


# Header values at random: a reason or a cine, and no value that is text in the reason
TEXT = st.text(st.characters(codec="ascii", exclude_characters="\\\0"), min_size=1, max_size=16)
NUMBER = st.one_of(st.integers(-(2**40), 2**40), st.floats(), st.sampled_from([0, 1, 8, 12, 16]))
RAW = {  # keyword -> VR as stored, so that what no writer would accept is in the file
    "Rows": "US", "Columns": "US", "BitsAllocated": "US", "BitsStored": "US", "HighBit": "US",
    "PixelRepresentation": "US", "SamplesPerPixel": "US", "PlanarConfiguration": "US",
    "NumberOfFrames": "IS", "FrameTime": "DS", "FrameTimeVector": "DS", "CineRate": "IS",
    "RecommendedDisplayFrameRate": "IS", "PhotometricInterpretation": "CS", "Modality": "CS",
    "PatientID": "LO", "SOPClassUID": "UI",
}  # fmt: skip


def stored(keyword, value):
    """A data element as bytes, whatever the value."""
    vr = RAW[keyword]
    if vr == "US" and isinstance(value, int):
        data = struct.pack("<H", value % 2**16)
    else:
        data = str(value).encode("ascii", "replace")
    data += b" " * (len(data) % 2)
    tag = pydicom.datadict.tag_for_keyword(keyword)
    head = struct.pack("<2H2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(data))
    return tag, head + data


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(sorted(RAW)), st.one_of(NUMBER, TEXT), max_size=4))
def test_any_header_values(tmp_path, values):
    small = FRAMES[:, 100:116, 100:116]
    path = write_dicom(tmp_path / "a.dcm", small)
    data = path.read_bytes()
    body = data.index(struct.pack("<2H", 0x0008, 0x0016))  # after the file meta group
    ds = pydicom.dcmread(path)
    parts = {e.tag: None for e in ds}
    for element in ds:
        one = Dataset()
        one.add(element)
        buffer = pydicom.filebase.DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        pydicom.filewriter.write_dataset(buffer, one)
        parts[element.tag] = buffer.getvalue()
    for keyword, value in values.items():
        tag, raw = stored(keyword, value)
        parts[tag] = raw
    path.write_bytes(data[:body] + b"".join(parts[t] for t in sorted(parts)))
    said = ""
    try:
        cine = open_cine(path, 1000)
        assert str(values.get("PatientID", "")).strip() == cine.patient or "PatientID" not in values
        assert all(f.shape == (cine.rows, cine.columns) for f in cine.frames())
    except (EchosynError, SkipError) as e:
        said = str(e)
    for value in values.values():
        if isinstance(value, str) and len(value.strip()) > 5:
            assert value.strip() not in said


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from(["raw", "jpeg"]))
def test_any_bytes_changed(tmp_path, seed, changes, kind):
    rng = np.random.default_rng(seed)
    small = np.ascontiguousarray(FRAMES[:, 100:132, 100:132])
    path = tmp_path / "a.dcm"
    if kind == "raw":
        write_dicom(path, small)
    else:
        write_encapsulated(path, small, JPEGBaseline8Bit, encode("baseline", small)[1])
    data = bytearray(path.read_bytes())
    reach = min(len(data), 1500)  # the header, and what follows it
    for at in rng.integers(132, reach, changes):
        data[at] = rng.integers(256)
    path.write_bytes(data)
    said = "a whole cine"
    try:
        cine = open_cine(path, 1000)
        assert sum(f.shape == (cine.rows, cine.columns) for f in cine.frames()) == cine.count
    except (EchosynError, SkipError) as e:
        said = str(e)
    assert said
