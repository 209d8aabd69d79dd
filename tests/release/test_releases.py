"""Two people and two versions: what one publishes the other finds, fetches and compares."""

import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from published_project import build, git, push, start
from repro import run

import echosyn
from echosyn.cli import main
from echosyn.release.manifest import verify
from echosyn.release.sign import VARIABLE
from echosyn.release.store import open_store, resolve
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.lineage import dvc_md5

pytestmark = pytest.mark.slow
R2 = {"ef/synthetic/r2_lo": 0.6, "ef/synthetic/r2_hi": 0.66}


def releases(monkeypatch, folder, *command):
    monkeypatch.chdir(folder)
    return main(["releases", *map(str, command)])


def write_keys(folder):
    for name in ("key", "other"):
        key = Ed25519PrivateKey.generate()
        form = (Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        (folder / name).write_bytes(key.private_bytes(*form))
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        (folder / f"{name}.pub").write_bytes(public)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A project that published 0.1.0 and, signed, 0.2.0, a colleague's clone of it, and the bytes
    that were published, by version."""
    root = tmp_path_factory.mktemp("two people")
    write_keys(root)
    mine, colleague = start(root / "mine"), root / "colleague"
    bytes_of = {}
    with pytest.MonkeyPatch.context() as patch:
        build(mine, "0.1.0", **R2)
        push(mine)
        bytes_of["0.1.0"] = dvc_md5(mine / "releases/phantom")
        assert releases(patch, mine, "publish", "phantom") == 0
        lock = (mine / "dvc.lock").read_text()
        changed = lock.replace("guidance: 2.5", "guidance: 3.0").replace("2" * 32, "7" * 32)
        (mine / "dvc.lock").write_text(changed)
        patch.setenv(VARIABLE, str(root / "key"))
        better = {"ef/synthetic/r2": 0.8, "ef/synthetic/r2_lo": 0.7, "ef/synthetic/r2_hi": 0.9}
        build(mine, "0.2.0", **better, **{"ef/real/r2": 0.96})
        push(mine)
        bytes_of["0.2.0"] = dvc_md5(mine / "releases/phantom")
        assert releases(patch, mine, "publish", "phantom", "--version", "0.2.0") == 0
    git(root, "clone", "-q", str(mine), str(colleague))
    return mine, colleague, bytes_of


@pytest.fixture
def mine(two, tmp_path):
    """A copy of the project, to change."""
    return shutil.copytree(two[0], tmp_path / "mine", symlinks=True)


def test_the_tags_are_those_of_dvcs_registry(two):
    mine, colleague, _ = two
    for folder in (mine, colleague):
        assert git(folder, "tag").splitlines() == [
            "phantom#candidate#1", "phantom#candidate#2", "phantom@v0.1.0", "phantom@v0.2.0",
        ]  # fmt: skip
    assert git(mine, "cat-file", "-t", "phantom@v0.1.0") == "tag"
    shown = run(mine, "gto", "show", "phantom")[1]
    assert "v0.1.0" in shown
    assert "candidate" in shown


def test_a_clone_lists_what_was_published_newest_first(two, monkeypatch, capsys):
    _, colleague, _ = two
    assert releases(monkeypatch, colleague, "list") == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["VERSION", "STAGE", "DATE", "VIDEOS"]
    assert first.split()[:2] == ["phantom@0.2.0", "candidate"]
    assert second.split()[:2] == ["phantom@0.1.0", "candidate"]
    assert "  6       0.8 (0.7 to 0.9)" in first
    assert "kd_r3d_clip16_n6x6 14.2" in first
    assert first.endswith("12.5% of hearts")


def test_without_a_version_it_is_said_how_to_make_one(tmp_path, monkeypatch, capsys):
    folder = start(tmp_path / "new")
    assert releases(monkeypatch, folder, "list") == 0
    assert "echosyn releases publish NAME" in capsys.readouterr().out
    assert releases(monkeypatch, folder, "show", "phantom@0.1.0") == 1
    assert "published: none" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_each_version_is_fetched_as_it_was(two, tmp_path, monkeypatch, capsys, version):
    _, colleague, bytes_of = two
    out = tmp_path / "a b" / version
    assert releases(monkeypatch, colleague, "fetch", f"phantom@{version}", "--out", out) == 0
    assert verify(out) == []
    assert dvc_md5(out) == bytes_of[version]
    assert releases(monkeypatch, tmp_path, "verify", out) == 0
    assert f"echosyn-phantom {version}: all 11 files" in capsys.readouterr().out


def test_dvcs_own_commands_get_the_same_bytes(two, tmp_path):
    _, colleague, bytes_of = two
    get = ("dvc", "get", "--rev", "phantom@v0.1.0", str(colleague), "releases/phantom")
    run(tmp_path, *get, "-o", "by tag")
    run(tmp_path, "dvc", "artifacts", "get", str(colleague), "phantom", "--rev", "v0.1.0",
        "-o", "by name")  # fmt: skip
    for name in ("by tag", "by name"):
        assert dvc_md5(tmp_path / name) == bytes_of["0.1.0"]


def test_a_stranger_needs_only_the_address(two, tmp_path, monkeypatch):
    """Which git clones: here a bare repository beside the DVC remote."""
    mine, _, bytes_of = two
    git(tmp_path, "clone", "-q", "--bare", str(mine), "bare.git")
    monkeypatch.chdir(tmp_path)
    address = f"file://{tmp_path}/bare.git"
    assert main(["releases", "list", "--remote", address]) == 0
    out = resolve("phantom@v0.2.0", tmp_path / "out", address)
    assert dvc_md5(out) == bytes_of["0.2.0"]
    assert resolve(str(out), tmp_path / "unused") == out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bare.git", "out"]


def test_a_version_is_loaded_by_its_name_and_fetched_once(two, tmp_path, monkeypatch):
    mine, _, bytes_of = two
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    old = echosyn.load_release("phantom@0.1.0", where=str(mine))
    assert (old.manifest["version"], len(old.table)) == ("0.1.0", 6)
    assert dvc_md5(old.folder) == bytes_of["0.1.0"]
    assert old.folder.is_relative_to(tmp_path / "cache")
    monkeypatch.chdir(mine / "releases")  # the same words for another folder, which is no project
    with pytest.raises(EchosynError):
        echosyn.load_release("phantom@0.1.0", where="phantom")
    with pytest.raises(EchosynError):
        echosyn.load_release("../phantom@0.1.0", where=str(mine))
    monkeypatch.setattr("echosyn.release.store.resolve", None)  # it is there
    assert echosyn.load_release("phantom@0.1.0", where=str(mine)).folder == old.folder


def test_a_version_withdrawn_since_is_loaded_with_a_warning(mine, tmp_path, monkeypatch, recwarn):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Ada")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "ada@example.org")
    echosyn.load_release("phantom@0.1.0", where=str(mine))
    echosyn.load_release("phantom@0.1.0", where=str(mine))
    assert not [w for w in recwarn if "phantom" in str(w.message)]
    assert releases(monkeypatch, mine, "withdraw", "phantom@0.1.0", "--because", "too alike") == 0
    said = r"phantom@0\.1\.0 is withdrawn: too alike \(tagged by Ada <ada@example\.org>, 20\d\d-"
    with pytest.warns(UserWarning, match=said) as warned:
        old = echosyn.load_release("phantom@0.1.0", where=str(mine))
    assert (len(old.table), warned[0].filename) == (6, __file__)
    monkeypatch.chdir(tmp_path)
    mine.rename(tmp_path / "away")
    with pytest.warns(
        UserWarning, match=r"phantom@0\.1\.0 is in .*; whether it was withdrawn since: "
    ):
        echosyn.load_release("phantom@0.1.0", where=str(mine))


def test_a_fetch_asks_for_the_publishers_signature(two, tmp_path, monkeypatch, capsys):
    _, colleague, _ = two

    def fetch(version, key):
        key = colleague.with_name(key)
        command = ("fetch", f"phantom@{version}", "--out", tmp_path / "out", "--key", key)
        return releases(monkeypatch, colleague, *command), capsys.readouterr()

    for version, key, said in (
        ("0.2.0", "other.pub", "phantom@0.2.0 is refused: manifest.json.sig: made with SHA256:"),
        ("0.2.0", "other.pub", f"of {colleague.with_name('other.pub')}\n"),
        ("0.1.0", "key.pub", "phantom@0.1.0 is refused: manifest.json.sig: missing"),
        ("0.2.0", "none.pub", "none.pub: cannot be read"),
    ):
        status, told = fetch(version, key)
        assert status == 1
        assert said in told.err
    assert list(tmp_path.iterdir()) == []
    status, told = fetch("0.2.0", "key.pub")
    assert status == 0
    assert f"as published, signed with the key in {colleague.with_name('key.pub')}" in told.out
    assert verify(tmp_path / "out") == []


def test_a_difference_says_where_and_whether_it_is_more_than_chance(two, monkeypatch, capsys):
    mine, _, _ = two
    assert releases(monkeypatch, mine, "diff", "phantom@0.1.0", "phantom@0.2.0") == 1
    told = capsys.readouterr().out.splitlines()
    assert "  version: 0.1.0 -> 0.2.0" in told
    assert told[told.index("models:") + 1] == f"  models/vae: {'2' * 32}.dir -> {'7' * 32}.dir"
    assert told[told.index("settings:") + 1] == "  sample_videos.guidance: 2.5 -> 3.0"
    numbers = told[told.index("numbers:") + 1 : told.index("files:")]
    assert numbers == [
        "  ef/real/r2: 0.97 (0.95 to 0.98) -> 0.96 (0.95 to 0.98), within the intervals",
        "  ef/synthetic/r2: 0.63 (0.6 to 0.66) -> 0.8 (0.7 to 0.9), a change",
    ]
    assert "data:" not in told
    assert releases(monkeypatch, mine, "diff", mine / "releases/phantom", "phantom@0.2.0") == 0


def test_who_approved_and_withdrew_is_in_the_tags(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Ada")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "ada@example.org")
    by = ("--by", "Dr. B, data steward", "--note", "audit of 28 November")
    assert releases(monkeypatch, mine, "approve", "phantom@0.1.0", *by) == 0
    assert "git push origin 'phantom#candidate!#3' 'phantom#approved#4'" in capsys.readouterr().out
    assert releases(monkeypatch, mine, "show", "phantom@0.1.0") == 0
    told = capsys.readouterr().out
    assert "stage: approved by Dr. B, data steward: audit of 28 November (tagged by Ada <" in told
    assert "  ef/real/r2  0.97 (0.95 to 0.98)" in told
    assert f"  {'2' * 32}  models/vae" in told
    assert "approved" in run(mine, "gto", "show", "phantom")[1]
    assert releases(monkeypatch, mine, "approve", "phantom@0.1.0", "--by", "x") == 1
    assert releases(monkeypatch, mine, "withdraw", "phantom@0.2.0", "--because", "too alike") == 0
    capsys.readouterr()
    fetch = ("fetch", "phantom@0.2.0", "--out", tmp_path / "out")
    assert releases(monkeypatch, mine, *fetch) == 1
    assert "phantom@0.2.0 is withdrawn: too alike (tagged by Ada <" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert releases(monkeypatch, mine, *fetch, "--withdrawn") == 0
    assert verify(tmp_path / "out") == []
    assert releases(monkeypatch, mine, "approve", "phantom@0.2.0", "--by", "x") == 1
    assert releases(monkeypatch, mine, "show", "phantom") == 0  # the highest not withdrawn
    assert "phantom@0.1.0: " in capsys.readouterr().out


def test_a_version_that_is_not_there_lists_those_that_are(two, tmp_path):
    with (
        open_store(str(two[0])) as store,
        pytest.raises(EchosynError, match=r"no version phantom@0\.3\.0; published: phantom@0\.2"),
    ):
        store.find("phantom@0.3.0")
    with pytest.raises(EchosynError, match="nowhere"):
        resolve("phantom@0.1.0", tmp_path / "out", str(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []
