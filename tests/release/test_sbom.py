"""The bill of materials of a release: CycloneDX 1.6, of what is installed, the same each time."""

import sys
from importlib import metadata

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from small_project import make_project, released

from echosyn import __version__
from echosyn.release.sbom import sbom
from echosyn.runtime.files import read_json


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package of a local version, with a requirement that nobody can read and one that is."""

    def add(version, *more):
        folder = tmp_path / "site" / "odd_one.dist-info"
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["Metadata-Version: 2.1", "Name: Odd_One", f"Version: {version}", *more, ""]
        (folder / "METADATA").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(tmp_path / "site")

    return add


def component(bom, name):
    (found,) = [c for c in bom["components"] if c["name"] == name]
    return found


def test_it_is_valid_by_the_official_schema(tmp_path):
    released(make_project(tmp_path))
    text = (tmp_path / "releases/phantom/sbom.cdx.json").read_text()
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"library"', '"book"', 1)) is not None


def test_it_lists_what_is_installed_and_what_needs_what():
    bom = sbom()
    assert bom["metadata"]["component"]["version"] == __version__
    assert component(bom, "pandas")["version"] == metadata.version("pandas")
    assert component(bom, "CPython")["version"] == ".".join(map(str, sys.version_info[:3]))
    needs = {d["ref"]: d["dependsOn"] for d in bom["dependencies"]}
    numpy, pandas = component(bom, "numpy")["purl"], component(bom, "pandas")["purl"]
    assert numpy in needs[pandas]
    assert {*needs[bom["metadata"]["component"]["bom-ref"]]} == {
        c["bom-ref"] for c in bom["components"]
    }


def test_the_same_environment_gives_the_same_and_another_a_new_serial_number(installed):
    before = sbom()
    assert before == sbom()
    installed("1.0")
    assert sbom()["serialNumber"] != before["serialNumber"]


def test_what_is_odd_about_a_package_is_taken_as_it_is(installed):
    installed(
        "1.0+cpu.2", "Requires-Dist: what (>dev ever", "Requires-Dist: numpy; extra == 'more'",
        "Requires-Dist: pandas", "Classifier: License :: OSI Approved",
        "Classifier: License :: OSI Approved :: MIT License",
    )  # fmt: skip
    bom = sbom()
    odd = component(bom, "Odd_One")
    assert odd["purl"] == "pkg:pypi/odd-one@1.0%2Bcpu.2"
    assert [entry["license"]["name"] for entry in odd["licenses"]] == ["MIT License"]
    (needs,) = [d["dependsOn"] for d in bom["dependencies"] if d["ref"] == odd["bom-ref"]]
    assert needs == [component(bom, "pandas")["purl"]]


def test_it_holds_no_time(tmp_path):
    root = make_project(tmp_path)
    released(root)
    bom = read_json(root / "releases/phantom/sbom.cdx.json")
    assert "timestamp" not in bom["metadata"]
