"""A small project whose release DVC keeps, and what two people do with its versions."""

import shutil
from contextlib import chdir
from pathlib import Path

import yaml
from repro import ROOT, edit, run
from small_project import METRICS, make_project

from echosyn.release.build import ReleaseConfig, build_release
from echosyn.release.provenance import provenance
from echosyn.release.sign import signing_key
from echosyn.runtime.config import Params

STAGE = {
    "cmd": "false",  # `build` makes it
    "deps": ["samples/${item}"],
    "params": ["release"],
    "outs": ["releases/${item}"],
}


def git(folder, *command):
    return run(folder, "git", *command)[1].strip()


def start(folder: Path) -> Path:
    """A project before its first version: git, DVC, and a remote in a folder beside it."""
    from dvc.repo import Repo

    make_project(folder)
    edit(folder / "params.yaml", generate=["phantom"])
    artifacts = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]
    stages = {"release": {"foreach": "${generate}", "do": STAGE}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages, "artifacts": artifacts}))
    shutil.copy(ROOT / ".gitignore", folder)
    git(folder, "init", "-q", "-b", "main")
    Repo.init(str(folder)).close()
    remote = f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {folder}-storage\n"
    (folder / ".dvc/config").write_text(remote)
    return folder


def build(folder: Path, version: str, **metrics: float) -> None:
    """releases/phantom of that version, committed to DVC and git, not pushed; signed as the stage
    would."""
    from dvc.repo import Repo

    edit(folder / "params.yaml", release={"version": version, "license": "CC-BY-4.0"})
    out = folder / "releases/phantom"
    params = Params(folder)
    build_release(
        folder / "samples/phantom",
        folder / "data/train/phantom",
        out,
        config=params.stage("release", ReleaseConfig),
        name="echosyn-phantom",
        label="ef",
        provenance=provenance(folder, "phantom"),
        metrics={**METRICS, **metrics},
        key=signing_key(),
    )
    with chdir(folder), Repo() as repo:
        repo.commit("release@phantom", force=True)
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", version)


def push(folder: Path) -> None:
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        repo.push()
