"""A project of its own in a temporary folder, run as a user runs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from echosyn.project.prefork import asking

ROOT = Path(__file__).parents[2]
# Real clips in EchoNet layout, kept beside the project where they may be used.
CLIPS = ROOT.parent / "shared" / "real_echo"


def environment(project, warm=None):
    """warm: the folder of a prefork, which starts stages; else each imports for itself."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    git = {f"GIT_{role}_{k}": "test" for role in ("AUTHOR", "COMMITTER") for k in ("NAME", "EMAIL")}
    own = {
        "PATH": path,
        "PYTHONPATH": str(project),
        "ECHOSYN_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
    }
    # What is compiled once serves all stages of a project.
    dropped = ("MLFLOW_TRACKING_URI", "DVC_ROOT", "PYTHONDONTWRITEBYTECODE")
    made = {**{k: v for k, v in os.environ.items() if k not in dropped}, **git, **own}
    return made | (asking(warm, path) if warm else {})


def run(project, *command, ok=True, warm=None):
    done = subprocess.run(
        command, cwd=project, env=environment(project, warm), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    text = done.stdout + done.stderr
    assert not ok or done.returncode == 0, text[-6000:]
    return done.returncode, text


def new_project(folder, **params):
    """The tracked sources in a repository of their own, with some params replaced."""
    folders = ("conf", "echosyn", "pipelines", "weights", "detectors", "attribution", ".dvc")
    for name in folders:
        ignore = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    edit(folder / "params.yaml", scale="smoke", **params)
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "-m", "start")
    return folder


def edit(path, **values):
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}, sort_keys=False))


def lock(project):
    """Outputs and their hashes; but for the loss curves, which hold seconds."""
    stages = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    outs = {out["path"]: out["md5"] for s in stages.values() for out in s.get("outs", [])}
    return {path: md5 for path, md5 in outs.items() if not path.startswith("curves/")}
