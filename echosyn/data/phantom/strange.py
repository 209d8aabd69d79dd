"""Hearts that are not: what a generator might make, for tests of what must notice.

Each is drawn as a patient is, with the same speckle and machine, and keeps the patient's labels.
"""

import dataclasses

import numpy as np

from echosyn.data.phantom.anatomy import Anatomy
from echosyn.data.phantom.cycle import Beat, beat
from echosyn.data.phantom.drawing import Structures, ellipse
from echosyn.data.phantom.ventricle import half_widths, lv_size

WALL, DARK = -6.0, -23.0  # dB: the wall of a chamber too many, and where a wall is missing


def strange_beat(kind: str, anatomy: Anatomy, times: np.ndarray) -> Beat:
    """The state of a heart at `times`, seconds (T,): one that stands still (`frozen`) while speckle
    and noise go on, one that beats backwards (`reversed`), and otherwise a sound one."""
    if kind == "frozen":
        still = beat(anatomy, np.full(len(times), times[len(times) // 2]))
        return dataclasses.replace(still, breath=beat(anatomy, times).breath)
    return beat(anatomy, times[::-1] if kind == "reversed" else times)


def strange_structures(
    anatomy: Anatomy,
    state: Beat,
    length: np.ndarray,
    width: np.ndarray,
    structures: Structures,
    kind: str,
) -> Structures:
    """The structures of the apical view with what is strange about them."""
    tissue, blood, valves = structures
    wide = float(lv_size(anatomy, anatomy.edv)[1])
    if kind == "extra_chamber":  # between the ventricles, and it beats
        size = 1 - 0.25 * state.contraction
        u, v = 0.55 * length, -width / 2 - anatomy.wall - 0.22 * wide
        half_u, half_v = 0.24 * length * size, 0.2 * wide * size
        shell = (WALL, 0, ellipse(u, v, half_u + 3.5, half_v + 3.5))
        return tissue, [*blood, shell, (anatomy.blood_db, 0, ellipse(u, v, half_u, half_v))], valves
    if kind == "missing_wall":  # blood from the ventricle's lateral border outwards
        s = np.linspace(0.25, 0.85, 13)
        border = np.multiply.outer(width, half_widths(anatomy, s)[1])
        u = np.multiply.outer(length, s)
        edges = (border - 2, border + 2.2 * anatomy.wall)
        gap = np.concatenate(
            [np.stack([u, edges[0]], -1), np.stack([u, edges[1]], -1)[:, ::-1]], axis=1
        )
        return tissue, [*blood, (DARK, 0, gap)], valves
    if kind == "doubled_valve":
        again = [(level, line, uv - np.array([7.0, 0.0])) for level, line, uv in valves]
        return tissue, blood, [*valves, *again]
    return structures
