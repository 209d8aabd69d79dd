"""What is refused, by name, of a release that is published or fetched; and nothing else is left."""

import hashlib
import json
import shutil

import pytest
from published_project import build, git, push, start
from refusals import refused
from repro import edit

from echosyn.release.manifest import MANIFEST, verify
from echosyn.release.publish import approve, publish, withdraw
from echosyn.release.store import open_store
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json, write_json

pytestmark = pytest.mark.slow
VIDEO = "Videos/synthetic2.avi"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A project that published 0.1.0."""
    folder = start(tmp_path_factory.mktemp("bad") / "mine")
    build(folder, "0.1.0")
    push(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with open_store() as store:
            assert publish(store, folder, "phantom") == ["phantom@v0.1.0", "phantom#candidate#1"]
    return folder


@pytest.fixture
def mine(template, tmp_path, monkeypatch):
    """A copy of it, and of its remote, to change; the working directory."""
    folder = tmp_path / "mine"
    shutil.copytree(template, folder, symlinks=True)
    shutil.copytree(f"{template}-storage", f"{folder}-storage")
    local = f"['remote \"storage\"']\n    url = {folder}-storage\n"
    (folder / ".dvc/config.local").write_text(local)
    monkeypatch.chdir(folder)
    return folder


def publishing(folder, *version):
    with open_store() as store:
        return refused(publish, store, folder, "phantom", *version)


# Publishing


def test_the_same_bytes_are_published_once(mine):
    with open_store() as store:
        assert publish(store, mine, "phantom") == []


def test_changes_that_are_not_committed_are_named(mine):
    (mine / "params.yaml").write_text((mine / "params.yaml").read_text() + "\n")
    (mine / "note").touch()
    said = publishing(mine)
    assert "not committed: note, params.yaml: a version is a commit" in said


def test_a_version_is_that_of_params_and_of_who_asks(mine):
    assert "--version 0.2.0: the release that lies here is 0.1.0" in publishing(mine, "0.2.0")
    edit(mine / "params.yaml", release={"version": "0.1.1", "license": "MIT"})
    git(mine, "commit", "-qam", "version")
    assert "manifest.json says version 0.1.0, params.yaml: release: version says 0.1.1" in (
        publishing(mine)
    )


def test_a_version_with_other_bytes_is_refused(mine):
    build(mine, "0.1.0", **{"ef/real/r2": 0.5})
    push(mine)
    assert "phantom@0.1.0 is published with other bytes: raise `version`" in publishing(mine)


def test_a_version_lower_than_the_last_is_refused(mine):
    build(mine, "0.0.9")
    push(mine)
    assert "version 0.0.9 is lower than 0.1.0, the last published" in publishing(mine)
    build(mine, "0.1.0-rc.1")
    push(mine)
    assert "version 0.1.0-rc.1 is lower than 0.1.0" in publishing(mine)


def test_bytes_that_nobody_could_fetch_are_refused(mine, tmp_path):
    build(mine, "0.2.0")
    assert publishing(mine).endswith("not on DVC's default remote: dvc push releases/phantom")
    (mine / ".dvc/cache").rename(tmp_path / "aside")
    assert "releases/phantom is not in DVC's cache: dvc commit" in publishing(mine)
    (tmp_path / "aside").rename(mine / ".dvc/cache")
    (mine / ".dvc/config").write_text("")
    (mine / ".dvc/config.local").unlink()
    git(mine, "commit", "-qam", "no remote")
    assert "DVC has no default remote" in publishing(mine)


def test_bytes_that_dvc_did_not_record_are_refused(mine):
    video = mine / "releases/phantom" / VIDEO
    video.unlink()
    assert f"is not whole: {VIDEO}: missing" in publishing(mine)
    shutil.rmtree(mine / "releases")
    assert "is this a release?" in publishing(mine)


def test_samples_that_changed_since_are_refused(mine):
    (mine / "samples/phantom/Videos/synthetic1.avi").write_bytes(b"")
    assert "what it was made from has changed" in publishing(mine)


def test_a_red_gate_or_audit_is_refused(mine):
    audit = mine / "audit/phantom/audit.json"
    found = read_json(audit)
    write_json(audit, found | {"numbers": found["numbers"] | {"privacy/planted_exact_recall": 0.5}})
    assert "planted_exact" in publishing(mine)
    (mine / "gates/release/phantom.json").unlink()
    assert "no gate has passed" in publishing(mine)


def test_a_release_that_dvcs_registry_would_not_find_is_refused(mine):
    text = (mine / "dvc.yaml").read_text().replace("${generate[0]}", "other")
    (mine / "dvc.yaml").write_text(text)
    git(mine, "commit", "-qam", "another artifact")
    assert "dvc.yaml: `artifacts` does not have phantom" in publishing(mine)
    with open_store() as store:
        assert "'a/b': a release's name is" in refused(publish, store, mine, "a/b")


@pytest.mark.parametrize("words", ["", " ", "two\nlines"])
def test_who_and_why_are_words_on_a_line(mine, words):
    with open_store() as store:
        version = store.find("phantom@0.1.0")
        assert "--by: expected words" in refused(approve, store, version, words)
        assert "--because: expected words" in refused(withdraw, store, version, words)
    assert len(git(mine, "tag").splitlines()) == 2


# Fetching


def stored(folder, data):
    """The file of DVC's remote that holds these bytes."""
    md5 = hashlib.md5(data).hexdigest()
    path = folder.with_name("mine-storage") / "files/md5" / md5[:2] / md5[2:]
    path.chmod(0o644)
    return path


def tree_of(folder):
    """The listing of the release's files in DVC's remote."""
    (path,) = (p for p in folder.with_name("mine-storage").rglob("*.dir"))
    path.chmod(0o644)
    return path


def replaced(folder, name, data):
    """Other bytes for a file of the release, under the name that the remote has."""
    stored(folder, (folder / "releases/phantom" / name).read_bytes()).write_bytes(data)


def flip(folder):
    data = bytearray((folder / "releases/phantom" / VIDEO).read_bytes())
    data[len(data) // 2] ^= 1
    replaced(folder, VIDEO, bytes(data))


def cut(folder):
    replaced(folder, VIDEO, (folder / "releases/phantom" / VIDEO).read_bytes()[:-1])


def half(folder):
    stored(folder, (folder / "releases/phantom" / VIDEO).read_bytes()).unlink()


def no_listing(folder):
    tree_of(folder).unlink()


def forged(folder):
    """A video and a manifest that agree."""
    replaced(folder, VIDEO, b"RIFF")
    manifest = read_json(folder / "releases/phantom" / MANIFEST)
    manifest["files"][VIDEO] = {"sha256": hashlib.sha256(b"RIFF").hexdigest(), "size": 4}
    replaced(folder, MANIFEST, json.dumps(manifest).encode())


def outside(folder):
    tree = tree_of(folder)
    files = json.loads(tree.read_text())
    tree.write_text(json.dumps([*files, {**files[0], "relpath": "../../evil"}]))


def a_file_too_many(folder):
    tree = tree_of(folder)
    files = json.loads(tree.read_text())
    tree.write_text(json.dumps([*files, {**files[0], "relpath": "Videos/extra.avi"}]))


def later(folder):
    manifest = read_json(folder / "releases/phantom" / MANIFEST)
    manifest |= {"schema": 9, "generator": "echosyn 7.0.0"}
    replaced(folder, MANIFEST, json.dumps(manifest).encode())


def absolute(folder):
    manifest = read_json(folder / "releases/phantom" / MANIFEST)
    manifest["files"]["/etc/hostname"] = {"sha256": "0" * 64, "size": 1}
    replaced(folder, MANIFEST, json.dumps(manifest).encode())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, f"{VIDEO}: changed, its sha256"),
        (cut, f"{VIDEO}: changed, "),
        (half, "not all of it is in DVC's cache or on its remote"),
        (no_listing, "not all of it is in DVC's cache or on its remote"),
        (forged, "not the bytes that dvc.lock has at phantom@v0.1.0"),
        (outside, "../../evil lies outside the release"),
        (a_file_too_many, "Videos/extra.avi: not in the manifest"),
        (later, "it needs echosyn 7.0.0 or later"),
        (absolute, "/etc/hostname: the manifest names a file outside"),
    ],
)
def test_a_fetch_is_whole_or_leaves_nothing(mine, tmp_path, damage, said):
    damage(mine)
    shutil.rmtree(mine / ".dvc/cache")
    shutil.rmtree(mine / "releases")
    before = sorted(tmp_path.iterdir())
    with open_store() as store:
        text = refused(store.fetch, store.find("phantom@0.1.0"), tmp_path / "out")
    assert said in text
    assert sorted(tmp_path.iterdir()) == before


def test_a_remote_of_a_kind_that_is_not_installed_is_named(mine, tmp_path):
    (mine / ".dvc/config.local").write_text("['remote \"storage\"']\n    url = gs://bucket/x\n")
    shutil.rmtree(mine / ".dvc/cache")
    with pytest.raises(EchosynError, match="requires 'dvc-gs' to be installed"):  # noqa: SIM117
        with open_store() as store:
            store.fetch(store.find("phantom@0.1.0"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused_and_kept(mine, tmp_path):
    with open_store() as store:
        version = store.find("phantom@0.1.0")
        assert "is there and not empty" in refused(store.fetch, version, mine / "samples")
        (tmp_path / "file").touch()
        assert "is there and not empty" in refused(store.fetch, version, tmp_path / "file")
        (tmp_path / "empty").mkdir()
        assert verify(store.fetch(version, tmp_path / "empty")) == []


def test_links_in_a_release_are_named(mine, tmp_path):
    folder = mine / "releases/phantom"
    (folder / "Videos").rename(tmp_path / "elsewhere")
    (folder / "Videos").symlink_to(tmp_path / "elsewhere")
    assert verify(folder)[0] == "Videos: a link, not a file of the release"


def test_a_tag_that_is_none_of_ours_is_passed_over(mine):
    for tag in ("v1.0.0", "phantom@v0.2", "phantom@created", "Other@v0.1.0", "phantom@v0.9.0"):
        git(mine, "tag", tag)
    git(mine, "tag", "-a", "-m", "x", "phantom@v0.1.0+meta")
    git(mine, "tag", "-a", "-m", "x", "phantom@created#7")
    git(mine, "tag", "-a", "-m", "x", "a/b@v0.1.0")
    with open_store() as store:
        assert [str(v) for v in store.versions()] == ["phantom@0.1.0"]


def test_a_folder_that_git_does_not_keep_has_no_versions(mine):
    shutil.rmtree(mine / ".git")
    (mine / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    with open_store() as store:
        assert "no git keeps this folder" in refused(store.versions)
