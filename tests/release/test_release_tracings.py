"""Tracings in a release: the file, the columns, the card; and what the gate makes of them."""

import numpy as np
import pandas as pd
import pytest
from gate_list import EF, GoodList, failing
from small_project import SYNTHETIC, make_project

from echosyn.data.filelist import read_filelist
from echosyn.release import verify
from echosyn.release.build import ReleaseConfig, build_release
from echosyn.release.provenance import provenance
from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError
from echosyn.segmentation.trace import Tracing, volume_table, write_tracings

LINES = np.array([[8, 2, 8, 14]] + [[4, y, 12, y] for y in np.linspace(2.3, 13.7, 20)])
SMALL = LINES * [1, 1, 0.75, 1] + [1, 0, 2, 0]


@pytest.fixture
def project(tmp_path):
    """Of six videos five are traced."""
    root = make_project(tmp_path)
    none = Tracing("no ventricle", (0, 1), np.full((2, 21, 4), np.nan))
    tracings = [Tracing("traced", (1, 5), np.stack([LINES, SMALL]))] * 5 + [none]
    write_tracings(root / "made", volume_table(SYNTHETIC, tracings, 0.002), tracings)
    return root


def released(root, tracings):
    return build_release(
        root / "samples/phantom",
        root / "data/train/phantom",
        root / "releases/phantom",
        config=Params(root).stage("release", ReleaseConfig),
        name="echosyn-phantom",
        label="ef",
        provenance=provenance(root, "phantom"),
        metrics={},
        tracings=tracings,
    )


def test_the_release_carries_file_columns_and_words(project):
    manifest = released(project, project / "made")
    release = project / "releases/phantom"
    assert verify(release) == []
    assert manifest["tracings"] == {"videos": 5, "volumes": "ml"}
    assert "VolumeTracings.csv" in manifest["files"]
    lines = pd.read_csv(release / "VolumeTracings.csv")
    assert set(lines["FileName"]) == {f"{name}.avi" for name in SYNTHETIC[:5]}
    table = read_filelist(release / "FileList.csv")
    assert list(table.columns)[-1] == "EFTraced"
    esv, edv = table["ESV"], table["EDV"]
    assert table["EFTraced"].to_numpy() == pytest.approx(
        100 * (1 - esv / edv), abs=0.01, nan_ok=True
    )
    assert edv[0] == pytest.approx(np.pi / 4 * 8**2 * 12 * 0.002, rel=1e-3)
    assert list(esv.isna()) == [False] * 5 + [True]
    card = (release / "README.md").read_text()
    assert "the left ventricle of 5 videos" in card
    assert "1 videos could not be traced" in card
    assert "discs, in millilitres" in card
    path = release / "VolumeTracings.csv"
    path.write_text(path.read_text().replace("8.0", "8.1", 1))
    assert any("VolumeTracings.csv" in problem for problem in verify(release))


def test_a_release_without_tracings_says_why(project):
    manifest = released(project, project / "tracings/phantom")
    assert manifest["tracings"] == {"videos": 0, "reason": "nobody traced them"}
    assert not (project / "releases/phantom/VolumeTracings.csv").exists()
    assert "no tracings: nobody traced them" in (project / "releases/phantom/README.md").read_text()
    assert "EFTraced" not in read_filelist(project / "releases/phantom/FileList.csv")


def test_a_release_of_which_nothing_could_be_traced_says_so(project):
    path = project / "made/volumes.csv"
    table = pd.read_csv(path).assign(ESV=np.nan, EDV=np.nan, EFTraced=np.nan)
    table.to_csv(path, index=False)
    assert "none of the 6" in released(project, project / "made")["tracings"]["reason"]
    assert not (project / "releases/phantom/VolumeTracings.csv").exists()
    assert verify(project / "releases/phantom") == []


def test_tracings_of_other_videos_are_refused(project):
    path = project / "made/volumes.csv"
    path.write_text(path.read_text().replace(SYNTHETIC[0], "another"))
    with pytest.raises(EchosynError, match="not of the videos to release: run dvc repro"):
        released(project, project / "made")
    assert not (project / "releases/phantom").exists()


def test_the_unit_is_stated_where_no_pixel_size_is_known(project):
    path = project / "made/volumes.csv"
    path.write_text(path.read_text().replace(",ml,", ",pixel^3,"))
    assert released(project, project / "made")["tracings"]["volumes"] == "pixel^3"
    assert "in pixels cubed: no pixel size" in (project / "releases/phantom/README.md").read_text()


def test_the_gate_holds_volumes_against_the_ef_that_was_traced():
    asked = [f"{e + 20:g}" for e in EF]
    assert "ef_matches_volumes" in failing(GoodList().all("EF", asked).judge("echonet"))
    traced = GoodList().all("EF", asked).all("EFTraced", [f"{e:g}" for e in EF])
    assert "ef_matches_volumes" not in failing(traced.judge("echonet"))
    wrong = GoodList().all("EFTraced", [f"{e + 20:g}" for e in EF])
    assert "ef_matches_volumes" in failing(wrong.judge("echonet"))
