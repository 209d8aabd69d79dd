"""JPEG inside DICOM: the size that a frame declares itself, and lossless JPEG for pydicom.

pydicom decodes lossless JPEG (process 14, what many ultrasound machines store) only with packages
under the GPL or without wheels for every machine. The libjpeg-turbo 3 inside Pillow decodes it too.
"""

import contextlib
import re
import struct
from io import BytesIO

from PIL import Image, features
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import UID, JPEGLossless, JPEGLosslessSV1

LOSSLESS = (JPEGLossless, JPEGLosslessSV1)
PLUGIN = "libjpeg-turbo"
DECODER_DEPENDENCIES = dict.fromkeys(LOSSLESS, ("pillow>=11 with libjpeg-turbo>=3",))
# Start of frame, but for DHT, JPG and DAC, which share their range; JPEG-LS's is last.
STARTS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def declared_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 frame says it has, None if it says none.

    Read without decoding, so that a frame which declares more than the header can be refused.
    """
    if frame[:2] == b"\xff\xd8":
        return _jpeg_size(frame)
    start = re.search(b"\xff\x4f\xff\x51", frame)
    if start is None or len(frame) < start.end() + 20:
        return None
    width, height, left, top = struct.unpack(">4I", frame[start.end() + 4 : start.end() + 20])
    return height - top, width - left


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    for marker, start, end in _segments(frame):
        if marker in STARTS and end - start >= 5:
            return struct.unpack(">2H", frame[start + 1 : start + 5])
    return None


def _segments(frame: bytes) -> list[tuple[int, int, int]]:
    """(marker, start and end of the payload) of each segment up to the start of the scan."""
    found, at = [], 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if length < 2:
            break
        found.append((marker, at + 4, at + 2 + length))
        at += 2 + length
        if marker == 0xDA:
            break
    return found


def is_available(uid: str) -> bool:
    """Whether Pillow's libjpeg decodes this transfer syntax; pydicom asks."""
    version = features.version("libjpeg_turbo")
    return uid in LOSSLESS and version is not None and int(version.split(".")[0]) >= 3


def decode_frame(frame: bytes, runner: DecodeRunner) -> bytes:
    """Samples of a lossless JPEG frame, interleaved, in the colours they were stored in.

    Raises whatever Pillow does of a damaged one.
    """
    if runner.samples_per_pixel == 3:
        # APPn markers make libjpeg convert colours, which it cannot do losslessly.
        for marker, start, end in reversed(_segments(frame)):
            if 0xE0 <= marker <= 0xEF:
                frame = frame[: start - 4] + frame[end:]
    return Image.open(BytesIO(frame), formats=("JPEG",)).tobytes()


def register() -> None:
    """Give pydicom the decoder above; does nothing where it has it already."""
    for uid in LOSSLESS:
        with contextlib.suppress(ValueError):  # it has it
            get_decoder(UID(uid)).add_plugin(PLUGIN, (__name__, "decode_frame"))
