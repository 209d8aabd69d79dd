"""The last look at a release: each kind of leak planted, and a clean release passes."""

import json
import pickle
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from small_project import REAL, make_project
from test_release import released

from echosyn.data.filelist import video_path
from echosyn.data.video import write_video
from echosyn.release import leaks
from echosyn.release.leaks import (
    Finding,
    Search,
    find_leaks,
    local_people,
    real_names,
    refuse_leaks,
)
from echosyn.runtime.errors import EchosynError

NAMES = [*REAL, "patient_12", "p-7", "Wall", "100234", "0X1F2E3D4C5B6A7988", "Müller 1961"]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = make_project(tmp_path_factory.mktemp("project"))
    released(root)
    return root


@pytest.fixture
def release(template, tmp_path):
    return shutil.copytree(template / "releases/phantom", tmp_path / "release")


def found(folder, names=NAMES, people=("kollwitz", "ws-017")) -> dict[str, str]:
    """All findings by file."""
    said: dict[str, str] = {}
    for finding in find_leaks(folder, names, people):
        said[finding.file] = said.get(finding.file, "") + finding.what + "\n"
    return said


def test_a_clean_release_passes(release, template):
    names = real_names(template / "data/train/phantom", "ef")
    assert names == {*REAL, *(f"patient{name}" for name in REAL)}
    assert find_leaks(release, names) == []
    refuse_leaks(release, NAMES, ["kollwitz"])


@pytest.mark.parametrize(
    "text",
    [
        "made from 0XREAL3.",
        "see 0xreal3.avi",
        "Videos/0XREAL3_frame7.png",
        "patient_12",
        "<0X1F2E3D4C5B6A7988>",
        "id 1f2e3d4c5b6a7988",  # EchoNet's name without its 0X
        "seen in MÜLLER 1961, twice",
    ],
)
def test_a_real_name_in_any_text_is_found(release, text):
    (release / "NOTES.txt").write_text(text)
    said = found(release)
    assert list(said) == ["NOTES.txt"]
    assert "real name" in said["NOTES.txt"]


@pytest.mark.parametrize(
    "text",
    [
        "0XREAL33", "a0XREAL3", "0XREAL", "patient_123", "patient-12", "patient",
        "x1f2e3d4c5b6a7988",
        "p-7 and Wall and 100234 are too common to be searched for in prose",
    ],
)  # fmt: skip
def test_other_words_are_not(release, text):
    (release / "NOTES.txt").write_text(text)
    assert found(release) == {}


def test_short_and_common_names_are_found_as_whole_cells(release):
    (release / "a.csv").write_text("patient,EF\np-7,55\nx,60\n")
    (release / "b.json").write_text(json.dumps({"who": ["x", "wall"]}))
    (release / "c.tsv").write_text("id\tn\n1\t100234\n")
    (release / "d.csv").write_text("FileName,NumberOfFrames,words\nSYN1,100234,the Wall moves\n")
    (release / "e.json").write_text(json.dumps({"size": 100234, "words": "the Wall moves"}))
    (release / "Wall.md").write_text("")
    said = found(release)
    assert list(said) == ["Wall.md", "a.csv", "b.json", "c.tsv"]
    assert "a cell is the real name 'p-7'" in said["a.csv"]
    assert "'wall'" in said["b.json"]
    assert "'100234'" in said["c.tsv"]


def test_names_hidden_by_escapes_and_encodings_are_found(release):
    (release / "a.json").write_text(json.dumps({"seen in m\u00fcller 1961": 1}))
    (release / "b.html").write_text("<p>M&uuml;ller 1961</p>")
    (release / "c.txt").write_text("0XREAL2", encoding="utf-16")
    (release / "d.jsonl").write_text('{"a": 1}\n{"a": "x/0XREAL2.avi"}\n')
    assert list(found(release)) == ["a.json", "b.html", "c.txt", "d.jsonl"]


def test_a_real_name_of_a_file_or_folder_is_found(release):
    (release / "extra" / "0XREAL1").mkdir(parents=True)
    (release / "p-7.txt").write_text("")
    video_path(release, "synthetic1").rename(video_path(release, "0xreal5"))
    said = found(release)
    assert list(said) == ["Videos/0xreal5.avi", "extra/0XREAL1", "p-7.txt"]
    assert all("its name holds the real name" in what for what in said.values())


def riff(name: bytes, data: bytes) -> bytes:
    return name + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)


@pytest.mark.parametrize("where", ["title before the frames", "title after many bytes", "tail"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le"])
def test_a_real_name_in_an_avi_is_found(release, where, encoding):
    path = video_path(release, "synthetic3")
    frames = np.random.default_rng(0).integers(0, 255, (40, 64, 64), np.uint8)
    write_video(path, frames, 16.0)
    data = path.read_bytes()
    assert len(data) > 20_000
    assert found(release) == {}
    title = riff(b"LIST", b"INFO" + riff(b"INAM", "0XREAL4".encode(encoding)))
    if where == "title before the frames":
        data = data[:12] + riff(b"JUNK", bytes(3001)) + title + data[12:]
    elif where == "title after many bytes":
        data = data + title + riff(b"JUNK", bytes(5000))
    else:
        data += "0XREAL4".encode(encoding)
    path.write_bytes(data)
    said = found(release)
    assert list(said) == ["Videos/synthetic3.avi"]
    assert "'0xreal4'" in said["Videos/synthetic3.avi"]


def test_a_damaged_avi_is_still_searched(release):
    path = video_path(release, "synthetic3")
    path.write_bytes(path.read_bytes()[:300] + b"LIST\xff\xff\xff\xffINFO 0XREAL4 ")
    assert list(found(release)) == ["Videos/synthetic3.avi"]


def test_a_real_name_in_a_picture_is_found(release):
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "0XREAL1.avi")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(release / "a.png", pnginfo=info)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(release / "b.png")
    assert list(found(release)) == ["a.png"]


def test_tables_of_scores_are_found(release):
    (release / "scores.csv").write_text("kind,similarity,ok\nsynthetic,0.9,True\n")
    (release / "b.json").write_text(json.dumps({"max_similarity": [0.1, 0.2, 0.3, 0.4]}))
    rows = [{"video": f"s{i}", "nearest": i} for i in range(5)]
    (release / "c.json").write_text(json.dumps(rows))
    summary = {"privacy/accepted": 120, "privacy/tau": 0.9, "similarity": {"mean": 0.5, "sd": 0.1}}
    (release / "d.json").write_text(json.dumps(summary))
    said = found(release)
    assert list(said) == ["b.json", "c.json", "scores.csv"]
    assert all("a table of scores" in what for what in said.values())


def test_weights_and_archives_are_found_by_suffix_and_by_magic(release):
    state = {"w": torch.zeros(2)}
    torch.save(state, release / "a.dat")
    save_file(state, release / "b.dat")
    (release / "c.dat").write_bytes(pickle.dumps({"w": [0.0]}))
    np.save(release / "d.npy", np.zeros(2))
    (release / "e.ckpt").write_text("")
    with zipfile.ZipFile(release / "f.zip", "w") as z:
        z.writestr("x.txt", "x")
    (release / "g.dat").write_bytes(bytes(range(256)))
    (release / "h.link").symlink_to(release / "README.md")
    said = found(release)
    expected = {
        "a.dat": "an archive",
        "b.dat": "safetensors",
        "c.dat": "pickle",
        "d.npy": "model weights",
        "e.ckpt": "model weights",
        "f.zip": "an archive",
        "g.dat": "not looked into",
        "h.link": "a link",
    }
    assert list(said) == list(expected)
    assert all(what in said[name] for name, what in expected.items())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("from /mnt/clinic/echo", "'/mnt/clinic/echo'"),
        ("a,/home/someone/x.pt,b", "an absolute path: '/home/someone/x.pt'"),
        ("root=/scratch/me", "an absolute path"),
        ("in ~/echo or ~anna/echo", "a home folder"),
        (r"C:\Users\Anna\echo", "a Windows path: 'C:\\\\Users\\\\Anna\\\\echo'"),
        (r"\\server\share", "a Windows path"),
        ("s3://hospital-bucket/x", "a storage address"),
        ("file:///etc/x", "a storage address"),
        ("by Kollwitz.", "the user or machine 'kollwitz'"),
        ("on ws-017", "the user or machine 'ws-017'"),
    ],
)
@pytest.mark.parametrize("suffix", ["md", "json"])
def test_places_and_people_are_found(release, text, what, suffix):
    path = release / f"NOTES.{suffix}"
    path.write_text(json.dumps({"note": text}) if suffix == "json" else text)
    said = found(release)
    assert list(said) == [path.name]
    assert what in said[path.name]


@pytest.mark.parametrize(
    "text",
    [
        "https://arxiv.org/abs/2411.04956 and/or 1/2/3 km/h",
        "<p>x</p><br/> font:16px/1.6 a / b / c",
        "data:image/png;base64,/9j/4AAQ/Sk+/Zz/aa=",
        "`Videos/x.avi` ./a/b ../c d:e",
        "kollwitzer ws-0171",
    ],
)
def test_other_slashes_and_people_are_not(release, text):
    (release / "NOTES.md").write_text(text)
    (release / "NOTES.json").write_text(json.dumps({"note": text}))
    assert found(release) == {}


def test_the_message_names_the_first_few(release):
    for i in range(8):
        (release / f"n{i}.txt").write_text(f"0XREAL{i % 6}")
    with pytest.raises(EchosynError) as e:
        refuse_leaks(release, NAMES, [])
    text = str(e.value)
    assert "8 finding(s)" in text
    assert "n0.txt: holds the real name '0xreal0'" in text
    assert "and 3 more" in text
    assert "n7.txt" not in text
    assert find_leaks(release, NAMES, [])[0] == Finding("n0.txt", "holds the real name '0xreal0'")


def test_a_check_of_nothing_is_refused(release, tmp_path):
    with pytest.raises(EchosynError, match="no such folder"):
        find_leaks(tmp_path / "none", NAMES)
    with pytest.raises(EchosynError, match="a check of nothing"):
        find_leaks(release, [])


def test_local_people_are_no_common_words(monkeypatch):
    for user, host, people in (
        ("root", "localhost", set()),
        ("anna", "phantom", {"anna"}),
        ("anna", "ws-017", {"anna", "ws-017"}),
    ):
        monkeypatch.setattr(leaks.getpass, "getuser", lambda user=user: user)
        monkeypatch.setattr(leaks.platform, "node", lambda host=host: host)
        monkeypatch.setattr(leaks.Path, "home", lambda user=user: leaks.Path("/home") / user)
        assert local_people() == people


token = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{4,9}[A-Za-z0-9]", fullmatch=True)
tokens = token.filter(lambda t: any(c.isdigit() for c in t) and any(c.isalpha() for c in t))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(tokens, min_size=1, max_size=5), st.text(max_size=30), st.data())
def test_search_finds_what_a_regular_expression_finds(names, rest, data):
    chosen = data.draw(st.sampled_from(names))
    text = data.draw(st.sampled_from(["", " ", "/", "_", "x"])) + chosen + rest
    search = Search(names)
    expected = {
        name
        for name in search.tokens
        if re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", text.casefold())
    }
    assert search.tokens_in(text) == expected
