"""Lists and videos that are broken in every way we could think of: rejected, never a traceback."""

import os
import struct
from contextlib import suppress

import cv2
import numpy as np
import pytest
from echonet_layout import SPLITS, clip, edit, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echosyn.data.filelist import COLUMNS, read_cells, read_filelist
from echosyn.data.ingest import echonet, ingest, pediatric, table
from echosyn.data.ingest.fit import fit_video
from echosyn.data.video import avi, write_video
from echosyn.runtime.errors import EchosynError


def jpegs(*sizes):
    """An encoded frame of each (height, width)."""
    return [cv2.imencode(".jpg", clip(i, 1, *size)[0])[1].tobytes() for i, size in enumerate(sizes)]


def good(frames=6):
    return avi(jpegs(*[(112, 112)] * frames), 112, 112, 50)


def patched(data, old, new, nth=0):
    at = -1
    for _ in range(nth + 1):
        at = data.index(old, at + 1)
    return data[:at] + new + data[at + len(new) :]


BROKEN = {
    "empty": (b"", "empty (0 bytes)"),
    "one byte": (b"R", "not a video"),
    "text": (b"This is no video.\n" * 40, "not a video"),
    "zeros": (bytes(5000), "not a video"),
    "png": (cv2.imencode(".png", clip(0, 1)[0])[1].tobytes(), "not a video"),
    "a playlist": (b"#EXTM3U\n#EXTINF:1,\nv0.avi\n#EXT-X-ENDLIST\n", "not a video"),
    "a list of files": (b"ffconcat version 1.0\nfile v0.avi\n", "not a video"),
    "truncated header": (good()[:100], "truncated"),
    "truncated half": (good()[: len(good()) // 2], "truncated"),
    "truncated in the last frame": (good()[:-500], "truncated"),
    "no frames": (avi([b""], 112, 112, 50), ""),
    "frames of rubbish": (avi([b"no image" * 9] * 4, 112, 112, 50), ""),
    "one frame of rubbish": (avi([*jpegs(*[(112, 112)] * 3), b"x" * 90], 112, 112, 50), "trunc"),
    "unknown codec": (good().replace(b"MJPG", b"ZZZZ"), ""),
    "more frames declared": (
        patched(good(), struct.pack("<I", 6), struct.pack("<I", 60), 1),
        "truncated, 6 of the 60 frames",
    ),
    "1 x 1": (avi(jpegs((1, 1), (1, 1)), 1, 1, 50), "frames of 1x1 pixels; at least"),
    "1 x 4000": (avi(jpegs((1, 4000)), 1, 4000, 50), "frames of 4000x1 pixels; at least"),
    "one frame": (good(1), "a still image; a video has 2 frames or more"),
    "giant declared": (
        avi(
            [
                patched(j, b"\xff\xc0\x00\x0b\x08", b"\xff\xc0\x00\x0b\x08" + b"\x75\x30" * 2)
                for j in jpegs((16, 16), (16, 16))
            ],
            30000,
            30000,
            50,
        ),
        "",
    ),
    "sizes that change": (
        avi(jpegs((112, 112), (64, 80), (112, 112)), 112, 112, 50),
        None,
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_video_is_rejected(tmp_path, kind):
    content, reason = BROKEN[kind]
    raw = make(tmp_path / "raw")
    (raw / "Videos" / "v1.avi").write_bytes(content)
    rejects = tmp_path / "rejects.csv"
    report = ingest("echonet", raw, tmp_path / "out", "ef", max_rejects=1, rejects=rejects)
    if reason is None:  # a decoder may also bring the frames to one size
        assert report.videos in (3, 4)
        return
    assert (report.videos, report.rejected) == (3, 1)
    row = read_cells(rejects).table.iloc[0]
    assert row["source"] == "FileList.csv line 3 (v1)"
    assert "v1.avi: " in row["reason"]
    assert reason in row["reason"]
    assert len(list((tmp_path / "out" / "Videos").iterdir())) == 3


def test_a_size_that_changes_is_seen(tmp_path, monkeypatch):
    class Capture:
        def __init__(self, path, backend):
            self.frames = [np.zeros((n, 112, 3), np.uint8) for n in (112, 112, 100)]

        def isOpened(self):
            return True

        def get(self, key):
            known = {cv2.CAP_PROP_FPS: 30, cv2.CAP_PROP_FRAME_COUNT: 3}
            return known.get(key, 112)

        def read(self):
            return (True, self.frames.pop(0)) if self.frames else (False, None)

        def release(self):
            pass

    write_video(tmp_path / "a.avi", clip(0, 3), 30)
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    with pytest.raises(EchosynError, match="frame 3 is 112x100 pixels, the first 112x112"):
        fit_video(tmp_path / "a.avi")


@pytest.mark.slow
def test_8k_frames_are_shrunk_one_at_a_time(tmp_path):
    y = np.linspace(0, 255, 4320).astype(np.uint8)
    frame = np.repeat(y[:, None], 7680, 1)
    jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
    (tmp_path / "a.avi").write_bytes(avi([jpeg] * 2, 4320, 7680, 30))
    video = fit_video(tmp_path / "a.avi")
    assert video.frames.shape == (2, 112, 112)
    assert (video.square.height, video.square.width) == (4320, 7680)
    assert np.all(np.diff(video.frames[0, 26:86, 50].astype(int)) > 0)


def test_videos_of_several_sizes_in_one_set(tmp_path):
    raw = make(tmp_path / "raw")
    sizes = [(112, 112), (300, 200), (16, 16), (64, 500)]
    for i, size in enumerate(sizes):
        write_video(raw / "Videos" / f"v{i}.avi", clip(i, 4 + i, *size), 50)
        edit(raw, i + 2, ",112,112,", f",{size[0]},{size[1]},")
    report = ingest("echonet", raw, tmp_path / "out", "ef")
    assert report.notes == ("3 videos were resized to 112x112",)
    facts = read_filelist(tmp_path / "out" / "FileList.csv")
    assert (facts[["FrameHeight", "FrameWidth"]] == 112).all(axis=None)


@pytest.mark.parametrize("kind", ["folder", "loop", "dangling", "pipe", "unreadable"])
def test_what_is_no_file_is_rejected(tmp_path, kind):
    raw = make(tmp_path / "raw")
    video = raw / "Videos" / "v1.avi"
    video.unlink()
    if kind == "folder":
        video.mkdir()
    elif kind == "loop":
        video.symlink_to(video.name)
    elif kind == "dangling":
        video.symlink_to("nowhere.avi")
    elif kind == "pipe":
        os.mkfifo(video)
    elif kind == "unreadable":
        video.write_bytes(good())
        video.chmod(0)
        if os.access(video, os.R_OK):
            pytest.skip("this user reads everything")
    rejects = tmp_path / "rejects.csv"
    report = ingest("echonet", raw, tmp_path / "out", "ef", max_rejects=1, rejects=rejects)
    assert (report.videos, report.rejected) == (3, 1)


def test_loops_of_folders_end(tmp_path):
    for name in ("PAH", "non-PAH"):
        root = tmp_path / "raw" / name
        root.mkdir(parents=True)
        write_video(root / "1.avi", clip(1, 4), 32)
        (root / "again").symlink_to("..", target_is_directory=True)
        (root / "self").symlink_to("self")
    rejects = tmp_path / "rejects.csv"
    report = ingest("cardiacnet", tmp_path / "raw", tmp_path / "out", "class", rejects=rejects)
    assert (report.videos, report.skipped) == (2, 2)


def test_an_mp4_under_the_name_of_an_avi_is_written_anew(tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (112, 112)
    )
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MP4")
    for frame in clip(1, 8):
        writer.write(np.dstack([frame] * 3))
    writer.release()
    raw = make(tmp_path / "raw")
    (raw / "Videos" / "v1.avi").write_bytes((tmp_path / "a.mp4").read_bytes())
    ingest("echonet", raw, tmp_path / "out", "ef")
    assert (tmp_path / "out" / "Videos" / "v1.avi").read_bytes()[:4] == b"RIFF"


LISTS = {
    "a mark of the byte order": (lambda text: b"\xef\xbb\xbf" + text, None),
    "Windows' line ends": (lambda text: text.replace(b"\n", b"\r\n"), None),
    "blank lines": (lambda text: text.replace(b"\n", b"\n\n"), None),
    "quotes": (lambda text: text.replace(b"v1", b'"v1"'), None),
    "semicolons": (lambda text: text.replace(b",", b";"), "separated by ';', not by commas"),
    "tabs": (lambda text: text.replace(b",", b"\t"), "separated by '\\t', not by commas"),
    "UTF-16": (lambda text: text.decode().encode("utf-16"), "is UTF-16 text (Excel calls it"),
    "nothing": (lambda text: b"", "is empty"),
    "an open quote": (lambda text: text + b'"v9,1', "is not CSV"),
    "a NUL": (lambda text: text.replace(b"v1", b"v\x001"), "v1|NUL|line"),
    "a cell of a megabyte": (lambda text: text.replace(b"v1", b"v" * 2**20), "is not CSV"),
    "no header": (lambda text: text.split(b"\n", 1)[1], "names column '112' twice"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_as_other_programs_write_them(tmp_path, kind):
    change, message = LISTS[kind]
    raw = make(tmp_path / "raw")
    path = raw / "FileList.csv"
    path.write_bytes(change(path.read_bytes()))
    if message is None:
        assert ingest("echonet", raw, tmp_path / "out", "ef").videos == 4
        return
    with pytest.raises(EchosynError) as e:
        ingest("echonet", raw, tmp_path / "out", "ef")
    assert any(part in str(e.value) for part in message.split("|"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (",60.0,", ",nan,", "EF 'nan' is not a finite number"),
        (",60.0,", ",inf,", "EF 'inf' is not a finite number"),
        (",60.0,", ",-5,", "EF '-5' is outside 0-100"),
        (",60.0,", ',"55,6",', "EF '55,6' is not a finite number"),
        (",60.0,", ",55%,", "EF '55%' is not a finite number"),
        (",60.0,", ",0x1F,", "EF '0x1F' is not a finite number"),
        ("v1,", "V0,", "FileName 'V0' is the video of row 1 ('v0') too"),
        ("v1,", "v0.avi,", "FileName 'v0.avi' is the video of row 1 ('v0') too"),
        ("v1,", "../raw/Videos/v1,", "must begin with a letter or digit"),
        ("v1,", "/etc/passwd,", "must begin with a letter or digit"),
        ("v1,", "..,", "must begin with a letter or digit"),
        ("v1,", "v1.AVI,", "the video does not exist"),
        (",TRAIN", ",TRAIN,extra", "10 fields, the header has 9"),
        (",TRAIN", "", "8 fields, the header has 9"),
        (",50,5", ",50,5.5", "NumberOfFrames '5.5' is not a whole number"),
        (",50,5", ",50,1e30", "NumberOfFrames"),
    ],
)
def test_a_bad_row_is_rejected_and_the_rest_is_taken(tmp_path, old, new, reason):
    raw = make(tmp_path / "raw")
    edit(raw, 3, old, new)
    rejects = tmp_path / "rejects.csv"
    if "1e30" in new:  # absurd, but a number: the gate compares it with the file
        ingest("echonet", raw, tmp_path / "out", "ef", max_rejects=1, rejects=rejects)
        return
    report = ingest("echonet", raw, tmp_path / "out", "ef", max_rejects=1, rejects=rejects)
    assert (report.videos, report.rejected) == (3, 1)
    row = read_cells(rejects).table.iloc[0]
    assert row["source"].startswith("FileList.csv line 3 (")
    assert reason in row["reason"]


cells = st.one_of(
    st.sampled_from(["", " ", "nan", "55,6", "../x", "/x", "1e400", "TRAIN", "v0", "-1", "None"]),
    st.text(max_size=12),
    st.floats().map(str),
)
quiet = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write_rows(folder, header, rows):
    import csv

    (folder / "Videos").mkdir(exist_ok=True)
    with (folder / "FileList.csv").open("w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([header, *rows])


def all_accounted(plan, rows):
    names = [item.name for item in plan.items]
    assert len(names) + len(plan.rejects) == len(rows)
    assert all(name and "/" not in name and not name.startswith(".") for name in names)
    assert all(r.reason and r.source for r in plan.rejects)


@pytest.mark.slow
@quiet
@given(rows=st.lists(st.lists(cells, min_size=2, max_size=11), min_size=1, max_size=5))
def test_any_cells_are_taken_or_rejected(tmp_path, rows):
    # what a surrogate or a bare carriage return does to a file is the file system's business
    rows = [[c.encode("utf-8", "ignore").decode().replace("\r", "") for c in r] for r in rows]
    write_rows(tmp_path, COLUMNS, rows)
    header = ["FileName", "EF", "Sex", "Age", "Weight", "Height", "Split"]
    options = table.Options(columns={"file": "FileName", "ef": "EF", "patient": "Sex"})
    with suppress(EchosynError):  # an unreadable file, as a whole
        all_accounted(echonet.plan(tmp_path, "ef", echonet.Options()), rows)
    write_rows(tmp_path, header, rows)
    for adapter, chosen in ((pediatric, pediatric.Options()), (table, options)):
        with suppress(EchosynError):
            all_accounted(adapter.plan(tmp_path, "ef", chosen), rows)


@quiet
@given(data=st.data())
def test_any_damage_to_a_video_is_survived(tmp_path, data):
    content = bytearray(good(3))
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(1, len(content) - 1)) :]
    (tmp_path / "a.avi").write_bytes(bytes(content))
    with suppress(EchosynError):
        video = fit_video(tmp_path / "a.avi", keep=True)
        assert video.frames.shape == (video.count, 112, 112)


@pytest.mark.slow
def test_a_list_of_hundreds_of_thousands_of_rows(tmp_path):
    rows = (
        f"0X{i:016X},60.5,39.5,100.0,112,112,50.0,200,{SPLITS[i % 4]}\n" for i in range(300_000)
    )
    (tmp_path / "Videos").mkdir()
    with (tmp_path / "FileList.csv").open("w") as f:
        f.write(",".join(COLUMNS) + "\n")
        f.writelines(rows)
        f.write("0X0,60.5,39.5,100.0,112,112,50.0,200,train\n")
    plan = echonet.plan(tmp_path, "ef", echonet.Options())
    assert len(plan.items) == 300_000
    assert plan.items[299_999].name == f"0X{299_999:016X}"
    assert plan.rejects[0].source == "FileList.csv line 300002 (0X0)"
