import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn.data.video import map_videos, read_video, resample_indices, write_video
from echosyn.runtime.errors import EchosynError


def speckle(t=12, h=112, w=112, seed=0):
    """Rayleigh speckle on a moving gradient, as hard to compress as an echocardiogram."""
    rng = np.random.default_rng(seed)
    base = np.linspace(20, 120, w)[None, None] + 10 * np.sin(np.arange(t))[:, None, None]
    return np.clip(base * rng.rayleigh(0.8, (t, h, w)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("h", "w"), [(112, 112), (56, 80), (17, 33)])
def test_frames_survive_writing(tmp_path, h, w):
    frames = speckle(h=h, w=w)
    write_video(tmp_path / "a.avi", frames, 32)
    back, fps = read_video(tmp_path / "a.avi")
    assert back.shape == frames.shape
    assert back.dtype == np.uint8
    assert fps == 32
    error = back.astype(float) - frames
    assert np.abs(error).mean() < 3  # JPEG at quality 95
    assert abs(error.mean()) < 0.2


@pytest.mark.parametrize("fps", [0.5, 23.976, 29.97, 30, 1000 / 33.333, 50, 123.456])
def test_frame_rate_is_kept(tmp_path, fps):
    write_video(tmp_path / "a.avi", speckle(3), fps)
    assert read_video(tmp_path / "a.avi")[1] == pytest.approx(fps, rel=2e-5)


def test_same_frames_same_bytes_and_nothing_else_in_the_folder(tmp_path):
    write_video(tmp_path / "a.avi", speckle(), 32)
    write_video(tmp_path / "b.avi", speckle(), 32)
    assert (tmp_path / "a.avi").read_bytes() == (tmp_path / "b.avi").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.avi", "b.avi"]


def test_index_points_at_every_frame(tmp_path):
    write_video(tmp_path / "a.avi", speckle(5), 32)
    data = (tmp_path / "a.avi").read_bytes()
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    movi, index = data.index(b"movi"), data.rindex(b"idx1")
    entries = [struct.unpack("<4s3I", data[index + 8 + 16 * i :][:16]) for i in range(5)]
    for name, flags, offset, size in entries:
        assert (name, flags) == (b"00dc", 0x10)
        assert data[movi + offset : movi + offset + 4] == b"00dc"
        jpeg = data[movi + offset + 8 : movi + offset + 8 + size]
        assert jpeg[:2] == b"\xff\xd8"
        assert jpeg[-2:] == b"\xff\xd9"


def test_colour_becomes_the_mean_over_channels(tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "a.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), 30, (64, 64)
    )
    if not writer.isOpened():
        pytest.skip("this OpenCV has no lossless encoder")
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:] = (30, 60, 120)
    for _ in range(3):
        writer.write(frame)
    writer.release()
    frames, _ = read_video(tmp_path / "a.avi")
    assert np.abs(frames.astype(int) - 70).max() <= 2


@pytest.mark.parametrize("keep", [0.999, 0.97, 0.5, 0.05, 0.001])
def test_truncated(tmp_path, keep):
    path = tmp_path / "a.avi"
    write_video(path, speckle(), 32)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(EchosynError, match=r"a\.avi: truncated"):
        read_video(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "0 bytes"), (b"RIFF but text", "a.avi"), (b"no video at all " * 99, "not a video")],
)
def test_not_a_video(tmp_path, content, message):
    (tmp_path / "a.avi").write_bytes(content)
    with pytest.raises(EchosynError, match=message):
        read_video(tmp_path / "a.avi")


def test_no_frames(tmp_path):
    from echosyn.data import video

    empty = video.avi([b"x"], 112, 112, 30)
    cut = empty[: empty.index(b"00dc")]
    header = bytearray(cut)
    header[4:8] = struct.pack("<I", len(cut) - 8)
    (tmp_path / "a.avi").write_bytes(header)
    with pytest.raises(EchosynError, match=r"a\.avi"):
        read_video(tmp_path / "a.avi")


def test_missing(tmp_path):
    with pytest.raises(EchosynError, match="does not exist"):
        read_video(tmp_path / "a.avi")


def test_refuses_impossible_frames(tmp_path):
    for frames in (np.zeros((0, 8, 8), np.uint8), np.zeros((2, 8, 8)), np.zeros((8, 8), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            write_video(tmp_path / "a.avi", frames, 30)
    with pytest.raises(ValueError, match="frame rate"):
        write_video(tmp_path / "a.avi", speckle(2), 0)


def test_a_video_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EchosynError, match="cannot be written"):
        write_video(tmp_path / "file" / "a.avi", speckle(2), 30)


def test_map_keeps_order_and_passes_errors_on(monkeypatch):
    monkeypatch.setenv("ECHOSYN_THREADS", "3")
    assert list(map_videos(lambda i: i * i, list(range(50)), "test")) == [i * i for i in range(50)]

    def fail(i):
        if i == 7:
            raise EchosynError("seven")
        return i

    with pytest.raises(EchosynError, match="seven"):
        list(map_videos(fail, list(range(50)), "test"))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.floats(5, 120), st.floats(5, 120))
def test_resampling_takes_the_nearest_frame(n, fps, target):
    index = resample_indices(n, fps, target)
    assert index[0] == 0
    assert index.max() < n
    assert (np.diff(index) >= 0).all()
    assert np.abs(index / fps - np.arange(len(index)) / target).max() <= 0.5 / fps + 1e-6


def test_resampling_to_the_same_rate_changes_nothing():
    assert resample_indices(37, 50, 50).tolist() == list(range(37))
