"""Text files of a user's in another encoding than UTF-8, and other files that cannot be read."""

import shutil
from pathlib import Path

import pytest
from refusals import refused, written
from source_layouts import camus

from echosyn.beat.tracings import traced_areas
from echosyn.data.filelist import read_cells
from echosyn.data.ingest import ingest
from echosyn.data.ingest.camus import read_info
from echosyn.data.ingest.pseudonym import read_key
from echosyn.runtime.config import read_yaml

PEOPLE = "file;name;EF\na;M\u00fcller;50\nb;Ren\u00e9;60\n"
UTF16 = "is UTF-16 text (Excel calls it 'Unicode text'), not UTF-8 text: save it as CSV UTF-8"
ENCODED = {
    "Windows-1252": (
        PEOPLE.encode("cp1252"),
        ": line 2 is not UTF-8 text: byte 0xfc in b'a;M\\xfcller;50': save it as CSV UTF-8",
    ),
    "a Mac's": (
        PEOPLE.encode("mac_roman"),
        ": line 2 is not UTF-8 text: byte 0x9f in b'a;M\\x9fll",
    ),
    "old line ends": (PEOPLE.replace("\n", "\r").encode("cp1252"), ": line 2 is not UTF-8 text"),
    "Windows' line ends": (
        PEOPLE.replace("\n", "\r\n").encode("cp1252"),
        ": line 2 is not UTF-8 text: byte 0xfc in b'a;M\\xfcller;50': save",
    ),
    "cut within a letter": (PEOPLE.encode()[: PEOPLE.index("\u00e9") + 2], ": line 3 is not UTF-8"),
    "UTF-16, little end first": (b"\xff\xfe" + PEOPLE.encode("utf-16-le"), f" {UTF16}"),
    "UTF-16, big end first": (b"\xfe\xff" + PEOPLE.encode("utf-16-be"), f" {UTF16}"),
    "UTF-16 without a mark": (PEOPLE.encode("utf-16-le"), f" {UTF16}"),
    "a workbook": (b"PK\x03\x04" + bytes(range(256)), " is a zip file (an Excel workbook is one)"),
    "an old workbook": (
        b"\xd0\xcf\x11\xe0" + bytes(range(256)),
        " is an Excel or Word file of the",
    ),
    "gzip": (b"\x1f\x8b" + bytes(range(256)), " is a file compressed with gzip"),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_a_list_in_another_encoding(tmp_path, kind):
    data, wanted = ENCODED[kind]
    path = written(tmp_path / "list.csv", data)
    assert refused(read_cells, path, ";").startswith(f"{path}{wanted}")


def test_the_line_of_a_list_is_the_one_an_editor_shows(tmp_path):
    path = written(tmp_path / "list.csv", 'a,b\n\n"x\ny",1\n\nü,2\n"z,3\n'.encode())
    assert ": line 7 is not CSV" in refused(read_cells, path)
    path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xfc"))
    assert ": line 6 is not UTF-8 text" in refused(read_cells, path)
    assert ": line 2: the header names" in refused(read_cells, written(path, b"\na,a\n1,2\n"))


def camus_list(path):
    raw = camus(path.parent / "raw", patients=3)
    shutil.move(path, raw / "database_split/subgroup_training.txt")
    ingest("camus", raw, path.parent / "out", "ef")


READERS = {
    "params.yaml": (read_yaml, "save it as UTF-8 text"),
    "Info_2CH.cfg": (read_info, "save it as UTF-8 text"),
    "VolumeTracings.csv": (traced_areas, "save it as CSV UTF-8"),
    "subgroup_training.txt": (camus_list, "save it as UTF-8 text"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_every_text_that_a_user_writes(tmp_path, name, encoding):
    read, fix = READERS[name]
    text = "# one\nname: M\u00fcller\n"
    said = refused(read, written(tmp_path / name, text.encode(encoding)))
    where = "line 2 is not UTF-8 text: byte 0xfc in b'name: M\\xfcller'"
    assert (where if encoding == "cp1252" else f"{name} is UTF-16 text") in said
    assert said.endswith(fix)


@pytest.mark.parametrize(
    ("encoding", "wanted"),
    [
        ("utf-16", "it is UTF-16 text (Excel calls it 'Unicode text'): save it as plain text"),
        ("utf-16-le", "it is UTF-16 text"),
        (None, "restore it from your copy"),
    ],
)
def test_a_key_in_another_encoding_is_not_to_be_made_anew(tmp_path, encoding, wanted):
    digits = "0123456789abcdef" * 4
    data = digits.encode(encoding) if encoding else b"what was the key?"
    path = written(tmp_path / "key", data)
    path.chmod(0o600)
    said = refused(read_key, path, tmp_path / "raw")
    assert wanted in said
    assert digits[:8] not in said
    path.write_text(digits, encoding="utf-8-sig")
    assert read_key(path, tmp_path / "raw").key == bytes.fromhex(digits)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: 1\nb: [2\nc: 3\n", "params.yaml: line 3 is not valid YAML: while parsing a flow"),
        ("a: 1\n\tb: 2\n", "indent with spaces, not with tabs"),
        ("a: 1\nb: 'x\x00'\n", "params.yaml: line 2 is not valid YAML: character 0x0: remove it"),
        ("a: 1\nb: c: d\n", "params.yaml: line 2 is not valid YAML: mapping values"),
    ],
)
def test_yaml_is_refused_by_its_line(tmp_path, text, wanted):
    said = refused(read_yaml, written(tmp_path / "params.yaml", text.encode()))
    assert wanted in said
    assert "\n" not in said


@pytest.mark.parametrize("read", [read_yaml, read_cells, read_info])
def test_a_text_that_cannot_be_opened(tmp_path, monkeypatch, read):
    assert "is a folder, but a file is wanted there" in refused(read, tmp_path)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    monkeypatch.setattr(Path, "read_text", denied)
    said = refused(read, tmp_path / "x")
    assert said.endswith(f"(Permission denied): chmod u+r {tmp_path / 'x'}")
