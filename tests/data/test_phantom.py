"""The phantom: determinism, exact volumes, the population, the look, the layout on disk."""

import dataclasses
import hashlib

import cv2
import numpy as np
import pandas as pd
import pytest

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.phantom import (
    PhantomConfig,
    measured_ef,
    render_patient,
    sample_anatomy,
    write_dataset,
)
from echosyn.data.phantom import speckle as speckle_module
from echosyn.data.phantom.anatomy import MM_PER_PIXEL
from echosyn.data.phantom.cycle import beat
from echosyn.data.phantom.drawing import build_scene
from echosyn.data.phantom.sector import LINES, SAMPLES, sector
from echosyn.data.phantom.speckle import Speckle, build_machine, tissue_coordinates
from echosyn.data.phantom.ventricle import disc_volume, discs, lv_contour, lv_size
from echosyn.data.video import read_video
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError

SMALL = PhantomConfig(train=3, val=1, test=1, frames=36)
POPULATION = PhantomConfig(train=300, val=1, test=1)


@pytest.fixture(scope="module")
def videos():
    return [render_patient(i, SMALL, seed=0) for i in range(4)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "raw"
    write_dataset(out, SMALL, seed=0, workers=1)
    return out


def filled(contour, size, scale=8):
    """Mask of a contour (N, 2) in pixels, rasterised `scale` times finer."""
    mask = np.zeros((size * scale, size * scale), np.uint8)
    points = np.rint(((contour + 0.5) * scale - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], 1, cv2.LINE_8, 4)
    return mask


def mask_volume(mask, tilt_deg, mm_per_pixel):
    """Method of discs on a mask: turn the long axis upright, slice it into 20, sum d^2."""
    y, x = np.nonzero(mask)
    tilt = np.deg2rad(tilt_deg)
    along = x * np.sin(tilt) + y * np.cos(tilt)
    top = along.min()
    length = along.max() - top
    slices = np.minimum((along - top) / length * 20, 19.999).astype(int)
    diameters = np.bincount(slices, minlength=20) / (length / 20)
    return np.pi / 4 * np.sum(diameters**2) * length / 20 * mm_per_pixel**3 / 1000


# Determinism


def test_a_patient_does_not_depend_on_how_many_there_are(videos):
    other = PhantomConfig(train=1, val=40, test=7, frames=36)
    again = render_patient(2, other, seed=0)
    np.testing.assert_array_equal(again.frames, videos[2].frames)
    assert (again.name, again.ef) == (videos[2].name, videos[2].ef)


def test_seed_and_index_change_the_patient(videos):
    other = render_patient(2, SMALL, seed=1)
    assert other.anatomy != videos[2].anatomy
    assert other.name != videos[2].name
    assert np.abs(other.frames.astype(int) - videos[2].frames).mean() > 5
    assert np.abs(videos[1].frames.astype(int) - videos[2].frames).mean() > 5


@pytest.mark.slow
def test_workers_do_not_change_the_bytes(dataset, tmp_path):
    def digest(folder):
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return {
            str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
        }

    write_dataset(tmp_path / "two", SMALL, seed=0, workers=2)
    assert digest(tmp_path / "two") == digest(dataset)


# Volumes


def test_ef_is_that_of_the_contours_drawn(videos):
    for video in videos:
        volumes = [disc_volume(*discs(c), video.mm_per_pixel) for c in video.contours]
        assert video.edv == pytest.approx(max(volumes), rel=1e-9)
        assert video.esv == pytest.approx(min(volumes), rel=1e-9)
        assert video.ef == pytest.approx(100 * (1 - min(volumes) / max(volumes)), abs=1e-9)
        assert video.ef == pytest.approx(measured_ef(video.anatomy, SMALL), abs=1e-6)


def test_ef_agrees_with_the_mask_of_the_contour(videos):
    for video in videos:
        edv, esv = (
            mask_volume(
                filled(video.contours[t.frame], 112), video.anatomy.tilt, video.mm_per_pixel / 8
            )
            for t in video.tracings
        )
        assert edv == pytest.approx(video.edv, rel=0.02)
        assert 100 * (1 - esv / edv) == pytest.approx(video.ef, abs=1.0)


def test_disc_volume_of_an_ellipsoid():
    # Half a prolate spheroid of radius 20 and height 60: 2/3 pi r^2 h.
    s = np.arange(41) / 40
    side = 20 * np.sqrt(1 - (1 - s) ** 2)
    right = np.stack([50 + side, 10 + 60 * s], axis=-1)
    left = np.stack([50 - side, 10 + 60 * s], axis=-1)
    contour = np.concatenate([left[::-1], right[1:]])
    expected = 2 / 3 * np.pi * 20**2 * 60 / 1000
    assert disc_volume(*discs(contour), mm_per_pixel=1.0) == pytest.approx(expected, rel=2e-3)


def test_size_gives_back_the_volume():
    anatomy = sample_anatomy(5, SMALL, seed=0)
    wanted = np.array([anatomy.edv, 0.7 * anatomy.edv, 0.4 * anatomy.edv])
    contours = lv_contour(anatomy, *lv_size(anatomy, wanted))
    assert [disc_volume(*discs(c), MM_PER_PIXEL) for c in contours] == pytest.approx(list(wanted))


@pytest.mark.parametrize("size", [56, 224])
def test_frame_size_changes_pixels_not_millilitres(videos, size):
    video = render_patient(0, dataclasses.replace(SMALL, size=size), seed=0)
    assert video.frames.shape == (36, size, size)
    assert video.mm_per_pixel == pytest.approx(MM_PER_PIXEL * 112 / size)
    assert (video.edv, video.ef) == pytest.approx((videos[0].edv, videos[0].ef))


# The heart over time


def test_volume_curve_is_physiological():
    anatomy = dataclasses.replace(sample_anatomy(0, SMALL, seed=0), bpm=60.0, phase=0.0)
    t = np.arange(1000) / 1000
    state = beat(anatomy, t)
    volume = state.volume
    es = int(np.argmin(volume))
    assert 0.30 < es / 1000 < 0.40
    assert np.all(np.diff(volume[:es]) <= 0)
    assert np.all(np.diff(volume[es:]) >= 0)
    assert volume[[0, -1]] == pytest.approx([anatomy.edv] * 2)
    assert volume[es] == pytest.approx(anatomy.edv * (1 - anatomy.ef / 100))
    stroke = np.ptp(volume)
    late = volume[990] - volume[800]
    assert late / stroke == pytest.approx(anatomy.atrial_share, abs=0.03)
    assert np.max(state.mitral[:es]) == 0
    assert state.mitral.max() == pytest.approx(1)
    assert state.mitral[-1] < 0.05


def test_walls_thicken_in_systole():
    anatomy = dataclasses.replace(sample_anatomy(0, SMALL, seed=0), ef=60.0, phase=0.0)
    state = beat(anatomy, np.arange(36) / 32)
    scene = build_scene(anatomy, state)
    ed, es = int(np.argmax(state.volume)), int(np.argmin(state.volume))
    epicardium = scene.tissue[3][2].astype(float)
    endocardium = scene.blood[3][2].astype(float)

    def thickness(t):
        # Scan line positions at half height of the cavity, lateral side.
        depth = (endocardium[t, 40, 1] + endocardium[t, -1, 1]) / 2
        inner = np.interp(depth, endocardium[t, 40:, 1], endocardium[t, 40:, 0])
        outer = np.interp(depth, epicardium[t, 41:, 1], epicardium[t, 41:, 0])
        return outer - inner

    assert thickness(es) > 1.2 * thickness(ed)


def test_population_of_ef():
    anatomies = [sample_anatomy(i, POPULATION, seed=0) for i in range(300)]
    ef = np.array([measured_ef(a, POPULATION) for a in anatomies])
    assert ef.mean() == pytest.approx(56, abs=2)
    assert ef.std(ddof=1) == pytest.approx(12, abs=1.5)
    assert ef.min() >= 9
    assert ef.max() <= 90
    for name in ("gain_db", "blood_db", "noise_db", "attenuation_db", "edv", "wall", "bpm"):
        r = np.corrcoef(ef, [getattr(a, name) for a in anatomies])[0, 1]
        assert abs(r) < 0.2, name  # 3.4 standard errors of no correlation at n = 300
    bpm = [a.bpm for a in anatomies]
    assert 60 <= min(bpm) < 65
    assert 100 < max(bpm) <= 105


# The picture


def test_outside_the_sector_is_black_and_inside_is_not(videos):
    inside = sector(112).inside
    rim = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert 0.4 < inside.mean() < 0.7
    for video in videos:
        assert video.frames[:, ~rim].max() == 0
        assert video.frames[:, inside].mean() > 15


def test_cavity_is_darker_than_the_wall(videos):
    for video in videos:
        for tracing in video.tracings:
            contour = video.contours[tracing.frame]
            cavity = filled(contour, 112, scale=1).astype(bool)
            kernel = np.ones((3, 3), np.uint8)
            core = cv2.erode(cavity.astype(np.uint8), kernel, iterations=2).astype(bool)
            around = cv2.dilate(cavity.astype(np.uint8), kernel, iterations=4).astype(bool)
            wall = around & ~cv2.dilate(cavity.astype(np.uint8), kernel).astype(bool)
            wall[int(tracing.axis[1, 1]) - 4 :] = False  # the mitral valve is open to the atrium
            frame = video.frames[tracing.frame]
            assert frame[core].mean() < 0.6 * frame[wall].mean()


@pytest.fixture
def uniform_speckle(monkeypatch):
    """Anatomy and envelopes (20, SAMPLES, LINES) of a still, even, noiseless medium."""
    flat = np.ones(speckle_module.TEXTURE, np.float32)
    monkeypatch.setattr(speckle_module, "_uneven_tissue", lambda rng: flat)
    anatomy = sample_anatomy(0, SMALL, seed=0)
    rng = np.random.default_rng(0)
    machine = build_machine(anatomy, sector(112), rng)
    even = dataclasses.replace(
        machine, gain=np.ones_like(machine.gain), noise=np.zeros_like(machine.noise)
    )
    speckle = Speckle(anatomy, even, rng)
    drawn = np.full((SAMPLES, LINES), 240, np.uint8)
    size = machine.ed_length, machine.ed_width
    return anatomy, np.stack([speckle.envelope(drawn, *size, 0.0) for _ in range(20)])


def test_speckle_is_rayleigh_before_compression(uniform_speckle):
    _, envelopes = uniform_speckle
    patch = envelopes[:, 40:90, 20:90].astype(float)
    # Rayleigh: mean / sd = sqrt(pi / (4 - pi)) = 1.913, E[a^4] = 2 E[a^2]^2.
    assert patch.mean() / patch.std() == pytest.approx(1.913, abs=0.12)
    assert np.mean(patch**4) / np.mean(patch**2) ** 2 == pytest.approx(2, abs=0.2)


def test_speckle_stays_in_part_and_fades_in_part(uniform_speckle):
    anatomy, envelopes = uniform_speckle
    patch = envelopes[:12, 40:90, 20:90].reshape(12, -1)
    r = np.corrcoef(patch)
    assert r[0, 1] > r[0, 3] > 0
    assert 0.2 < r[0, 11] < r[0, 1] < 0.98
    assert anatomy.drift > 0


def test_speckle_moves_with_the_tissue():
    anatomy = sample_anatomy(1, SMALL, seed=0)
    machine = build_machine(anatomy, sector(112), np.random.default_rng(0))
    length, width = (float(x) for x in lv_size(anatomy, 0.5 * anatomy.edv))
    u0, v0 = tissue_coordinates(machine, length, width, shift=0.0)
    # A grid sample on the systolic endocardium shows the tissue of the diastolic endocardium.
    middle = np.abs(machine.u / length - anatomy.widest) < 0.02
    wall = middle & (np.abs(np.abs(machine.v) - width / 2) < 0.6)
    assert wall.any()
    np.testing.assert_allclose(np.abs(v0[wall]), machine.ed_width / 2, atol=0.8)
    np.testing.assert_allclose(u0[wall] / machine.ed_length, anatomy.widest, atol=0.03)
    still_u, still_v = tissue_coordinates(machine, machine.ed_length, machine.ed_width, 0.0)
    np.testing.assert_allclose(still_u, machine.u, atol=1e-4)
    np.testing.assert_allclose(still_v, machine.v, atol=1e-4)


# On disk


def test_layout_reads_back(dataset, videos):
    table = read_filelist(dataset / "FileList.csv")
    assert list(table["Split"]) == ["TRAIN"] * 3 + ["VAL", "TEST"]
    assert table["Patient"].is_unique
    assert table["FileName"].str.fullmatch(r"0X[0-9A-F]{16}").all()
    assert {p.stem for p in (dataset / "Videos").iterdir()} == set(table["FileName"])
    for video, (_, row) in zip(videos, table.iterrows(), strict=False):
        frames, fps = read_video(video_path(dataset, row["FileName"]))
        assert frames.shape == (36, 112, 112)
        assert fps == 32
        assert row["EF"] == pytest.approx(video.ef, abs=1e-3)
        error = np.mean((frames.astype(float) - video.frames) ** 2)
        assert 10 * np.log10(255**2 / error) > 33  # dB: what motion JPEG leaves


def test_tracings_give_the_volumes_of_the_filelist(dataset):
    table = read_filelist(dataset / "FileList.csv").set_index("FileName")
    tracings = pd.read_csv(dataset / "VolumeTracings.csv")
    assert list(tracings.columns) == ["FileName", "X1", "Y1", "X2", "Y2", "Frame"]
    assert tracings["FileName"].nunique() == len(table)
    for name, rows in tracings.groupby("FileName"):
        label = table.loc[name.removesuffix(".avi")]
        volumes = []
        for frame in rows["Frame"].unique():
            ends = rows.loc[rows["Frame"] == frame, ["X1", "Y1", "X2", "Y2"]].to_numpy()
            assert ends.shape == (21, 4)
            assert ends.min() >= 0
            assert ends.max() <= 111
            ends = ends.reshape(21, 2, 2)
            volumes.append(disc_volume(ends[0], ends[1:], MM_PER_PIXEL))
        # EchoNet's loader takes the last traced frame for the larger one.
        assert volumes == pytest.approx([label["ESV"], label["EDV"]], rel=1e-3)
        assert 100 * (1 - volumes[0] / volumes[1]) == pytest.approx(label["EF"], abs=0.1)


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    out = tmp_path / "raw"
    out.mkdir()
    (out / "kept").write_text("as it was")

    def full(*args):
        raise EchosynError("the disk is full")

    monkeypatch.setattr("echosyn.data.phantom.render.write_video", full)
    with pytest.raises(EchosynError, match="full"):
        write_dataset(out, SMALL, seed=0, workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]
    assert (out / "kept").read_text() == "as it was"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 20}, "shorter than one beat"),
        ({"train": 0}, "train"),
        ({"ef_mean": 25.0, "ef_lo": 30.0}, "is not between"),
        ({"bpm_lo": 120.0}, "is above bpm_hi"),
        ({"widht": 3}, "unknown setting 'widht'"),
    ],
)
def test_impossible_settings_are_refused_by_name(change, message):
    values = {"train": 3, "val": 1, "test": 1, **change}
    with pytest.raises(EchosynError, match=message):
        build(PhantomConfig, values, "conf/demo/phantom.yaml")
