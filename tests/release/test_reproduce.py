"""A release's videos, sampled again with the models and hearts it names."""

import dataclasses
import shutil

import pytest
from finished_project import SAMPLING, SEED, make_project
from published_project import git
from refusals import refused

from echosyn.cli import main
from echosyn.data.filelist import video_path
from echosyn.data.video import read_video, write_video
from echosyn.release.build import ReleaseConfig, build_release
from echosyn.release.reproduce import TOLERANCE, reproduce
from echosyn.release.versions import register
from echosyn.runtime.files import read_json, write_json
from echosyn.runtime.lineage import dvc_md5

pytestmark = pytest.mark.slow
MADE_WITH = ("models/lvdm", "models/vae", "privacy/phantom/hearts")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A project, and the release of its candidates."""
    root = tmp_path_factory.mktemp("sampled")
    sources, out = make_project(root), root / "releases/phantom"
    md5 = {path: dvc_md5(root / path) for path in MADE_WITH}
    build_release(
        sources.candidates,
        sources.videos,
        out,
        config=ReleaseConfig("0.1.0", "CC0-1.0"),
        name="echosyn-phantom",
        label="ef",
        provenance={
            "params": {"scale": "smoke", "sample_videos": dataclasses.asdict(SAMPLING)},
            "lineage": {"data": {}, "models": md5, "code": {}},
        },
        metrics={},
    )
    return root, out


@pytest.fixture
def copied(world, tmp_path):
    """The same, to change."""
    root = shutil.copytree(world[0], tmp_path / "project")
    return root, root / "releases/phantom"


@pytest.fixture
def work(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_the_same_models_draw_the_same_bytes(world, work):
    root, release = world
    found = reproduce(release, root, 5, work)
    assert [one.identical for one in found] == [True] * 5
    assert str(found[0]) == f"SYN_phantom_{SEED}_000000: byte-identical"
    assert [one.name[-2:] for one in found] == ["00", "02", "04", "06", "08"]


def test_a_video_is_compared_in_grey_levels_where_its_bytes_differ(copied, work):
    root, release = copied
    near, far, longer = (video_path(release, f"SYN_phantom_{SEED}_00000{i}") for i in (0, 4, 8))
    frames, fps = read_video(near)
    changed = frames.copy()
    changed[0, 0, 0] ^= 128
    write_video(near, changed, fps)
    shutil.copyfile(video_path(release, f"SYN_phantom_{SEED}_000002"), far)
    write_video(longer, read_video(longer)[0][:-1], fps)
    found = reproduce(release, root, 3, work)
    assert [one.identical for one in found] == [False] * 3
    assert [one.passes for one in found] == [True, False, False]
    assert 0 < found[0].off < TOLERANCE < found[1].off < found[2].off == float("inf")
    assert "grey levels off on average, beyond 1" in str(found[1])


def test_other_models_than_those_of_the_release_are_refused(copied, work):
    root, release = copied
    (root / "models/vae/note").touch()
    said = refused(reproduce, release, root, 1, work)
    assert "models/vae is not what the release was made with" in said
    shutil.rmtree(root / "privacy")
    (root / "models/vae/note").unlink()
    assert "does not exist: dvc pull privacy/phantom/hearts" in (
        refused(reproduce, release, root, 1, work)
    )
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("videos", [0, 6])
def test_as_many_videos_as_there_are(world, work, videos):
    root, release = world
    assert f"--videos {videos}: " in refused(reproduce, release, root, videos, work)


def test_a_name_that_says_no_index_is_refused(copied, work):
    root, release = copied
    name = f"SYN_phantom_{SEED}_000000"
    video_path(release, name).rename(video_path(release, "first"))
    table = release / "FileList.csv"
    table.write_text(table.read_text().replace(name, "first"))
    assert "first: not named as sample_videos" in refused(reproduce, release, root, 1, work)


def test_of_a_version_the_models_come_from_dvc(copied, monkeypatch, capsys):
    """The project's own are gone; what no sampling reads is not fetched."""
    from dvc.repo import Repo

    root, _ = copied
    monkeypatch.chdir(root)
    git(root, "init", "-q")
    Repo.init().close()
    with Repo() as repo:
        repo.add([*MADE_WITH, "releases/phantom"])
        git(root, "add", ".dvc", *(f"{path}.dvc" for path in (*MADE_WITH, "releases/phantom")))
        git(root, "commit", "-qm", "made")
        register(repo.scm, "phantom", "0.1.0", "published")
    for folder in ("models", "privacy", "releases"):
        shutil.rmtree(root / folder)
    capsys.readouterr()
    assert main(["releases", "reproduce", "phantom@0.1.0", "--videos", "2"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"SYN_phantom_{SEED}_000000: byte-identical"
    assert told[2] == "2 of 2 byte-identical, 2 pass"
    assert not (root / "models").exists()


def test_settings_that_this_code_does_not_know_are_refused(copied, work):
    root, release = copied
    manifest = read_json(release / "manifest.json")
    manifest["params"]["sample_videos"]["of_tomorrow"] = 1
    write_json(release / "manifest.json", manifest)
    assert "unknown setting 'of_tomorrow'" in refused(reproduce, release, root, 1, work)
