"""What params say of a check: fail or warn, for all datasets or for one."""

import re
import shutil

import pytest
from echonet_layout import edit, make

from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json
from echosyn.validation import LatentsConfig, ValidateConfig, run_gate
from echosyn.validation.suites import load_suite, severities, suite_names

WHERE = "params.yaml: validate_raw"
SUITES = ["dataset", "echonet", "pediatric", "cardiacnet", "release"]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make(tmp_path_factory.mktemp("raw") / "data")


@pytest.fixture
def folder(template, tmp_path):
    shutil.copytree(template, tmp_path / "ds")
    edit(tmp_path / "ds", 5, "60.0", "62.0")
    return tmp_path / "ds"


def gate(folder, datasets=(), **severity):
    config = build(ValidateConfig, {"severity": severity}, WHERE)
    passed, docs = folder.parent / "ds.json", folder.parent / "docs"
    result = run_gate(
        "raw", folder, "ef", config, passed=passed, docs=docs, source="echonet", datasets=datasets
    )
    return result, passed


@pytest.mark.slow
def test_a_warning_does_not_stop_and_is_shown(folder):
    result, passed = gate(folder, ef_matches_volumes="warn")
    result.require()
    assert passed.is_file()
    assert [o.check.name for o in result.warned] == ["ef_matches_volumes"]
    numbers = result.metrics()
    assert numbers["gate/warnings"] == numbers["gate/warning/ef_matches_volumes"] == 1
    page = result.page.read_text()
    assert "Passed with 1 warning:" in page
    row = page[page.index("<code>ef_matches_volumes</code>") :]
    assert row.index("line 5, v3: EF 62") < row.index('<span class="mark warn">warning<')
    record = read_json(result.record)
    kept = {o["check"]["name"]: o for o in record["outcomes"]}["ef_matches_volumes"]
    assert kept["check"]["severity"] == "warn"
    assert kept["failing"] == 1


@pytest.mark.slow
def test_a_failure_stops(folder):
    result, passed = gate(folder)
    with pytest.raises(EchosynError, match=r"\[ef_matches_volumes\]: 1 of 4 fail"):
        result.require()
    assert not passed.exists()
    assert "Failed: 1 of" in result.page.read_text()
    assert not result.metrics()["gate/warnings"]


@pytest.mark.slow
def test_a_warning_can_be_made_to_stop(folder):
    shutil.copy(folder / "Videos" / "v0.avi", folder / "Videos" / "v1.avi")
    edit(folder, 3, ",5,", ",4,")
    edit(folder, 5, "62.0", "60.0")
    result, _ = gate(folder)
    result.require()
    assert [o.check.name for o in result.warned] == ["copies"]
    assert [o.check.name for o in gate(folder, copies="fail")[0].failed] == ["copies"]


@pytest.mark.slow
def test_one_dataset_may_differ(folder):
    result, _ = gate(folder, **{"ds/ef_matches_volumes": "warn", "other/ef_range": "warn"})
    result.require()
    result, _ = gate(folder, **{"ef_matches_volumes": "warn", "ds/ef_matches_volumes": "fail"})
    assert result.failed


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"ef_match_volumes": "warn"},
            "unknown check 'ef_match_volumes'; did you mean 'ef_matches",
        ),
        ({"ds/near_copy": "warn"}, "unknown check 'near_copy'; did you mean 'near_copies'"),
        ({"dss/near_copies": "warn"}, "unknown dataset 'dss'; did you mean 'ds'"),
        ({"qqq": "warn"}, "unknown check 'qqq'. Known: age_number"),
    ],
)
def test_unknown_names_are_refused_with_the_one_meant(folder, chosen, message):
    with pytest.raises(EchosynError, match=re.escape(f"{WHERE}: severity: {message}")):
        gate(folder, datasets=["ds", "other"], **chosen)
    assert not (folder.parent / "ds.json").exists()


@pytest.mark.parametrize("config", [ValidateConfig, LatentsConfig])
def test_a_severity_is_fail_or_warn(config):
    with pytest.raises(EchosynError, match=r"severity: 'off' is not one of fail, warn"):
        build(config, {"severity": {"ef_range": "off"}}, WHERE)


def test_impossible_limits_are_refused():
    with pytest.raises(EchosynError, match=r"class_share_lo 0\.6 is above class_share_hi 0\.5"):
        build(ValidateConfig, {"class_share_lo": 0.6, "class_share_hi": 0.5}, WHERE)
    with pytest.raises(EchosynError, match=r"sd_lo 3 is above sd_hi 1"):
        build(LatentsConfig, {"sd_lo": 3.0, "sd_hi": 1.0}, WHERE)


def test_a_check_of_another_source_may_be_named():
    """One section serves all datasets."""
    assert severities({"two_classes": "warn"}, "ds", SUITES, (), WHERE) == {"two_classes": "warn"}


@pytest.mark.slow
def test_suites_are_whole():
    """Each names real expectations, and severities of checks that it has."""
    import great_expectations as gx

    for name in suite_names():
        suite = load_suite(name)
        assert suite.title
        for check in suite.checks:
            assert hasattr(gx.expectations, check.expectation)
            assert check.severity in ("fail", "warn")
            assert re.fullmatch(r"[a-z_]+", check.name)
    assert {c.name: c.severity for c in load_suite("dataset").checks}["near_copies"] == "fail"
    assert {c.name: c.severity for c in load_suite("release").checks}["near_copies"] == "warn"
    assert {c.name: c.severity for c in load_suite("phantom").checks}["copies"] == "fail"


def test_an_unknown_suite_is_refused():
    with pytest.raises(EchosynError, match=r"no expectations for 'camu'.*known: camus, cardiacnet"):
        load_suite("camu")
