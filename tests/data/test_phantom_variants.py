"""The phantom's other faces: the short axis, two classes, defects; and that the default stays."""

import hashlib

import cv2
import numpy as np
import pandas as pd
import pytest

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.phantom import (
    Defects,
    PhantomConfig,
    measured_ef,
    render_patient,
    sample_anatomy,
    write_dataset,
)
from echosyn.data.phantom.anatomy import MM_PER_PIXEL
from echosyn.data.phantom.shortaxis import ZOOM, polygon_area, ring_size, ring_volume
from echosyn.data.video import read_video
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError

SIZES = {"train": 6, "val": 3, "test": 3, "frames": 36}
RING = PhantomConfig(**SIZES, view="psax")
EFS = np.linspace(21, 79, 12)


def around(ef, view="psax"):
    return PhantomConfig(**SIZES, view=view, ef_mean=float(ef), ef_sd=0.5)


@pytest.fixture(scope="module")
def rings():
    """Twelve patients whose EF runs from 20 to 80."""
    return [render_patient(i, around(ef), seed=0) for i, ef in enumerate(EFS)]


def filled(contour, size=112):
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.rint(contour * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return mask.astype(bool)


# The default


def test_the_default_is_what_it_always_was(tmp_path):
    """Tables to the byte; frames to what OpenCV's builds for other processors leave."""
    write_dataset(tmp_path / "raw", PhantomConfig(train=3, val=1, test=1, frames=36), 0, workers=1)
    digests = {
        name: hashlib.sha256((tmp_path / "raw" / name).read_bytes()).hexdigest()[:16]
        for name in ("FileList.csv", "VolumeTracings.csv")
    }
    assert digests == {"FileList.csv": "e106ced25a551bbc", "VolumeTracings.csv": "f29061b8eebacb19"}
    means = [read_video(v)[0].mean() for v in sorted((tmp_path / "raw" / "Videos").iterdir())]
    assert means == pytest.approx([24.50974, 17.58279, 39.42384, 46.00474, 22.91836], abs=0.01)


# The short axis


def test_size_gives_back_the_volume():
    anatomy = sample_anatomy(3, RING, seed=0)
    volumes = np.array([1.0, 0.7, 0.35]) * anatomy.edv
    length, radius = ring_size(anatomy, volumes)
    found = [
        ring_volume(np.pi * r * r, n, MM_PER_PIXEL / ZOOM)
        for n, r in zip(length, radius, strict=True)
    ]
    assert found == pytest.approx(list(volumes))


def test_area_of_a_polygon():
    assert polygon_area(np.array([[0, 0], [4, 0], [4, 3], [0, 3]])) == 12


def test_ef_is_that_of_the_areas_drawn(rings):
    for video, ef in zip(rings, EFS, strict=True):
        areas = [polygon_area(c) for c in video.contours]
        ed, es = (t.frame for t in video.tracings)
        assert (areas[ed], areas[es]) == pytest.approx((max(areas), min(areas)))
        assert video.ef == pytest.approx(100 * (1 - (areas[es] / areas[ed]) ** (4 / 3)), abs=1e-6)
        assert video.ef == pytest.approx(measured_ef(video.anatomy, around(ef)), abs=1e-6)
        assert video.mm_per_pixel == pytest.approx(1.0)
        # and the area is that of the mask that the contour fills
        assert filled(video.contours[ed]).sum() == pytest.approx(areas[ed], rel=0.06)


def test_it_is_the_heart_of_the_apical_view(rings):
    apical = render_patient(2, around(EFS[2], "a4c"), seed=0)
    assert rings[2].edv == pytest.approx(apical.edv, rel=1e-3)
    assert rings[2].ef == pytest.approx(apical.ef, abs=0.1)
    assert rings[2].name != apical.name


def test_ef_can_be_learnt_from_the_pixels(rings):
    """The change of the dark cavity's area, seen in the frames alone, tracks EF."""
    seen = []
    for video in rings:
        smooth = [cv2.GaussianBlur(f, (0, 0), 2.0).astype(float) for f in video.frames]
        start = filled(video.contours[video.tracings[0].frame])
        ring = cv2.dilate(start.astype(np.uint8), np.ones((11, 11))).astype(bool) & ~start
        bright = np.mean([f[ring].mean() for f in smooth])
        dark = np.array([(f[start] < 0.5 * bright).sum() for f in smooth])
        seen.append(1 - np.percentile(dark, 5) / np.percentile(dark, 95))
    efs = [v.ef for v in rings]
    assert np.ptp(efs) > 50
    assert np.corrcoef(seen, efs)[0, 1] > 0.95


def test_the_cavity_is_dark_and_the_wall_is_not(rings):
    for video in rings:
        for tracing in video.tracings:
            inside = filled(video.contours[tracing.frame]).astype(np.uint8)
            core = cv2.erode(inside, np.ones((3, 3)), iterations=3).astype(bool)
            wall = cv2.dilate(inside, np.ones((3, 3)), iterations=4).astype(bool)
            wall &= ~cv2.dilate(inside, np.ones((3, 3))).astype(bool)
            frame = video.frames[tracing.frame]
            assert frame[core].mean() < 0.6 * frame[wall].mean()


@pytest.mark.slow
def test_short_axis_on_disk(tmp_path):
    small = PhantomConfig(train=2, val=1, test=1, frames=36, view="psax")
    write_dataset(tmp_path / "a", small, seed=0, workers=1)
    write_dataset(tmp_path / "b", small, seed=0, workers=2)
    for file in (f for f in (tmp_path / "a").rglob("*") if f.is_file()):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
    table = read_filelist(tmp_path / "a" / "FileList.csv").set_index("FileName")
    assert table["ESV"].to_numpy() == pytest.approx(
        table["EDV"] * (1 - table["EF"] / 100), abs=0.01
    )
    tracings = pd.read_csv(tmp_path / "a" / "VolumeTracings.csv")
    for name, rows in tracings.groupby("FileName"):
        areas = []
        for _, ends in rows.groupby("Frame", sort=False):
            lines = ends[["X1", "Y1", "X2", "Y2"]].to_numpy().reshape(21, 2, 2)
            long, *across = np.linalg.norm(lines[:, 1] - lines[:, 0], axis=1)
            areas.append(long * np.mean(across))
        ef = 100 * (1 - (areas[0] / areas[1]) ** (4 / 3))
        assert ef == pytest.approx(table.loc[name.removesuffix(".avi"), "EF"], abs=0.3)


# Two classes


@pytest.mark.parametrize(
    ("pathology", "values"),
    [("right_heart", {"PAH", "non-PAH"}), ("thick_wall", {"LVH", "non-LVH"})],
)
def test_every_split_has_both_classes(tmp_path, pathology, values):
    cfg = PhantomConfig(train=6, val=2, test=2, frames=32, pathology=pathology, size=56)
    write_dataset(tmp_path / "raw", cfg, seed=0, workers=1)
    table = read_filelist(tmp_path / "raw" / "FileList.csv")
    assert set(table["Class"]) == values
    assert (table.groupby("Split")["Class"].nunique() == 2).all()
    assert table["Class"].value_counts().tolist() == [5, 5]


def test_the_healthy_stay_as_they_were_and_so_does_ef():
    plain, mixed = (PhantomConfig(**SIZES, pathology=p) for p in ("none", "right_heart"))
    assert [mixed.label(i) for i in range(4)] == ["non-PAH", "PAH", "non-PAH", "PAH"]
    assert plain.label(1) == ""
    healthy, before = render_patient(2, mixed, 0), render_patient(2, plain, 0)
    assert np.array_equal(healthy.frames, before.frames)
    ill, before = render_patient(1, mixed, 0), render_patient(1, plain, 0)
    assert not np.array_equal(ill.frames, before.frames)
    assert ill.ef == pytest.approx(before.ef, abs=0.1)


def test_share_of_the_ill():
    cfg = PhantomConfig(train=300, val=50, test=50, pathology="thick_wall", ill=0.3)
    ill = [cfg.is_ill(i) for i in range(400)]
    assert sum(ill) == 120
    assert sum(ill[300:350]) == 15


def septum_over_lateral(video):
    """Reach of the cavity to the left of its middle over that to the right, at ED."""
    contour = video.contours[video.tracings[0].frame]
    middle = (contour[0, 0] + contour[40, 0]) / 2
    return (middle - contour[20, 0]) / (contour[60, 0] - middle)


def test_a_pressed_septum_is_flat():
    cfg = PhantomConfig(**SIZES, view="psax", pathology="right_heart")
    ratios = [septum_over_lateral(render_patient(i, cfg, 0)) for i in range(8)]
    assert max(ratios[1::2]) < 0.7  # the ill
    assert min(ratios[0::2]) > 0.85


@pytest.mark.parametrize("view", ["a4c", "psax"])
def test_a_right_heart_is_seen_to_be_wide(view):
    """To the left of the LV more of the picture is dark, as blood is."""
    plain, ill = (PhantomConfig(**SIZES, view=view, pathology=p) for p in ("none", "right_heart"))
    differences = []
    for i in (1, 3, 5, 7):
        before, after = (render_patient(i, c, 0).frames.mean(0) for c in (plain, ill))
        differences.append(after[40:75, 15:50].mean() - before[40:75, 15:50].mean())
    assert np.mean(differences) < -3


@pytest.mark.parametrize(("view", "near", "far"), [("a4c", 8, 9.5), ("psax", 10.5, 13)])
def test_a_thick_wall_is_seen_to_be_thick(view, near, far):
    """At a distance from the cavity that a healthy wall does not reach, the ill have wall."""
    plain, ill = (PhantomConfig(**SIZES, view=view, pathology=p) for p in ("none", "thick_wall"))

    def beyond(video):
        ed = video.tracings[0].frame
        outside = ~filled(video.contours[ed])
        distance = cv2.distanceTransform(outside.astype(np.uint8), cv2.DIST_L2, 5)
        return video.frames[ed][(distance > near) & (distance < far)].mean()

    ratios = [beyond(render_patient(i, ill, 0)) / beyond(render_patient(i, plain, 0))
              for i in (1, 3, 5, 7)]  # fmt: skip
    assert np.mean(ratios) > 1.3


# Defects


def dataset(folder, **defects):
    cfg = PhantomConfig(train=5, val=2, test=2, frames=16, size=56, bpm_lo=130, bpm_hi=170,
                        defects=Defects(**defects))  # fmt: skip
    write_dataset(folder, cfg, seed=0, workers=1)
    table = pd.read_csv(folder / "FileList.csv").set_index("FileName")
    return table, {v.stem: v.read_bytes() for v in (folder / "Videos").iterdir()}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("sound") / "raw")


def changed_rows(table, sound):
    return (table != sound[0]).any(axis=1).sum()


def changed_videos(videos, sound):
    return [name for name, data in videos.items() if data != sound[1][name]]


def test_truncated_videos(tmp_path, sound):
    table, videos = dataset(tmp_path / "raw", truncated=2)
    assert changed_rows(table, sound) == 0
    changed = changed_videos(videos, sound)
    assert len(changed) == 2
    for name in changed:
        with pytest.raises(EchosynError, match="truncated"):
            read_video(video_path(tmp_path / "raw", name))


@pytest.mark.parametrize(
    ("defect", "column"),
    [("wrong_fps", "FPS"), ("wrong_frames", "NumberOfFrames"), ("wrong_ef", "EF")],
)
def test_wrong_cells(tmp_path, sound, defect, column):
    table, videos = dataset(tmp_path / "raw", **{defect: 3})
    assert changed_videos(videos, sound) == []
    assert changed_rows(table, sound) == (table[column] != sound[0][column]).sum() == 3


def test_wrong_ef_is_off_its_volumes_and_in_range(tmp_path):
    table, _ = dataset(tmp_path / "raw", wrong_ef=9)
    off = table["EF"] - 100 * (1 - table["ESV"] / table["EDV"])
    assert off.abs().to_numpy() == pytest.approx(20, abs=0.01)
    assert table["EF"].between(0, 100).all()


def test_a_video_in_two_splits(tmp_path, sound):
    table, videos = dataset(tmp_path / "raw", duplicate=2)
    assert changed_rows(table, sound) == 0
    changed = changed_videos(videos, sound)
    assert len(changed) == 2
    for name in changed:
        (twin,) = (n for n, data in videos.items() if data == videos[name] and n != name)
        assert table.at[twin, "Split"] == "TRAIN" != table.at[name, "Split"]


def test_a_patient_in_two_splits(tmp_path, sound):
    table, videos = dataset(tmp_path / "raw", shared_patient=2)
    assert changed_videos(videos, sound) == []
    assert (table.groupby("Patient")["Split"].nunique() > 1).sum() == 2


def test_no_row_gets_two_defects(tmp_path, sound):
    every = {"truncated": 1, "wrong_fps": 1, "wrong_frames": 1, "wrong_ef": 1, "duplicate": 1,
             "shared_patient": 1}  # fmt: skip
    table, videos = dataset(tmp_path / "raw", **every)
    rows = set(table.index[(table != sound[0]).any(axis=1)])
    assert len(rows | set(changed_videos(videos, sound))) == 6
    again, same = dataset(tmp_path / "again", **every)
    assert again.equals(table)
    assert same == videos


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"view": "plax"}, "'plax' is not one of a4c, psax"),
        ({"pathology": "flu"}, "'flu' is not one of none, right_heart, thick_wall"),
        ({"ill": 1.0}, "above the greatest allowed value"),
        ({"defects": {"truncated": -1}}, "defects: truncated: -1 is below"),
        ({"defects": {"stolen": 1}}, "unknown setting 'stolen'"),
        ({"defects": {"duplicate": 3}}, "defects need 6 rows, 3 of them in TRAIN"),
        ({"defects": {"wrong_ef": 6}}, "there are 3 / 1 / 1 videos"),
    ],
)
def test_impossible_settings_are_refused_by_name(change, message):
    with pytest.raises(EchosynError, match=message):
        build(PhantomConfig, {"train": 3, "val": 1, "test": 1, **change}, "phantom.yaml")
