"""One patient's video: frames, the volumes of the contours drawn in it, their tracings."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from echosyn.data.phantom.anatomy import (
    MM_PER_PIXEL,
    REFERENCE_SIZE,
    Anatomy,
    sample_anatomy,
    with_pathology,
)
from echosyn.data.phantom.config import PhantomConfig
from echosyn.data.phantom.cycle import Beat, beat
from echosyn.data.phantom.drawing import Scene, build_scene, draw
from echosyn.data.phantom.sector import Sector, sector, to_frame
from echosyn.data.phantom.shortaxis import (
    ZOOM,
    RingSpeckle,
    ShortAxis,
    build_ring,
    polygon_area,
    ring_volume,
    sample_short_axis,
)
from echosyn.data.phantom.speckle import Speckle, build_machine
from echosyn.data.phantom.strange import strange_beat, strange_structures
from echosyn.data.phantom.ventricle import disc_volume, discs, lv_contour, lv_size
from echosyn.data.video import write_video


@dataclass(frozen=True)
class Tracing:
    """A traced frame as EchoNet stores it, in pixels of the frame."""

    frame: int
    axis: np.ndarray  # (2, 2): apex and annulus, (x, y)
    lines: np.ndarray  # (20, 2, 2): ends of the discs

    def rows(self) -> np.ndarray:
        """(21, 4) X1, Y1, X2, Y2: the long axis, then the discs from apex to base."""
        return np.concatenate([self.axis[None], self.lines]).reshape(-1, 4)


@dataclass(frozen=True)
class PhantomVideo:
    """A rendered patient. EF in percent, ESV and EDV in ml, of the contours as drawn."""

    name: str
    frames: np.ndarray  # uint8 (T, size, size)
    fps: float
    ef: float
    esv: float
    edv: float
    mm_per_pixel: float
    contours: np.ndarray  # (T, 81, 2) LV endocardium, (x, y) in pixels of the frame
    tracings: tuple[Tracing, Tracing]  # ED, ES
    anatomy: Anatomy


@dataclass(frozen=True)
class Labels:
    """What FileList.csv says of a patient, and the two traced frames."""

    name: str
    ef: float
    esv: float
    edv: float
    tracings: tuple[Tracing, Tracing]


def file_name(index: int, seed: int, kind: str = "") -> str:
    """FileName of patient `index`: 0X and 16 hex digits, as in EchoNet-Dynamic. `kind` keeps the
    same patient's other views apart."""
    text = "/".join(["phantom", *([kind] if kind else []), str(seed), str(index)])
    return "0X" + hashlib.sha256(text.encode()).hexdigest()[:16].upper()


def frame_times(cfg: PhantomConfig) -> np.ndarray:
    """Seconds (T,) of the frames of a video."""
    return np.arange(cfg.frames) / cfg.fps


def patient(index: int, cfg: PhantomConfig, seed: int) -> Anatomy:
    """The anatomy of patient `index`, ill or not."""
    anatomy = sample_anatomy(index, cfg, seed)
    return with_pathology(anatomy, cfg.pathology) if cfg.is_ill(index) else anatomy


def measured_ef(anatomy: Anatomy, cfg: PhantomConfig) -> float:
    """EF in percent that `render_patient` reports, without drawing anything."""
    volume = beat(anatomy, frame_times(cfg)).volume
    if cfg.view == "psax":  # whose areas are those of the volumes exactly
        return float(100 * (1 - volume.min() / volume.max()))
    length, width = lv_size(anatomy, volume)
    contours = lv_contour(anatomy, length, width)
    edv, esv = (
        disc_volume(*discs(contours[t]), MM_PER_PIXEL)
        for t in (int(np.argmax(length)), int(np.argmin(length)))
    )
    return 100 * (1 - esv / edv)


def _apical(
    anatomy: Anatomy, state: Beat, grid: Sector, rng: np.random.Generator, strange: str
) -> tuple[Scene, Speckle]:
    alter = partial(strange_structures, kind=strange) if strange else None
    return build_scene(anatomy, state, alter), Speckle(
        anatomy, build_machine(anatomy, grid, rng), rng
    )


def _short_axis(
    anatomy: Anatomy, view: ShortAxis, state: Beat, grid: Sector, rng: np.random.Generator
) -> tuple[Scene, Speckle]:
    machine = build_machine(anatomy, grid, rng, origin=(view.x, view.y))
    return build_ring(anatomy, view, state), RingSpeckle(anatomy, machine, rng)


def render_patient(index: int, cfg: PhantomConfig, seed: int, strange: str = "") -> PhantomVideo:
    """Render patient `index`; the same (index, seed, sizes) give the same bytes, always.

    Args:
        strange: one of STRANGE_SHAPES (of view a4c) or STRANGE_TIMES: how this heart is none.
    """
    anatomy = patient(index, cfg, seed)
    state = strange_beat(strange, anatomy, frame_times(cfg))
    grid = sector(cfg.size)
    rng = np.random.Generator(np.random.SFC64([seed, index, 1]))
    mm_per_pixel = MM_PER_PIXEL * REFERENCE_SIZE / cfg.size
    if cfg.view == "psax":
        pressed = cfg.is_ill(index) and cfg.pathology == "right_heart"
        view = sample_short_axis(index, seed, pressed)
        scene, speckle = _short_axis(anatomy, view, state, grid, rng)
        mm_per_pixel /= ZOOM
    else:
        scene, speckle = _apical(anatomy, state, grid, rng, strange)
    frames = np.empty((cfg.frames, cfg.size, cfg.size), np.uint8)
    for t in range(cfg.frames):
        envelope = speckle.envelope(
            draw(scene, t), float(scene.length[t]), float(scene.width[t]), float(scene.shift[t])
        )
        cv2.convertScaleAbs(grid.scan_convert(speckle.compress(envelope)), dst=frames[t])
    contours = to_frame(scene.contour, cfg.size)
    ed, es = (
        Tracing(t, *discs(contours[t]))
        for t in (int(np.argmax(state.volume)), int(np.argmin(state.volume)))
    )
    edv, esv = (
        ring_volume(polygon_area(contours[x.frame]), float(scene.length[x.frame]), mm_per_pixel)
        if cfg.view == "psax"
        else disc_volume(x.axis, x.lines, mm_per_pixel)
        for x in (ed, es)
    )
    kind = "" if cfg.view == "a4c" and cfg.pathology == "none" else f"{cfg.view}/{cfg.pathology}"
    return PhantomVideo(
        name=file_name(index, seed, kind),
        frames=frames,
        fps=cfg.fps,
        ef=100 * (1 - esv / edv),
        esv=esv,
        edv=edv,
        mm_per_pixel=mm_per_pixel,
        contours=contours,
        tracings=(ed, es),
        anatomy=anatomy,
    )


def write_patient(folder: Path, index: int, cfg: PhantomConfig, seed: int) -> Labels:
    """Render patient `index`, write its video into `folder` and return its labels."""
    video = render_patient(index, cfg, seed)
    write_video(folder / f"{video.name}.avi", video.frames, video.fps)
    return Labels(video.name, video.ef, video.esv, video.edv, video.tracings)
