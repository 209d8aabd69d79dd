"""A list of 60 good rows and what was measured of its videos, without any file."""

import numpy as np
import pandas as pd

from echosyn.data.filelist import COLUMNS, OPTIONAL, Cells
from echosyn.validation import ValidateConfig
from echosyn.validation.engine import evaluate
from echosyn.validation.gate import dataset_checks
from echosyn.validation.suites import load_suite
from echosyn.validation.tables import join

ROWS = 60
SPLIT = ["TRAIN"] * 30 + ["VAL"] * 15 + ["TEST"] * 15
EF = [40.0 + 2 * (i % 15) for i in range(ROWS)]


class GoodList:
    """A FileList and what was measured of its videos, both good until a test changes a cell."""

    def __init__(self, optional=OPTIONAL):
        ef = EF
        self.text = pd.DataFrame(
            {
                "FileName": [f"0X{i:016X}" for i in range(ROWS)],
                "EF": [f"{e:g}" for e in ef],
                "ESV": [f"{100 - e:g}" for e in ef],
                "EDV": "100",
                "FrameHeight": "112",
                "FrameWidth": "112",
                "FPS": "50",
                "NumberOfFrames": "80",
                "Split": SPLIT,
                "Patient": [f"P{i:016X}" for i in range(ROWS)],
                "Class": ["PAH", "non-PAH"] * (ROWS // 2),
                "Sex": ["F", "M"] * (ROWS // 2),
                "Age": "11",
                "Weight": "30.5",
                "Height": "140",
                "EFAsked": [f"{e:g}" for e in ef],
                "EFMeasured": [f"{e + 1:g}" for e in ef],
                "EFKind": "asked",
                "EFTraced": "",
                "HeartRate": "82",
                "Phase": "0.25",
            }
        )[[*COLUMNS, *optional]]
        self.measured = pd.DataFrame(
            {
                "MeasuredFrameHeight": 112.0,
                "MeasuredFrameWidth": 112.0,
                "MeasuredFPS": 50.0,
                "MeasuredNumberOfFrames": 80.0,
                "Contrast": 200.0,
                "Motion": 4.0,
                "Sha256": [f"{i:064x}" for i in range(ROWS)],
                "VideoError": None,
                "Nearest": [np.nan] * 30 + [0.6] * 30,
                "NearestVideo": [None] * 30 + ["0X0000000000000003"] * 30,
                "NearestSplit": [None] * 30 + ["TRAIN"] * 30,
            }
        )
        self.measured["VideoError"] = self.measured["VideoError"].astype(object)
        self.fields = np.full(ROWS, len(self.text.columns))
        self.extra_files = []
        self.counts = {"TRAIN": 30, "VAL": 15, "TEST": 15}

    def set(self, row, **cells):
        """Change cells of the list, or of what was measured, by name of column."""
        for column, value in cells.items():
            where = self.text if column in self.text else self.measured
            assert column in where
            where.at[row, column] = value
        return self

    def all(self, column, values):
        self.text[column] = values
        return self

    def judge(self, source, label="ef", demands=None, **settings):
        """Outcome of each check by name."""
        lines = np.arange(2, ROWS + 2)
        cells = Cells(self.text, lines, self.fields)
        found = [f"{n}.avi" for n in self.text.get("FileName", [])] + self.extra_files
        config = ValidateConfig(**settings)
        tables = join(
            cells, self.measured, found, self.counts, config.drift_p, source, demands=demands
        )
        checks = dataset_checks(load_suite(source), tables, label, config)
        return {o.check.name: o for o in evaluate(checks, tables, None, f"test {source}")}


def failing(outcomes):
    return {name for name, o in outcomes.items() if not o.passed}
