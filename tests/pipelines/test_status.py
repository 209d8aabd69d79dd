"""What `dvc status` says after edits: the stages that each concerns, and no other."""

import json
from contextlib import chdir
from pathlib import Path

import pytest
from dvc.repo import Repo
from dvc.stage.serialize import to_lockfile
from repro import new_project
from test_graph import EDITS

PHANTOM = {"role": "train", "source": "phantom", "path": "data/raw/phantom", "label": "ef"}
GUEST = {"role": "guest", "source": "echonet", "path": "clips", "label": "ef"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Every stage recorded as done, with a few bytes for each input and output."""
    root = new_project(
        tmp_path_factory.mktemp("status") / "project",
        datasets={"phantom": PHANTOM, "clips": GUEST},
        ef_arms={"phantom": {"start": "phantom", "arms": ["few_real_50"]}},
        classify={"reduced_ef": {"dataset": "phantom", "ef_below": 50}},
        canary={"phantom": {}},
        anomaly={"phantom": {}},
        attribution={"lvdm": {"dataset": "phantom", "model": "lvdm"}},
        weak_segmentation={"phantom": {}},
        distill={"fast": {}},
        animate={"clips": {"models": "phantom"}},
    )
    with chdir(root):  # where DVC's own functions let paths begin
        with Repo() as repo:
            stages = repo.index.stages
            for item in (i for stage in stages for i in (*stage.outs, *stage.deps)):
                make(Path(item.fs_path))
            with repo.lock:
                for stage in stages:
                    stage.save()
                    stage.commit()
            made = {name: entry for s in stages for name, entry in to_lockfile(s).items()}
        Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": made}))
        yield root


def make(path):
    """A file, or a folder that holds one; what is there is left as it is."""
    if not path.exists():
        path = path if path.suffix in (".csv", ".json") else path / "made"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"made": "{path.parent}"}}')


def changed():
    """Dependencies, with the stages (without what follows @) that `dvc status` names for each."""
    found = {}
    with Repo() as repo:
        for stage, problems in repo.status().items():
            for path in problems[0]["changed deps"]:
                found.setdefault(path, set()).add(stage.partition("@")[0])
    return found


def test_an_edit_makes_dvc_status_name_those_stages_that_it_concerns(project):
    assert changed() == {}
    before = {file: (project / file).read_text() for file in EDITS}
    for file, text in before.items():
        (project / file).write_text(text + "\n")
    named = changed()
    for file, stages in EDITS.items():
        by_file = [s for dep, s in named.items() if f"{file}/".startswith(f"{dep}/")]
        assert set().union(*by_file) == set(stages.split()), file
    assert {d for d in named if not any(f"{f}/".startswith(f"{d}/") for f in EDITS)} == set()
    for file, text in before.items():
        (project / file).write_text(text)


def test_other_published_weights_make_dvc_status_name_the_stage_that_takes_them(project):
    (project / "weights/lidm/phantom").mkdir()
    (project / "weights/lidm/phantom/config.json").write_text("{}")
    assert changed() == {"weights/lidm": {"train_lidm"}}
