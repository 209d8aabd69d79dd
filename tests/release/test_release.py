import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_project import AUDITED, METRICS, REAL, SYNTHETIC, WORDS, make_project, released

from echosyn.cli import main as cli
from echosyn.data.filelist import (
    COLUMNS,
    frame_phases,
    read_filelist,
    video_path,
    write_filelist,
)
from echosyn.privacy.gate.requirements import Thresholds
from echosyn.release import verify
from echosyn.release.build import ReleaseConfig, build_release, require_audit
from echosyn.release.card import card
from echosyn.release.diff import diff
from echosyn.release.leaks import refuse_leaks
from echosyn.release.provenance import provenance
from echosyn.report.privacy_page import LOCAL_ONLY
from echosyn.runtime.code import code_digest
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json, write_json


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = make_project(tmp_path_factory.mktemp("project"))
    released(root)
    return root


@pytest.fixture
def project(template, tmp_path):
    return shutil.copytree(template, tmp_path / "project")


@pytest.fixture
def release(project):
    return project / "releases/phantom"


def rename(folder: Path, old: str, new: str) -> None:
    video_path(folder, old).rename(video_path(folder, new))
    table = folder / "FileList.csv"
    table.write_text(table.read_text().replace(f"{old},", f"{new},"))


def test_release_is_whole_and_in_echonets_layout(release):
    assert verify(release) == []
    table = read_filelist(release / "FileList.csv")
    assert tuple(table.columns) == COLUMNS
    assert list(table["FileName"]) == SYNTHETIC
    names = {p.relative_to(release).as_posix() for p in release.rglob("*") if p.is_file()}
    videos = {f"Videos/{name}.avi" for name in SYNTHETIC}
    documents = {"README.md", "DATASHEET.md", "croissant.json", "sbom.cdx.json"}
    assert names == {"FileList.csv", "manifest.json", *documents, *videos}
    assert set(read_json(release / "manifest.json")["files"]) == names - {"manifest.json"}


def test_same_inputs_give_the_same_bytes(project, release):
    released(project, "again")
    again = project / "releases/again"
    for path in release.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(release)).read_bytes()


def test_manifest_says_what_it_was_made_from_and_nothing_of_the_source(release):
    manifest = read_json(release / "manifest.json")
    assert manifest["metrics"] == METRICS
    assert manifest["protocol"] == WORDS
    assert manifest["params"] == {
        "scale": "smoke",
        "seed": 3,
        "datasets": {"phantom": {"role": "train", "source": "phantom", "label": "ef"}},
        "sample_videos": {"frames": 8, "guidance": 2.5, "weights": "a local file"},
    }
    lineage = manifest["lineage"]
    assert set(lineage["data"]) == {
        "source 1",
        "data/train",
        "data/train/phantom",
        "samples/phantom",
        "metrics/evaluate/phantom.json",
    }
    assert lineage["models"] == {"models/vae": "2" * 32 + ".dir"}
    assert lineage["code"] == {"pipelines/sample_videos.py": "4" * 32}
    assert manifest["real"] == {"videos": {"TRAIN": 2, "VAL": 2, "TEST": 2}, "patients": 6}
    text = "".join(p.read_text() for p in release.iterdir() if p.is_file())
    for private in (*REAL, "patient0X", "/mnt", "clinic/echo", "someone", "secret_knob"):
        assert private not in text


def test_card_states_numbers_limits_and_licence(release):
    card = (release / "README.md").read_text()
    for said in (
        "# echosyn-phantom 1.2.0",
        "6 **synthetic**",
        "2 TRAIN, 2 VAL, 2 TEST",
        "| Real | 0.97 (0.95 to 0.98) |",
        "| kd_r3d_clip16_n6x6 | 14.2 | 3.5 |",
        "12.5%",
        "only exercises the machinery",
        "CC-BY-4.0",
        "echosyn releases verify",
    ):
        assert said in card


def test_a_heart_rate_may_be_released_and_a_patient_may_not(release, tmp_path):
    folder = tmp_path / "rates"
    shutil.copytree(release, folder)
    table = read_filelist(folder / "FileList.csv").assign(HeartRate=[60.0, 72.5, 80, 90, 100, 75])
    write_filelist(folder / "FileList.csv", table)
    assert not any("column" in problem for problem in verify(folder))
    manifest = read_json(folder / "manifest.json")
    assert "`HeartRate`: 60 to 100 beats a minute, what was asked" in card(manifest, table)
    write_filelist(folder / "FileList.csv", table.assign(Patient="someone"))
    assert "FileList.csv: column Patient is not one that a release may have" in verify(folder)


def test_the_phases_of_a_release_follow_from_its_list(release, tmp_path):
    folder = tmp_path / "phases"
    shutil.copytree(release, folder)
    table = read_filelist(folder / "FileList.csv")
    n = int(table["NumberOfFrames"].iloc[0])
    beats = {"HeartRate": [60.0, 72.5, np.nan, 90, 100, 75], "Phase": [0.9, 0, 0, 0.25, 0.5, 0.1]}
    write_filelist(folder / "FileList.csv", table.assign(**beats))
    said = [problem for problem in verify(folder) if "Phases.csv" in problem]
    assert said == ["Phases.csv: missing, though FileList.csv has phases"]
    phases = frame_phases(table.assign(**beats))
    assert len(phases) == table["NumberOfFrames"].sum() - table["NumberOfFrames"].iloc[2]
    first = phases[phases["FileName"] == table["FileName"][0]]["Phase"].to_numpy()
    expected = (0.9 + np.arange(n) / table["FPS"].iloc[0]) % 1
    assert np.abs((first - expected + 0.5) % 1 - 0.5).max() < 1e-4
    (folder / "Phases.csv").write_text(phases.to_csv(index=False, lineterminator="\n"))
    assert not [p for p in verify(folder) if "Phases.csv: not the phases" in p]
    (folder / "Phases.csv").write_text(phases.iloc[1:].to_csv(index=False, lineterminator="\n"))
    assert [p for p in verify(folder) if "Phases.csv: not the phases" in p]
    assert "`Phases.csv` has that of every frame" in card(
        read_json(folder / "manifest.json"), table.assign(**beats)
    )


def damage_flip(release: Path) -> None:
    path = video_path(release, "synthetic2")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_shorten(release: Path) -> None:
    path = video_path(release, "synthetic2")
    path.write_bytes(path.read_bytes()[:-1])


def damage_remove(release: Path) -> None:
    video_path(release, "synthetic2").unlink()


def damage_extra(release: Path) -> None:
    (release / "Videos/notes.txt").write_text("hello")


def damage_card(release: Path) -> None:
    (release / "README.md").write_text("made by someone else")


def damage_path(release: Path) -> None:
    manifest = read_json(release / "manifest.json")
    manifest["files"]["../../params.yaml"] = {"sha256": "0" * 64, "size": 1}
    write_json(release / "manifest.json", manifest)


def damage_link(release: Path) -> None:
    path = video_path(release, "synthetic2")
    path.rename(release.parent / "elsewhere.avi")
    path.symlink_to(release.parent / "elsewhere.avi")


def damage_manifest(release: Path) -> None:
    (release / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_flip, "Videos/synthetic2.avi: changed, its sha256"),
        (damage_shorten, "Videos/synthetic2.avi: changed,"),
        (damage_remove, "Videos/synthetic2.avi: missing"),
        (damage_extra, "Videos/notes.txt: not in the manifest"),
        (damage_card, "README.md: changed"),
        (damage_path, "../../params.yaml: the manifest names a file outside"),
        (damage_link, "Videos/synthetic2.avi: a link, not a file of the release"),
        (damage_manifest, "manifest.json: not JSON"),
    ],
)
def test_verify_finds(damage, said, release, capsys):
    assert cli(["releases", "verify", str(release)]) == 0
    damage(release)
    assert any(said in problem for problem in verify(release))
    assert cli(["releases", "verify", str(release)]) == 1
    assert said in capsys.readouterr().err


def test_verify_finds_rows_without_video_even_when_the_manifest_agrees(release):
    manifest = read_json(release / "manifest.json")
    del manifest["files"]["Videos/synthetic2.avi"]
    write_json(release / "manifest.json", manifest)
    damage_remove(release)
    assert verify(release) == ["FileList.csv: synthetic2 has no video"]


def test_verify_of_a_folder_that_is_no_release(tmp_path):
    (problem,) = verify(tmp_path)
    assert "is this a release?" in problem


@pytest.mark.parametrize("name", [REAL[0], REAL[0].lower(), f"patient{REAL[1]}"])
def test_real_names_are_refused(name, project):
    rename(project / "samples/phantom", "synthetic3", name)
    with pytest.raises(EchosynError, match="name of a real video or patient"):
        build_release(
            project / "samples/phantom",
            project / "data/train/phantom",
            project / "releases/bad",
            config=ReleaseConfig("1.0.0", "CC0-1.0"),
            name="x",
            label="ef",
            provenance={"params": {}, "lineage": {}},
            metrics={},
        )
    assert not (project / "releases/bad").exists()


def test_real_video_under_a_new_name_is_refused(project):
    source = video_path(project / "data/train/phantom", REAL[4])
    shutil.copyfile(source, video_path(project / "samples/phantom", "synthetic3"))
    with pytest.raises(EchosynError, match=r"synthetic3\.avi: a real video, byte for byte"):
        build_release(
            project / "samples/phantom",
            project / "data/train/phantom",
            project / "releases/bad",
            config=ReleaseConfig("1.0.0", "CC0-1.0"),
            name="x",
            label="ef",
            provenance={"params": {}, "lineage": {}},
            metrics={},
        )


def test_lineage_names_no_loss_curves_which_differ_from_run_to_run(project):
    made = provenance(project, "phantom")["lineage"]
    assert "models/vae" in made["models"]
    assert not [path for group in made.values() for path in group if path.startswith("curves")]


def test_samples_changed_behind_dvcs_back_are_refused(project):
    damage_flip(project / "samples/phantom")
    with pytest.raises(EchosynError, match="samples/phantom is not what"):
        provenance(project, "phantom")


def test_samples_that_dvc_does_not_know_are_refused(project):
    (project / "dvc.lock").unlink()
    with pytest.raises(EchosynError, match="no stage that wrote samples/phantom"):
        provenance(project, "phantom")


# From the test cases of https://semver.org (https://regex101.com/r/vkijKf).
@pytest.mark.parametrize(
    "version", ["0.0.4", "10.20.30", "1.1.2-prerelease", "1.0.0-alpha.1", "1.0.0-0A.is.legal"]
)
def test_semantic_versions_pass(version):
    config = build(ReleaseConfig, {"version": version, "license": "MIT"}, "params.yaml: release")
    assert config.version == version


@pytest.mark.parametrize(
    "version", ["1", "1.2", "01.1.1", "1.1.1-01", "v1.0.0", "1.0.0\n", "1.0.0-", "../1.0.0", ""]
)
def test_other_versions_are_refused(version):
    with pytest.raises(EchosynError, match="not a semantic version"):
        build(ReleaseConfig, {"version": version, "license": "MIT"}, "params.yaml: release")


def test_diff_names_what_changed(project, release, capsys):
    lock = project / "dvc.lock"
    lock.write_text(lock.read_text().replace("guidance: 2.5", "guidance: 3.0"))
    released(project, "newer")
    lines = diff(
        read_json(release / "manifest.json"), read_json(project / "releases/newer/manifest.json")
    )
    assert lines[:2] == ["settings:", "  sample_videos.guidance: 2.5 -> 3.0"]
    assert not any("videos" in line and "files" in line for line in lines)
    assert cli(["releases", "diff", str(release), str(project / "releases/newer")]) == 1
    assert cli(["releases", "diff", str(release), str(release)]) == 0
    assert "no difference" in capsys.readouterr().out


@pytest.mark.slow
def test_stage_writes_the_release_and_records_it(project, monkeypatch):
    from mlflow.tracking import MlflowClient

    from echosyn.tracking import RELEASES, tracking_uri
    from echosyn.tracking.release import headlines
    from pipelines.release import main

    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(project)
    shutil.rmtree("releases")
    main("phantom")
    assert verify("releases/phantom") == []
    client = MlflowClient(tracking_uri())
    (run,) = client.search_runs([client.get_experiment_by_name(RELEASES).experiment_id])
    assert run.info.run_name == "echosyn-phantom@v1.2.0"
    assert run.data.metrics == {**METRICS, **headlines(METRICS)}
    assert run.data.params["sample_videos.guidance"] == "2.5"
    assert run.data.tags["md5:models/vae"] == "2" * 32 + ".dir"
    kept = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert kept == {
        "DATASHEET.md",
        "README.md",
        "manifest.json",
        "predictions.png",
        "privacy.png",
        "requested_vs_measured.png",
        "samples.gif",
    }


def test_stage_refuses_samples_that_no_gate_passed(project, monkeypatch):
    from pipelines.release import main

    monkeypatch.chdir(project)
    Path("gates/release/phantom.json").unlink()
    with pytest.raises(EchosynError, match="no gate has passed"):
        main("phantom")


def test_stage_refuses_samples_that_are_not_those_the_gate_passed(project, monkeypatch):
    from pipelines.release import main

    monkeypatch.chdir(project)
    write_json("gates/release/phantom.json", {"filelist_sha256": "0" * 64})
    with pytest.raises(EchosynError, match="about other samples"):
        main("phantom")


def test_manifest_is_plain_json(release):
    assert json.loads((release / "manifest.json").read_text())["schema"] == 1


def test_no_release_without_an_audit_of_these_samples_that_passes(project):
    samples, audit = project / "samples/phantom", project / "audit/phantom"
    require_audit(audit, samples, Thresholds())
    with pytest.raises(EchosynError, match=r"planted_light: fail, measured 0\.970.*at least 0\.98"):
        require_audit(audit, samples, Thresholds(planted_light=0.98))
    bad = {**AUDITED, "privacy/membership_auc_lo": 0.51}
    found = read_json(audit / "audit.json")
    write_json(audit / "audit.json", {**found, "numbers": bad})
    with pytest.raises(EchosynError, match=r"1 privacy checks:\n  membership: fail"):
        require_audit(audit, samples, Thresholds())
    write_json(audit / "audit.json", {**found, "filelist_sha256": "0"})
    with pytest.raises(EchosynError, match=r"is about other samples .* run dvc repro"):
        require_audit(audit, samples, Thresholds())
    (audit / "audit.json").unlink()
    with pytest.raises(EchosynError, match="nobody has audited"):
        require_audit(audit, samples, Thresholds())


@pytest.mark.parametrize("name", ["video_scores.csv", "local_video_matches.csv", "privacy.html"])
def test_what_stays_local_cannot_be_part_of_a_release(project, tmp_path, name):
    released(project, "leaky")
    folder = project / "releases/leaky"
    if name.endswith(".html"):
        (folder / name).write_text(f"<p>{LOCAL_ONLY}</p>")
    else:
        scores = pd.DataFrame({"kind": ["synthetic"] * 9, "similarity": 0.5, "ncc": 0.1})
        scores.to_csv(folder / name, index=False)
    with pytest.raises(EchosynError, match=rf"(?s)must not be released.*\n{name}: "):
        refuse_leaks(folder, ["0XSOMEBODY1"], people=())


def test_lineage_has_one_digest_of_the_code_of_each_stage(project):
    def digests():
        return provenance(project, "phantom")["lineage"]["stages"]

    code = project / "pipelines/sample_videos.py"
    code.parent.mkdir()
    code.write_text("from echosyn import deep")
    (project / "echosyn").mkdir()
    (project / "echosyn/deep.py").write_text("x = 1")
    first = digests()
    assert first == {"sample_videos@phantom": code_digest("sample_videos", project)}
    (project / "echosyn/deep.py").write_text("x = 2")
    assert digests() != first
