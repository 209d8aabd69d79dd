"""`echosyn.load_release`: the table, clips by EchoNet's conventions, and what it refuses."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from tiny_release import tiny_release
from torch.utils.data import DataLoader

import echosyn
from echosyn.release.pack import pack
from echosyn.runtime.errors import EchosynError

NAMES = [f"v{i}" for i in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_release(tmp_path_factory.mktemp("load") / "release", NAMES, frames=9)


@pytest.fixture(scope="module")
def release(folder):
    return echosyn.load_release(folder)


def rgb(path):
    """A video as EchoNet's loader decodes it: float32 (3, N, H, W)."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return np.stack(frames).transpose(3, 0, 1, 2).astype(np.float32)


def test_importing_echosyn_loads_none_of_it():
    code = "import echosyn, sys; print(*{'pandas', 'torch', 'numpy', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    with pytest.raises(AttributeError, match="no attribute 'load_dataset'"):
        echosyn.load_dataset  # noqa: B018


def test_table_and_manifest(release, folder):
    assert list(release.table["FileName"]) == NAMES
    assert release.table["EF"].tolist() == [30.5 + i for i in range(6)]
    assert release.manifest["name"] == "tiny"
    assert repr(release) == f"<Release tiny 1.0.0: 6 videos in {folder}>"
    release.verify()


def test_a_clip_is_what_echonets_loader_would_give(release, folder):
    data = release.dataset("train", frames=4, period=2, random_start=False)
    clip, ef = data[1]
    assert (clip.shape, clip.dtype, ef.dtype) == ((3, 4, 16, 16), torch.float32, np.float32)
    assert ef == 33.5
    np.testing.assert_array_equal(clip, rgb(folder / "Videos/v3.avi")[:, 0:8:2])


def test_a_short_video_ends_in_black_frames(release, folder):
    clip, _ = release.dataset("TRAIN", frames=16, period=2)[0]
    video = rgb(folder / "Videos/v0.avi")
    starts = [s for s in (0, 1) if torch.equal(clip[:, 0], torch.from_numpy(video[:, s]))]
    taken = video[:, starts[0] :: 2]
    np.testing.assert_array_equal(clip[:, : taken.shape[1]], taken)
    assert not clip[:, taken.shape[1] :].any()


def test_without_a_number_of_frames_a_clip_is_the_video(release):
    assert release.dataset("VAL", frames=None, period=2)[0][0].shape == (3, 4, 16, 16)
    assert release.dataset("VAL", frames=None, period=1)[0][0].shape == (3, 9, 16, 16)
    assert release.dataset("VAL", frames=None, period=20)[0][0].shape == (3, 1, 16, 16)


@pytest.mark.slow
def test_starts_are_drawn_from_torchs_generator_over_all_that_fit(release, folder):
    data, video = release.dataset("TEST", frames=3, period=3), rgb(folder / "Videos/v2.avi")

    def starts(seed):
        torch.manual_seed(seed)
        firsts = [data[0][0][:, 0].numpy() for _ in range(40)]
        return [next(s for s in range(9) if np.array_equal(f, video[:, s])) for f in firsts]

    assert starts(1) == starts(1) != starts(2)
    assert set(starts(1)) == {0, 1, 2}


def test_targets_and_transform(release):
    data = release.dataset("all", target=("FileName", "EF", "NumberOfFrames"), transform=torch.mean)
    mean, (name, ef, frames) = data[2]
    assert mean.ndim == 0
    assert (name, float(ef), float(frames)) == ("v2", 32.5, 9.0)
    assert len(data) == 6


def test_batches(release):
    clips, efs = next(iter(DataLoader(release.dataset("TRAIN", frames=2), batch_size=2)))
    assert (clips.shape, clips.dtype) == ((2, 3, 2, 16, 16), torch.float32)
    assert (efs.tolist(), efs.dtype) == ([30.5, 33.5], torch.float32)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"split": "training"}, "split 'TRAINING' is not one of TRAIN, VAL, TEST, ALL"),
        ({"target": "ef"}, "column 'ef' is missing"),
        ({"target": ["EF", "ESV"]}, "ESV is empty in 2 of the 2 rows of TRAIN, v0 first"),
        ({"frames": 0}, "frames 0: expected 1 or more"),
        ({"period": 0}, "period 0: expected 1 or more"),
    ],
)
def test_what_a_release_does_not_have(release, asked, said):
    with pytest.raises(EchosynError, match=said):
        release.dataset(**asked)


def test_a_split_without_videos(tmp_path):
    release = echosyn.load_release(tiny_release(tmp_path / "one", ["v0"]))
    with pytest.raises(EchosynError, match=r"FileList\.csv: no video in split VAL"):
        release.dataset("VAL")


def test_what_is_no_release(tmp_path):
    with pytest.raises(EchosynError, match="nowhere is not there"):
        echosyn.load_release(tmp_path / "nowhere")
    with pytest.raises(EchosynError, match=r"is no release: it has no manifest\.json"):
        echosyn.load_release(tmp_path)
    pack(tiny_release(tmp_path / "release", ["v0"]), tmp_path / "packed")
    with pytest.raises(EchosynError, match=r"is packed: echosyn releases unpack"):
        echosyn.load_release(tmp_path / "packed")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(EchosynError, match="not a release manifest of schema 1"):
        echosyn.load_release(tmp_path)


def test_a_release_that_was_changed(tmp_path):
    folder = tiny_release(tmp_path / "release", NAMES)
    (folder / "Videos/v1.avi").unlink()
    (folder / "README.md").write_text("mine")
    release = echosyn.load_release(folder)
    with pytest.raises(EchosynError, match=r"(?s)README\.md: changed.*Videos/v1\.avi: missing"):
        release.verify()
    with pytest.raises(EchosynError, match=r"v1\.avi: the video does not exist"):
        release.dataset("VAL")[0]
