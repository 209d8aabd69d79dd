"""Accepted synthetic pictures and videos beside the real ones most like them."""

import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from echosyn.report.mosaic import clip, data_uri, webp
from echosyn.report.numbers import plain
from echosyn.report.privacy_evidence import Clip, Pair

LOCAL_ONLY = (
    "LOCAL ONLY. This page shows real patients. It may not leave the building and is not part of "
    "the release."
)
MOST_PAIRS = 20
ANIMATED = 2_200_000  # bytes of all animations together: 3 MB of page
SECONDS, FPS = 3.0, 16.0  # of an animation, at most


def pairs_html(pairs: Sequence[Pair]) -> str:
    """The most similar pairs, most similar first; nothing without pairs."""
    if not pairs:
        return ""
    shown = sorted(pairs, key=lambda p: -p.similarity)[:MOST_PAIRS]
    room = ANIMATED // max(1, sum(p.clips is not None for p in shown))
    figures = [
        '<figure class="twin"><div>'
        f'<img alt="synthetic {escape(p.synthetic_name)}" src="{_png(p.synthetic)}">'
        f'<img alt="real {escape(p.real_name)}" src="{_png(p.real)}"></div>'
        f"{_moving(p.clips, room) if p.clips else ''}"
        f"<figcaption><strong>LOCAL ONLY.</strong> Similarity {plain(p.similarity)}. Left: "
        f"synthetic {escape(p.synthetic_name)}. Right: real {escape(p.real_name)}.</figcaption>"
        "</figure>"
        for p in shown
    ]
    text = (
        "What passed the filter, each beside what is most like it among the training patients: "
        "the two most similar pictures, and below them the videos where these were compared. Is "
        "any the same heart?"
    )
    if len(pairs) > len(shown):
        text += f" The {len(shown)} most similar of {len(pairs)} are shown."
    return (
        f'<p class="notice">{escape(LOCAL_ONLY)}</p><p>{escape(text)}</p>'
        f'<div class="twins">{"".join(figures)}</div>'
    )


def _moving(clips: tuple[Clip, Clip], room: int) -> str:
    """Both videos as one animation, or their first frames where it takes more than `room` bytes."""
    fps = min(FPS, *(c.fps for c in clips))
    videos = [clip(c.frames, c.fps, fps, SECONDS) for c in clips]
    image, words = webp(videos, fps, columns=2), "both videos"
    if len(image) > room:
        image, words = webp([v[:1] for v in videos], fps, columns=2), "first frames of both videos"
    return f'<img alt="{words}" src="{data_uri(image)}">'


def _png(picture: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return data_uri(out.getvalue(), "png")
