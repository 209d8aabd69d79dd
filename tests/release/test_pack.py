"""A pack is its release in another form: nothing is lost, and nothing depends on where or when."""

import hashlib
import os
import tarfile

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_release import contents, sign, tiny_release

from echosyn.cli import main
from echosyn.data.filelist import read_filelist, write_filelist
from echosyn.release import verify
from echosyn.release.manifest import SIGNATURE
from echosyn.release.pack import SHARD_BYTES, pack
from echosyn.release.unpack import unpack
from echosyn.runtime.errors import EchosynError

NAMES = [f"SYN_tiny_0_{i:06d}" for i in range(7)]


@pytest.fixture
def release(tmp_path):
    return tiny_release(tmp_path / "release", NAMES)


@pytest.mark.slow
@settings(max_examples=15)
@given(
    stems=st.lists(
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,120}", fullmatch=True),
        min_size=1,
        max_size=6,
        unique_by=str.lower,
    ),
    phases=st.booleans(),
    shard_bytes=st.sampled_from([1, 20_000, SHARD_BYTES]),
    others=st.dictionaries(
        st.sampled_from(["notes/a.txt", "notes/b/c.bin", "Videos/x.txt", "VolumeTracings.csv"]),
        st.binary(max_size=50),
    ),
)
def test_unpacking_gives_the_release_back(tmp_path_factory, stems, phases, shard_bytes, others):
    root = tmp_path_factory.mktemp("any")
    release = tiny_release(root / "release", stems, frames=2, side=8, phases=phases)
    for name, data in others.items():
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_bytes(data)
    sign(release)
    pack(release, root / "packed", shard_bytes)
    unpack(root / "packed", root / "again")
    assert contents(root / "again") == contents(release)
    assert verify(root / "again") == []


def test_a_signature_goes_with_the_pack_and_comes_back(release, tmp_path):
    (release / SIGNATURE).write_text("signed\n")
    pack(release, tmp_path / "packed")
    unpack(tmp_path / "packed", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(release)
    (tmp_path / "packed" / SIGNATURE).write_text("other\n")
    with pytest.raises(EchosynError, match=r"manifest\.json\.sig: truncated or changed"):
        unpack(tmp_path / "packed", tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_packing_twice_gives_the_same_bytes(release, tmp_path, monkeypatch):
    pack(release, tmp_path / "one")
    for path in release.rglob("*"):
        os.utime(path, (1, 1))
    moved = release.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("ECHOSYN_CORES", "3")
    pack(moved, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_shards_are_plain_archives_of_one_split_each_in_order(release, tmp_path):
    pack(release, tmp_path / "packed")
    names = sorted(p.name for p in (tmp_path / "packed/shards").iterdir())
    assert names == ["test-00000.tar", "train-00000.tar", "val-00000.tar"]
    with tarfile.open(tmp_path / "packed/shards/train-00000.tar", "r:") as archive:
        members = archive.getmembers()
        row = archive.extractfile(members[1]).read().decode()
    wanted = [f"{NAMES[i]}.{kind}" for i in (0, 3, 6) for kind in ("avi", "json")]
    assert [m.name for m in members] == wanted
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert row == (
        '{"FileName": "SYN_tiny_0_000000", "EF": 30.5, "ESV": null, "EDV": null, '
        '"FrameHeight": 16, "FrameWidth": 16, "FPS": 16.0, "NumberOfFrames": 9, '
        '"Split": "TRAIN", "HeartRate": 60.0, "Phase": 0.25}'
    )


def test_a_shard_is_at_most_as_large_as_asked_for(release, tmp_path):
    pack(release, tmp_path / "whole")
    limit = (tmp_path / "whole/shards/train-00000.tar").stat().st_size  # three videos
    for asked, videos in ((limit, 3), (limit - 1, 2), (1, 1)):
        pack(release, tmp_path / str(asked), asked)
        shard = tmp_path / str(asked) / "shards/train-00000.tar"
        with tarfile.open(shard) as archive:
            assert len(archive.getnames()) == 2 * videos
        assert shard.stat().st_size <= asked or videos == 1


def test_sums_are_those_of_sha256sum(release, tmp_path):
    pack(release, tmp_path / "packed")
    files = contents(tmp_path / "packed")
    lines = files["SHA256SUMS"].decode().splitlines()
    sums = {line[66:]: line[:64] for line in lines}
    covered = {n for n in files if n.startswith("shards/") or n.endswith(".parquet")}
    assert set(sums) == {"manifest.json", *covered}
    assert all(hashlib.sha256(files[name]).hexdigest() == sum for name, sum in sums.items())


def test_parquet_holds_the_tables(tmp_path):
    release = tiny_release(tmp_path / "release", ["0017", "0x1", "1e3"])
    pack(release, tmp_path / "packed")
    listed = pd.read_parquet(tmp_path / "packed/FileList.parquet")
    pd.testing.assert_frame_equal(
        listed, read_filelist(release / "FileList.csv"), check_dtype=False
    )
    assert listed["NumberOfFrames"].dtype == "int64"
    phases = pd.read_parquet(tmp_path / "packed/Phases.parquet")
    wanted = pd.read_csv(release / "Phases.csv", dtype={"FileName": str})
    pd.testing.assert_frame_equal(phases, wanted, check_dtype=False)


def changed(release):
    (release / f"Videos/{NAMES[3]}.avi").write_bytes(b"other")


def missing(release):
    (release / f"Videos/{NAMES[3]}.avi").unlink()


def linked(release):
    video = release / f"Videos/{NAMES[3]}.avi"
    video.rename(release.parent / "video.avi")
    video.symlink_to(release.parent / "video.avi")


def in_a_linked_folder(release):
    (release / "Videos").rename(release.parent / "Videos")
    (release / "Videos").symlink_to(release.parent / "Videos")


def unlisted(release):
    (release / "Videos/more.avi").write_bytes(b"")


def edited(release):
    (release / "README.md").write_text("# mine\n")


def dotted(release):
    (release / f"Videos/{NAMES[3]}.avi").rename(release / "Videos/v1.2.avi")
    table = read_filelist(release / "FileList.csv")
    write_filelist(release / "FileList.csv", table.replace(NAMES[3], "v1.2"))
    sign(release)


def of_a_pack(release):
    (release / "SHA256SUMS").write_text("")
    sign(release)


def no_video(release):
    table = read_filelist(release / "FileList.csv")
    write_filelist(release / "FileList.csv", table.replace(NAMES[3], "unknown"))
    sign(release)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (changed, f"Videos/{NAMES[3]}.avi: changed"),
        (missing, f"Videos/{NAMES[3]}.avi: missing"),
        (linked, f"Videos/{NAMES[3]}.avi: missing"),
        (in_a_linked_folder, "Videos: not in the manifest"),
        (unlisted, "Videos/more.avi: not in the manifest"),
        (edited, "README.md: changed"),
        (dotted, "v1.2 holds a dot"),
        (of_a_pack, "SHA256SUMS: no name that a pack can hold"),
        (no_video, "Videos/unknown.avi: not in the manifest"),
    ],
)
def test_a_release_that_is_not_as_published_is_not_packed(release, tmp_path, damage, said):
    damage(release)
    before = set(tmp_path.iterdir())
    with pytest.raises(EchosynError, match=said):
        pack(release, tmp_path / "packed")
    assert set(tmp_path.iterdir()) == before


def test_nothing_is_written_over_or_into_the_release(release, tmp_path, monkeypatch):
    with pytest.raises(EchosynError, match="exists already"):
        pack(release, tmp_path)
    with pytest.raises(EchosynError, match="lies in the release"):
        pack(release, release / "packed")
    monkeypatch.setattr("shutil.disk_usage", lambda path: Free)
    with pytest.raises(EchosynError, match=r"needs 0\.00 GB, and 0\.00 GB are free"):
        pack(release, tmp_path / "packed")


class Free:
    free = 0


def test_commands(release, tmp_path, capsys):
    packed, again = str(tmp_path / "packed"), str(tmp_path / "again")
    assert main(["releases", "pack", str(release), packed, "--shard-mb", "1"]) == 0
    assert "packed: 3 shards" in capsys.readouterr().out
    assert main(["releases", "unpack", packed, again]) == 0
    assert f"all {len(NAMES) + 3} files are as published" in capsys.readouterr().out
    assert main(["releases", "unpack", packed, again]) == 1
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["releases", "pack", str(release), packed, "--shard-mb", "0"])
