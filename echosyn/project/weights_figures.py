"""Published figures of generators, or those of an earlier test, beside what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json

ISSUE = "quoted from the paper in EchoNet-Synthetic's issue 5"
SECOND = "second hand: a summary of the paper"
REAL_ALONE = ("_floor", "_real")  # endings of numbers that no generator changes
REFERENCE_EF = "ef/synthetic_reference"  # of the pipeline's own evaluation


@dataclass(frozen=True)
class Figure:
    """A number that somebody stated; `key` is that of the measured one."""

    name: str
    key: str
    value: float
    source: str


@dataclass(frozen=True)
class Compared:
    """A figure beside the number measured; verdict: "the same", "inside", "outside", "not
    comparable" or "not measured", why: what the last two are for."""

    name: str
    key: str
    published: float
    source: str
    verdict: str
    measured: float | None = None
    lo: float | None = None
    hi: float | None = None
    why: str = ""


# Read second hand, none in the paper itself. Only the generators of `dynamic` are published.
PUBLISHED = {
    "dynamic": (
        Figure("VAE, PSNR (dB)", "vae/psnr_db", 24.9, SECOND),
        Figure("VAE, SSIM", "vae/ssim", 0.78, SECOND),
        Figure("LIDM, FID, before the filter", "lidm/fid50k_full", 17.3, ISSUE),
        Figure("LIDM, IS, before the filter", "lidm/is50k", 2.42, ISSUE),
        Figure("LVDM, FID, 10,030 videos", "lvdm/fid50k_full", 28.8, ISSUE),
        Figure("LVDM, FVD16, 10,030 videos", "lvdm/fvd2048_16f", 103.5, ISSUE),
        Figure("LVDM, FVD128, 10,030 videos", "lvdm/fvd2048_128f", 280.2, ISSUE),
        Figure("LVDM, IS, 10,030 videos", "lvdm/is50k", 2.26, ISSUE),
        Figure("LVDM, FID, hearts of the LIDM", "lvdm/fid50k_full", 22.6, SECOND),
        Figure("LVDM, FID, real hearts", "lvdm_real_hearts/fid50k_full", 17.4, SECOND),
        Figure("EF R2, trained on synthetic", f"{REFERENCE_EF}/r2", 0.75, SECOND),
        Figure("EF MAE, trained on synthetic", f"{REFERENCE_EF}/mae", 4.55, SECOND),
    )
}


def figures_of(result: Path) -> tuple[tuple[Figure, ...], dict[str, Any], dict[str, str]]:
    """The numbers of an earlier test that have an interval and are not of real data alone, its
    protocol, and the sha256 of the files that it tested.

    Raises:
        EchosynError: no such file, or not one that a test wrote.
    """
    try:
        content = read_json(result)
        numbers, protocol, files = (content[k] for k in ("numbers", "protocol", "files"))
    except (OSError, ValueError, LookupError, TypeError) as e:
        raise EchosynError(
            f"{result}: not the result.json of an earlier `echosyn weights test`: {e!r}"
        ) from None
    source = str(result)
    stated = [k for k in numbers if f"{k}_lo" in numbers and not k.endswith(REAL_ALONE)]
    made = [Figure(k, k, numbers[k], source) for k in stated]
    return tuple(made), protocol, files


def compare(
    figures: Sequence[Figure], numbers: Mapping[str, float], differs: str, why: Mapping[str, str]
) -> list[Compared]:
    """Every figure beside the number of its key.

    Args:
        differs: how the videos were made otherwise than those of the figures; empty: they were not.
        why: by key, what a number needs that was not measured.
    """
    made = []
    for figure in figures:
        measured = numbers.get(figure.key)
        lo, hi = (numbers.get(f"{figure.key}_{end}") for end in ("lo", "hi"))
        if measured is None:
            verdict, reason = "not measured", why.get(figure.key, "")
        elif differs and figure.key.startswith(("lidm", "lvdm", "ef/requested")):
            verdict, reason = "not comparable", differs
        elif measured == figure.value:
            verdict, reason = "the same", ""
        elif lo is None or hi is None:
            verdict, reason = "not comparable", "too few items for an interval"
        else:
            verdict, reason = ("inside" if lo <= figure.value <= hi else "outside"), ""
        made.append(
            Compared(figure.name, figure.key, figure.value, figure.source, verdict, measured, lo,
                     hi, reason)
        )  # fmt: skip
    return made


def differences(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """In words, which settings of two protocols differ; empty: none."""
    keys = sorted(own.keys() | other.keys())
    return ", ".join(
        f"{k} {own.get(k)} (there {other.get(k)})" for k in keys if own.get(k) != other.get(k)
    )


def table(rows: Sequence[Compared]) -> str:
    """The comparison for a terminal; what was not measured comes last, with what it needs."""
    cells = [("figure", "stated", "measured", "95 % interval", "")]
    for r in rows:
        if r.measured is not None:
            ends = "" if r.lo is None or r.hi is None else f"{r.lo:.4g} to {r.hi:.4g}"
            cells.append((r.name, f"{r.published:.4g}", f"{r.measured:.4g}", ends, r.verdict))
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
             for row in cells]  # fmt: skip
    for r in rows:
        if r.verdict == "not measured":
            lines.append(f"not measured: {r.name} ({r.published:.4g}): {r.why}")
    for why in dict.fromkeys(r.why for r in rows if r.verdict == "not comparable"):
        lines.append(f"not comparable: {why}")
    return "\n".join(lines)
