"""One DICOM cine: a header that agrees with its data, and frames decoded one after the other."""

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import RLELossless

from echosyn.data.ingest.canonical import SkipError
from echosyn.data.ingest.dicom_header import (
    declared_box,
    extent,
    frame_bytes,
    frame_pace,
    pixel_aspect,
    read_header,
    refuse_syntax,
    skip_other_kinds,
    transfer_syntax,
    value_of,
    whole_number,
    without_pixels,
)
from echosyn.data.ingest.fit import square_pixels, square_size
from echosyn.data.ingest.jpeg import declared_size
from echosyn.data.ingest.pace import Pace
from echosyn.runtime.errors import EchosynError

MAX_SIDE = 4096  # pixels; no screen that a cine was recorded from is larger


@dataclass(frozen=True, eq=False)
class Cine:
    """A multi-frame ultrasound image whose header agrees with the size of its data."""

    path: Path
    header: Any = field(repr=False)  # pydicom Dataset, without the pixel data
    start: int  # of the stored pixel data in the file, bytes
    end: int
    vr: str  # of the pixel data: OB or OW
    count: int  # frames
    rows: int
    columns: int
    pace: Pace
    aspect: float | None  # height of a pixel over its width; None: not stated
    doubt: str  # tags that disagree about it
    box: np.ndarray | None  # bool: 2D regions that the header declares, pixels made square

    @property
    def patient(self) -> str:
        """PatientID; "" when there is none."""
        return str(value_of(self.header, "PatientID") or "")

    def digest(self) -> bytes:
        """SHA-256 of the stored pixel data."""
        h, left = hashlib.sha256(), self.end - self.start
        with self.path.open("rb") as f:
            f.seek(self.start)
            while left and (block := f.read(min(left, 2**20))):
                h.update(block)
                left -= len(block)
        return h.digest()

    def frames(self) -> Iterator[np.ndarray]:
        """Frames uint8 (H, W), grey, the mean over colour channels, with square pixels.

        Raises:
            EchosynError: a frame cannot be decoded, or there are fewer or more than declared.
        """
        done = 0
        try:
            for grey in self._decoded():
                done += 1
                yield square_pixels(grey, self.aspect or 1.0)
        except (EchosynError, GeneratorExit):
            raise
        except Exception as e:  # decoders raise whatever their library does
            first = str(e).strip().splitlines()
            last = first[-1].strip()[:160] if first else type(e).__name__
            raise EchosynError(
                f"frame {done + 1} of {self.count} ({transfer_syntax(self.header).name}) cannot be "
                f"decoded: {last}. Export the file again, or decompress it (gdcmconv --raw)"
            ) from None
        if done != self.count:
            raise EchosynError(f"{self.count} frames are declared, {done} can be read")

    def _decoded(self) -> Iterator[np.ndarray]:
        header, syntax = self.header, transfer_syntax(self.header)
        kind, top = header.PhotometricInterpretation, 2**header.BitsStored - 1
        with self.path.open("rb") as f:
            f.seek(self.start)
            if syntax.is_encapsulated:
                self._check_fragments(f)
                f.seek(self.start)
            for stored in self._stored(f):
                frame = apply_color_lut(stored, header) if kind == "PALETTE COLOR" else stored
                if kind == "PALETTE COLOR":
                    top = np.iinfo(frame.dtype).max
                if frame.shape[:2] != (self.rows, self.columns):
                    raise EchosynError(f"a frame is not {self.rows} x {self.columns} pixels")
                grey = _grey(frame, top)
                yield 255 - grey if kind == "MONOCHROME1" else grey

    def _stored(self, f: BinaryIO) -> Iterator[np.ndarray]:
        """Frames (rows, columns) or (rows, columns, 3) as pydicom decodes them, YBR as RGB."""
        decoder = get_decoder(transfer_syntax(self.header))
        options = as_pixel_options(self.header, pixel_keyword="PixelData", pixel_vr=self.vr)
        options.pop("extended_offsets", None)  # each frame is one fragment then
        if transfer_syntax(self.header).is_encapsulated:
            yield from (frame for frame, _ in decoder.iter_array(f, **options))
            return
        size = frame_bytes(self.header, self.rows, self.columns)
        for _ in range(self.count):
            yield decoder.as_array(f.read(size), **{**options, "number_of_frames": 1})[0]

    def _check_fragments(self, f: BinaryIO) -> None:
        """Refuse compressed frames that are another size or number than the header says."""
        whole = self.rows * self.columns * self.header.SamplesPerPixel
        whole *= self.header.BitsAllocated // 8
        found = 0
        for found, frame in enumerate(generate_frames(f, number_of_frames=self.count), 1):
            if found > self.count:
                raise EchosynError(f"more than the {self.count} declared frames are stored")
            if transfer_syntax(self.header) == RLELossless:
                if len(frame) > 64 + 1.1 * whole:
                    raise EchosynError(f"frame {found} is longer than an uncompressed one")
                continue
            size = declared_size(frame)
            if size is not None and size != (self.rows, self.columns):
                raise EchosynError(
                    f"frame {found} says it is {size[0]} x {size[1]} pixels, the header "
                    f"{self.rows} x {self.columns}"
                )
        if found < self.count:
            raise EchosynError(f"truncated: {self.count} frames are declared, {found} are stored")


def _grey(frame: np.ndarray, top: int) -> np.ndarray:
    """A frame (H, W) or (H, W, 3) whose greatest value is `top` as uint8 (H, W)."""
    if frame.dtype == np.uint8 and top == 255:
        return cv2.transform(frame, np.full((1, 3), 1 / 3)) if frame.ndim == 3 else frame
    grey = frame.mean(-1) if frame.ndim == 3 else frame
    return np.minimum(np.rint(grey * (255 / top)), 255).astype(np.uint8)


def open_cine(path: Path, max_frames: int, fps: float | None = None) -> Cine:
    """Read and check the header of a file; the pixel data is not touched.

    Args:
        fps: frames per second of a file that states none.

    Raises:
        SkipError: it is no multi-frame 2D ultrasound.
        EchosynError: it is one, but is damaged or encrypted, declares other data than it holds,
            has more than `max_frames` frames or no frame rate.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        folder = stat.S_ISDIR(facts.st_mode)
        raise SkipError("a link to a folder, which is not followed" if folder else "not a file")
    size = facts.st_size
    with path.open("rb") as f:
        header = read_header(f, path)
        skip_other_kinds(header)
        data = f.read(12)
        if len(data) < 8:
            raise without_pixels(header)
        rows = whole_number(header, "Rows", 1, MAX_SIDE)
        columns = whole_number(header, "Columns", 1, MAX_SIDE)
        count = whole_number(header, "NumberOfFrames", 1, max_frames, missing=1)
        if count == 1:
            raise SkipError("a single image, not a cine")
        refuse_syntax(header)
        uncompressed = frame_bytes(header, rows, columns)
        aspect, doubt = pixel_aspect(header)
        square_size(rows, columns, aspect or 1.0)
        box = declared_box(header, rows, columns)
        if box is not None:
            box = square_pixels(box.astype(np.uint8), aspect or 1.0, cv2.INTER_NEAREST) > 0
        pace = frame_pace(header, count, fps)
        start, end = extent(f, header, data, size, count)
    stored = end - start
    if not transfer_syntax(header).is_encapsulated and stored // uncompressed != count:
        raise EchosynError(
            f"{count} frames of {rows} x {columns} are declared ({count * uncompressed:,} bytes), "
            f"{stored:,} bytes are stored"
        )
    vr = "OW" if transfer_syntax(header).is_implicit_VR else data[4:6].decode("ascii", "replace")
    return Cine(path, header, start, end, vr, count, rows, columns, pace, aspect, doubt, box)
