"""Versions for people: the table of all of them, and one of them whole."""

from collections.abc import Mapping
from typing import Any

from echosyn.release.versions import Version
from echosyn.report.numbers import Number, collect, percent

HEAD = ("VERSION", "STAGE", "DATE", "VIDEOS", "EF R2 SYNTHETIC", "DISTANCE", "REFUSED")
# The distance that stands for the others, over all EFs; the first that was measured.
DISTANCES = ("quality/fvd", "quality/kd_motion", "quality/kd_")
REFUSED = {"hearts": "privacy/rejection_rate", "videos": "privacy_videos/rejection_rate"}


def listing(found: list[tuple[Version, Mapping[str, Any] | None]]) -> str:
    """A row per version; without a manifest, whose bytes are out of reach, '?' for its numbers."""
    rows = [HEAD]
    for version, manifest in found:
        known = _facts(manifest) if manifest else ("?",) * 4
        date = f"{version.published.when:%Y-%m-%d}"
        rows.append((str(version), version.stage or "-", date, *known))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _facts(manifest: Mapping[str, Any]) -> tuple[str, str, str, str]:
    numbers = collect(manifest["metrics"])
    refused = [
        f"{percent(Number(numbers[key].value))} of {what}"
        for what, key in REFUSED.items()
        if key in numbers
    ]
    r2 = numbers.get("ef/synthetic/r2")
    return f"{manifest['videos']:,}", str(r2 or "-"), _distance(numbers), ", ".join(refused) or "-"


def _distance(numbers: Mapping[str, Number]) -> str:
    """Its name and value; '-' where none was measured."""
    for start in DISTANCES:
        for key, number in numbers.items():
            if key.startswith(start) and "_ef_" not in key:
                return f"{key.removeprefix('quality/')} {number}"
    return "-"


def described(version: Version, manifest: Mapping[str, Any]) -> str:
    """The head of the manifest, the stage, every number with its interval, and the lineage."""
    lineage = manifest["lineage"]
    lines = [
        f"{version}: {manifest['name']}, {manifest['videos']:,} synthetic videos, "
        f"{manifest['license']}",
        f"published: {version.published.when:%Y-%m-%d %H:%M} by {version.published.who}",
        f"stage: {version.standing}",
        f"made by: {manifest['generator']}, scale {manifest['params'].get('scale')}, manifest of "
        f"schema {manifest['schema']}",
        "",
        "numbers, in brackets 95% intervals:",
        *(f"  {key}  {number}" for key, number in collect(manifest["metrics"]).items()),
    ]
    for group in ("data", "models"):
        lines += ["", f"{group}, by md5:"]
        lines += [f"  {md5.removesuffix('.dir')}  {path}" for path, md5 in lineage[group].items()]
    lines += ["", f"code: {len(lineage['code'])} files, in manifest.json"]
    return "\n".join(lines)
