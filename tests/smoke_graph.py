"""The whole graph at smoke size in a project of its own, run while tests of something else run.

python smoke_graph.py FOLDER [GUESTS.yaml]: `dvc repro` there, then of guests added to its params.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pydicom.examples
import yaml
from repro import ROOT, edit, environment, new_project

from echosyn.runtime import end_with_parent

CLIPS = ROOT.parent / "shared" / "real_echo"
ARMS = ["few_real_50_plus_synthetic", "synthetic_from_phantom"]
LATEST = 800  # seconds after which it counts as hanging
MARK = "The graph has ended; now the guests"
GUESTS_FAILED = 3


class SmokeGraph:
    """One run of this file in the background; with real echocardiograms as guests, or without."""

    def __init__(self, folder, guests):
        self.folder = folder / "project"
        self.folder.mkdir()
        new_project(
            self.folder,
            ef_arms={"phantom": {"start": "phantom", "arms": ARMS}},
            classify={"reduced_ef": {"dataset": "phantom", "ef_below": 50}},
            fingerprint={"phantom": {}},
            distill={"fast": {}},
        )
        command = [sys.executable, __file__, str(self.folder)]
        if guests:
            (folder / "guests.yaml").write_text(yaml.safe_dump(real_guests(folder / "dicom")))
            command.append(str(folder / "guests.yaml"))
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=Path(__file__).parent, env=environment(self.folder), stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip

    def end(self):
        """Wait for all of it: whether the guests ended well, and what was printed of them.

        The graph itself must have."""
        status = self.process.wait(LATEST)
        graph, _, guests = self.log.read_text().partition(MARK)
        assert status in (0, GUESTS_FAILED), graph[-6000:]
        return status == 0, guests

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
    def repro(*targets):
        command = ["dvc", "repro", *targets]
        return subprocess.run(command, cwd=folder, check=False, preexec_fn=end_with_parent)

    if repro().returncode:
        sys.exit(1)
    if guests:
        params = yaml.safe_load((folder / "params.yaml").read_text())
        added = yaml.safe_load(Path(guests).read_text())
        for section in ("datasets", "animate"):
            params[section] |= {name: entry[section] for name, entry in added.items()}
        edit(folder / "params.yaml", **params)
        print(MARK, flush=True)
        if repro(*(f"animate@{name}" for name in added)).returncode:
            sys.exit(GUESTS_FAILED)


if __name__ == "__main__":
    end_with_parent()
    main(Path(sys.argv[1]), *sys.argv[2:])
