import dataclasses
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from echonet_layout import edit, make

from echosyn.data.content import CONTENT
from echosyn.data.filelist import read_filelist
from echosyn.data.ingest import ADAPTERS, ingest
from echosyn.data.ingest.canonical import SquareFit
from echosyn.data.video import read_video
from echosyn.runtime.config import Dataset
from echosyn.runtime.errors import EchosynError

# Real clips in EchoNet layout, kept beside the project where they may be used.
REAL = Path(__file__).resolve().parents[3] / "shared" / "real_echo"


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_every_source_of_the_settings_has_an_adapter():
    field = next(f for f in dataclasses.fields(Dataset) if f.name == "source")
    assert set(field.metadata["choices"]) == set(ADAPTERS)


@pytest.mark.parametrize("source", ["phantom", "echonet"])
def test_canonical_videos_are_copied_byte_for_byte(tmp_path, source):
    raw = make(tmp_path / "raw")
    (raw / "VolumeTracings.csv").write_text("FileName,X1,Y1,X2,Y2,Frame\nv0.avi,1,2,3,4,0\n")
    report = ingest(source, raw, tmp_path / "out", "ef")
    assert (report.videos, report.frames, report.notes) == (4, 4 + 5 + 6 + 7, ())
    before, after = content(raw), content(tmp_path / "out")
    told = dict(reversed(line.split("  ")) for line in after.pop(CONTENT).decode().splitlines())
    assert told == {name: hashlib.sha256(data).hexdigest() for name, data in after.items()}
    assert set(before) == set(after)
    assert all(after[k] == before[k] for k in before if k != "FileList.csv")
    assert read_filelist(tmp_path / "out" / "FileList.csv").equals(
        read_filelist(raw / "FileList.csv")
    )


def test_twice_gives_the_same_bytes_with_any_number_of_threads(tmp_path, monkeypatch):
    raw = make(tmp_path / "raw", size=(130, 150))
    for threads in ("1", "3"):
        monkeypatch.setenv("ECHOSYN_THREADS", threads)
        ingest("echonet", raw, tmp_path / threads, "ef")
    assert content(tmp_path / "1") == content(tmp_path / "3")


def test_other_sizes_are_padded_and_scaled_with_their_tracings(tmp_path):
    raw = make(tmp_path / "raw", size=(168, 224))
    (raw / "VolumeTracings.csv").write_text(
        "FileName,X1,Y1,X2,Y2,Frame\nv0.avi,0,0,224,168,3\nother.avi,1,2,3,4,5\n"
    )
    report = ingest("echonet", raw, tmp_path / "out", "ef")
    assert report.notes == ("4 videos were resized to 112x112",)
    frames, fps = read_video(tmp_path / "out" / "Videos" / "v0.avi")
    assert (frames.shape, fps) == ((4, 112, 112), 50)
    table = read_filelist(tmp_path / "out" / "FileList.csv")
    assert (table["FrameHeight"] == 112).all()
    assert (table["FrameWidth"] == 112).all()
    tracings = (tmp_path / "out" / "VolumeTracings.csv").read_text().splitlines()
    # 28 rows of padding above; half the size
    assert tracings[1:] == ["v0.avi,0.0000,14.0000,112.0000,98.0000,3", "other.avi,1,2,3,4,5"]


def test_square_frames_are_shrunk_by_area():
    frames = np.random.default_rng(0).integers(0, 255, (2, 224, 224)).astype(np.uint8)
    expected = cv2.resize(frames[1], (112, 112), interpolation=cv2.INTER_AREA)
    assert np.array_equal(SquareFit(224, 224).apply(frames)[1], expected)


def test_wrong_facts_are_kept_for_the_gate(tmp_path):
    raw = make(tmp_path / "raw")
    edit(raw, 2, ",112,112,50,4,", ",4,112,50,256,")  # the reference's defect
    ingest("echonet", raw, tmp_path / "out", "ef")
    row = read_filelist(tmp_path / "out" / "FileList.csv").iloc[0]
    assert (row["FrameHeight"], row["NumberOfFrames"]) == (4, 256)


def test_patient_is_kept_and_unlisted_files_are_left_out(tmp_path):
    raw = make(tmp_path / "raw", columns=[("Patient", "aabc")])
    (raw / "Videos" / "more.avi").write_bytes(b"x")
    report = ingest("echonet", raw, tmp_path / "out", "ef")
    assert list(read_filelist(tmp_path / "out" / "FileList.csv")["Patient"]) == list("aabc")
    assert "1 files" in report.notes[0]
    assert not (tmp_path / "out" / "Videos" / "more.avi").exists()


def damage(kind, raw):
    video = raw / "Videos" / "v2.avi"
    if kind == "missing":
        video.unlink()
    elif kind == "truncated":
        video.write_bytes(video.read_bytes()[:-3000])
    elif kind == "empty":
        video.write_bytes(b"")
    elif kind == "text":
        video.write_text("no video")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "v2.avi: the video does not exist"),
        ("truncated", "v2.avi: truncated"),
        ("empty", "v2.avi: the video is empty"),
        ("text", "v2.avi: not a video"),
    ],
)
def test_a_bad_video_leaves_the_earlier_output_untouched(tmp_path, kind, message):
    raw = make(tmp_path / "raw")
    out = tmp_path / "data" / "out"
    out.mkdir(parents=True)
    (out / "kept.txt").write_text("kept")
    damage(kind, raw)
    with pytest.raises(EchosynError) as e:
        ingest("echonet", raw, out, "ef")
    assert message in str(e.value)
    assert "1 of 4" in str(e.value)
    assert [p.name for p in out.parent.rglob("*")] == ["out", "kept.txt"]


@pytest.mark.parametrize(
    ("line", "old", "new", "message"),
    [
        (1, "FPS", "Fps", "column 'FPS' is missing"),
        (3, "60.0", "140", "line 3 (v1): EF '140' is outside 0-100"),
        (3, "TRAIN", "train", "line 3 (v1): Split 'train' is not one of"),
        (3, "v1", "../v1", "line 3 (../v1): FileName '../v1' must begin"),
        (3, "60.0", '"55,6"', "line 3 (v1): EF '55,6' is not a finite number"),
    ],
)
def test_a_bad_list_leaves_nothing(tmp_path, line, old, new, message):
    raw = make(tmp_path / "raw")
    edit(raw, line, old, new)
    with pytest.raises(EchosynError) as e:
        ingest("echonet", raw, tmp_path / "data" / "out", "ef")
    assert message in str(e.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_unknown_source_and_missing_folder(tmp_path):
    with pytest.raises(EchosynError, match="source 'zip' is not one of phantom, echonet, "):
        ingest("zip", tmp_path, tmp_path / "out", "ef")
    with pytest.raises(EchosynError, match="folder does not exist"):
        ingest("echonet", tmp_path / "no", tmp_path / "out", "ef")


@pytest.mark.skipif(not REAL.is_dir(), reason="no real echocardiograms on this machine")
def test_real_clips(tmp_path):
    report = ingest("echonet", REAL, tmp_path / "out", "ef")
    assert (report.videos, report.frames) == (6, 1128)
    for name in read_filelist(REAL / "FileList.csv")["FileName"]:
        copied = tmp_path / "out" / "Videos" / f"{name}.avi"
        assert copied.read_bytes() == (REAL / "Videos" / f"{name}.avi").read_bytes()
        assert read_video(copied)[0].std() > 10
