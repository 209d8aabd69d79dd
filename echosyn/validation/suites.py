"""What a FileList and its videos must satisfy, as data: one Check per expectation."""

from dataclasses import dataclass, field
from typing import Any

from echosyn.data.filelist import COLUMNS, OPTIONAL, PATIENT, SAFE_NAME, SPLITS, VOLUMES
from echosyn.validation.tables import MEASURED, Tables

NUMBER = r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*"
COUNT = r"\s*0*[1-9]\d*(?:\.0*)?\s*"
BOTH = {"ignore_row_if": "either_value_is_missing"}


@dataclass(frozen=True)
class Check:
    """One expectation on one table of `Tables`.

    title: what must hold, in words. expectation: Great Expectations' class. shows: columns whose
    values say what is wrong with a row.
    """

    table: str
    title: str
    expectation: str
    arguments: dict[str, Any] = field(default_factory=dict)
    shows: tuple[str, ...] = ()


def suite(
    tables: Tables, gate: str, label: str, ef_tolerance: float, fps_tolerance: float
) -> list[Check]:
    """The checks of a gate.

    Args:
        gate: "raw", or "release" for synthetic videos, which have an EF but no volumes.
        label: "ef" when every video must have an EF, "none" when it may be empty.
        ef_tolerance: percent points that EF may differ from (EDV - ESV) / EDV.
        fps_tolerance: frames per second that FPS may differ from the file's.

    Checks of a column that the list lacks are left out: the check of the columns fails then.
    """
    checks = [*_text(tables, gate, label), *_numbers(ef_tolerance), *_videos(fps_tolerance)]
    if PATIENT in tables.text:
        checks.append(
            Check("values", "no patient is in two splits", "ExpectColumnValuesToBeInSet",
                  {"column": "PatientSplits", "value_set": [1]}, (PATIENT, "Split"))
        )  # fmt: skip
    if tables.splits["Expected"].notna().any():
        checks.append(
            Check("splits", "each split has the expected number of rows",
                  "ExpectColumnPairValuesToBeEqual",
                  {"column_A": "Rows", "column_B": "Expected", **BOTH}, ("Rows", "Expected"))
        )  # fmt: skip
    return [c for c in checks if _has_columns(c, tables)]


def _has_columns(check: Check, tables: Tables) -> bool:
    named = {check.arguments.get(k) for k in ("column", "column_A", "column_B")} - {None}
    present = set(tables.text) if check.table in ("text", "values") else None
    return present is None or not (named & set(COLUMNS)) - present


def _text(tables: Tables, gate: str, label: str) -> list[Check]:
    columns = [*COLUMNS, *(name for name in OPTIONAL if name in tables.text)]
    optional = {"EF", *VOLUMES} if label == "none" else set(VOLUMES) if gate == "release" else set()

    def matches(column: str, pattern: str, title: str) -> Check:
        regex = rf"\A(?:{pattern})\Z"
        arguments = {"column": column, "regex": regex}
        return Check("text", title, "ExpectColumnValuesToMatchRegex", arguments, (column,))

    checks = [
        Check("text", "the columns are EchoNet's, in order", "ExpectTableColumnsToMatchOrderedList",
              {"column_list": columns}),
        Check("values", "every row has as many fields as the header", "ExpectColumnValuesToBeInSet",
              {"column": "Fields", "value_set": [len(tables.text.columns)]}, ("Fields",)),
        matches("FileName", SAFE_NAME.pattern, "FileName is a plain file name"),
        Check("values", "no two rows name the same video", "ExpectColumnValuesToBeUnique",
              {"column": "Name"}, ("FileName",)),
        Check("text", f"Split is one of {', '.join(SPLITS)}", "ExpectColumnValuesToBeInSet",
              {"column": "Split", "value_set": list(SPLITS)}, ("Split",)),
    ]  # fmt: skip
    for column in ("EF", *VOLUMES, "FPS"):
        empty = column in optional
        title = f"{column} is a number" + (" or empty" if empty else "")
        checks.append(matches(column, f"(?:{NUMBER})?" if empty else NUMBER, title))
    for column in ("FrameHeight", "FrameWidth", "NumberOfFrames"):
        checks.append(matches(column, COUNT, f"{column} is a whole number of 1 or more"))
    return checks


def _numbers(ef_tolerance: float) -> list[Check]:
    return [
        Check("values", "EF lies in 0-100 percent", "ExpectColumnValuesToBeBetween",
              {"column": "EF", "min_value": 0, "max_value": 100}, ("EF",)),
        Check("values", "EDV is above 0", "ExpectColumnValuesToBeBetween",
              {"column": "EDV", "min_value": 0, "strict_min": True}, ("EDV",)),
        Check("values", "ESV is 0 or more", "ExpectColumnValuesToBeBetween",
              {"column": "ESV", "min_value": 0}, ("ESV",)),
        Check("values", "ESV is below EDV", "ExpectColumnPairValuesAToBeGreaterThanB",
              {"column_A": "EDV", "column_B": "ESV", **BOTH}, ("ESV", "EDV")),
        Check("values", f"EF is (EDV - ESV) / EDV within {ef_tolerance:g} percent points",
              "ExpectColumnValuesToBeBetween",
              {"column": "EFDifference", "max_value": ef_tolerance},
              ("EF", "EFFromVolumes", "ESV", "EDV")),
        Check("values", "FPS is above 0", "ExpectColumnValuesToBeBetween",
              {"column": "FPS", "min_value": 0, "strict_min": True}, ("FPS",)),
    ]  # fmt: skip


def _videos(fps_tolerance: float) -> list[Check]:
    checks = [
        Check("values", "every listed video can be read to its end", "ExpectColumnValuesToBeNull",
              {"column": "VideoError"}, ("VideoError",)),
        Check("files", "every file in Videos/ is listed", "ExpectColumnValuesToBeInSet",
              {"column": "Listed", "value_set": [True]}),
        Check("values", "no video is in two splits, byte for byte", "ExpectColumnValuesToBeInSet",
              {"column": "CopySplits", "value_set": [1]}, ("Split", "SameBytesAs")),
    ]  # fmt: skip
    for column in ("FrameHeight", "FrameWidth", "NumberOfFrames"):
        both = {"column_A": column, "column_B": MEASURED[column], **BOTH}
        checks.append(
            Check("values", f"{column} is the video's", "ExpectColumnPairValuesToBeEqual", both,
                  (column, MEASURED[column]))
        )  # fmt: skip
    checks.append(
        Check("values", f"FPS is the video's within {fps_tolerance:g}",
              "ExpectColumnValuesToBeBetween",
              {"column": "FPSDifference", "max_value": fps_tolerance},
              ("FPS", "MeasuredFPS"))
    )  # fmt: skip
    return checks
