"""Another release of a dataset, or another place, than the one that is read: named, with a fix."""

import shutil

import numpy as np
import pytest
import torch
from echonet_layout import clip, edit, make
from refusals import refused, written
from source_layouts import camus, cardiacnet, pediatric

from echosyn.data.filelist import read_cells
from echosyn.data.ingest import ingest
from echosyn.data.video import write_video
from echosyn.diffusion.objectives import load_objective
from echosyn.models.store import read_weights


def taken(source, raw, label="ef", **options):
    return ingest(source, raw, raw.parent / "out", label, options)


def older_camus(raw, where):
    folder = raw / where / "patient0001"
    for view in ("2CH", "4CH"):
        for ending in ("mhd", "raw"):
            written(folder / f"patient0001_{view}_sequence.{ending}", b"ObjectType = Image\n")
        written(folder / f"Info_{view}.cfg", b"ED: 1\nES: 6\nNbFrame: 6\n")
    return raw


@pytest.mark.parametrize("where", ["", "database_nifti", "training", "testing"])
def test_the_older_release_of_camus_is_named(tmp_path, where):
    said = refused(taken, "camus", older_camus(tmp_path / "raw", where))
    assert "patient0001/patient0001_2CH_sequence.mhd: this is CAMUS's older release" in said
    assert "MetaImage (.mhd and .raw), which is not read: download the later one, as NIfTI" in said


@pytest.mark.parametrize("kind", ["older", "single frames", "nothing"])
def test_what_a_patient_has_in_place_of_a_cine(tmp_path, kind):
    raw = camus(tmp_path / "raw", patients=3)
    folder = raw / "database_nifti/patient0002"
    for file in folder.glob("*_4CH_*"):
        file.unlink()
    names = {"older": ["sequence.mhd"], "single frames": ["ES.nii.gz", "ED.nii.gz"], "nothing": []}
    for name in names[kind]:
        written(folder / f"patient0002_4CH_{name}", b"x")
    wanted = {
        "older": "does not exist, but patient0002_4CH_sequence.mhd does: this is CAMUS's older",
        "single frames": "of 4CH there is patient0002_4CH_ED.nii.gz, patient0002_4CH_ES.nii.gz:",
        "nothing": "of 4CH there is nothing: download the patient again",
    }
    assert wanted[kind] in refused(taken, "camus", raw)


def lvh(raw):
    written(raw / "MeasurementsList.csv", b"x\n")
    written(raw / "Batch1/a.avi", b"x")


def renamed(raw):
    make(raw)
    (raw / "FileList.csv").rename(raw / "filelist.CSV")


PLACES = {
    "echonet below": ("echonet", lambda r: make(r / "EchoNet-Dynamic"), {},
                      "EchoNet-Dynamic/FileList.csv does: set `path` of the dataset to"),
    "echonet packed": ("echonet", lambda r: written(r / "EchoNet-Dynamic.zip", b"x"), {},
                       "FileList.csv does not exist; it holds EchoNet-Dynamic.zip: unpack that"),
    "echonet empty": ("echonet", lambda r: r.mkdir(), {}, "exist; the folder is empty"),
    "echonet in other letters": ("echonet", renamed, {},
                                 "but filelist.CSV does: save it as FileList.csv"),
    "echonet is LVH": ("echonet", lvh, {}, "this is EchoNet-LVH, which has no EF"),
    "echonet is pediatric": ("echonet", lambda r: pediatric(r, [0]), {},
                             "A4C/FileList.csv does: set source: pediatric and `path`"),
    "echonet without videos": ("echonet", lambda r: (make(r), shutil.rmtree(r / "Videos"),
                               written(r / "Videos.zip", b"x")), {},
                               "folder of the videos does not exist; it holds Videos.zip: unpack"),
    "pediatric needs a view": ("pediatric", lambda r: pediatric(r, [0]), {},
                               "holds A4C: set the option view: A4C of the dataset"),
    "pediatric below": ("pediatric", lambda r: pediatric(r / "x", [0]) and shutil.move(
                        r / "x/pediatric_echo_avi/pediatric_echo_avi", r / "x/y"), {"view": "A4C"},
                        "x/y/A4C/FileList.csv is there: set `path` of the dataset to"),
    "pediatric packed": ("pediatric", lambda r: written(r / "pediatric_echo_avi.zip", b"x"),
                         {"view": "A4C"}, "it holds pediatric_echo_avi.zip: unpack that"),
    "pediatric is dynamic": ("pediatric", make, {}, "EchoNet-Dynamic, which has no folds: set sou"),
    "pediatric is a view": ("pediatric", make, {"view": "PSAX"}, "set its option view: null"),
    "cardiacnet of the other task": ("cardiacnet", lambda r: cardiacnet(r, 1, 1), {"task": "ASD"},
                                     "but one of 'PAH': set the option task: PAH"),
    "cardiacnet below": ("cardiacnet", lambda r: cardiacnet(r / "x", 1, 1), {},
                         "x/CardiacNet-PAH/PAH is there: set `path` of the dataset to"),
    "cardiacnet packed": ("cardiacnet", lambda r: written(r / "PAH.rar", b"x"), {},
                          "it holds PAH.rar: unpack that"),
    "camus below": ("camus", lambda r: camus(r / "CAMUS_public", 1, False), {},
                    "CAMUS_public/database_nifti is there: set `path` of the dataset to"),
    "camus packed": ("camus", lambda r: written(r / "database_nifti.zip", b"x"), {},
                     "it holds database_nifti.zip: unpack that; CAMUS is read as NIfTI"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLACES)
def test_what_a_raw_folder_holds_instead_is_named(tmp_path, kind):
    source, lay, options, wanted = PLACES[kind]
    raw = tmp_path / "raw"
    lay(raw)
    label = "class" if source == "cardiacnet" else "ef"
    assert wanted in refused(taken, source, raw, label, **options)


@pytest.mark.parametrize(
    ("source", "options", "place", "fix"),
    [
        ("camus", {}, "database_nifti/patient0001", ""),
        ("camus", {}, "database_split", ""),
        ("pediatric", {"view": "PSAX"}, "pediatric_echo_avi/pediatric_echo_avi/A4C",
         "/pediatric_echo_avi/pediatric_echo_avi"),
        ("cardiacnet", {}, "CardiacNet-PAH/PAH", "/CardiacNet-PAH"),
        ("echonet", {}, "Videos", ""),
    ],
)  # fmt: skip
def test_a_path_one_level_too_deep_gets_the_right_one(tmp_path, source, options, place, fix):
    raw = tmp_path / "raw"
    {
        "camus": lambda: camus(raw, 3),
        "pediatric": lambda: [pediatric(raw, [0], view) for view in ("A4C", "PSAX")],
        "cardiacnet": lambda: cardiacnet(raw, 1, 1),
        "echonet": lambda: make(raw),
    }[source]()
    label = "class" if source == "cardiacnet" else "ef"
    said = refused(ingest, source, raw / place, tmp_path / "out", label, options)
    assert said.endswith(f"`path` of the dataset to {raw}{fix}")


def test_columns_tell_the_two_echonets_apart(tmp_path):
    raw = pediatric(tmp_path, [0]) / "pediatric_echo_avi/pediatric_echo_avi/A4C"
    said = refused(ingest, "echonet", raw, tmp_path / "out", "ef")
    assert "are those of EchoNet-Pediatric: set source: pediatric of the dataset" in said


@pytest.mark.parametrize(
    ("listed", "there", "wanted"),
    [
        ("v1", "v1.mp4", "but v1.mp4 does: rename it to v1.avi"),
        ("v1", "v1.AVI", "but v1.AVI does: rename it to v1.avi"),
        ("v1.mp4", "v1.mp4", "but v1.mp4 does: rename it to v1.mp4.avi"),
        ("v1", "v1.nii.gz", "but v1.nii.gz does, which is no video: convert it to v1.avi"),
        ("v1.AVI", "v1.avi", "but v1.avi does: give its name in the list without an ending"),
        ("v1", "w.avi", "v1.avi: the video does not exist"),
    ],
)
def test_a_video_in_another_format_than_the_lists(tmp_path, listed, there, wanted):
    raw = make(tmp_path / "raw")
    (raw / "Videos/v1.avi").rename(raw / "Videos" / there)
    edit(raw, 3, "v1,", f"{listed},")
    rejects = tmp_path / "rejects.csv"
    report = ingest("echonet", raw, tmp_path / "out", "ef", max_rejects=1, rejects=rejects)
    assert report.rejected == 1
    reason = read_cells(rejects).table["reason"][0]
    assert reason.endswith(wanted)
    if "rename it" in wanted and there != "v1.AVI":
        (raw / "Videos" / there).rename(raw / "Videos" / wanted.rpartition(" ")[2])
        assert ingest("echonet", raw, tmp_path / "out", "ef").videos == 4


@pytest.mark.parametrize(
    ("lay", "wanted"),
    [
        (lambda r: written(r, b"x"), "this is a file: set `path` of the dataset to the folder"),
        (
            lambda r: written(r.with_name("raw.zip"), b"x"),
            "but raw.zip beside it does: unpack that",
        ),
        (lambda r: (r.parent / "raw1").mkdir(), "exist (is 'raw1' meant?): put the dataset there"),
        (lambda r: None, "exist: put the dataset there, or set `path` of the dataset in params"),
    ],
)
def test_a_raw_folder_that_is_not_there(tmp_path, lay, wanted):
    lay(tmp_path / "raw")
    assert wanted in refused(taken, "echonet", tmp_path / "raw")


def test_an_archive_in_a_class_folder_is_to_be_unpacked(tmp_path):
    for name in ("PAH", "non-PAH"):
        folder = tmp_path / "raw" / name
        folder.mkdir(parents=True)
        write_video(folder / "1.avi", clip(1, 4), 32)
        written(folder / "2_image.zip", b"PK\x03\x04")
    rejects = tmp_path / "rejects.csv"
    ingest("cardiacnet", tmp_path / "raw", tmp_path / "out", "class", rejects=rejects)
    assert set(read_cells(rejects).table["reason"]) == {"an archive: unpack it"}


# ---- Files of models that are none


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html><html>404</html>", "it is a web page: download the file itself"),
        (b"", "it is empty: download it again"),
        (np.arange(99).tobytes(), "train or download the model again"),
    ],
)
def test_what_a_download_left_in_place_of_weights(tmp_path, name, data, wanted):
    path = written(tmp_path / name, data)
    said = refused(read_weights, path)
    assert said.startswith(f"{path} cannot be read as weights: ")
    assert wanted in said


class Foreign:
    """What a whole model saved with torch.save brings along."""


def test_weights_that_could_run_code_are_not_advised_to(tmp_path):
    torch.save({"model": Foreign()}, tmp_path / "whole.pth")
    said = refused(read_weights, tmp_path / "whole.pth")
    assert said.endswith("Foreign, which could run code: save the state_dict alone")
    assert "weights_only" not in said
    written(tmp_path / "old.pth", b"\x80\x02}q\x00X\x01")
    assert refused(read_weights, tmp_path / "old.pth").endswith("the model again")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"_class_name": 3}', "\x00\xff"])
def test_a_damaged_scheduler_is_named(tmp_path, text):
    path = written(tmp_path / "scheduler/scheduler_config.json", text.encode("latin-1"))
    said = refused(load_objective, tmp_path)
    assert said.startswith(f"{path} is not a scheduler's config")
