"""A folder of ultrasound DICOM cines: the sector alone leaves, as grey 112x112 videos.

Everything outside the ultrasound sector is blackened (burned-in names, dates, scales, colour bars),
no tag is kept but the frame rate, and a video is named by a hash of its pixel data. The hash tells
two cines apart and finds a cine again in the folder it came from; it has no key because it hides
nothing: pixel data cannot be guessed, as a patient's number can. For that reason patient numbers
are not hashed either, and all videos go to one split.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, iter_pixels

from echosyn.data.filelist import COLUMNS, video_path, write_filelist
from echosyn.data.ingest.canonical import IngestReport, SquareFit, refuse_all
from echosyn.data.ingest.sector import find_sector, square_around
from echosyn.data.video import map_videos, probe, write_video
from echosyn.errors import EchosynError

TWO_DIMENSIONAL = 1  # RegionSpatialFormat (0018,6012) of tissue and colour flow images
SUFFIXES = (".dcm", ".dicom")


@dataclass(frozen=True)
class Cine:
    """A decoded multi-frame image."""

    name: str  # pseudonym: "0X" and 16 hex digits of the SHA-256 of the stored pixel data
    frames: np.ndarray  # uint8 (T, H, W), grey
    fps: float
    box: np.ndarray | None  # bool (H, W), the 2D regions that the header declares


class SkippedError(Exception):
    """The file is no 2D ultrasound cine; the message says what it is instead."""


def ingest(raw: Path, out: Path, label: str) -> IngestReport:
    """Fill the empty folder `out` from the DICOM files below `raw`; see `echosyn.data.ingest`.

    Single images, other modalities and files that are not DICOM are left out with a note.
    """
    if label != "none":
        raise EchosynError(f"{raw}: a DICOM cine carries no EF; set the dataset's 'label: none'")
    files = sorted(f for f in raw.rglob("*") if f.is_file())
    (out / "Videos").mkdir()

    def convert(file: Path) -> tuple[str, str]:
        try:
            cine = read_cine(file)
            target = video_path(out, cine.name)
            write_video(target, crop_to_sector(cine.frames, cine.box, str(file)), cine.fps)
        except SkippedError as e:
            return "skipped", f"{file}: {e}: left out"
        except EchosynError as e:
            return "refused", str(e)
        return "written", cine.name

    if not files:
        raise EchosynError(f"{raw}: no DICOM files: the folder is empty")
    results = list(map_videos(convert, files, "ingest", "files"))
    refuse_all((text for kind, text in results if kind == "refused"), len(files), "files")
    notes = [text for kind, text in results if kind == "skipped"]
    names = sorted({text for kind, text in results if kind == "written"})
    if not names:
        why = "".join(f"\n  {note}" for note in notes[:5])
        raise EchosynError(f"{raw}: no multi-frame ultrasound DICOM among {len(files)} files{why}")
    copies = sum(kind == "written" for kind, _ in results) - len(names)
    if copies:
        notes.append(f"{copies} files hold the pixels of another file: left out")
    table = pd.DataFrame([_row(out, name) for name in names], columns=list(COLUMNS))
    write_filelist(out / "FileList.csv", table)
    return IngestReport(len(names), int(table["NumberOfFrames"].sum()), tuple(notes))


def _row(out: Path, name: str) -> tuple:
    facts = probe(video_path(out, name))
    return name, "", "", "", facts.height, facts.width, facts.fps, facts.frames, "TEST"


def read_cine(path: Path) -> Cine:
    """Decode a multi-frame ultrasound DICOM to grey, the mean over colour channels.

    Raises:
        SkippedError: it is not one.
        EchosynError: it is one, but is damaged, cannot be decoded, or has no frame rate.
    """
    try:
        header = pydicom.dcmread(path)
    except InvalidDicomError:
        if path.suffix.lower() in SUFFIXES:
            raise EchosynError(f"{path}: not a DICOM file, in spite of its name") from None
        raise SkippedError("not a DICOM file") from None
    except (OSError, EOFError, ValueError, NotImplementedError) as e:
        raise EchosynError(f"{path}: the DICOM file is damaged: {e}") from None
    if "PixelData" not in header:
        raise SkippedError("no image")
    if header.get("Modality", "US") != "US":
        raise SkippedError(f"modality {header.Modality}, not US")
    count = int(header.get("NumberOfFrames") or 1)
    if count < 2:
        raise SkippedError("a single image, not a cine")
    box = _declared_box(header)
    fps = _frame_rate(header, path)
    try:
        frames = np.stack(list(_grey_frames(header)))
    except Exception as e:  # decoders raise whatever their library does
        syntax = header.file_meta.TransferSyntaxUID.name
        raise EchosynError(
            f"{path}: the pixel data ({syntax}) cannot be decoded: {e}. Decompress it first "
            "(dcmdjpeg, gdcmconv --raw) or export it again"
        ) from e
    if len(frames) != count:
        raise EchosynError(f"{path}: truncated, {len(frames)} of {count} frames can be read")
    digest = hashlib.sha256(header.PixelData).hexdigest()[:16].upper()
    return Cine(f"0X{digest}", frames, fps, box)


def _frame_rate(header: Any, path: Path) -> float:
    """Frames per second, from the first tag that states it."""
    milliseconds = float(header.get("FrameTime") or 0)
    vector = header.get("FrameTimeVector")
    if milliseconds <= 0 and vector is not None:
        steps = np.atleast_1d(np.array(vector, float))[1:]  # the first is always 0
        milliseconds = float(steps.mean()) if len(steps) else 0.0
    if milliseconds > 0:
        return 1000 / milliseconds
    for tag in ("CineRate", "RecommendedDisplayFrameRate"):
        if float(header.get(tag) or 0) > 0:
            return float(header[tag].value)
    raise EchosynError(
        f"{path}: no frame rate: none of FrameTime, FrameTimeVector, CineRate and "
        "RecommendedDisplayFrameRate is above 0"
    )


def _declared_box(header: Any) -> np.ndarray | None:
    """2D regions of SequenceOfUltrasoundRegions, or None when it is absent or does not fit: a cine
    exported at another size may keep the coordinates of the screen."""
    regions = header.get("SequenceOfUltrasoundRegions") or []
    if not regions:
        return None
    flat = [r for r in regions if r.get("RegionSpatialFormat") == TWO_DIMENSIONAL]
    if not flat:
        raise SkippedError("no 2D region (an M-mode or a Doppler spectrum)")
    box = np.zeros((header.Rows, header.Columns), bool)
    for r in flat:
        x0, x1 = r.RegionLocationMinX0, r.RegionLocationMaxX1
        y0, y1 = r.RegionLocationMinY0, r.RegionLocationMaxY1
        if not (0 <= x0 < x1 <= header.Columns and 0 <= y0 < y1 <= header.Rows):
            return None
        box[y0 : y1 + 1, x0 : x1 + 1] = True
    return box


def _grey_frames(header: Any) -> Iterator[np.ndarray]:
    kind = header.PhotometricInterpretation
    for stored in iter_pixels(header):  # YBR comes back as RGB
        frame, top = stored, 2**header.BitsStored - 1
        if kind == "PALETTE COLOR":
            frame = apply_color_lut(stored, header)
            top = np.iinfo(frame.dtype).max
        grey = frame.mean(-1) if frame.ndim == 3 else frame.astype(float)
        grey = np.rint(grey * (255 / top))
        yield (255 - grey if kind == "MONOCHROME1" else grey).astype(np.uint8)


def crop_to_sector(frames: np.ndarray, box: np.ndarray | None, where: str) -> np.ndarray:
    """Frames uint8 (T, H, W) to (T, 112, 112): the sector in its smallest square, all else black.

    Args:
        box: bool (H, W), where the sector may lie; None for anywhere.
        where: the file, for the message.

    Raises:
        EchosynError: no sector is found, so nothing may leave.
    """
    total = np.zeros(frames.shape[1:])
    squares = np.zeros(frames.shape[1:])
    for frame in frames:
        grey = frame.astype(float)
        total += grey
        squares += grey * grey
    mean = total / len(frames)
    deviation = np.sqrt(np.maximum(squares / len(frames) - mean * mean, 0))
    if box is not None:
        deviation *= box
    mask = find_sector(mean, deviation)
    if mask is None:
        raise EchosynError(f"{where}: no ultrasound sector: nothing large moves in the cine")
    rows, columns, pad = square_around(mask)
    cut = np.where(mask, frames, 0)[:, rows, columns]
    square = np.pad(cut, ((0, 0), *pad))
    return SquareFit(*square.shape[1:]).apply(square)
