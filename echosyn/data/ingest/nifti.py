"""Cines stored as NIfTI: axes (x, y, time), as ITK writes ultrasound sequences."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echosyn.data.ingest.fit import square_pixels
from echosyn.runtime.errors import EchosynError

SUFFIXES = (".nii", ".nii.gz")
MAX_BYTES = 2**31  # of the volume that a header declares; more is refused before it is read
RATES = (5.0, 500.0)  # frames per second that a cine can have; other time steps mean nothing


@dataclass(frozen=True, eq=False)
class Volume:
    """The values of a NIfTI cine, pixels as stored."""

    values: np.ndarray  # (T, H, W), rows from the transducer down
    aspect: float  # height of a pixel over its width
    fps: float | None  # where the header states one
    turned: bool  # its affine swaps or mirrors the axes of the picture, which is not followed


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI cine.

    Raises:
        EchosynError: the file is missing, damaged, not NIfTI, too large, or no cine.
    """
    if not path.is_file():
        raise EchosynError(f"{path}: the file does not exist")
    try:
        return _volume(path)
    except EchosynError:
        raise
    except Exception as e:  # nibabel raises whatever the damage leads to
        raise EchosynError(f"{path}: not a NIfTI file, or a damaged or truncated one: {e}") from e


def _volume(path: Path) -> Volume:
    import nibabel  # 0.2 s, and only two sources need it

    image: Any = nibabel.load(path)
    shape, kind = image.shape, image.get_data_dtype()
    declared = "x".join(map(str, shape))
    if np.prod(shape, dtype=float) * kind.itemsize > MAX_BYTES:
        raise EchosynError(f"{path}: {declared} values are declared, more than {MAX_BYTES:,} bytes")
    values = np.asanyarray(image.dataobj)
    zooms = [float(z) for z in image.header.get_zooms()]
    if kind.names:  # RGB
        values = np.stack([values[name] for name in kind.names[:3]], -1).mean(-1)
    elif values.ndim > 3 and values.shape[-1] == 3:
        values = values.mean(-1)
    # A cine written in 4 dimensions is one plane deep.
    steps = [z for z, n in zip(zooms, values.shape, strict=False) if n > 1]
    timed = values.ndim == 4 and steps and steps[-1] > 0
    fps = _rate(steps[-1], image.header.get_xyzt_units()[1]) if timed else None
    values = np.squeeze(values)
    if values.ndim != 3 or values.dtype.kind not in "uif" or 0 in values.shape:
        raise EchosynError(
            f"{path}: {declared} values of {kind} are no cine of width x height x frames"
        )
    width, height = (z if np.isfinite(z) and z > 0 else 1.0 for z in zooms[:2])
    return Volume(values.T, height / width, fps, _is_turned(image))


def _is_turned(image: Any) -> bool:
    """Whether the affine, where one is stated, has other axes than the file.

    Tools write affines of ultrasound that mean nothing, so that following them would turn good
    pictures; a note says so instead. Both axes mirrored is what ITK and what nothing stated give.
    """
    if not (image.header["sform_code"] or image.header["qform_code"]):
        return False
    (a, b), (c, d) = image.affine[:2, :2]
    return bool(abs(b) + abs(c) > abs(a) + abs(d) or a * d < 0)


def _rate(step: float, unit: str) -> float | None:
    fps = {"msec": 1e3, "usec": 1e6}.get(unit, 1.0) / step
    return fps if RATES[0] <= fps <= RATES[1] else None


def grey_frames(volume: Volume, path: Path) -> np.ndarray:
    """Frames uint8 (T, H, W) with square pixels.

    Values within 0-255 are kept; others are scaled from the file's range to it.

    Raises:
        EchosynError: a value is not finite, or all are the same.
    """
    values = volume.values
    if values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise EchosynError(f"{path}: holds values that are not finite")
        if low == high:
            raise EchosynError(f"{path}: every value is {low:g}; there is no picture")
        if low < 0 or high > 255 or high <= 1:
            values = (values - low) * (255 / (high - low))
        values = np.rint(values).astype(np.uint8)
    return np.stack([square_pixels(frame, volume.aspect) for frame in values])
