"""Small DICOM cines in the ways that ultrasound machines store them."""

import struct

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
)

H, W, T = 240, 320, 12
APEX, RADIUS, HALF_ANGLE = (170, 20), 170, 0.7


def true_sector():
    y, x = np.mgrid[:H, :W]
    dx, dy = x - APEX[0], y - APEX[1]
    angle = np.arctan2(dx, dy)
    return (np.abs(angle) < HALF_ANGLE) & (np.hypot(dx, dy) < RADIUS)


def tissue(seed=0, frames=T):
    """Grey speckle uint8 (T, H, W) in a known sector."""
    rng = np.random.default_rng(seed)
    out = np.zeros((frames, H, W), np.uint8)
    for frame in out:
        noise = (rng.rayleigh(40, (H, W)) * true_sector()).clip(0, 255)
        frame[:] = cv2.GaussianBlur(noise, (0, 0), 1).astype(np.uint8)
    return out


def screen(ecg=False):
    """Speckle in a known sector, text and a colour bar around it, and a clock that runs."""
    frames = np.repeat(tissue()[..., None], 3, axis=-1)
    for t, frame in enumerate(frames):
        cv2.putText(frame, "DOE^JANE 1950", (4, 16), cv2.FONT_HERSHEY_PLAIN, 1, (255, 255, 0), 1)
        cv2.putText(frame, f"12:00:{t:02d}", (4, 236), cv2.FONT_HERSHEY_PLAIN, 1, (255,) * 3, 1)
        frame[40:120, 305:312] = np.linspace(0, 255, 80).astype(np.uint8)[:, None, None]
        if ecg:
            for x in range(60, 280):
                y = 200 - (18 if (x + 9 * t) % 50 < 3 else 0)
                frame[y - 2 : y, x] = (0, 255, 0)
    return frames


def dataset(frames, **tags):
    """A dataset of frames (T, H, W) or (T, H, W, 3); a tag of None is left out."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
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
    return ds


def write_dicom(path, frames, **tags):
    dataset(frames, **tags).save_as(path, enforce_file_format=True)
    return path


def write_encapsulated(path, frames, syntax, coded, **tags):
    """Frames whose compressed form is `coded`, a list of bytes."""
    ds = dataset(frames, **tags)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate(coded)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path, enforce_file_format=True)
    return path


def encode(kind, frames):
    """Frames uint8 (T, H, W, 3) RGB or (T, H, W) as (transfer syntax, coded, photometric)."""
    colour = frames.ndim == 4
    if kind == "lossless":
        return JPEGLosslessSV1, [lossless_jpeg(f) for f in frames], "RGB" if colour else None
    if kind == "rle":
        return RLELossless, None, None
    suffix = {"baseline": ".jpg", "jpeg2000": ".jp2"}[kind]
    coded = [cv2.imencode(suffix, f[..., ::-1] if colour else f)[1].tobytes() for f in frames]
    if kind == "baseline":
        return JPEGBaseline8Bit, coded, "YBR_FULL_422" if colour else None
    return JPEG2000, [c[c.index(b"\xff\x4f\xff\x51") :] for c in coded], "YBR_RCT"


def lossless_jpeg(image):
    """ITU T.81 process 14 with the left neighbour as prediction, all Huffman codes 5 bits long."""
    x = (image[..., None] if image.ndim == 2 else image).astype(int)
    height, width, parts = x.shape
    left = np.zeros_like(x)
    left[:, 1:] = x[:, :-1]
    left[1:, 0] = x[:-1, 0]
    left[0, 0] = 128
    difference = x - left
    size = np.ceil(np.log2(np.abs(difference) + 1)).astype(int)
    value = np.where(difference >= 0, difference, difference + 2**size - 1)
    pairs = zip(size.ravel().tolist(), value.ravel().tolist(), strict=True)
    bits = "".join(f"{s:05b}" + (f"{v:0{s}b}" if s else "") for s, v in pairs)
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    ids = range(1, parts + 1)
    start = struct.pack(">BHHB", 8, height, width, parts) + b"".join(bytes([i, 17, 0]) for i in ids)
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    select = bytes([parts]) + b"".join(bytes([i, 0]) for i in ids) + bytes([1, 0, 0])

    def segment(marker, payload):
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload

    head = segment(0xC3, start) + segment(0xC4, table) + segment(0xDA, select)
    return b"\xff\xd8" + head + scan + b"\xff\xd9"


def region(fmt=1, box=(40, 5, 300, 210)):
    r = Dataset()
    r.RegionSpatialFormat = fmt
    r.RegionLocationMinX0, r.RegionLocationMinY0 = box[:2]
    r.RegionLocationMaxX1, r.RegionLocationMaxY1 = box[2:]
    return r
