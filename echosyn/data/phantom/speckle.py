"""From echogenicity to what the machine shows: speckle, attenuation, blur, log compression.

Scatterers are a complex Gaussian field. Most of it is a texture fixed to the tissue, looked up at
the place in the ED heart that each sample shows; the rest is an AR(1) field on the scan grid. Times
the echogenicity, blurred by the beam and taken in magnitude, this is fully developed, Rayleigh
distributed speckle (Wagner et al., IEEE Trans Sonics Ultrason 1983).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from echosyn.data.phantom.anatomy import Anatomy
from echosyn.data.phantom.drawing import LEVEL_DB, axis_vectors
from echosyn.data.phantom.sector import LINES, SAMPLES, Sector
from echosyn.data.phantom.ventricle import lv_size, profile

TEXTURE = (288, 400)  # texels along u and v
TEXELS_PER_PIXEL = 1.5
ORIGIN = (36.0, 130.0)  # reference pixels of texture above the apex and to the septal side
# The beam averages white noise more than the smooth texture; this makes up for it.
LOOSE_GAIN = 1.9
MEAN_GAIN_DB = 8.0  # below the echogenicities drawn
ATRIAL_REACH = 50.0  # below the annulus, over which its motion dies away


@dataclass(frozen=True)
class Machine:
    """What is fixed over one patient's video, float32."""

    u: np.ndarray  # (SAMPLES, LINES) axis coordinates of the grid, without breathing
    v: np.ndarray
    along_y: float  # share of a vertical shift that runs along u, and along v
    across_y: float
    ed_length: float
    ed_width: float
    profile2: np.ndarray  # (129,) squared profile of the LV over its long axis
    texture: np.ndarray  # (288, 400, 2) scatterers fixed to the tissue
    amplitude: np.ndarray  # (256,) of a drawn level
    gain: np.ndarray  # (SAMPLES, LINES, 2) amplitude of depth, shadow and uneven contact
    noise: np.ndarray  # (SAMPLES, 1, 1) amplitude of the receiver's noise
    lateral: np.ndarray  # (9,) beam width across scan lines
    axial: np.ndarray  # (5,) pulse length
    scale: float  # grey level per neper
    offset: float


def build_machine(
    anatomy: Anatomy,
    grid: Sector,
    rng: np.random.Generator,
    origin: tuple[float, float] | None = None,
) -> Machine:
    """Everything about a patient's pictures that does not change from frame to frame.

    `origin` is where u and v are 0, (x, y) in reference pixels; the apex when None.
    """
    along, across = axis_vectors(anatomy)
    origin_x, origin_y = origin or (anatomy.apex_x, anatomy.apex_y)
    dx, dy = grid.x - origin_x, grid.y - origin_y
    ed_length, ed_width = (float(x) for x in lv_size(anatomy, anatomy.edv))
    white = rng.standard_normal((*TEXTURE, 2), dtype=np.float32)
    # White texels would twinkle between samples: bilinear lookup is even only on smooth ones.
    texture: np.ndarray = cv2.GaussianBlur(white, (0, 0), 0.8)
    # One gain for the speckle that is left after the blurs, so that 0 dB is full white.
    texture /= np.sqrt(np.mean(texture**2) * 2 * 0.45)
    texture *= _uneven_tissue(rng)[..., None]
    gain_db = _uneven_gain(anatomy, grid, rng)
    gain = np.exp(gain_db * (np.log(10) / 20)).astype(np.float32)
    lateral = cv2.getGaussianKernel(9, 1.1 * anatomy.speckle).ravel()
    axial = cv2.getGaussianKernel(5, 0.55 * anatomy.speckle).ravel()
    range_nepers = anatomy.dynamic_range_db * np.log(10) / 20
    scale = 255 / range_nepers
    return Machine(
        u=(dx * along[0] + dy * along[1]).astype(np.float32),
        v=(dx * across[0] + dy * across[1]).astype(np.float32),
        along_y=float(along[1]),
        across_y=float(across[1]),
        ed_length=ed_length,
        ed_width=ed_width,
        profile2=(profile(anatomy, np.linspace(0, 1, 129)) ** 2).astype(np.float32),
        texture=texture,
        amplitude=np.exp(LEVEL_DB * (np.log(10) / 20)).astype(np.float32),
        gain=np.repeat(gain[..., None], 2, axis=2),
        noise=_noise_gain(anatomy, grid),
        lateral=lateral.astype(np.float32),
        axial=axial.astype(np.float32),
        scale=float(scale),
        offset=float(255 + scale * anatomy.gain_db * np.log(10) / 20),
    )


def _uneven_tissue(rng: np.random.Generator) -> np.ndarray:
    """Amplitude (288, 400) of patches that scatter more or less and move with the tissue."""
    patches_db = rng.normal(0, 4.0, (12, 16)).astype(np.float32)
    spread = cv2.resize(patches_db, TEXTURE[::-1], interpolation=cv2.INTER_CUBIC)
    return np.exp(spread * np.float32(np.log(10) / 20))


def _uneven_gain(anatomy: Anatomy, grid: Sector, rng: np.random.Generator) -> np.ndarray:
    """Decibels (SAMPLES, LINES): attenuation, near field, rib shadows, dropout at the edges."""
    patches = rng.normal(0, 5.0, (8, 7)).astype(np.float32)
    shadows = rng.normal(0, 4.0, (1, 9)).astype(np.float32)
    size = (LINES, SAMPLES)
    db = (
        cv2.resize(patches, size, interpolation=cv2.INTER_CUBIC)
        + cv2.resize(shadows, size, interpolation=cv2.INTER_CUBIC)
        - anatomy.attenuation_db * grid.depth / 100
        + 4 * np.exp(-grid.depth / 6)
        - 7 * np.exp(-(((grid.depth - 16) / 18) ** 2))
        - 9 * np.abs(grid.steer) ** 5
    )
    # Whoever scans turns the gain until the picture is neither black nor white.
    return db - db.mean() - MEAN_GAIN_DB


def _noise_gain(anatomy: Anatomy, grid: Sector) -> np.ndarray:
    """Clutter fades with depth; the receiver's noise grows with the time-gain compensation."""
    db = anatomy.noise_db + anatomy.haze_db * np.exp(-grid.depth / 40) + 4 * grid.depth / 100
    return np.exp(db * (np.log(10) / 20)).astype(np.float32)[..., None]


def tissue_coordinates(
    machine: Machine, length: float, width: float, shift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where in the ED heart each grid sample lies: (u, v), float32 (SAMPLES, LINES).

    Along the axis, points keep their share of its length; below the annulus its motion dies away.
    Across it, v0^2 - v^2 is what keeps the area between a point and the endocardium.
    """
    u = machine.u - np.float32(shift * machine.along_y)
    v = machine.v - np.float32(shift * machine.across_y)
    share = np.minimum(
        u * np.float32(1 / length),
        np.float32(1 + length / ATRIAL_REACH) - u * np.float32(1 / ATRIAL_REACH),
    )
    np.clip(share, 0, 1, out=share)
    profile2 = machine.profile2[(share * np.float32(128)).astype(np.intp)]
    u += share * np.float32(machine.ed_length - length)
    inward = profile2 * np.float32((machine.ed_width**2 - width**2) / 4)
    inward += v * v
    return u, np.copysign(np.sqrt(inward, out=inward), v)


class Speckle:
    """Draws one frame after the other; each call of `frame` moves the AR(1) field on by one."""

    def __init__(self, anatomy: Anatomy, machine: Machine, rng: np.random.Generator) -> None:
        self.machine = machine
        self.rng = rng
        self.memory = np.float32(anatomy.memory)
        self.renewal = np.float32(np.sqrt(1 - anatomy.memory**2))
        self.fixed = np.float32(np.sqrt(1 - anatomy.drift))
        self.loose = np.float32(np.sqrt(anatomy.drift) * LOOSE_GAIN)
        self.texels = np.float32(TEXELS_PER_PIXEL / anatomy.speckle)
        self.field = self._white()

    def _white(self) -> np.ndarray:
        return self.rng.standard_normal((SAMPLES, LINES, 2), dtype=np.float32)

    def tissue(self, length: float, width: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
        """Where the tissue of each grid sample lies in the texture, (u, v) in reference pixels."""
        return tissue_coordinates(self.machine, length, width, shift)

    def envelope(self, drawn: np.ndarray, length: float, width: float, shift: float) -> np.ndarray:
        """Echo amplitude float32 (SAMPLES, LINES) of a drawn uint8 frame, before compression."""
        m = self.machine
        u, v = self.tissue(length, width, shift)
        u += np.float32(ORIGIN[0])
        u *= self.texels
        v += np.float32(ORIGIN[1])
        v *= self.texels
        echo: np.ndarray = cv2.remap(
            m.texture, v, u, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        fresh = self._white()
        self.field *= self.memory
        self.field += self.renewal * fresh
        echo *= self.fixed
        echo += self.loose * self.field
        amplitude = cv2.LUT(drawn, m.amplitude)
        echo *= cv2.merge([amplitude, amplitude])
        echo *= m.gain
        echo = cv2.sepFilter2D(echo, -1, m.lateral, m.axial, borderType=cv2.BORDER_REFLECT_101)
        # Turned upside down the innovation is as good as new: noise without a second draw.
        echo += m.noise * fresh[::-1, ::-1]
        return cv2.magnitude(echo[..., 0], echo[..., 1])

    def compress(self, envelope: np.ndarray) -> np.ndarray:
        """Log compression to grey levels, float32, clipped to 0-255."""
        grey = cv2.log(np.maximum(envelope, np.float32(1e-6)))
        grey *= np.float32(self.machine.scale)
        grey += np.float32(self.machine.offset)
        return np.clip(grey, 0, 255, out=grey)
