"""The left ventricle: its contour at a given volume, and volumes back from a contour.

The contour lives in axis coordinates (u, v): u runs along the long axis from the apex (0) to the
mitral annulus (the length), v to the lateral side. A volume is the single-plane method of discs
(Lang et al., J Am Soc Echocardiogr 2015): V = pi / 4 * sum(d_i^2) * L / 20.
"""

import numpy as np

from echosyn.data.phantom.anatomy import ML_PER_CUBIC_PIXEL, Anatomy

DISCS = 20
# Disc i is cut at (i + 1/2) / 20 of the axis, which is every second vertex of a contour side.
LEVELS = np.arange(2 * DISCS + 1) / (2 * DISCS)
DISC_LEVELS = LEVELS[1::2]


def profile(anatomy: Anatomy, s: np.ndarray) -> np.ndarray:
    """Width of the LV at `s` of the long axis (0 apex, 1 annulus) / its greatest width."""
    apical = np.clip(1 - s / anatomy.widest, 0, 1)
    basal = np.clip((s - anatomy.widest) / (1 - anatomy.widest), 0, None)
    return (1 - apical**2) ** anatomy.apex_power * (1 - (1 - anatomy.annulus) * basal**2)


def lv_size(anatomy: Anatomy, volume: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Length and greatest width of the LV in reference pixels at `volume` (ml, (T,)).

    With V = c L W^2, L ~ V^(1/4) and W ~ V^(3/8): the short axis shortens more than the long one.
    """
    c = np.pi / 4 * np.mean(profile(anatomy, DISC_LEVELS) ** 2) * ML_PER_CUBIC_PIXEL
    length = (anatomy.edv / (c * anatomy.sphericity**2)) ** (1 / 3)
    share = np.asarray(volume) / anatomy.edv
    return length * share**0.25, length * anatomy.sphericity * share**0.375


def half_widths(anatomy: Anatomy, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Septal and lateral half-width at `s` / the greatest width; they add to `profile`."""
    w = profile(anatomy, s) / 2
    skew = anatomy.skew * np.sin(np.pi * np.clip(s, 0, 1))
    return w * (1 - skew), w * (1 + skew)


def lv_contour(anatomy: Anatomy, length: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Endocardium (T, 81, 2) in (u, v): septal annulus, apex (vertex 40), lateral annulus."""
    septal, lateral = half_widths(anatomy, LEVELS)
    s = np.concatenate([LEVELS[::-1], LEVELS[1:]])
    v = np.concatenate([-septal[::-1], lateral[1:]])
    return np.stack([np.multiply.outer(length, s), np.multiply.outer(width, v)], axis=-1)


def discs(contour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Long axis and disc lines of a contour (81, 2) in any coordinates.

    Returns:
        axis (2, 2): apex, middle of the annulus; lines (20, 2, 2): septal and lateral end of the
        disc cut at right angles to the axis, from apex to base.
    """
    apex, base = contour[2 * DISCS], (contour[0] + contour[-1]) / 2
    along = (base - apex) / np.linalg.norm(base - apex)
    across = np.array([-along[1], along[0]])
    u, v = (contour - apex) @ along, (contour - apex) @ across
    levels = DISC_LEVELS * np.linalg.norm(base - apex)
    septal = np.interp(levels, u[2 * DISCS :: -1], v[2 * DISCS :: -1])
    lateral = np.interp(levels, u[2 * DISCS :], v[2 * DISCS :])
    centre = apex + levels[:, None] * along
    ends = [centre + side[:, None] * across for side in (septal, lateral)]
    return np.stack([apex, base]), np.stack(ends, axis=1)


def disc_volume(axis: np.ndarray, lines: np.ndarray, mm_per_pixel: float) -> float:
    """Volume in ml by the method of discs: axis (2, 2) and disc lines (N, 2, 2) in pixels."""
    length = np.linalg.norm(axis[1] - axis[0])
    diameters = np.linalg.norm(lines[:, 1] - lines[:, 0], axis=-1)
    cubic_pixels = np.pi / 4 * np.sum(diameters**2) * length / len(lines)
    return float(cubic_pixels * mm_per_pixel**3 / 1000)
