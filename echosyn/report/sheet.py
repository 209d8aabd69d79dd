"""Videos as one still picture: moments of each, and an M-mode, which shows how far walls move."""

import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from echosyn.data.spaced import evenly_spaced

GAP = 3  # pixels
LABEL = 84  # pixels of the labels' column
LINE = 0.4  # height of the M-mode's line: in an apical view it crosses both walls of the ventricle
PAPER = 255


def contact_sheet(clips: Sequence[tuple[str, np.ndarray]], moments: int = 6) -> bytes:
    """A PNG with a row per clip: its label, `moments` frames evenly spread, its M-mode.

    All clips show the same moments of the same length, the shortest one's.

    Args:
        clips: labels and uint8 (T, H, W) each, of one H and W.
    """
    frames = min(len(clip) for _, clip in clips)
    picks = np.unique(evenly_spaced(frames, moments))
    rows = []
    for label, clip in clips:
        h, w = clip.shape[1:]
        trace = m_mode(clip[:frames], 2 * w)
        tiles = [_text(label, h), *clip[picks], trace]
        space = np.full((h, GAP), PAPER, np.uint8)
        parts = [part for tile in tiles for part in (tile, space)][:-1]
        rows += [np.hstack(parts), np.full((GAP, sum(p.shape[1] for p in parts)), PAPER, np.uint8)]
    out = io.BytesIO()
    Image.fromarray(np.vstack(rows[:-1])).save(out, "PNG", optimize=True)
    return out.getvalue()


def m_mode(frames: np.ndarray, width: int) -> np.ndarray:
    """A horizontal line of a clip (T, H, W) over time: uint8 (W, width), time to the right."""
    trace = np.ascontiguousarray(frames[:, round(LINE * frames.shape[1])].T)
    return cv2.resize(trace, (width, trace.shape[0]), interpolation=cv2.INTER_LINEAR)


def _text(label: str, height: int) -> np.ndarray:
    """Dark on light, uint8 (height, some)."""
    font = ImageFont.load_default(size=12)
    image = Image.new("L", (LABEL, height), PAPER)
    ImageDraw.Draw(image).multiline_text(
        (2, height // 2), label.replace(" ", "\n"), 0, font, anchor="lm"
    )
    return np.asarray(image)
