"""What `dvc status` says after an edit: the stages that it concerns, and no other."""

from contextlib import chdir
from pathlib import Path

import pytest
from dvc.repo import Repo
from repro import new_project
from test_graph import EDITS

GUEST = {"role": "guest", "source": "echonet", "path": "clips", "label": "ef"}
PHANTOM = {"role": "train", "source": "phantom", "path": "data/raw/phantom", "label": "ef"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Every stage recorded as done, with a few bytes for each output."""
    root = new_project(
        tmp_path_factory.mktemp("status") / "project",
        datasets={"phantom": PHANTOM, "clips": GUEST},
        ef_arms={"phantom": {"start": "phantom", "arms": ["few_real_50"]}},
        classify={"reduced_ef": {"dataset": "phantom", "ef_below": 50}},
        canary={"phantom": {}},
        distill={"fast": {}},
        animate={"clips": {"models": "phantom"}},
    )
    (root / "clips").mkdir()
    with chdir(root):  # DVC's own functions take paths to begin there
        with Repo() as repo:
            for stage in repo.index.stages:
                for item in (*stage.outs, *stage.deps):
                    make(Path(item.fs_path))
            repo.commit(force=True)
        yield root


def make(path):
    """A file, or a folder with one: what exists is left."""
    path = path if path.suffix in (".csv", ".json") else path / "made"
    if not path.parent.is_file() and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"made": "{path.name}"}}')


def changed():
    """Stages that `dvc status` names, without what follows @."""
    with Repo() as repo:
        return {name.partition("@")[0] for name in repo.status()}


def test_an_edit_makes_dvc_status_name_those_stages_that_it_concerns(project):
    assert changed() == set()
    for file, stages in EDITS.items():
        text = (project / file).read_text()
        (project / file).write_text(text + "\n")
        assert changed() == set(stages.split()), file
        (project / file).write_text(text)
    assert changed() == set()
