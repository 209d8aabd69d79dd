"""Real echocardiograms with a params entry alone, through models that never saw one."""

import json

import pytest
from smoke_graph import CLIPS

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import read_video

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # waits for the whole graph


def numbers(project, name):
    return json.loads((project / f"metrics/animate/{name}.json").read_text())


def test_a_guest_retrains_nothing(guests):
    _, text = guests
    assert "Running stage 'animate@hospital'" in text
    assert "Running stage 'train" not in text


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the six real clips are not here")
def test_six_real_clips_are_encoded_animated_and_measured(guests):
    project, _ = guests
    gate = json.loads((project / "gates/raw/guest/real_echo.json").read_text())
    assert gate
    animated = read_filelist(project / "animated/real_echo/FileList.csv")
    assert len(animated) == 12
    assert sorted(animated["EF"].unique()) == [25, 70]
    for name, frames in zip(animated["FileName"], animated["NumberOfFrames"], strict=True):
        assert len(read_video(video_path(project / "animated/real_echo", name))[0]) == frames
    assert (project / "animated/real_echo/mosaic.webp").stat().st_size > 10_000
    found = numbers(project, "real_echo")
    for key in ("vae/psnr_db", "reid/auc", "ef/real/mae", "animate/self_similarity"):
        assert key in found
    assert 0 <= found["animate/identity_kept"] <= 1


def test_a_dicom_file_becomes_a_canonical_video_and_is_animated(guests):
    project, _ = guests
    table = read_filelist(project / "data/guest/hospital/FileList.csv", label="none")
    (name,) = table["FileName"]
    frames, _ = read_video(video_path(project / "data/guest/hospital", name))
    assert frames.shape == (30, 112, 112)
    assert "cine" not in name
    found = numbers(project, "hospital")
    assert "vae/psnr_db" in found
    assert found["animate/counterfactual/videos"] == 1
    assert "ef/real/mae" not in found
