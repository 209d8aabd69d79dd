"""The whole graph at smoke size in a project of its own, run while tests of something else run.

python smoke_graph.py FOLDER [GUESTS.yaml]: `dvc repro` in FOLDER/project; then, in a copy of it, of
guests that are added to its params.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pydicom.examples
import yaml
from repro import ROOT, edit, environment, new_project

from echosyn.runtime import end_with_parent

CLIPS = ROOT.parent / "shared" / "real_echo"
ARMS = ["few_real_50_plus_synthetic", "synthetic_from_phantom"]
MARK = "The graph is made; now its guests"
NOT_COPIED = shutil.ignore_patterns(".echosyn", "mlruns")


class SmokeGraph:
    """One run of this file in the background; with real echocardiograms as guests, or without."""

    def __init__(self, folder, guests):
        self.project, self.guests_project = folder / "project", folder / "guests"
        self.project.mkdir()
        new_project(
            self.project,
            ef_arms={"phantom": {"start": "phantom", "arms": ARMS}},
            classify={"reduced_ef": {"dataset": "phantom", "ef_below": 50}},
            fingerprint={"phantom": {}},
            distill={"fast": {}},
        )
        command = [sys.executable, __file__, str(folder)]
        if guests:
            (folder / "guests.yaml").write_text(yaml.safe_dump(real_guests(folder / "dicom")))
            command.append(str(folder / "guests.yaml"))
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=Path(__file__).parent, env=environment(self.project), stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip

    def finished(self):
        """Wait for the graph; its project."""
        while self.process.poll() is None and MARK not in self.log.read_text():
            time.sleep(0.2)
        text = self.log.read_text()
        assert MARK in text, text[-6000:]
        return self.project

    def guests(self):
        """Wait for the guests; their project, and what `dvc repro` printed of them."""
        status = self.process.wait()
        text = self.log.read_text().partition(MARK)[2]
        assert status == 0, text[-6000:]
        return self.guests_project, text

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


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
        command, own = ["dvc", "repro", *targets], environment(project)
        subprocess.run(command, cwd=project, env=own, check=True, preexec_fn=end_with_parent)

    repro(folder / "project")
    print(MARK, flush=True)
    if guests:
        copy = shutil.copytree(folder / "project", folder / "guests", ignore=NOT_COPIED)
        params = yaml.safe_load((copy / "params.yaml").read_text())
        added = yaml.safe_load(Path(guests).read_text())
        for section in ("datasets", "animate"):
            params[section] |= {name: entry[section] for name, entry in added.items()}
        edit(copy / "params.yaml", **params)
        repro(copy, *(f"animate@{name}" for name in added))


if __name__ == "__main__":
    end_with_parent()
    main(Path(sys.argv[1]), *sys.argv[2:])
