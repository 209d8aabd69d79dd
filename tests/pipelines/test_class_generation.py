"""A dataset of classes and no EF: what has nothing to regress says so, the rest is measured."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from small_project import REAL, SYNTHETIC, write_dataset

from echosyn.data.filelist import COLUMNS, read_filelist, write_filelist
from echosyn.data.frames import FrameSet, load_frames
from echosyn.data.latents import pack, write_index, write_shard
from echosyn.evaluation import EvaluateConfig, QualityEvaluation, Sets
from echosyn.metrics.feature_cache import FeatureCache
from echosyn.models.vae import Vae, VaeConfig
from echosyn.release.build import ReleaseConfig, build_release
from echosyn.runtime.files import write_json
from echosyn.tracking import NullRun
from echosyn.training.arms import read_none
from pipelines import evaluate, train_ef

CONF = {
    "train_ef": {
        "model": {"widths": [4], "blocks": [1], "stem_width": 4, "stem_stride": 4},
        "loop": {"steps": 1, "batch": 2, "lr": 1.0e-3},
        "fps": 8.0,
    },
    "evaluate": {"frames_per_video": 2, "resamples": 100, "protocol_fps": 16.0},
}
SOURCES = (
    "encode", "train_reid", "train_segmentation", "privacy_filter", "filter_videos", "trace",
    "privacy_audit",
)  # fmt: skip


class Run(NullRun):
    """Stands for an MLflow run: takes a stage's outputs, and writes its numbers."""

    def output(self, path):
        assert path.is_dir()

    def final(self, values, path):
        write_json(path, values)


def give_classes(folder):
    table = pd.read_csv(folder / "FileList.csv")
    table[["EF", "ESV", "EDV"]] = np.nan
    table["Class"] = [("PAH", "non-PAH")[i // 3] for i in range(len(table))]
    write_filelist(folder / "FileList.csv", table)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Before its EF arms: class-labelled videos of 16 pixels, and the numbers of other stages."""
    for path, names, fps, seed in (
        ("data/train/pah", REAL, 32.0, 0),
        ("reconstructions/train/pah", REAL, 16.0, 1),
        ("samples/pah", SYNTHETIC, 16.0, 2),
    ):
        write_dataset(tmp_path / path, names, fps, 16, seed)
        give_classes(tmp_path / path)
    dataset = {"role": "train", "source": "cardiacnet", "path": "raw", "label": "class"}
    params = {"scale": "smoke", "seed": 0, "datasets": {"pah": dataset}, "generate": ["pah"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    for stage, values in CONF.items():
        conf = tmp_path / f"conf/smoke/{stage}.yaml"
        conf.parent.mkdir(parents=True, exist_ok=True)
        conf.write_text(yaml.safe_dump(values))
    latents = {name: pack(torch.randn(16, 4, 2, 2), torch.zeros(16, 4, 2, 2)) for name in REAL}
    (tmp_path / "latents/train/pah").mkdir(parents=True)
    write_shard(tmp_path / "latents/train/pah/s.safetensors", latents)
    listed = pd.read_csv(tmp_path / "reconstructions/train/pah/FileList.csv")
    write_index(tmp_path / "latents/train/pah", listed.assign(Shard="s.safetensors"))
    for folder in ("beats/train/pah", "tracings/pah"):
        (tmp_path / folder).mkdir(parents=True)
    Vae.create(VaeConfig(widths=(8, 8, 8), groups=4)).save(tmp_path / "models/vae")
    for stage in SOURCES:
        (tmp_path / f"metrics/{stage}").mkdir(parents=True)
        (tmp_path / f"metrics/{stage}/pah.json").write_text(json.dumps({f"{stage}/n": 1.0}))
    monkeypatch.setattr("echosyn.tracking.stage_run", lambda *a: nullcontext(Run()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ECHOSYN_ROOT", str(tmp_path))
    return tmp_path


def test_an_arm_without_ef_says_so_and_the_evaluation_leaves_ef_out(project, capsys):
    for arm in ("real", "synthetic_relabelled"):
        train_ef.main("pah", arm)
        assert json.loads((project / f"metrics/train_ef/pah-{arm}.json").read_text()) == {}
        (said,) = capsys.readouterr().out.strip().splitlines()
        assert said.endswith("pah has `label: class`: no EF to regress; left out")
    folder = project / "models/ef/pah/real"
    assert [p.name for p in folder.iterdir()] == ["none.json"]
    assert read_none(folder)["fps"] == 8.0
    assert read_none(project / "models/ef/pah") is None

    evaluate.main("pah")
    numbers = json.loads((project / "metrics/evaluate/pah.json").read_text())
    assert not [k for k in numbers if k.startswith("ef") or "efnet" in k or "_ef_" in k]
    assert "quality/fd_rand2d_n4x4_floor" in numbers
    assert "us/snr" in numbers
    assert {k for k in numbers if k.startswith("beat/")} == {
        "beat/motion", "beat/motion_lo", "beat/motion_hi",
    }  # fmt: skip
    assert numbers["privacy_filter/n"] == 1.0
    assert np.isfinite([v for v in numbers.values() if not isinstance(v, str)]).all()
    assert read_none(project / "evaluation/pah") == read_none(folder)


def test_bands_of_ef_are_not_measured_without_a_regressor(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"FileName": [f"v{i}" for i in range(20)], "EF": np.nan})
    frames = rng.integers(0, 255, (20 * 16, 16, 16), np.uint8)
    some = FrameSet(frames, table, 16 * np.arange(20), np.full(20, 16), 16.0)
    cfg = EvaluateConfig(frames_per_video=2, resamples=100)

    def over(name, items, worker):
        return worker()(range(items))

    quality = QualityEvaluation(cfg, 0, over, FeatureCache(tmp_path))
    quality.measure(Sets(some, some, some, replace(some)), None)
    assert any(k.startswith("quality/kd_motion_16f_n20x20") for k in quality.numbers)
    assert not [k for k in quality.numbers if "efnet" in k or "_ef_" in k]


def test_a_release_keeps_the_classes_and_its_card_counts_them(project):
    lineage = {"data": {}, "models": {}, "stages": {}}
    provenance = {"params": {"scale": "smoke", "datasets": {}}, "lineage": lineage}
    build_release(
        project / "samples/pah", project / "data/train/pah", project / "releases/pah",
        config=ReleaseConfig(version="1.0.0", license="CC0-1.0"), name="pah", label="class",
        provenance=provenance, metrics={},
    )  # fmt: skip
    listed = read_filelist(project / "releases/pah/FileList.csv", "class")
    assert list(listed.columns) == [*COLUMNS, "Class"]
    assert listed["Class"].value_counts().to_dict() == {"PAH": 3, "non-PAH": 3}
    card = (project / "releases/pah/README.md").read_text()
    assert "- Class: 3 PAH, 3 non-PAH; what was asked of the generator" in card
    assert "- EF" not in card
    frames = load_frames(project / "releases/pah", 16.0, project / "cache", "class")
    assert list(frames.table["Class"]) == list(listed["Class"])
