"""The drawing: chambers, walls and valves as polygons on the polar grid, in decibels."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from echosyn.data.phantom.anatomy import Anatomy
from echosyn.data.phantom.cycle import Beat
from echosyn.data.phantom.sector import LINES, SAMPLES, to_polar
from echosyn.data.phantom.ventricle import LEVELS, half_widths, lv_contour, lv_size

# Echogenicity is drawn as uint8: 5 grey levels per dB, 255 = +3 dB, 0 = -48 dB.
LEVEL_DB = (np.arange(256) - 240) / 5
SUBPIXEL_BITS = 4

SURROUNDINGS, MYOCARDIUM, SEPTUM, RV_WALL, ATRIAL_WALL = -23.0, -10.0, -3.0, -13.0, -12.0
ANNULUS, LEAFLET, PERICARDIUM = 3.0, -1.0, 1.0


Shape = tuple[float, int, np.ndarray]
# Tissue, blood and valves before they are placed: vertices in (u, v), float (T, N, 2).
Structures = tuple[list[Shape], list[Shape], list[Shape]]
# Of a patient's state, the LV's length and width (T,), and its structures: others in their place.
Alter = Callable[[Anatomy, Beat, np.ndarray, np.ndarray, Structures], Structures]


@dataclass(frozen=True)
class Scene:
    """A heart at T instants, ready to be drawn.

    Tissue, blood and valves are drawn in this order, the first two softened. A shape is its level
    in dB, its line width (0: filled) and its vertices int32 (T, N, 2) in sixteenths of a grid cell.
    """

    length: np.ndarray  # (T,) of the LV, reference pixels
    width: np.ndarray
    shift: np.ndarray  # (T,) respiratory, along y
    contour: np.ndarray  # (T, 81, 2) of the LV, (x, y) in reference pixels
    tissue: list[Shape]
    blood: list[Shape]
    valves: list[Shape]


def axis_vectors(anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (x, y) of the long axis and of the lateral direction."""
    tilt = np.deg2rad(anatomy.tilt)
    return np.array([np.sin(tilt), np.cos(tilt)]), np.array([np.cos(tilt), -np.sin(tilt)])


def build_scene(anatomy: Anatomy, state: Beat, alter: Alter | None = None) -> Scene:
    """Place every structure at each of the T instants of `state`; `alter` changes them before."""
    length, width = lv_size(anatomy, state.volume)
    along, across = axis_vectors(anatomy)
    origin = np.stack([np.full(len(length), anatomy.apex_x), anatomy.apex_y + state.breath], -1)

    def place(uv: np.ndarray) -> np.ndarray:
        return origin[:, None] + uv[..., :1] * along + uv[..., 1:] * across

    structures = _structures(anatomy, state, length, width)
    if alter is not None:
        structures = alter(anatomy, state, length, width, structures)
    layers = (on_grid(s, place) for s in structures)
    contour = place(lv_contour(anatomy, length, width))
    return Scene(length, width, state.breath, contour, *layers)


def on_grid(
    shapes: list[tuple[float, int, np.ndarray]], place: Callable[[np.ndarray], np.ndarray]
) -> list[Shape]:
    """Shapes with vertices in (u, v) on the polar grid; `place` makes (x, y) of (u, v)."""
    placed = []
    for level, line, uv in shapes:
        xy = place(uv)
        grid = np.stack(to_polar(xy[..., 0], xy[..., 1]), axis=-1)
        placed.append((level, line, np.rint(grid * 2**SUBPIXEL_BITS).astype(np.int32)))
    return placed


def draw(scene: Scene, t: int) -> np.ndarray:
    """Echogenicity at instant t as uint8 levels (SAMPLES, LINES); `LEVEL_DB` gives decibels."""
    image: np.ndarray = np.full((SAMPLES, LINES), level_of(SURROUNDINGS), np.uint8)
    _paint(image, scene.tissue, t)
    image = cv2.GaussianBlur(image, (7, 7), 1.6)
    _paint(image, scene.blood, t)
    image = cv2.GaussianBlur(image, (5, 5), 0.9)
    _paint(image, scene.valves, t)
    return image


def _paint(image: np.ndarray, shapes: list[Shape], t: int) -> None:
    for level, line, points in shapes:
        value = level_of(level)
        if line:
            cv2.polylines(image, [points[t]], False, value, line, cv2.LINE_AA, SUBPIXEL_BITS)
        else:
            cv2.fillPoly(image, [points[t]], value, cv2.LINE_AA, SUBPIXEL_BITS)


def level_of(db: float) -> int:
    return int(np.clip(np.rint(db * 5 + 240), 0, 255))


def _structures(anatomy: Anatomy, state: Beat, length: np.ndarray, width: np.ndarray) -> Structures:
    """Tissue, blood and valves with vertices in (u, v), each from the back to the front."""
    ed_length, ed_width = (float(x) for x in lv_size(anatomy, anatomy.edv))
    # A wall that keeps its volume thickens as the cavity narrows and shortens.
    shell = ((ed_width / 2 + anatomy.wall) ** 2 - (ed_width / 2) ** 2) * ed_length
    wall = np.sqrt((width / 2) ** 2 + shell / length) - width / 2  # (T,)
    blood = anatomy.blood_db

    cap = 0.7 * wall
    septal, lateral = half_widths(anatomy, LEVELS)
    rim = (2 * np.minimum(septal, lateral)) ** 0.4  # 0 at the apex, about 1 along the walls
    u_epi = -cap[:, None] + np.multiply.outer(length + cap, LEVELS)
    septal_epi = -np.multiply.outer(width, septal) - np.multiply.outer(wall, rim)
    lateral_epi = np.multiply.outer(width, lateral) + np.multiply.outer(wall, rim)
    epicardium = _outline(u_epi, septal_epi, lateral_epi)

    # The RV leans on the septum: its inner border is the LV's outer one.
    p = np.linspace(0, 1, 25)
    s_rv = anatomy.rv_top + (1 - anatomy.rv_top) * p
    u_rv = np.multiply.outer(length, s_rv)
    v_in = _rowwise_interp(u_rv, u_epi, septal_epi)
    span = anatomy.rv_width * (1 - anatomy.rv_squeeze * state.contraction)
    v_out = v_in - np.multiply.outer(span, p**0.6 * (1 - 0.2 * p**4))
    rv = _outline(u_rv, v_out, v_in)
    rv_outer = _outline(u_rv + (p - 1) * 3, v_out - 3, v_in)

    # Atria hang between the moving annulus and a roof that stays.
    left, right = -np.multiply.outer(width, septal)[:, -1], np.multiply.outer(width, lateral)[:, -1]
    la_roof, ra_roof = ed_length + anatomy.la_depth, ed_length + anatomy.ra_depth
    la_mid = np.full_like(length, 0.06 * ed_width)
    ra_v = -ed_width * anatomy.annulus / 2 - anatomy.wall * 0.6 - anatomy.ra_width / 2
    ra_mid = np.full_like(length, ra_v)
    la = _chamber(length - 1, la_roof, la_mid, anatomy.la_width / 2)
    ra = _chamber(length + 0.5, ra_roof, ra_mid, anatomy.ra_width / 2)
    la_outer = _chamber(length - 3, la_roof + 3, la_mid, anatomy.la_width / 2 + 2.5)
    ra_outer = _chamber(length - 1, ra_roof + 3, ra_mid, anatomy.ra_width / 2 + 2.5)

    s_pap = anatomy.papillary
    pap_v = width * float(half_widths(anatomy, np.array([s_pap]))[1][0]) * 0.74
    papillary = ellipse(s_pap * length, pap_v, 0.10 * length, 0.09 * width)
    crux = ellipse(length + 3, left - wall * 0.5, 5.5 + 0 * wall, 2.6 + 0 * wall)
    outer_annulus = ellipse(length + 1, right + wall * 0.6, 4.0 + 0 * wall, 3.6 + 0 * wall)
    middle = _line(u_epi[:, 8:34], (septal_epi - np.multiply.outer(width, septal))[:, 8:34] / 2)
    pericardium = _line(u_epi[:, 12:], lateral_epi[:, 12:] + 1.0)

    gap = right - left
    anterior = _leaflet(length, left, 1.0, anatomy.anterior * gap, state.mitral)
    posterior = _leaflet(length, right, -1.0, anatomy.posterior * gap, state.mitral)
    tv_left, tv_right = v_out[:, -1], v_in[:, -1]
    tv_gap = tv_right - tv_left
    tv_septal = _leaflet(length, tv_right, -1.0, 0.45 * tv_gap, state.mitral)
    tv_free = _leaflet(length, tv_left, 1.0, 0.58 * tv_gap, state.mitral)
    tissue = [
        (ATRIAL_WALL, 0, ra_outer),
        (ATRIAL_WALL, 0, la_outer),
        (RV_WALL, 0, rv_outer),
        (MYOCARDIUM, 0, epicardium),
        (PERICARDIUM, 2, pericardium),
        (ANNULUS, 0, outer_annulus),
        (ANNULUS, 0, crux),
        (SEPTUM, 2, middle),
    ]
    cavities = [
        (blood, 0, rv),
        (blood, 0, ra),
        (blood, 0, la),
        (blood, 0, lv_contour(anatomy, length, width)),
        (anatomy.papillary_db, 0, papillary),
    ]
    valves = [
        (LEAFLET - 4, 1, tv_septal),
        (LEAFLET - 4, 1, tv_free),
        (LEAFLET, 1, anterior),
        (LEAFLET, 1, posterior),
    ]
    return tissue, cavities, valves


def _outline(u: np.ndarray, septal: np.ndarray, lateral: np.ndarray) -> np.ndarray:
    """Down one side and up the other: three (T, N) arrays to (T, 2 N, 2)."""
    return np.stack(
        [
            np.concatenate([u[:, ::-1], u], axis=1),
            np.concatenate([septal[:, ::-1], lateral], axis=1),
        ],
        axis=-1,
    )


def _line(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.stack([u, v], axis=-1)


def ellipse(u: np.ndarray, v: np.ndarray, half_u: np.ndarray, half_v: np.ndarray) -> np.ndarray:
    """Ellipses (T, 16, 2) around (u, v), each (T,)."""
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    return np.stack(
        [
            u[:, None] + np.multiply.outer(half_u, np.cos(angle)),
            v[:, None] + np.multiply.outer(half_v, np.sin(angle)),
        ],
        axis=-1,
    )


def _chamber(top: np.ndarray, bottom: float, v: np.ndarray, half: float) -> np.ndarray:
    """A rounded box between `top` (T,) and `bottom`, centred on v (T,)."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    cos, sin = (np.sign(f) * np.abs(f) ** 0.82 for f in (np.cos(angle), np.sin(angle)))
    middle, reach = (top + bottom) / 2, (bottom - top) / 2
    return np.stack(
        [
            middle[:, None] + np.multiply.outer(reach, cos),
            v[:, None] + half * sin + 0 * top[:, None],
        ],
        axis=-1,
    )


def _leaflet(
    u: np.ndarray, v: np.ndarray, side: float, reach: np.ndarray, opening: np.ndarray
) -> np.ndarray:
    """A leaflet hinged at (u, v), of length `reach`, that swings into the ventricle as it opens."""
    angle = np.deg2rad(8 + 64 * opening)[:, None]
    part = np.linspace(0, 1, 7)
    bend = angle * (0.55 + 0.45 * part)  # the tip leads
    along = reach[:, None] * part
    return np.stack(
        [u[:, None] - along * np.sin(bend), v[:, None] + side * along * np.cos(bend)], axis=-1
    )


def _rowwise_interp(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(a, b, c) for a, b, c in zip(at, x, y, strict=True)])
