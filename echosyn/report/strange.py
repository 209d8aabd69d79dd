"""What was refused as strange, for the report: in words, and the strangest with their maps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from echosyn.report.mosaic import Moving, moving
from echosyn.report.numbers import Number, collect, percent

ROOM = 700_000  # bytes of a picture
PAIRS = 2  # videos in a row, each with its map


def strange_section(
    strangest: Path | None, metrics: Mapping[str, float | str]
) -> dict[str, Any] | None:
    """`sentences` and `pictures` (title, caption, picture); None where nobody asked for a detector.

    Args:
        strangest: of `write_strangest`.
    """
    if strangest is None or not strangest.is_file():
        return None
    with np.load(strangest) as kept:
        found = {name: kept[name] for name in kept.files}
    refused = found["refused"].astype(bool)
    sides = (("Refused", refused), ("Kept", ~refused))
    pictures = [(t, _caption(t), _beside_maps(found, rows, t)) for t, rows in sides if rows.any()]
    return {"sentences": _sentences(metrics), "pictures": pictures}


def _caption(what: str) -> str:
    said = f"The strangest that were {what.lower()}, each beside its map: the brighter, the "
    return f"{said}likelier strange."


def _beside_maps(found: Mapping[str, np.ndarray], rows: np.ndarray, what: str) -> Moving:
    fps = float(found["fps"])
    pairs = zip(found["frames"][rows], found["maps"][rows], strict=True)
    tiles = [(clip, fps) for pair in pairs for clip in pair]
    seconds = found["frames"].shape[1] / fps
    return moving(
        tiles, fps, seconds, 2 * PAIRS, ROOM, f"{what.lower()} videos, each beside its map"
    )


def _sentences(metrics: Mapping[str, float | str]) -> list[str]:
    numbers = collect(metrics)

    def got(name: str) -> Number:
        return numbers[f"anomaly/{name}"]

    return [
        "A network learned on real training videos to find anomalies that were made in them, and "
        "was selected by kinds of anomaly that it did not learn. Its threshold is the score that "
        f"{percent(got('false_alarm_asked'))} of held-out real videos reach.",
        f"Of the synthetic videos that were sampled first, {percent(got('strange'))} reached it; "
        f"the strangest {percent(got('refused'))} were refused. Of real test videos, which set no "
        f"threshold, {percent(got('false_alarm'))} reach it.",
        "How well its score tells synthetic from real test videos, AUC (0.5: not at all): "
        f"{got('candidates_auroc')} as sampled, {got('released_auroc')} as released.",
    ]
