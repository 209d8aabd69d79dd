"""What a DICOM header says of a cine, checked before anything is allocated.

No message shows a value but sizes and counts: a damaged header may hold a name anywhere.
"""

import struct
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from echosyn.data.ingest.canonical import SkipError
from echosyn.data.ingest.fit import ANISOTROPY
from echosyn.data.ingest.jpeg import register
from echosyn.data.ingest.pace import Pace, even_pace
from echosyn.runtime.errors import EchosynError

# pydicom's warnings about odd values print the values.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom\.")
register()

SUFFIXES = (".dcm", ".dicom")
FRAME_TIME_VECTOR = Tag(0x0018, 0x1065)
FPS_RANGE = (0.5, 1000.0)
TWO_DIMENSIONAL = 1  # RegionSpatialFormat (0018,6012) of tissue and colour flow images
COLOUR_FLOW = 2  # RegionDataType (0018,6014)
CENTIMETRES = 3  # PhysicalUnitsXDirection (0018,6024) and its sibling
GROUPS = (0x0002, 0x0008)  # that a file without preamble begins with
VOLUMES = "1.2.840.10008.5.1.4.1.1.6.2"  # SOP class of 3D ultrasound
ENVELOPED = bytes.fromhex("06092a864886f70d0107")  # a CMS content type, as of encrypted files
ITEM, DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
UNDEFINED = 0xFFFFFFFF
ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
THREE_SAMPLES = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def read_header(f: BinaryIO, path: Path) -> Any:
    """The dataset up to its pixel data, where the file is left.

    Raises:
        SkipError: not DICOM, nor said to be. EchosynError: encrypted or damaged.
    """
    begin = f.read(132)
    f.seek(0)
    preamble = begin[128:] == b"DICM"
    if not preamble and ENVELOPED in begin[:64]:
        raise EchosynError("encrypted (a CMS envelope): decrypt it first")
    bare = not preamble and _begins_bare(begin)
    try:
        header = pydicom.dcmread(f, stop_before_pixels=True, force=bare)
    except InvalidDicomError:
        raise _no_dicom(path) from None
    except Exception as e:
        if bare:
            raise _no_dicom(path) from None
        raise EchosynError(f"the header is damaged ({type(e).__name__})") from None
    if bare and not {"SOPClassUID", "Modality", "Rows"} & set(header.dir()):
        raise _no_dicom(path)
    if bare and not header.file_meta.get("TransferSyntaxUID"):
        implicit, little = header.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return header


def _begins_bare(begin: bytes) -> bool:
    """Whether a file without preamble begins with an element of groups 0002 or 0008."""
    if len(begin) < 8:
        return False
    tags = (struct.unpack(f"{order}2H", begin[:4]) for order in "<>")
    return any(group in GROUPS and element < 0x100 for group, element in tags)


def _no_dicom(path: Path) -> Exception:
    if path.suffix.lower() in SUFFIXES:
        return EchosynError("not a DICOM file, in spite of its name")
    return SkipError("not a DICOM file")


def skip_other_kinds(header: Any) -> None:
    """Raise SkipError for other modalities than ultrasound, and for volumes."""
    if (value_of(header, "Modality") or "US") != "US":
        raise SkipError("another modality than US")
    if str(value_of(header, "SOPClassUID") or "") == VOLUMES:
        raise SkipError("a 3D volume")


def refuse_syntax(header: Any) -> None:
    """Refuse what nothing here decodes, and what must be inflated whole to be checked."""
    syntax = transfer_syntax(header)
    try:
        decodable = get_decoder(syntax).is_available
    except NotImplementedError:
        decodable = False
    if not decodable or syntax == DeflatedExplicitVRLittleEndian:
        name = "of a private kind" if syntax.is_private else f"({syntax.name})"
        raise EchosynError(
            f"the transfer syntax {name} cannot be decoded here: decompress the file first "
            "(gdcmconv --raw, dcmconv)"
        )


def without_pixels(header: Any) -> Exception:
    """Why a file without pixel data is not taken: encrypted, truncated, or no image at all."""
    if "EncryptedAttributesSequence" in header:
        return EchosynError("encrypted: its attributes are sealed and it has no pixel data")
    if "Rows" in header or "NumberOfFrames" in header:
        return EchosynError("truncated: no pixel data")
    return SkipError("no image")


def transfer_syntax(header: Any) -> pydicom.uid.UID:
    """How the file is stored; raises EchosynError where it does not say."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise EchosynError("no transfer syntax")
    return syntax


def value_of(header: Any, keyword: str) -> Any:
    """A value of the header, None when absent; never an error that shows it."""
    try:
        return header.get(keyword)
    except Exception:
        raise EchosynError(f"{keyword} cannot be read") from None


def whole_number(
    header: Any, keyword: str, least: int, most: int, missing: int | None = None
) -> int:
    value = value_of(header, keyword)
    if value in (None, ""):
        if missing is None:
            raise EchosynError(f"{keyword} is missing")
        return missing
    if not isinstance(value, int):
        raise EchosynError(f"{keyword} is not a whole number")
    if not least <= value <= most:
        raise EchosynError(f"{keyword} {value} is not in {least} to {most}")
    return int(value)


def frame_bytes(header: Any, rows: int, columns: int) -> int:
    """Bytes of an uncompressed frame, after checking how its samples are stored."""
    kind = str(value_of(header, "PhotometricInterpretation") or "")
    if kind not in (*ONE_SAMPLE, *THREE_SAMPLES):
        missing = "is missing" if not kind else "is none that is known"
        raise EchosynError(f"PhotometricInterpretation {missing}")
    samples = 1 if kind in ONE_SAMPLE else 3
    whole_number(header, "SamplesPerPixel", samples, samples)
    if samples == 3 and whole_number(header, "PlanarConfiguration", 0, 1, missing=0) == 0:
        header.PlanarConfiguration = 0
    allocated = whole_number(header, "BitsAllocated", 8, 16)
    if allocated not in (8, 16):
        raise EchosynError(f"BitsAllocated {allocated} is neither 8 nor 16")
    stored = whole_number(header, "BitsStored", 1, allocated)
    whole_number(header, "HighBit", stored - 1, stored - 1, missing=stored - 1)
    whole_number(header, "PixelRepresentation", 0, 0)
    half = kind == "YBR_FULL_422" and not transfer_syntax(header).is_encapsulated
    return rows * columns * (2 if half else samples) * allocated // 8


def frame_pace(header: Any, count: int, fps: float | None) -> Pace:
    """Which of the `count` frames make an even video, and its rate, from the first tag that states
    it; FrameIncrementPointer says whether the vector of times or the one time comes first.

    Args:
        fps: for files that state no rate.

    Raises:
        EchosynError: no rate is stated and `fps` is None, one is none that a cine has, or times do
            not increase.
    """
    steps = _floats(header, "FrameTimeVector")
    if len(steps) == count:
        steps = steps[1:]  # the first is always 0
    vector = len(steps) == count - 1 and bool((steps > 0).any())
    single = _floats(header, "FrameTime")[:1]
    pointer = value_of(header, "FrameIncrementPointer")
    if vector and (str(pointer) == str(FRAME_TIME_VECTOR) or not (single > 0).any()):
        pace = even_pace(np.concatenate([[0.0], np.cumsum(steps)]))
        return Pace(pace.frames, _plausible(pace.fps), pace.note)
    every = np.arange(count)
    for keyword in ("FrameTime", "ActualFrameDuration"):
        for milliseconds in _floats(header, keyword)[:1]:
            if milliseconds > 0:
                return Pace(every, _plausible(1000 / milliseconds))
    for keyword in ("CineRate", "RecommendedDisplayFrameRate"):
        for rate in _floats(header, keyword)[:1]:
            if rate > 0:
                return Pace(every, _plausible(float(rate)))
    if fps is not None:
        return Pace(every, _plausible(fps))
    wrong = ""
    if len(steps):
        wrong = f"FrameTimeVector has {len(steps)} times for {count} frames, and "
    raise EchosynError(
        f"no frame rate: {wrong}none of FrameTime, FrameTimeVector, ActualFrameDuration, CineRate "
        "and RecommendedDisplayFrameRate is above 0; give the dataset's option fps"
    )


def pixel_aspect(header: Any) -> tuple[float | None, str]:
    """Height of a pixel over its width, None where no tag states it; and what tags disagree.

    PixelAspectRatio comes first, since it is only there to say that pixels are not square; then
    PixelSpacing; then the 2D regions, whose deltas are centimetres there (elsewhere they may be
    seconds or velocities).
    """
    stated = {}
    for keyword in ("PixelAspectRatio", "PixelSpacing"):
        pair = _floats(header, keyword)
        if len(pair) == 2 and (pair > 0).all() and np.isfinite(pair).all():
            stated[keyword] = float(pair[0] / pair[1])
    deltas = [_deltas(r) for r in value_of(header, "SequenceOfUltrasoundRegions") or []]
    ratios = [d for d in deltas if d is not None]
    if ratios and max(ratios) / min(ratios) < 1 + ANISOTROPY:
        stated["SequenceOfUltrasoundRegions"] = ratios[0]
    if not stated:
        return None, ""
    aspect = next(iter(stated.values()))
    others = [f"{k} {v:.3g}" for k, v in stated.items()]
    apart = max(stated.values()) / min(stated.values()) >= 1 + 2 * ANISOTROPY
    return aspect, " but ".join(others) + ": the first is taken" if apart else ""


def _deltas(region: Any) -> float | None:
    """Height over width of the pixels of a 2D region, if it states both in centimetres."""
    if value_of(region, "RegionSpatialFormat") != TWO_DIMENSIONAL:
        return None
    units = [value_of(region, f"PhysicalUnits{axis}Direction") for axis in "YX"]
    sizes = [_floats(region, f"PhysicalDelta{axis}") for axis in "YX"]
    if units != [CENTIMETRES] * 2 or any(len(s) != 1 or not abs(s[0]) > 0 for s in sizes):
        return None
    return float(abs(sizes[0][0]) / abs(sizes[1][0]))


def _floats(header: Any, keyword: str) -> np.ndarray:
    value = value_of(header, keyword)
    try:
        return np.atleast_1d(np.array([] if value in (None, "") else value, float))
    except (TypeError, ValueError):
        raise EchosynError(f"{keyword} is not a number") from None


def _plausible(fps: float) -> float:
    low, high = FPS_RANGE
    if not low <= fps <= high:
        raise EchosynError(f"a frame rate of {fps:g} per second is not in {low:g} to {high:g}")
    return float(Fraction(fps).limit_denominator(1001))  # what an AVI can say


def declared_box(header: Any, rows: int, columns: int) -> np.ndarray | None:
    """2D regions of SequenceOfUltrasoundRegions, or None when it is absent or does not fit: a cine
    exported at another size may keep the coordinates of the screen."""
    regions = value_of(header, "SequenceOfUltrasoundRegions") or []
    if not regions:
        return None
    flat = [r for r in regions if value_of(r, "RegionSpatialFormat") == TWO_DIMENSIONAL]
    if not flat:
        raise SkipError("no 2D region (an M-mode or a Doppler spectrum)")
    if any(value_of(r, "RegionDataType") == COLOUR_FLOW for r in flat):
        raise SkipError("colour Doppler: flow is painted over the tissue")
    box = np.zeros((rows, columns), bool)
    for r in flat:
        x0, x1, y0, y1 = (
            value_of(r, f"RegionLocation{edge}") for edge in ("MinX0", "MaxX1", "MinY0", "MaxY1")
        )
        if not all(isinstance(v, int) for v in (x0, x1, y0, y1)):
            return None
        if not (0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows):
            return None
        box[y0 : y1 + 1, x0 : x1 + 1] = True
    return box


def extent(f: BinaryIO, header: Any, data: bytes, size: int, count: int) -> tuple[int, int]:
    """First and last byte + 1 of the pixel data, with `f` 12 bytes after its tag began."""
    syntax = transfer_syntax(header)
    order = "<" if syntax.is_little_endian else ">"
    tag = struct.unpack(f"{order}2H", data[:4])
    if tag != (0x7FE0, 0x0010):
        raise EchosynError("the pixel data is floating point, which no ultrasound machine stores")
    explicit = not syntax.is_implicit_VR
    if len(data) < (12 if explicit else 8):
        raise EchosynError("truncated: the pixel data has no length")
    length = struct.unpack(f"{order}L", data[8:12] if explicit else data[4:8])[0]
    start = f.tell() - len(data) + (12 if explicit else 8)
    if syntax.is_encapsulated != (length == UNDEFINED):
        raise EchosynError("the pixel data is not stored as its transfer syntax says")
    if length != UNDEFINED:
        if start + length > size:
            raise EchosynError(f"truncated: {size - start:,} of {length:,} bytes of pixel data")
        return start, start + length
    return start, _end_of_items(f, start, size, count)


def _end_of_items(f: BinaryIO, start: int, size: int, count: int) -> int:
    """Where the delimiter after the encapsulated fragments stands."""
    at, fragments = start, -1  # the first item is the table of offsets
    while at + 8 <= size:
        f.seek(at)
        group, element, length = struct.unpack("<2HL", f.read(8))
        if (group, element) == DELIMITER:
            if fragments < count:
                raise EchosynError(
                    f"truncated: {count} frames are declared, {max(fragments, 0)} are stored"
                )
            return at
        if (group, element) != ITEM or length == UNDEFINED:
            raise EchosynError("the pixel data is damaged: a fragment does not begin as one")
        at += 8 + length
        fragments += 1
        if fragments > 1024 * count:
            raise EchosynError(f"more than {1024 * count:,} fragments for {count} frames")
    raise EchosynError(f"truncated: the pixel data ends within frame {fragments} or so")
