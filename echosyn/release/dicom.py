"""Pack a release as DICOM: an Ultrasound Multi-frame Image a video, marked as synthetic.

    DICOM/<FileName>.dcm   see `image`
    SHA256SUMS             of these and the manifest, as `sha256sum -c` reads it

and all else of the release as it is. The frames are the JPEGs that the release's AVI holds, taken
over bit by bit (JPEG Baseline), so that `echosyn.release.unpack` and the source `dicom` of `ingest`
make the very AVI of them again.
"""

import hashlib
import math
import uuid
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, UltrasoundMultiFrameImageStorage
from pydicom.valuerep import DSfloat

from echosyn import __version__
from echosyn.data.filelist import BEAT, DICOM, HEART_RATE, PHASE, RELEASED, dicom_path
from echosyn.data.video import map_videos, stored_jpegs
from echosyn.release.manifest import MANIFEST
from echosyn.release.pack import Packing, packing
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import sha256_file

LONGEST = 64  # characters of a PatientID (LO)
FRAME_TIME = 0x00181063
NO_PATIENT = "Synthetic: it shows no patient"
TOLD = ("EF", "ESV", "EDV", *RELEASED, "Split")  # columns that Image Comments repeat


def pack_dicom(folder: Path | str, out: Path | str) -> int:
    """Write a release to `out` as DICOM files, whole or not at all.

    Every byte that is packed is compared with the manifest. The same release gives the same bytes.

    Args:
        folder: a release.
        out: a folder that is not there yet, outside `folder`.

    Returns:
        the number of DICOM files.

    Raises:
        EchosynError: as `pack`; a FileName is longer than a PatientID, or a video is none that
            echosyn wrote.
    """
    folder = Path(folder)
    with packing(folder, Path(out)) as work:
        rows = work.table.to_dict("records")
        for row in rows:
            if len(row["FileName"]) > LONGEST:
                raise EchosynError(
                    f"{folder}: FileName {row['FileName']!r} is longer than the {LONGEST} "
                    "characters of a PatientID"
                )
        manifest_sha256 = sha256_file(folder / MANIFEST)
        (work.out / DICOM).mkdir()

        def write(number: int) -> tuple[str, str]:
            name = rows[number]["FileName"]
            try:
                stored = stored_jpegs(work.video(name))
            except EchosynError as e:
                raise EchosynError(f"{folder}: {name}: {e}") from None
            buffer = BytesIO()
            made = image(work, manifest_sha256, rows[number], number + 1, *stored)
            made.save_as(buffer, enforce_file_format=True)
            path, data = dicom_path(work.out, name), buffer.getvalue()
            path.write_bytes(data)
            return path.relative_to(work.out).as_posix(), hashlib.sha256(data).hexdigest()

        work.sums.update(map_videos(write, range(len(rows)), "pack"))
    return len(rows)


def image(
    work: Packing,
    manifest_sha256: str,
    row: Mapping[str, Any],
    number: int,
    jpegs: list[bytes],
    height: int,
    width: int,
    fps: float,
) -> Dataset:
    """A video as an Ultrasound Multi-frame Image (PS3.3, A.7), without what nobody knows: dates,
    the calibration of its pixels, an ECG.

    Each synthetic heart is a patient of its own, with one study. R Wave Time Vector has the times
    of end-diastole, where the release has phases.

    Args:
        manifest_sha256: of the release; UIDs follow from it and the FileName.
        row: of FileList.csv. number: of the row, from 1.
        jpegs, height, width, fps: as `stored_jpegs` gives them.
    """
    name, release = row["FileName"], f"{work.manifest['name']} {work.manifest['version']}"
    ds = Dataset()
    ds.file_meta = _file_meta(_uid(manifest_sha256, name, "instance"))
    ds.SpecificCharacterSet = "ISO_IR 192"
    # SOP Common; Patient
    ds.SOPClassUID = UltrasoundMultiFrameImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID
    ds.SyntheticData = "YES"
    ds.ContentQualification = "RESEARCH"
    ds.ContributingEquipmentSequence = [_contribution(work.manifest, release, manifest_sha256)]
    ds.PatientName, ds.PatientID = "SYNTHETIC^HEART", name
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", NO_PATIENT
    # Study, Series, Equipment
    ds.StudyInstanceUID = _uid(manifest_sha256, name, "study")
    ds.StudyDate = ds.StudyTime = ds.ReferringPhysicianName = ds.AccessionNumber = ""
    ds.StudyID, ds.StudyDescription = str(number), NO_PATIENT
    ds.Modality, ds.BodyPartExamined, ds.SeriesNumber = "US", "HEART", 1
    ds.SeriesInstanceUID = _uid(manifest_sha256, name, "series")
    ds.SeriesDescription = f"SYNTHETIC {release}"[:LONGEST]
    ds.Manufacturer, ds.SoftwareVersions = "Echosyn", _generator(work.manifest)
    # Image
    ds.InstanceNumber, ds.PatientOrientation = number, ""
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.DerivationDescription = "Drawn by latent diffusion models"
    ds.BurnedInAnnotation = "NO"
    ds.ImageComments = _comments(row, release)
    ds.LossyImageCompression, ds.LossyImageCompressionMethod = "01", "ISO_10918_1"
    ratio = len(jpegs) * height * width / sum(map(len, jpegs))
    ds.LossyImageCompressionRatio = round(ratio, 2)
    # Cine, Multi-frame, Ultrasound
    ds.NumberOfFrames, ds.FrameIncrementPointer = len(jpegs), FRAME_TIME
    ds.FrameTime = DSfloat(1000 / fps, auto_format=True)
    ds.RecommendedDisplayFrameRate = round(fps)
    if all(pd.notna(row.get(column)) for column in BEAT):
        ds.HeartRate = round(row[HEART_RATE])
        ds.RWaveTimeVector = end_diastoles(row[HEART_RATE], row[PHASE], len(jpegs) / fps)
    # Pixels
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = height, width
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.PixelData = encapsulate(jpegs)
    ds["PixelData"].VR = "OB"
    return ds


def end_diastoles(rate: float, phase: float, seconds: float) -> list[float]:
    """Times of end-diastole, in milliseconds, of a video of that length.

    Args:
        rate: beats a minute. phase: beats from end-diastole to the first frame.
    """
    beats = range(math.ceil(phase), math.ceil(phase + seconds * rate / 60))
    return [60_000 * (beat - phase) / rate for beat in beats]


def _file_meta(instance: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    meta.ImplementationClassUID = _uid("echosyn")
    meta.ImplementationVersionName = f"ECHOSYN {__version__}"[:16]
    return meta


def _uid(*parts: str) -> UID:
    """A UID that follows from words: 2.25 and a UUID of them (PS3.5, B.2)."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, '/'.join(parts)).int}")


def _generator(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("generator", "echosyn"))[:LONGEST]


def _contribution(manifest: Mapping[str, Any], release: str, manifest_sha256: str) -> Dataset:
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109102", "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer, item.SoftwareVersions = "Echosyn", _generator(manifest)
    item.ContributionDescription = f"Generated; release {release}, {MANIFEST} {manifest_sha256}"
    return item


def _comments(row: Mapping[str, Any], release: str) -> str:
    known = [f"{c} {row[c]}" for c in TOLD if c in row and pd.notna(row[c]) and row[c] != ""]
    told = f"{NO_PATIENT}. {row['FileName']} of {release}: {'; '.join(known)}."
    beats = all(pd.notna(row.get(column)) for column in BEAT)
    return told + " R wave times are those of end-diastole; there is no ECG." * beats
