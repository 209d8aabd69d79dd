"""Rendering the phantom: cached grids, all frames placed at once, OpenCV's float32 kernels.

The baseline renders frame by frame as one writes it first: NumPy and SciPy in double precision,
grids computed where they are used. It draws from the same random numbers.

python -m benchmarks.phantom
"""

import numpy as np
from scipy import ndimage

from benchmarks.harness import compare, disagree, use_threads
from echosyn.data.phantom import PhantomConfig, render_patient, sample_anatomy
from echosyn.data.phantom.anatomy import MM_PER_PIXEL, REFERENCE_SIZE, Anatomy
from echosyn.data.phantom.cycle import beat
from echosyn.data.phantom.drawing import LEVEL_DB, axis_vectors, build_scene, draw
from echosyn.data.phantom.render import frame_times
from echosyn.data.phantom.sector import (
    CONE_X,
    CONE_Y,
    HALF_ANGLE,
    LINES,
    SAMPLES,
    sector,
    to_polar,
)
from echosyn.data.phantom.speckle import (
    ATRIAL_REACH,
    LOOSE_GAIN,
    ORIGIN,
    TEXELS_PER_PIXEL,
    Machine,
    build_machine,
)
from echosyn.data.phantom.ventricle import disc_volume, discs, lv_size, profile

PATIENTS = 6
CONFIG = PhantomConfig(train=PATIENTS, val=1, test=1, frames=64)
MEAN_TOLERANCE = 0.5  # grey levels of 255: float32 and OpenCV's 1/32 pixel against float64
EF_TOLERANCE = 1e-6  # percent


def render_plainly(index: int, cfg: PhantomConfig, seed: int) -> tuple[np.ndarray, float]:
    """Frames uint8 (T, H, W) and EF of a patient, each frame by itself."""
    anatomy = sample_anatomy(index, cfg, seed)
    rng = np.random.Generator(np.random.SFC64([seed, index, 1]))
    machine = build_machine(anatomy, sector(cfg.size), rng)
    field = rng.standard_normal((SAMPLES, LINES, 2), dtype=np.float32).astype(np.float64)
    frames, volumes = [], []
    for time in frame_times(cfg):
        state = beat(anatomy, np.array([time]))
        scene = build_scene(anatomy, state)
        drawn = draw(scene, 0)
        fresh = rng.standard_normal((SAMPLES, LINES, 2), dtype=np.float32).astype(np.float64)
        field = anatomy.memory * field + np.sqrt(1 - anatomy.memory**2) * fresh
        envelope = _envelope(anatomy, machine, drawn, field, fresh, state.volume, state.breath)
        decibels = machine.scale * np.log(np.maximum(envelope, 1e-6)) + machine.offset
        grey = _scan_convert(np.clip(decibels, 0, 255), cfg.size)
        frames.append(np.rint(grey).astype(np.uint8))
        volumes.append(disc_volume(*discs(scene.contour[0]), MM_PER_PIXEL))
    return np.stack(frames), 100 * (1 - min(volumes) / max(volumes))


def _envelope(
    anatomy: Anatomy,
    machine: Machine,
    drawn: np.ndarray,
    field: np.ndarray,
    fresh: np.ndarray,
    volume: np.ndarray,
    breath: np.ndarray,
) -> np.ndarray:
    length, width = (float(x[0]) for x in lv_size(anatomy, volume))
    ed_length, ed_width = (float(x) for x in lv_size(anatomy, anatomy.edv))
    depth = np.arange(SAMPLES)[:, None]
    angle = np.linspace(-1, 1, LINES)[None] * HALF_ANGLE
    x = CONE_X + depth * np.sin(angle) - anatomy.apex_x
    y = CONE_Y + depth * np.cos(angle) - anatomy.apex_y - float(breath[0])
    along, across = axis_vectors(anatomy)
    u, v = x * along[0] + y * along[1], x * across[0] + y * across[1]
    share = np.clip(np.minimum(u / length, 1 + (length - u) / ATRIAL_REACH), 0, 1)
    w = profile(anatomy, np.floor(share * 128) / 128)
    u0 = u + share * (ed_length - length)
    v0 = np.copysign(np.sqrt(v**2 + w**2 * (ed_width**2 - width**2) / 4), v)
    texels = TEXELS_PER_PIXEL / anatomy.speckle
    at = [(u0 + ORIGIN[0]) * texels, (v0 + ORIGIN[1]) * texels]
    fixed = np.stack(
        [
            ndimage.map_coordinates(machine.texture[..., c], at, order=1, mode="mirror")
            for c in range(2)
        ],
        axis=-1,
    )
    loose = np.sqrt(anatomy.drift) * LOOSE_GAIN * field
    echo = np.sqrt(1 - anatomy.drift) * fixed + loose
    echo = echo * (10 ** (LEVEL_DB / 20))[drawn][..., None] * machine.gain
    echo = ndimage.convolve1d(echo, machine.lateral, axis=1, mode="mirror")
    echo = ndimage.convolve1d(echo, machine.axial, axis=0, mode="mirror")
    echo += machine.noise * fresh[::-1, ::-1]
    return np.hypot(echo[..., 0], echo[..., 1])


def _scan_convert(polar: np.ndarray, size: int) -> np.ndarray:
    centre = (np.arange(size) + 0.5) * (REFERENCE_SIZE / size) - 0.5
    column, row = to_polar(centre[None, :], centre[:, None])
    padded = np.pad(polar, 1)
    return ndimage.map_coordinates(padded, [row + 1, column + 1], order=1, cval=0.0)


def agreement(
    ours: list[tuple[np.ndarray, float]], baseline: list[tuple[np.ndarray, float]]
) -> str:
    """The difference in grey levels and in EF, within the tolerances of this file."""
    pairs = list(zip(ours, baseline, strict=True))
    apart = np.mean([np.abs(a[0].astype(int) - b[0].astype(int)).mean() for a, b in pairs])
    ef = max(abs(a[1] - b[1]) for a, b in pairs)
    if apart > MEAN_TOLERANCE or ef > EF_TOLERANCE:
        disagree(f"mean difference {apart:.3f} grey levels, EF {ef:.2g} %")
    return f"mean difference {apart:.3f} of 255 grey levels, EF {ef:.1g} %"


def main() -> None:
    use_threads(1)

    def ours() -> list[tuple[np.ndarray, float]]:
        videos = [render_patient(i, CONFIG, 0) for i in range(PATIENTS)]
        return [(v.frames, v.ef) for v in videos]

    def baseline() -> list[tuple[np.ndarray, float]]:
        return [render_plainly(i, CONFIG, 0) for i in range(PATIENTS)]

    compare("phantom", ours, baseline, agreement, n=PATIENTS, unit="videos/s", repeats=5)


if __name__ == "__main__":
    main()
