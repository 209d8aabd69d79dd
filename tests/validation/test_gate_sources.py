"""What each adapter makes of a source in its own shape passes that source's suite."""

import re
from pathlib import Path

import pytest
import source_layouts
from dicom_files import tissue, write_dicom
from echonet_layout import make

from echosyn.data.ingest import ingest
from echosyn.validation import ValidateConfig, run_gate
from echosyn.validation.suites import load_suite, suite_names

DOC = Path(__file__).parents[2] / "docs" / "gate.md"
# The layouts draw one picture for several patients, as real sources do not.
LIKE = {"near_copies": "warn", "copies_across_splits": "warn"}


def dicom(folder):
    folder.mkdir(parents=True)
    for i in range(3):
        write_dicom(folder / f"SMITH_{i}.dcm", tissue(i))
    return folder


SOURCES = {
    "echonet": (make, "ef", {}),
    "pediatric": (
        lambda folder: source_layouts.pediatric(folder, range(10)),
        "ef",
        {"view": "A4C"},
    ),
    "cardiacnet": (source_layouts.cardiacnet, "class", {}),
    "camus": (source_layouts.camus, "ef", {}),
    "dicom": (dicom, "none", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_an_ingested_source_passes_its_gate(tmp_path, source):
    layout, label, options = SOURCES[source]
    raw = layout(tmp_path / "raw")
    ingest(source, raw, tmp_path / "ds", label, options)
    result = run_gate(
        "raw",
        tmp_path / "ds",
        label,
        ValidateConfig(severity=LIKE),
        passed=tmp_path / "ds.json",
        docs=tmp_path / "docs",
        source=source,
    )
    result.require()
    assert {o.check.name for o in result.warned} <= {*LIKE, "copies"}
    judged = {o.check.name for o in result.outcomes}
    own = {c.name for c in load_suite(source).checks} - {
        c.name for c in load_suite("dataset").checks
    }
    assert own - judged <= {"pseudonym_patients"}  # without a key there is no Patient


def test_the_manual_names_every_check_with_its_severity():
    text = DOC.read_text()
    for name in suite_names():
        for check in load_suite(name).checks:
            rows = [r for r in text.splitlines() if r.startswith("|") and f"`{check.name}`" in r]
            assert rows, check.name
            said = {re.search(r"\| (fail|warn) \|$", r).group(1) for r in rows}
            assert check.severity in said, (name, check.name)
