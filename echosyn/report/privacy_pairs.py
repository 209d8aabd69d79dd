"""Accepted synthetic pictures and videos beside the real ones most like them."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from echosyn.report.mosaic import moving
from echosyn.report.privacy_evidence import Pair

LOCAL_ONLY = (
    "LOCAL ONLY. This page shows real patients. It may not leave the building and is not part of "
    "the release."
)
MOST_PAIRS = 20
ANIMATED = 2_200_000  # bytes of all animations together: 3 MB of page
SECONDS, FPS = 3.0, 16.0  # of an animation, at most


def shown_pairs(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """The most similar pairs, most similar first: `pair`, PNGs `synthetic` and `real`, and
    `videos` where whole ones were compared, else None."""
    shown = sorted(pairs, key=lambda p: -p.similarity)[:MOST_PAIRS]
    room = ANIMATED // max(1, sum(p.clips is not None for p in shown))
    return [
        {
            "pair": p,
            "synthetic": _png(p.synthetic),
            "real": _png(p.real),
            "videos": p.clips
            and moving(
                [(c.frames, c.fps) for c in p.clips],
                min(FPS, *(c.fps for c in p.clips)),
                SECONDS, 2, room, "both videos",
            ),
        }
        for p in shown
    ]  # fmt: skip


def _png(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()
