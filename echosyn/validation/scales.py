"""Numbers inside their range but in another unit: fractions, litres, months, metres, frame times.

A range cannot tell them: 0.55 is a percentage, 60 months an age. What gives them away is that no
heart or body has such a value, or not together with the others of its row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

LEAST_EDV, MOST_EDV = 0.7, 2000.0  # millilitres; of a heart, from a preterm infant's up
LEAST_FPS, MOST_FPS = 0.5, 2000.0
OLDEST = 130.0  # years
ADULT, TALL = 18.0, 130.0  # years; centimetres, which all but children are above
INCHES = 84.0  # that no adult is above, and centimetres that children of 18 months and more are
HEAVY_BMI, BMI = 45.0, (12.0, 40.0)  # kg/m2 that half of a cohort is not above; and usual ones
SIDE = 112  # pixels of a frame
LEAST_ROWS = 5  # from which rows together are likely of another unit
COLUMNS = ("Column", "LooksLike", "Sure", "Says")


@dataclass(frozen=True)
class Rule:
    """One way in which a column may be in another unit.

    find: of the table `values`, the rows that look so. option: what `units` of a table source
    would say, such as "ef: fraction"; "" where no setting mends it, and `remedy` does. sure:
    nothing alive has that value. Volumes are not, since some lists count them in pixels.
    """

    column: str
    looks: str
    find: Callable[[pd.DataFrame], pd.Series]
    option: str = ""
    remedy: str = ""
    sure: bool = True


def _frame_time(values: pd.DataFrame, unit: float) -> pd.Series:
    """FPS that is the time of a frame, in `unit` of a second, by the rate of the video itself."""
    product = values["FPS"] * values["MeasuredFPS"] / unit
    same = (values["FPS"] / values["MeasuredFPS"] - 1).abs() < 0.05
    return ((product - 1).abs() < 0.05) & ~same


def _bmi(values: pd.DataFrame) -> pd.Series:
    return values["Weight"] / (values["Height"] / 100) ** 2


def _most(rows: pd.Series, known: pd.Series) -> pd.Series:
    """The rows, where they are more than half of those known; none where they are few."""
    n = int(known.sum())
    return rows if n >= LEAST_ROWS and rows.sum() > n / 2 else rows & False


RULES = (
    Rule("EF", "fractions", lambda v: (v["EF"] > 0) & (v["EF"] <= 1), "ef: fraction"),
    Rule(
        "EF", "what was not measured", lambda v: v["EF"] == 0,
        remedy="leave the cell empty, or leave the row out",
    ),
    Rule(
        "EDV", "litres", lambda v: (v["EDV"] > 0) & (v["EDV"] < LEAST_EDV), "esv: l, edv: l",
        sure=False,
    ),
    Rule(
        "EDV", "microlitres", lambda v: v["EDV"] > MOST_EDV, "esv: ul, edv: ul", sure=False
    ),
    Rule(
        "FPS", "milliseconds a frame", lambda v: _frame_time(v, 1000.0),
        remedy="write frames a second",
    ),
    Rule(
        "FPS", "seconds a frame", lambda v: _frame_time(v, 1.0), remedy="write frames a second"
    ),
    Rule(
        "FPS", "no frames a second",
        lambda v: (
            (v["FPS"] > 0) & ~_frame_time(v, 1.0)
            & ((v["FPS"] <= LEAST_FPS) | (v["FPS"] >= MOST_FPS))
        ),
        remedy="write frames a second, in the list and in the header of the video",
    ),
    Rule("Age", "days", lambda v: v["Age"] > 12 * OLDEST, "age: days"),
    Rule(
        "Age", "months",
        lambda v: (v["Age"] > OLDEST) & ~(v["Age"] > 12 * OLDEST).any(), "age: months",
    ),
    Rule(
        "Age", "months",
        lambda v: _most(
            (v["Age"] > ADULT) & (v["Age"] <= OLDEST) & v["Height"].between(INCHES, TALL),
            v["Age"].notna() & v["Height"].notna(),
        ), "age: months", sure=False,
    ),
    Rule("Height", "metres", lambda v: (v["Height"] > 0) & (v["Height"] < 3), "height: m"),
    Rule("Height", "millimetres", lambda v: v["Height"] > 260, "height: mm"),
    Rule(
        "Height", "inches",
        lambda v: _most(
            (v["Age"] >= ADULT) & v["Height"].between(50, INCHES),
            (v["Age"] >= ADULT) & v["Height"].notna(),
        ), "height: in", sure=False,
    ),
    Rule("Weight", "grams", lambda v: v["Weight"] > 400, "weight: g"),
    Rule(
        "Weight", "pounds",
        lambda v: _most(
            (_bmi(v) > HEAVY_BMI) & (_bmi(v) * 0.4536).between(*BMI) & (v["Height"] > 100),
            _bmi(v).notna(),
        ), "weight: lb", sure=False,
    ),
)  # fmt: skip


def scale_table(values: pd.DataFrame, source: str) -> pd.DataFrame:
    """A row for each rule about columns that the list has: COLUMNS. LooksLike is None where no row
    looks so; Says is the whole of it for a person.

    Args:
        values: the table `values` of `echosyn.validation.tables`.
        source: of the dataset, whose setting the remedy names.
    """
    known = values.reindex(columns=[*values.columns, *_lacking(values)])
    rows = []
    for rule in RULES:
        if rule.column not in values:
            continue
        found = rule.find(known).fillna(False).astype(bool)
        numbers, says = values.loc[found, rule.column], rule.column
        if found.any():
            given = int(values[rule.column].notna().sum())
            says = (
                f"{rule.column} {numbers.min():.4g} to {numbers.max():.4g} ({len(numbers)} of "
                f"{given} rows, from line {values['Line'][found.idxmax()]}) look like "
                f"{rule.looks}: {_remedy(rule, source)}"
            )
        rows.append((rule.column, rule.looks if found.any() else None, rule.sure, says))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _lacking(values: pd.DataFrame) -> list[str]:
    needed = ("EF", "EDV", "FPS", "MeasuredFPS", "Age", "Weight", "Height")
    return [c for c in needed if c not in values]


def _remedy(rule: Rule, source: str) -> str:
    if not rule.option:
        return rule.remedy
    units = f"units: {{{rule.option}}}"
    if source == "table":
        return f"set {units} in the dataset's options"
    return f"correct the source's list, or read it as source: table with {units}"


def tracing_scale(file: Path) -> pd.DataFrame:
    """The same row of VolumeTracings.csv, whose coordinates are pixels of the video's frames; no
    row where there is no such file, or no coordinate in it."""
    none = pd.DataFrame([], columns=list(COLUMNS))
    if not file.is_file():
        return none
    try:
        table = pd.read_csv(file, encoding="utf-8-sig", on_bad_lines="skip", low_memory=False)
    except (ValueError, UnicodeDecodeError):  # the stage that reads it says so
        return none
    cells = [c for c in ("X", "Y", "X1", "Y1", "X2", "Y2") if c in table]
    points = table[cells].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    points = points[np.isfinite(points)]
    if not len(points):
        return none
    least, most = float(points.min()), float(points.max())
    looks = None
    if 0 < most <= 1.5:
        looks = "shares of the frame's side"
    elif most > 1.5 * SIDE:
        looks = "pixels of a larger frame"
    says = (
        f"{file.name}: coordinates {least:.4g} to {most:.4g} look like {looks}: write them in "
        f"pixels of the {SIDE}x{SIDE} frames"
    )
    return pd.DataFrame([("coordinates", looks, True, says)], columns=list(COLUMNS))
