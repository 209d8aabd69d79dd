"""Packs that are damaged or hostile: refused by name, nothing left beside or in the folder."""

import hashlib
import io
import json
import shutil
import tarfile

import pytest
from tiny_release import contents, tiny_release

from echosyn.release.pack import pack
from echosyn.release.unpack import unpack
from echosyn.runtime.errors import EchosynError

NAMES = [f"v{i}" for i in range(4)]  # v0 and v3 are TRAIN
SHARD = "shards/train-00000.tar"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("packed")
    tiny_release(root / "release", NAMES, frames=2)
    pack(root / "release", root / "packed")
    return root / "packed"


@pytest.fixture
def packed(template, tmp_path):
    return shutil.copytree(template, tmp_path / "packed")


def sums(packed):
    """SHA256SUMS of what is there now, as whoever made a hostile pack would write it."""
    names = sorted(n for n in contents(packed) if n.endswith((".tar", ".parquet", "t.json")))
    lines = [f"{hashlib.sha256((packed / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (packed / "SHA256SUMS").write_text("".join(lines))


def members(packed):
    with tarfile.open(packed / SHARD) as archive:
        return [(m, archive.extractfile(m).read()) for m in archive]


def rewrite(packed, items):
    with tarfile.open(packed / SHARD, "w") as archive:
        for member, data in items:
            archive.addfile(member, io.BytesIO(data))
    sums(packed)


def member(name, data=b"x", **facts):
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for key, value in facts.items():
        setattr(made, key, value)
    return made, data


def refused(packed, said):
    folder = packed.parent
    before = contents(folder)
    with pytest.raises(EchosynError) as e:
        unpack(packed, folder / "deep/out")
    assert said in str(e.value)
    assert contents(folder) == before
    assert not (folder / "deep/out").exists()


def test_an_archive_of_another_program_is_taken(packed, tmp_path):
    rewrite(packed, reversed(members(packed)))
    unpack(packed, tmp_path / "out")
    assert contents(tmp_path / "out").keys() >= {f"Videos/{n}.avi" for n in NAMES}


@pytest.mark.parametrize("name", ["../evil.avi", "/evil.avi", "Videos/v0.avi", "v9.avi", "v0.txt"])
def test_a_name_that_is_no_video_of_the_list(packed, name):
    rewrite(packed, [*members(packed), member(name)])
    refused(packed, f"{SHARD}: {name!r} belongs to no row of FileList.csv")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_a_member_that_is_no_file(packed, kind):
    linked = member("v0.avi", b"", type=kind, linkname="../../evil")
    rewrite(packed, [linked, *members(packed)[1:]])
    refused(packed, f"{SHARD}: 'v0.avi' is a link, a device or no plain file")


def test_other_bytes(packed):
    (video, data), *rest = members(packed)
    rewrite(packed, [(video, data[:-1] + b"?"), *rest])
    refused(packed, f"{SHARD}: 'v0.avi': its sha256 is not the manifest's")


def test_another_size_is_not_even_read(packed):
    _, *rest = members(packed)
    rewrite(packed, [member("v0.avi", bytes(10**6)), *rest])
    refused(packed, f"{SHARD}: 'v0.avi' has 1000000 bytes instead of")


def test_another_row(packed):
    video, (row, text), *rest = members(packed)
    rewrite(packed, [video, (row, text.replace(b"30.5", b"70.5")), *rest])
    refused(packed, f"{SHARD}: 'v0.json' is not the row of FileList.csv")


def test_a_video_twice(packed):
    rewrite(packed, [*members(packed), members(packed)[0]])
    refused(packed, f"{SHARD}: 'v0.avi' is there twice")


def test_a_video_in_two_shards(packed):
    shutil.copy(packed / SHARD, packed / "shards/train-00001.tar")
    sums(packed)
    refused(packed, "train-00001.tar: v0.avi is in an earlier shard too")


def test_a_video_in_no_shard(packed):
    rewrite(packed, members(packed)[1:])
    refused(packed, "v0.avi is in no shard (1 missing)")


@pytest.mark.parametrize("left", [0, 100, 512, 2000, -1024])
def test_a_truncated_archive(packed, left):
    path = packed / SHARD
    path.write_bytes(path.read_bytes()[:left])
    refused(packed, f"{SHARD}: truncated or changed, its sha256 is not that of SHA256SUMS")


@pytest.mark.parametrize(("left", "said"), [
    (0, f"{SHARD}: truncated or damaged"),
    (100, f"{SHARD}: truncated or damaged"),
    (600, f"{SHARD}: truncated or damaged"),
    (-2048, "v3.json is in no shard"),
])  # fmt: skip
def test_a_truncated_archive_with_sums_of_its_own(packed, left, said):
    path = packed / SHARD
    path.write_bytes(path.read_bytes()[:left])
    sums(packed)
    refused(packed, said)


def test_no_archive(packed):
    (packed / SHARD).write_bytes(b"\x1f\x8b" + bytes(range(256)) * 8)
    sums(packed)
    refused(packed, f"{SHARD}: truncated or damaged")


def test_a_missing_shard_and_a_linked_one(packed):
    (packed / SHARD).rename(packed.parent / "shard.tar")
    refused(packed, f"{SHARD}: missing, or no plain file")
    (packed / SHARD).symlink_to(packed.parent / "shard.tar")
    refused(packed, f"{SHARD}: missing, or no plain file")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0" * 64 + "  ../secret\n", "line 1 names no part of a pack"),
        ("0" * 64 + "  shards/../../secret.tar\n", "line 1 names no part of a pack"),
        ("no line\n", "line 1 names no part of a pack"),
        ("", "no line of manifest.json"),
    ],
)
def test_sums_of_something_else(packed, line, said):
    (packed / "SHA256SUMS").write_text(line)
    refused(packed, said)


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "", ".", "a//b", "a\\b", "a\nb", "Videos"]
)
def test_a_manifest_that_names_what_lies_elsewhere(packed, name):
    manifest = json.loads((packed / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "size": 1}
    (packed / "manifest.json").write_text(json.dumps(manifest))
    sums(packed)
    refused(packed, f"{name!r} is no name of a file in a release")


def test_a_manifest_of_other_files(packed):
    manifest = json.loads((packed / "manifest.json").read_text())
    (packed / "README.md").write_text("# another\n")
    refused(packed, "README.md: changed")
    del manifest["files"]["Videos/v0.avi"]
    manifest["files"]["README.md"] = {
        "sha256": hashlib.sha256(b"# another\n").hexdigest(),
        "size": 10,
    }
    (packed / "manifest.json").write_text(json.dumps(manifest))
    sums(packed)
    refused(packed, f"{SHARD}: 'v0.avi' is not in the manifest")


def test_no_pack(tmp_path):
    with pytest.raises(EchosynError, match="SHA256SUMS: cannot be read"):
        unpack(tmp_path, tmp_path / "out")
