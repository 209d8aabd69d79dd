"""The whole graph at smoke size in a project of its own, run while tests of something else run.

python smoke_graph.py FOLDER [GUESTS.yaml]: `dvc repro` in FOLDER/project; then, in a copy of it, of
guests that are added to its params. One process starts it; any number may wait for it. Its stages
are forked from one process that has imported: see echosyn.project.prefork.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pydicom.examples
import yaml
from repro import ROOT, edit, environment, new_project

from echosyn.runtime.files import write_text
from echosyn.runtime.process import end_with_parent

CLIPS = ROOT.parent / "shared" / "real_echo"
ARMS = ["few_real_50_plus_synthetic", "synthetic_from_phantom"]
MADE, GUESTS_MADE = "The graph is made; now its guests", "The guests are made"
NOT_COPIED = shutil.ignore_patterns(".echosyn", "mlruns")


def start(folder, guests, warm):
    """Run this file in the background; with real echocardiograms as guests, or without."""
    project = folder / "project"
    project.mkdir(parents=True)
    new_project(
        project,
        ef_arms={"phantom": {"start": "phantom", "arms": ARMS}},
        classify={"reduced_ef": {"dataset": "phantom", "ef_below": 50}},
        canary={"phantom": {}},
        anomaly={"phantom": {}},
        distill={"fast": {}},
    )
    command = [sys.executable, __file__, str(folder)]
    if guests:
        (folder / "guests.yaml").write_text(yaml.safe_dump(real_guests(folder / "dicom")))
        command.append(str(folder / "guests.yaml"))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parent, env=environment(project, warm),
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    write_text(folder / "pid", str(process.pid))
    return process


def stop(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class SmokeGraph:
    """The run that is at work in `folder`, or will be."""

    def __init__(self, folder):
        self.folder = folder

    def finished(self):
        """Wait for the graph; its project."""
        self._wait_for(MADE)
        return self.folder / "project"

    def guests(self):
        """Wait for the guests; their project, and what `dvc repro` printed of them."""
        text = self._wait_for(GUESTS_MADE)
        return self.folder / "guests", text.partition(MADE)[2]

    def _wait_for(self, words):
        while not (self.folder / "pid").exists():
            time.sleep(0.2)
        process = int((self.folder / "pid").read_text())
        while True:
            over = ended(process)
            text = (self.folder / "log").read_text()
            if words in text:
                return text
            assert not over, text[-6000:]
            time.sleep(0.2)


def ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def real_guests(folder):
    """What a user adds to params.yaml, by name: entries of `datasets` and of `animate`."""
    folder.mkdir()
    shutil.copy(Path(pydicom.examples.get_path("ybr_color")), folder / "cine.dcm")
    dicom = {"role": "guest", "source": "dicom", "path": str(folder), "label": "none"}
    wish = {"models": "phantom", "ef": [40, 60], "counterfactual": True}
    found = {"hospital": (dicom, wish)}
    if CLIPS.is_dir():
        clips = {"role": "guest", "source": "echonet", "path": str(CLIPS), "label": "ef"}
        found["real_echo"] = (clips, {"models": "phantom", "ef": [25, 70]})
    return {n: {"datasets": entry, "animate": wish} for n, (entry, wish) in found.items()}


def main(folder, guests=None):
    def repro(project, *targets):
        command, own = ["dvc", "repro", *targets], {**os.environ, "PYTHONPATH": str(project)}
        subprocess.run(command, cwd=project, env=own, check=True, preexec_fn=end_with_parent)

    repro(folder / "project")
    copy = shutil.copytree(folder / "project", folder / "guests", ignore=NOT_COPIED)
    print(MADE, flush=True)
    if guests:
        params = yaml.safe_load((copy / "params.yaml").read_text())
        added = yaml.safe_load(Path(guests).read_text())
        for section in ("datasets", "animate"):
            params[section] |= {name: entry[section] for name, entry in added.items()}
        edit(copy / "params.yaml", **params)
        repro(copy, *(f"animate@{name}" for name in added))
        print(GUESTS_MADE, flush=True)


if __name__ == "__main__":
    end_with_parent()
    main(Path(sys.argv[1]), *sys.argv[2:])
