"""The card's head, the data sheet and croissant.json: from the manifest, and readable by others."""

import json
import logging
import re
import sys

import mlcroissant
import pytest
import yaml
from absl.logging import get_absl_handler  # mlcroissant brings it
from huggingface_hub import DatasetCard, DatasetCardData
from small_project import METRICS, SYNTHETIC, make_project, released

from echosyn.data.filelist import COLUMNS, RELEASED, read_filelist, write_filelist
from echosyn.release import verify
from echosyn.release.card import card
from echosyn.release.croissant import SPLIT_KINDS, croissant
from echosyn.release.datasheet import Stated, column_meanings, datasheet
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json, sha256_file

# DVC closes all log handlers when it sets up its own, and this one closes what pytest captures.
get_absl_handler().python_handler.stream = sys.__stderr__

STATED = {
    "purpose": "to teach",
    "creators": ["Clinic A", "Clinic B"],
    "funding": "grant 7",
    "real_data": "one machine, 2019",
    "ethics": "approved under no. 1",
    "uses": "none yet",
    "maintainer": "the data office",
    "contact": "data@clinic.example",
    "updates": "yearly",
    "url": "https://clinic.example/data",
    "published": "2026-01-31",
    "citation": "Clinic A: Data, 2026",
}
RATES = {"HeartRate": [60.0, 72.5, 80, 90, 100, 75], "Phase": [0.9, 0, 0.1, 0.25, 0.5, 0.1]}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """With phases, a measured attack and all statements."""
    root = make_project(tmp_path_factory.mktemp("project"))
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["release"]["datasheet"] = STATED
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    samples = root / "samples/phantom"
    write_filelist(
        samples / "FileList.csv", read_filelist(samples / "FileList.csv").assign(**RATES)
    )
    provenance = {"params": {"scale": "smoke", "datasets": {}}, "lineage": {}}
    measured = {
        f"privacy/attribute_risk{end}": v for end, v in (("", 0.1), ("_lo", 0), ("_hi", 0.2))
    }
    released(root, provenance=provenance, metrics={**METRICS, **measured})
    return root / "releases/phantom"


@pytest.fixture
def made(release):
    return read_json(release / "manifest.json"), read_filelist(release / "FileList.csv")


def head(manifest, table):
    return DatasetCard(card(manifest, table)).data.to_dict()


# ---- the card


def test_the_hub_reads_the_head_of_the_card(release):
    read = DatasetCard.load(release / "README.md")
    assert isinstance(read.data, DatasetCardData)
    data = read.data.to_dict()
    assert data["license"] == "cc-by-4.0"
    assert data["pretty_name"] == "echosyn-phantom 1.2.0 (synthetic)"
    assert data["task_categories"] == ["video-classification"]
    assert {"synthetic", "echocardiography", "ejection-fraction"} <= set(data["tags"])
    assert data["size_categories"] == ["n<1K"]
    files = [f["path"] for c in data["configs"] for f in c["data_files"]]
    assert files == ["FileList.csv", "Phases.csv"]
    assert all((release / file).is_file() for file in files)
    assert read.text.lstrip().startswith("# echosyn-phantom 1.2.0")


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("CC0-1.0", {"license": "cc0-1.0"}),
        ("cc-by-nc-sa-4.0", {"license": "cc-by-nc-sa-4.0"}),
        ("ODbL-1.0", {"license": "odbl"}),
        ("ODC-By-1.0", {"license": "odc-by"}),
        ("CC-BY-1.0", {"license": "other", "license_name": "cc-by-1.0"}),
        ("Clinic's data use agreement, 2", {"license": "other",
                                            "license_name": "clinic-s-data-use-agreement-2"}),
    ],
)  # fmt: skip
def test_a_licence_has_the_hubs_name_or_is_another(license, expected, made):
    manifest, table = made
    data = head({**manifest, "license": license}, table)
    assert {k: v for k, v in data.items() if k.startswith("license")} == expected


@pytest.mark.parametrize(
    ("rows", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (9999, "1K<n<10K"), (10000, "10K<n<100K")]
)
def test_the_size_category_is_one_of_the_hubs(rows, size, made):
    manifest, table = made
    many = table.iloc[[i % len(table) for i in range(rows)]]
    assert head(manifest, many)["size_categories"] == [size]
    assert f"'{size}'" in DatasetCardData.__doc__


def test_a_release_without_labels_claims_no_task(made):
    manifest, table = made
    data = head(manifest, table.assign(EF=float("nan")))
    assert data["task_categories"] == ["other"]
    assert data["annotations_creators"] == ["no-annotation"]
    assert "ejection-fraction" not in data["tags"]


# ---- the data sheet


def test_the_data_sheet_says_what_people_stated(release):
    text = (release / "DATASHEET.md").read_text()
    assert "not stated" not in text
    for value in STATED.values():
        assert (value if isinstance(value, str) else ", ".join(value)) in text
    assert read_json(release / "manifest.json")["stated"] == STATED


def test_what_nobody_stated_is_not_made_up(made):
    manifest, table = made
    text = datasheet({**manifest, "stated": {"contact": "data@clinic.example"}}, table)
    assert "**How can they be contacted?** data@clinic.example" in text
    for question in ("Who funded it?", "Who created it, on behalf of whom?", "When?"):
        assert f"**{question}** not stated" in text
    for name, value in STATED.items():
        assert name in ("contact", "purpose", "creators", "uses") or value not in text


def test_the_data_sheet_has_the_parts_of_gebru_and_others(made):
    parts = re.findall(r"^## (.+)$", datasheet(*made), re.MULTILINE)
    assert parts == [
        "In brief, for regulators and ethics boards",
        "Motivation",
        "Composition",
        "Collection process",
        "Preprocessing, cleaning, labelling",
        "Uses",
        "Distribution",
        "Maintenance",
    ]


def test_the_documents_follow_from_the_manifest_and_the_list(release, made):
    assert datasheet(*made) == (release / "DATASHEET.md").read_text()
    assert card(*made) == (release / "README.md").read_text()
    assert croissant(release, *made) == read_json(release / "croissant.json")


def test_numbers_and_counts_are_those_of_the_manifest_and_the_list(made):
    text = datasheet(*made)
    assert "| R² of EF, trained on real videos | 0.97 (0.95 to 0.98) | what to reach |" in text
    assert "`kd_r3d_clip16_n6x6` | 14.2 | floor: real data = 3.5 |" in text
    assert "| Attribute risk | 0.1 (0 to 0.2) | 0 is none |" in text
    assert "| EF below 40 percent | 1 | 1 | 0 | 2 |" in text  # EF 30, 38, ... 70
    assert "| EF 55 percent and above | 0 | 1 | 1 | 2 |" in text
    assert "| EF below 40 percent: not measured | | |" in text
    assert "No synthetic video" not in text
    assert "2 TRAIN, 2 VAL, 2 TEST real videos of 6 patients" in text
    membership = text[text.index("**Membership disclosure") : text.index("**Reproduction")]
    assert "| not measured | | |" in membership
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in rows(text, "| risk |"))


def test_real_data_may_not_say_who_their_patients_are(made):
    """EchoNet-Dynamic's list and EchoNet-Pediatric's have no column for it."""
    manifest, table = made
    del manifest["real"]["patients"]
    assert "2 TRAIN, 2 VAL, 2 TEST real videos. Models were" in datasheet(manifest, table)


def test_a_band_without_a_video_is_named(made):
    manifest, table = made
    text = datasheet(manifest, table[table["EF"] >= 40])
    assert "**No synthetic video has an EF below 40 percent:**" in text
    assert "| EF below 40 percent | 0 | 0 | 0 | 0 |" in text


def rows(text, first):
    """The lines of the table that begins with such a line."""
    table = text[text.index(first) :].split("\n\n")[0]
    return table.splitlines()


def test_classes_are_counted_by_split(made):
    manifest, table = made
    text = datasheet(manifest, table.assign(Class=["PAH", "non-PAH"] * 3, EF=float("nan")))
    assert "| Class PAH | 1 | 1 | 1 | 3 |" in text
    assert "EF below 40" not in text
    assert "- `Class`: class that was asked" in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "clinic.example"}, "url: 'clinic.example' does not begin with https"),
        ({"published": "31.1.2026"}, "published: '31.1.2026' is not a date"),
        ({"contact": ""}, "contact: is empty"),
        ({"creators": ["A", ""]}, "creators: is empty"),
        ({"contacts": "x"}, "unknown setting 'contacts'; did you mean 'contact'"),
    ],
)
def test_statements_that_cannot_be_are_refused(settings, said):
    with pytest.raises(EchosynError, match=re.escape(said)):
        build(Stated, settings, "params.yaml: release.datasheet")


# ---- croissant.json


@pytest.fixture(scope="module")
def dataset(release):
    logging.getLogger("absl").setLevel(logging.ERROR)
    return mlcroissant.Dataset(jsonld=str(release / "croissant.json"))


def test_croissant_is_valid_without_a_warning(dataset):
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    assert dataset.metadata.ctx.conforms_to.value == "http://mlcommons.org/croissant/1.1"
    assert dataset.metadata.license == ["https://spdx.org/licenses/CC-BY-4.0"]
    assert any("synthetic" in kind for kind in dataset.metadata.data_collection_type)
    assert (
        "no video is a recording of a person" in dataset.metadata.personal_sensitive_information[0]
    )


@pytest.mark.parametrize("license", ["Clinic's terms", "LicenseRef-clinic", "MIT OR Apache-2.0"])
def test_a_licence_that_is_not_in_spdxs_list_has_no_address_there(license, release, made):
    manifest, table = made
    assert croissant(release, {**manifest, "license": license}, table)["license"] == license


def test_croissant_names_the_files_by_hash_and_every_column(release, dataset):
    files = {f.id: f.sha256 for f in dataset.metadata.file_objects}
    assert files == {n: sha256_file(release / n) for n in ("FileList.csv", "Phases.csv")}
    (videos,) = dataset.metadata.file_sets
    assert len(list(release.glob(videos.includes[0]))) == len(SYNTHETIC)
    fields = {s.id: [f.name for f in s.fields] for s in dataset.metadata.record_sets}
    assert fields["videos"] == list(read_filelist(release / "FileList.csv").columns)
    assert fields["phases"] == ["FileName", "Frame", "Phase"]


@pytest.mark.slow
def test_croissants_records_are_the_rows_of_the_release(release, dataset):
    table = read_filelist(release / "FileList.csv")
    records = list(dataset.records("videos"))
    assert [r["videos/FileName"].decode() for r in records] == list(table["FileName"])
    assert [r["videos/EF"] for r in records] == list(table["EF"])
    assert [r["videos/NumberOfFrames"] for r in records] == list(table["NumberOfFrames"])
    assert [r["videos/Split"].decode() for r in records] == list(table["Split"])
    assert len(list(dataset.records("phases"))) == table["NumberOfFrames"].sum()
    assert [r["splits/name"] for r in dataset.records("splits")] == list(SPLIT_KINDS)


def test_without_phases_and_statements_croissant_is_valid(tmp_path):
    root = make_project(tmp_path)
    released(root)
    release = root / "releases/phantom"
    assert verify(release) == []
    read = mlcroissant.Dataset(jsonld=str(release / "croissant.json"))
    assert not read.metadata.ctx.issues.errors
    assert {s.id for s in read.metadata.record_sets} == {"splits", "videos"}
    assert "url" not in json.loads((release / "croissant.json").read_text())


def test_every_column_that_a_release_may_have_has_a_meaning():
    meanings = column_meanings()
    assert set(meanings) == {*COLUMNS, *RELEASED, "Frame"}
    assert {kind for kind, _ in meanings.values()} == {"Text", "Float", "Integer"}
