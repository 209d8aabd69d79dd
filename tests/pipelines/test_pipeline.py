"""The whole graph on the smoke preset, as a user runs it: `dvc repro` in a fresh project."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from repro import edit, lock, new_project, run

from echosyn.data.filelist import read_filelist
from echosyn.release import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # waits for the whole graph


def test_every_stage_ran_and_left_its_outputs(project):
    graph = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    ran = set(yaml.safe_load((project / "dvc.lock").read_text())["stages"])
    assert {name.split("@")[0] for name in ran} | {"animate"} == set(graph)  # a guest's
    for path in lock(project):
        assert (project / path).exists(), path
    assert (project / "models/lidm/phantom/guide/config.json").is_file()


def test_headline_numbers_are_there_under_their_names(project):
    numbers = json.loads((project / "metrics/evaluate/phantom.json").read_text())
    arms = ("real", "reconstructed", "synthetic", "synthetic_relabelled", "real_plus_synthetic")
    wanted = [
        f"ef/{arm}/{m}{end}"
        for arm in arms
        for m in ("r2", "mae", "rmse")
        for end in ("", "_lo", "_hi")
    ]
    wanted += ["vae/psnr_db", "vae/ssim", "reid/auc", "reid/eer", "ef/requested_vs_measured/slope"]
    wanted += [
        f"privacy/{k}"
        for k in (
            "tau",
            "rejection_rate",
            "planted_exact_recall",
            "planted_light_recall",
            "planted_curve/flip_50",
            "membership_auc",
            "membership_loss_auc",
            "drawn/membership_nn_auc",
            "attribute_risk",
            "singling_out_risk",
            "linkability_risk",
            "gate_passed",
            "canary_relative",
        )
    ]
    wanted += [
        f"privacy_videos/{k}" for k in ("rejection_rate", "planted_exact_recall", "accepted")
    ]
    wanted += ["coverage/videos/learned_fraction", "coverage/videos/learned_fraction_real"]
    wanted += ["coverage/learned_fraction", "coverage/learned_fraction_real"]
    more = ("few_real_50_plus_synthetic", "synthetic_from_phantom")
    wanted += [f"ef_one_clip/{arm}/mae" for arm in (*arms, *more)]
    wanted += ["us/spectrum_db", "us/temporal_mean_real", "protocol/motion/extractor_sha256"]
    assert not [k for k in wanted if k not in numbers]
    quality = [k for k in numbers if k.startswith("quality/fd_")]
    assert any(k.endswith("_floor") for k in quality)
    assert not [k for k in numbers if any(w in k for w in ("fid", "fvd", "inception"))]


def test_videos_are_traced_or_counted_and_the_release_says_which(project):
    """Videos of models that trained for seconds may show no heart at all."""
    volumes = pd.read_csv(project / "tracings/phantom/volumes.csv")
    table = read_filelist(project / "releases/phantom/FileList.csv")
    assert list(volumes["FileName"]) == list(table["FileName"])
    traced = volumes["FileName"][volumes["Outcome"] == "traced"]
    lines = pd.read_csv(project / "tracings/phantom/VolumeTracings.csv")
    assert set(lines["FileName"]) == {f"{name}.avi" for name in traced}
    assert len(lines) == len(traced) * 2 * 21
    numbers = json.loads((project / "metrics/evaluate/phantom.json").read_text())
    left = sum(v for k, v in numbers.items() if k.startswith("segmentation/left_out_"))
    assert left == len(table) - len(traced)
    assert numbers["segmentation/traced_real"] > 0.5
    assert numbers["segmentation/dice"] > 0.8
    manifest = json.loads((project / "releases/phantom/manifest.json").read_text())
    assert manifest["tracings"]["videos"] == len(traced) == table["EDV"].notna().sum()
    assert ("VolumeTracings.csv" in manifest["files"]) == bool(len(traced))


def test_the_release_verifies_and_names_nobody(project, tmp_path):
    release = project / "releases/phantom"
    assert verify(release) == []
    listed = read_filelist(release / "FileList.csv")
    assert listed["Split"].value_counts().to_dict() == {"TRAIN": 8, "VAL": 2, "TEST": 2}
    real = read_filelist(project / "data/train/phantom/FileList.csv")["FileName"]
    text = "".join(p.read_text() for p in release.iterdir() if p.suffix in (".md", ".json", ".csv"))
    assert not [name for name in real if name in text]
    assert str(project) not in text
    other = shutil.copytree(release, tmp_path / "release")
    assert verify(other) == []
    video = next((other / "Videos").iterdir())
    video.write_bytes(video.read_bytes()[:-1] + b"x")
    assert any(video.name in problem for problem in verify(other))


def test_the_report_stands_alone(project):
    page = (project / "reports/phantom/index.html").read_text()
    assert page.count("data:image/webp;base64,") >= 3
    assert "<script src" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    numbers = json.loads((project / "metrics/evaluate/phantom.json").read_text())
    assert f"{numbers['vae/psnr_db']:.1f}" in page


def test_mlflow_has_one_run_per_stage_and_one_per_release(project):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")
    runs = {
        name: client.search_runs([client.get_experiment_by_name(name).experiment_id])
        for name in ("stages", "releases")
    }
    names = [r.info.run_name for r in runs["stages"]]
    assert len(names) == len(set(names)) >= 18
    assert all(r.info.status == "FINISHED" for r in runs["stages"])
    (release,) = runs["releases"]
    numbers = json.loads((project / "metrics/evaluate/phantom.json").read_text())
    words = {k: v for k, v in numbers.items() if isinstance(v, str)}
    assert (numbers.items() - words.items()) <= release.data.metrics.items()
    assert words
    assert words.items() <= release.data.tags.items()
    assert release.data.tags["git_commit"]
    assert any(k.startswith("md5:models/") for k in release.data.tags)
    vae = next(r for r in runs["stages"] if r.info.run_name == "train_vae/all")
    curve = client.get_metric_history(vae.info.run_id, "train/loss")
    assert len(curve) == len({m.step for m in curve}) > 1
    lvdm = next(r for r in runs["stages"] if r.info.run_name == "train_lvdm/all")
    pictures = client.list_artifacts(lvdm.info.run_id, "pictures")
    assert {Path(a.path).name for a in pictures} == {"labels.png", "labels.gif", "steps.png"}
    kept = pd.read_csv(project / "curves/train_vae/all/train.csv")
    assert list(kept["loss"]) == [m.value for m in sorted(curve, key=lambda m: m.step)]


def test_dvc_draws_the_loss_curves_of_every_trained_model(project):
    run(project, "dvc", "plots", "show")
    page = (project / "dvc_plots/index.html").read_text()
    shutil.rmtree(project / "dvc_plots")
    models = ("train_vae/all", "train_lidm/phantom", "train_lvdm/all", "train_reid/phantom")
    for name in models:
        assert f"curves/{name}/train.csv" in page
        assert len(pd.read_csv(project / f"curves/{name}/val.csv")) > 0


def test_a_second_repro_does_nothing(project):
    before = lock(project)
    _, text = run(project, "dvc", "repro")
    assert "Data and pipelines are up to date" in text
    assert lock(project) == before


@pytest.fixture
def copy(project, tmp_path):
    """A copy of the project, for tests that change it."""
    ignored = shutil.ignore_patterns(".echosyn", "mlruns")
    return shutil.copytree(project, tmp_path / "project", ignore=ignored)


def test_rerunning_gives_the_same_bytes(copy, warm):
    """Some in processes that import everything themselves, which stages of the graph need not."""
    before = lock(copy)
    again = ["encode@phantom", "sample_hearts@phantom"]
    for how, targets in ((None, ["phantom", "sample_videos@phantom"]), (warm, again)):
        _, text = run(copy, "dvc", "repro", "--force", "--single-item", *targets, warm=how)
        assert text.count("Running stage") == len(targets)
    assert lock(copy) == before


def test_an_edited_knob_reruns_what_depends_on_it_and_nothing_else(copy):
    knobs = yaml.safe_load((copy / "params.yaml").read_text())["sample_videos"]
    edit(copy / "params.yaml", sample_videos={**knobs, "guidance": 1.0})
    _, text = run(copy, "dvc", "status", "--json")
    changed = {name.split("@")[0] for name in json.loads(text)}
    assert "sample_videos" in changed
    assert not changed & {"train_vae", "train_lvdm", "train_lidm", "sample_hearts", "encode"}


def test_bad_data_stops_the_graph_with_the_row_and_the_value(tmp_path, project, warm):
    bad = tmp_path / "raw"
    shutil.copytree(project / "data/raw/phantom", bad)
    table = (bad / "FileList.csv").read_text().splitlines()
    cells = table[3].split(",")
    cells[1] = "140"
    (bad / "FileList.csv").write_text("\n".join([*table[:3], ",".join(cells), *table[4:]]) + "\n")
    (tmp_path / "p").mkdir()
    entry = {"role": "train", "source": "echonet", "path": str(bad), "label": "ef"}
    other = new_project(tmp_path / "p", datasets={"bad": entry}, generate=["bad"])
    code, text = run(other, "dvc", "repro", "validate_raw@bad", ok=False, warm=warm)
    assert code != 0
    assert "140" in text
    assert "line 4" in text or cells[0] in text
    assert "Traceback" not in text
    assert not (other / "data/train/bad").exists()


def test_help_is_quick_and_wrong_names_are_refused(project, warm):
    for stage in ("train_vae", "evaluate", "release", "sample_videos", "validate_raw"):
        _, text = run(
            project, sys.executable, "-X", "importtime", "-m", f"pipelines.{stage}", "--help"
        )
        heavy = [m for m in ("torch", "mlflow", "pandas", "diffusers", "cv2") if f"| {m}\n" in text]
        assert not heavy, f"{stage} --help imports {heavy}"
    code, text = run(project, sys.executable, "-m", "pipelines.train_lidm", "../x", ok=False)
    assert code == 1
    assert "use a-z" in text
    code, text = run(project, sys.executable, "-m", "pipelines.train_lidm", "nowhere", ok=False)
    assert code == 1
    assert "run encode" in text
    assert "Traceback" not in text
    forked = run(project, "python", "-m", "pipelines.train_lidm", "nowhere", ok=False, warm=warm)
    assert forked == (code, text)
