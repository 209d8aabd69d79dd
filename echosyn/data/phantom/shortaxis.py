"""The parasternal short axis at the papillary muscles: a ring that contracts, the RV at its side.

The cavity's area follows the same heart as the apical view: V = 5/6 A L (the area-length formula
that EchoNet-Pediatric's labels use for this view), with L ~ V^(1/4), so A ~ V^(3/4). The length is
out of the picture, and EF is a function of the area alone: EF = 1 - (A_es / A_ed)^(4/3).
"""

from dataclasses import dataclass

import numpy as np

from echosyn.data.phantom.anatomy import ML_PER_CUBIC_PIXEL, MM_PER_PIXEL, Anatomy
from echosyn.data.phantom.cycle import Beat
from echosyn.data.phantom.drawing import (
    LEAFLET,
    MYOCARDIUM,
    PERICARDIUM,
    RV_WALL,
    SEPTUM,
    Scene,
    Shape,
    axis_vectors,
    ellipse,
    on_grid,
)
from echosyn.data.phantom.speckle import Machine, Speckle
from echosyn.data.phantom.ventricle import lv_size

ZOOM = 1.35  # the short axis is shown nearer: 1 mm a reference pixel
AREA_LENGTH = 5 / 6
# The contour runs from the bottom over the septum (left) to the top, vertex 40, and back over the
# lateral wall: an open curve, as the apical one, so that discs cut both.
ANGLES = np.linspace(0, 2 * np.pi, 81)
BULGE = np.linspace(0.35 * np.pi, 0.85 * np.pi, 33)  # of ANGLES: where the RV lies on the ring
TEXTURE_SHIFT = 40.0  # reference pixels, so that the ring lies inside the texture


@dataclass(frozen=True)
class ShortAxis:
    """What the short axis shows of a patient besides `Anatomy`. Positions in reference pixels."""

    x: float
    y: float
    oblong: float  # height / width of the cavity
    papillary: float  # radians from the bottom to the muscles
    septum: float  # radius of the septum / of a circle: 1 round, below .8 a D


def sample_short_axis(index: int, seed: int, pressed: bool) -> ShortAxis:
    """Draw patient `index`; with `pressed`, a right heart under pressure flattens the septum."""
    u = np.random.default_rng([seed, index, 2]).uniform
    return ShortAxis(
        x=u(60, 67),
        y=u(52, 60),
        oblong=u(0.95, 1.06),
        papillary=u(0.28, 0.36) * np.pi,
        septum=u(0.40, 0.55) if pressed else u(0.93, 1.0),
    )


def ring_size(anatomy: Anatomy, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Length of the LV in reference pixels of the apical view, and radius of a circle with the
    cavity's area in those of this one, at `volume` (ml, (T,))."""
    length, _ = lv_size(anatomy, volume)
    area = np.asarray(volume) / ML_PER_CUBIC_PIXEL / (AREA_LENGTH * length)
    return length, ZOOM * np.sqrt(area / np.pi)


def ring_volume(area: float, length: float, mm_per_pixel: float) -> float:
    """Volume in ml of an area in pixels and a length in reference pixels of the apical view."""
    return AREA_LENGTH * area * mm_per_pixel**2 * length * MM_PER_PIXEL / 1000


def polygon_area(contour: np.ndarray) -> float:
    """Area of a closed contour (N, 2), in its units."""
    x, y = contour.T
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def build_ring(anatomy: Anatomy, view: ShortAxis, state: Beat) -> Scene:
    """Place every structure of the short axis at each of the T instants of `state`."""
    length, radius = ring_size(anatomy, state.volume)
    along, across = axis_vectors(anatomy)
    origin = np.stack([np.full(len(radius), view.x), view.y + state.breath], -1)

    def place(uv: np.ndarray) -> np.ndarray:
        return origin[:, None] + uv[..., :1] * along + uv[..., 1:] * across

    layers = (on_grid(s, place) for s in _structures(anatomy, view, state, radius))
    contour = place(_curve(np.multiply.outer(radius, _shape(view, ANGLES)), ANGLES))
    return Scene(length, 2 * radius, state.breath, contour, *layers)


def _shape(view: ShortAxis, angles: np.ndarray) -> np.ndarray:
    """Distance of the endocardium from the centre over that of a circle of the same area.

    The septum, around angle pi / 2, is drawn towards a straight line by a smooth weight.
    """

    def outline(a: np.ndarray) -> np.ndarray:
        round_ = 1 / np.hypot(np.cos(a) / view.oblong, np.sin(a) * view.oblong)
        line = view.septum / np.maximum(np.sin(a), 1e-6)
        # A soft minimum: the line's ends do not leave corners.
        flat = (round_**-8 + line**-8) ** (-1 / 8)
        return np.where(np.sin(a) > 0.05, flat, round_)

    contour = _curve(outline(ANGLES)[None], ANGLES)[0]
    return outline(angles) * np.sqrt(np.pi / polygon_area(contour))


def _curve(reach: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Points at `reach` (T, N) from the centre: (T, N, 2) in (u, v), u down, v to the right."""
    return np.stack([reach * np.cos(angles), -reach * np.sin(angles)], axis=-1)


def _structures(
    anatomy: Anatomy, view: ShortAxis, state: Beat, radius: np.ndarray
) -> tuple[list[Shape], list[Shape], list[Shape]]:
    """Tissue, blood and valves with vertices in (u, v), each from the back to the front."""
    ed = float(ring_size(anatomy, np.array(anatomy.edv))[1])
    # A wall that keeps its area thickens as the cavity narrows.
    area = (ed + ZOOM * anatomy.wall) ** 2 - ed**2
    wall = np.sqrt(radius**2 + area) - radius  # (T,)

    def ring(angles: np.ndarray, out: np.ndarray) -> np.ndarray:
        """A curve `out` from the endocardium: (T, 1) or (T, N)."""
        return _curve(np.multiply.outer(radius, _shape(view, angles)) + out, angles)

    wall = wall[:, None]
    endocardium, epicardium = ring(ANGLES, 0 * wall), ring(ANGLES, wall)

    # The RV hangs on the septum like a half moon.
    span = 0.75 * ZOOM * anatomy.rv_width * (1 - anatomy.rv_squeeze * state.contraction)
    moon = np.sin(np.linspace(0, np.pi, len(BULGE))) ** 0.7

    def bulge(extra: float) -> np.ndarray:
        free = ring(BULGE, wall + span[:, None] * moon + extra)
        return np.concatenate([ring(BULGE, wall), free[:, ::-1]], axis=1)

    muscles = [
        _muscle(view, angle, radius, state.contraction)
        for angle in (view.papillary, 2 * np.pi - view.papillary)
    ]
    middle = ring(BULGE[4:-4], wall / 2)
    pericardium = ring(np.linspace(1.25 * np.pi, 1.9 * np.pi, 30), wall + 1)
    tissue = [
        (RV_WALL, 0, bulge(3.0)),
        (MYOCARDIUM, 0, epicardium),
        (PERICARDIUM, 2, pericardium),
        (SEPTUM, 2, middle),
    ]
    blood = [
        (anatomy.blood_db, 0, bulge(0.0)),
        (anatomy.blood_db, 0, endocardium),
        *((max(anatomy.papillary_db, -24), 0, m) for m in muscles),
    ]
    moderator = ring(BULGE[10:22], wall + 0.4 * span[:, None])
    return tissue, blood, [(LEAFLET - 8, 1, moderator)]


def _muscle(
    view: ShortAxis, angle: float, radius: np.ndarray, contraction: np.ndarray
) -> np.ndarray:
    """A papillary muscle, thicker in systole, at an angle of the wall: (T, 16, 2)."""
    reach = 0.76 * _shape(view, np.array([angle]))[0] * radius
    size = 0.13 * radius * (1 + 0.25 * contraction)
    return ellipse(reach * np.cos(angle), -reach * np.sin(angle), size, size)


class RingSpeckle(Speckle):
    """Speckle whose tissue moves to and from the middle of the ring."""

    def __init__(self, anatomy: Anatomy, machine: Machine, rng: np.random.Generator) -> None:
        super().__init__(anatomy, machine, rng)
        self.ed_radius = float(ring_size(anatomy, np.array(anatomy.edv))[1])

    def tissue(self, length: float, width: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
        """Outside the cavity a point keeps the area between it and the endocardium; inside, its
        share of the radius."""
        m, now, ed = self.machine, width / 2, self.ed_radius
        u = m.u - np.float32(shift * m.along_y)
        v = m.v - np.float32(shift * m.across_y)
        r = np.maximum(np.hypot(u, v), np.float32(1e-3))
        outside = np.sqrt(np.maximum(r * r + np.float32(ed * ed - now * now), 0))
        scale = np.where(r < now, np.float32(ed / now), outside / r)
        return u * scale + np.float32(TEXTURE_SHIFT), v * scale
