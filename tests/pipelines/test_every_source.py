"""The whole graph for each kind of source, on small files of its very layout: each ends in a
release. The networks train for a step or two; what is tried is that every stage takes what the one
before it leaves, whatever the source labels.
"""

import json
import shutil

import pytest
import yaml
from repro import ROOT, edit
from repro_here import repro
from whole_sources import SOURCES

from echosyn.data.filelist import read_filelist
from echosyn.release import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEP = {"steps": 2, "checkpoint_every": 2}
# Smaller than conf/smoke: of its files, what is replaced.
CONF = {
    "train_vae": {"loop": {**STEP, "batch": 4, "lr": 1.0e-3, "warmup": 1, "ema": 0.9},
                  "validation_frames": 4, "standardise_frames": 8, "adversarial": None},
    "beats": {"loop": {**STEP, "batch": 4, "lr": 1.0e-3, "warmup": 1, "precision": "fp32"}},
    "train_segmentation": {"loop": {**STEP, "batch": 4, "lr": 1.0e-3, "warmup": 1}},
    "train_lidm": {"loop": {**STEP, "batch": 4, "lr": 1.0e-3, "ema": 0.9}},
    "train_lvdm": {"loop": {**STEP, "batch": 2, "lr": 1.0e-3, "ema": 0.9}},
    "train_reid": {"loop": {**STEP, "batch": 4, "lr": 1.0e-3}},
    "sample_hearts": {"hearts": 16, "steps": 1},
    "sample_videos": {"train": 4, "val": 2, "test": 2, "frames": 8, "steps": 1},
    "train_ef": {"loop": {**STEP, "batch": 2, "lr": 1.0e-3, "validate_every": 2, "select": "best"},
                 "test_clips": 1, "seeds": 1},
    "classify": {"loop": {**STEP, "batch": 2, "lr": 1.0e-3, "validate_every": 2, "select": "best"},
                 "test_clips": 1},
    "privacy_filter": {"calibration": {"false_rejection": 0.5}},
    "filter_videos": {"calibration": {"false_rejection": 0.5, "resamples": 100}},
    "privacy_audit": {"planted": {"copies": 2, "strengths": [0.5]}},
    "evaluate": {"test_clips": 1, "resamples": 100},
}  # fmt: skip
# The layouts draw one picture for several patients.
LIKE = {"near_copies": "warn", "copies_across_splits": "warn"}


ALWAYS = "cardiacnet_pah"  # `make sources` runs all of them, for minutes


def pytest_generate_tests(metafunc):
    some = SOURCES if metafunc.config.getoption("all_sources") else [ALWAYS]
    metafunc.parametrize("source", some)


@pytest.fixture
def project(tmp_path, source):
    """A project of that source alone, before its first stage."""
    root = tmp_path / "project"
    for name in ("conf/smoke", "weights", "detectors", "attribution", ".dvc"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("cache", "tmp"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    for name in ("echosyn", "pipelines"):  # dependencies in dvc.yaml
        (root / name).symlink_to(ROOT / name)
    for stage, values in CONF.items():
        edit(root / f"conf/smoke/{stage}.yaml", **values)
    entry = SOURCES[source](tmp_path / "raw")
    pah = {"dataset": source, "positive": "PAH", "negative": "non-PAH"}
    asked = yaml.safe_load((root / "params.yaml").read_text())
    edit(
        root / "params.yaml", scale="smoke", phantoms={}, generate=[source],
        datasets={source: {"role": "train", "path": str(tmp_path / "raw"), **entry}},
        validate_raw={**asked["validate_raw"], "severity": LIKE},
        sample_hearts={**asked["sample_hearts"], "match_moments": False},  # of 4 hearts: too few
        classify={"pah": pah} if entry["label"] == "class" else {},
    )  # fmt: skip
    (root / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    return root


def test_a_source_ends_in_a_release(project, source):
    label = yaml.safe_load((project / "params.yaml").read_text())["datasets"][source]["label"]
    repro(project, *[f"report@{source}", *(["classify@pah"] if label == "class" else [])])
    release = project / "releases" / source
    assert verify(release) == []
    made = read_filelist(release / "FileList.csv", label)
    assert made["Split"].value_counts().to_dict() == {"TRAIN": 4, "VAL": 2, "TEST": 2}
    assert made["EF"].notna().all() == (label == "ef")
    assert ("Class" in made) == (label == "class")
    real = read_filelist(project / f"data/train/{source}/FileList.csv", label)["FileName"]
    manifest = (release / "manifest.json").read_text()
    assert not [name for name in real if name in manifest]
    numbers = json.loads((project / f"metrics/evaluate/{source}.json").read_text())
    assert ("ef/synthetic/mae" in numbers) == (label == "ef")
    assert any(key.startswith("quality/kd_rand3d_16f_n") for key in numbers)
    assert (project / f"reports/{source}/index.html").is_file()
    if label == "class":
        numbers = json.loads((project / "metrics/classify/pah.json").read_text())
        assert numbers["classify/pah/patients"] == 6  # of VAL and TEST
        assert {f"classify/pah/{arm}/auc" for arm in ("real", "synthetic", "both")} <= set(numbers)
