"""Numbers inside their range, of another unit: the gate names value, row and setting."""

import numpy as np
import pandas as pd
import pytest
from gate_list import EF, ROWS, GoodList, failing

from echosyn.validation.scales import RULES, scale_table, tracing_scale


def found(values, source="table"):
    """What is said of a list with these columns, sure and likely."""
    values = pd.DataFrame(values)
    values.insert(0, "Line", np.arange(2, len(values) + 2))
    table = scale_table(values, source)
    return table[table["LooksLike"].notna()]


SIX = np.linspace(0.9, 1.1, 6)
WRONG = {
    "fractions": ({"EF": [0.5, 0.52, 0.55]}, "units: {ef: fraction}"),
    "one fraction among percent": ({"EF": [50.0, 0.61, 40]}, "from line 3"),
    "zero for none": ({"EF": [50.0, 0.0]}, "leave the cell empty"),
    "litres": ({"EDV": [0.09, 0.12, 0.2]}, "units: {esv: l, edv: l}"),
    "microlitres": ({"EDV": [90_000.0, 120_000]}, "units: {esv: ul, edv: ul}"),
    "milliseconds a frame": (
        {"FPS": [20.0, 33.3], "MeasuredFPS": [50.0, 30.0]}, "write frames a second"),
    "seconds a frame": ({"FPS": [0.02], "MeasuredFPS": [50.0]}, "write frames a second"),
    "a rate that nothing has": ({"FPS": [30_000.0], "MeasuredFPS": [30_000.0]}, "no frames"),
    "days": ({"Age": [3650.0, 400, 5000]}, "units: {age: days}"),
    "months": ({"Age": [216.0, 60, 140]}, "units: {age: months}"),
    "months of small children": (
        {"Age": 60 * SIX, "Height": 105 * SIX}, "units: {age: months}"),
    "metres": ({"Height": [1.5, 1.8]}, "units: {height: m}"),
    "millimetres": ({"Height": [1500.0, 1800]}, "units: {height: mm}"),
    "inches": ({"Height": 68 * SIX, "Age": [40.0] * 6}, "units: {height: in}"),
    "grams": ({"Weight": [3500.0, 70_000]}, "units: {weight: g}"),
    "pounds": ({"Weight": 176 * SIX, "Height": [175.0] * 6}, "units: {weight: lb}"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "words"), WRONG.values(), ids=WRONG)
def test_another_unit_is_named_with_value_row_and_setting(values, words):
    (says,) = found(values)["Says"]
    assert words in says
    column = next(iter(values))
    assert says.startswith(f"{column} ")
    assert "from line " in says


RIGHT = {
    "some low EFs": {"EF": [8.0, 12, 5.5, 60]},
    "a cohort of failing hearts": {"EF": [10.0, 12, 15, 9]},
    "preterm infants": {"EDV": [1.1, 2.5, 3], "ESV": [0.3, 0.8, 1], "Weight": [0.8, 1.2, 0.9]},
    "dilated hearts": {"EDV": [480.0, 510]},
    "slow and fast cines": {"FPS": [14.0, 50, 180], "MeasuredFPS": [14.0, 50, 180]},
    "a rounded rate": {"FPS": [30.0], "MeasuredFPS": [29.97]},
    "31.6 frames a second": {"FPS": [31.6], "MeasuredFPS": [31.7]},  # 1000 / FPS is FPS
    "the old": {"Age": [98.0, 101], "Weight": [45.0, 60], "Height": [150.0, 155]},
    "children": {"Age": 8 * SIX, "Weight": 25 * SIX, "Height": 125 * SIX},
    "short adults among tall ones": {"Age": [40.0] * 6, "Height": [128.0, 170, 165, 180, 175, 160]},
    "the heavy": {"Weight": [140.0, 95, 120, 88, 150, 101], "Height": 175 * SIX, "Age": 50 * SIX},
    "empty columns": {"EF": [np.nan] * 3, "Age": [np.nan] * 3, "EDV": [np.nan] * 3},
}


@pytest.mark.parametrize("values", RIGHT.values(), ids=RIGHT)
def test_right_units_are_left_alone(values):
    assert found(values).empty


def test_every_rule_is_tried():
    looks = {rule.looks for rule in RULES}
    assert looks == {each for values, _ in WRONG.values() for each in found(values)["LooksLike"]}


def test_the_remedy_is_that_of_the_source():
    values = {"EF": [0.5, 0.55]}
    assert found(values)["Says"].iloc[0] == (
        "EF 0.5 to 0.55 (2 of 2 rows, from line 2) look like fractions: set units: {ef: fraction} "
        "in the dataset's options"
    )
    assert "source: table with units: {ef: fraction}" in found(values, "echonet")["Says"].iloc[0]


@pytest.mark.slow
def test_the_gate_stops_on_what_is_sure_and_warns_of_what_is_likely():
    fractions = GoodList().all("EF", [f"{e / 100:g}" for e in EF]).judge("table")
    assert "units" in failing(fractions)
    assert fractions["units"].stops
    assert fractions["units"].examples[0].startswith("EF 0.4 to 0.68 (60 of 60 rows, from line 2)")
    inches = GoodList().all("Age", ["50"] * ROWS).all("Height", ["66"] * ROWS).judge("table")
    assert failing(inches) == {"units_likely"}
    assert inches["units_likely"].warns


@pytest.mark.parametrize(
    ("points", "looks"),
    [("0.2,0.9", "shares"), ("12.5,300", "pixels of a larger"), ("12.5,110", None)],
)
def test_tracings_are_in_pixels(tmp_path, points, looks):
    file = tmp_path / "VolumeTracings.csv"
    file.write_text(f"FileName,X1,Y1,X2,Y2,Frame\na.avi,{points},{points},7\n")
    (row,) = tracing_scale(file).itertuples()
    assert (looks in row.Says) if looks else row.LooksLike is None
    assert tracing_scale(tmp_path / "none.csv").empty
