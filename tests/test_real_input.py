"""Real echocardiograms with a params entry alone, through models that never saw one."""

import json
import shutil
from pathlib import Path

import pydicom.examples
import pytest
import yaml
from repro import ROOT, edit, run

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import read_video

pytestmark = pytest.mark.slow
CLIPS = ROOT.parent / "shared" / "real_echo"


def add_guest(project, name, entry, efs):
    params = yaml.safe_load((project / "params.yaml").read_text())
    edit(
        project / "params.yaml",
        datasets={**params["datasets"], name: entry},
        animate={**(params["animate"] or {}), name: {"models": "phantom", "ef": efs}},
    )
    _, text = run(project, "dvc", "repro", f"animate@{name}")
    assert "Running stage 'train" not in text, "a guest must not retrain anything"
    return json.loads((project / f"metrics/animate/{name}.json").read_text())


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the six real clips are not here")
def test_six_real_clips_are_encoded_animated_and_measured(project):
    entry = {"role": "guest", "source": "echonet", "path": str(CLIPS), "label": "ef"}
    numbers = add_guest(project, "real_echo", entry, [25, 70])
    gate = json.loads((project / "gates/raw/guest/real_echo.json").read_text())
    assert gate
    animated = read_filelist(project / "animated/real_echo/FileList.csv")
    assert len(animated) == 12
    assert sorted(animated["EF"].unique()) == [25, 70]
    for name, frames in zip(animated["FileName"], animated["NumberOfFrames"], strict=True):
        assert len(read_video(video_path(project / "animated/real_echo", name))[0]) == frames
    assert (project / "animated/real_echo/mosaic.webp").stat().st_size > 10_000
    for key in ("vae/psnr_db", "reid/auc", "ef/real/mae", "animate/self_similarity"):
        assert key in numbers
    assert 0 <= numbers["animate/identity_kept"] <= 1


def test_a_dicom_file_becomes_a_canonical_video_and_is_animated(project, tmp_path):
    source = tmp_path / "dicom"
    source.mkdir()
    shutil.copy(Path(pydicom.examples.get_path("ybr_color")), source / "cine.dcm")
    entry = {"role": "guest", "source": "dicom", "path": str(source), "label": "none"}
    numbers = add_guest(project, "hospital", entry, [40, 60])
    table = read_filelist(project / "data/guest/hospital/FileList.csv", label="none")
    (name,) = table["FileName"]
    frames, _ = read_video(video_path(project / "data/guest/hospital", name))
    assert frames.shape == (30, 112, 112)
    assert "cine" not in name
    assert "vae/psnr_db" in numbers
    assert "ef/real/mae" not in numbers
