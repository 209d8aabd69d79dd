"""A whole project in a temporary folder, six small videos, as it stands before its release."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from echosyn.data.filelist import COLUMNS, PATIENT, video_path, write_filelist
from echosyn.data.video import write_video
from echosyn.release.build import ReleaseConfig, build_release
from echosyn.release.provenance import provenance
from echosyn.runtime.config import Params
from echosyn.runtime.files import read_json, sha256_file, write_json
from echosyn.runtime.lineage import dvc_md5

REAL = [f"0XREAL{i}" for i in range(6)]
SYNTHETIC = [f"synthetic{i}" for i in range(6)]
METRICS = {
    "ef/real/r2": 0.97,
    "ef/real/r2_lo": 0.95,
    "ef/real/r2_hi": 0.98,
    "ef/real/mae": 2.5,
    "ef/synthetic/r2": 0.63,
    "ef/synthetic/mae": 5.25,
    "ef/requested_vs_measured/r": 0.84,
    "privacy/tau": 0.9,
    "privacy/rejection_rate": 0.125,
    "quality/kd_r3d_clip16_n6x6": 14.25,
    "quality/kd_r3d_clip16_n6x6_floor": 3.5,
}
AUDITED = {  # what every check of a release passes
    "privacy/planted_exact_recall": 1.0,
    "privacy/planted_light_recall": 0.97,
    "privacy/false_rejection_heldout": 0.06,
    "privacy/false_rejection_heldout_lo": 0.03,
    "privacy/false_rejection_heldout_hi": 0.1,
    "privacy/false_rejection_calibrated": 0.05,
    "privacy/rejection_rate": 0.08,
    "privacy_videos/planted_exact_recall": 1.0,
    "privacy_videos/planted_light_recall": 0.96,
    "privacy_videos/planted_rebuilt_recall": 1.0,
    "privacy_videos/false_rejection_heldout": 0.01,
    "privacy_videos/false_rejection_heldout_lo": 0.0,
    "privacy_videos/false_rejection_heldout_hi": 0.04,
    "privacy_videos/false_rejection_calibrated": 0.05,
    "privacy_videos/rejection_rate": 0.02,
    **{
        f"privacy/membership_{name}{end}": value
        for name in ("auc", "dcr_share", "nn_auc", "loss_auc")
        for end, value in (("", 0.52), ("_lo", 0.45), ("_hi", 0.59))
    },
    **{
        f"privacy/{attack}_risk{end}": value
        for attack in ("attribute", "singling_out", "linkability")
        for end, value in (("", 0.02), ("_lo", 0.0), ("_hi", 0.1))
    },
    "privacy/canary_relative": 0.2,
}
WORDS = {"protocol/r3d/offsets": "random, seed 3"}
PARAMS = {
    "scale": "smoke",
    "seed": 3,
    "datasets": {
        "phantom": {"role": "train", "source": "phantom", "path": "/mnt/clinic/echo", "label": "ef"}
    },
    "sample_videos": {"guidance": 2.5, "weights": "/home/someone/lvdm"},
    "train_lidm": {"secret_knob": 1},
    "release": {"version": "1.2.0", "license": "CC-BY-4.0"},
}


def write_dataset(folder: Path, names: list[str], fps: float, frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    (folder / "Videos").mkdir(parents=True)
    rows = []
    for i, name in enumerate(names):
        write_video(video_path(folder, name), rng.integers(0, 255, (frames, 16, 16), np.uint8), fps)
        ef = 30.0 + 8 * i
        split = ("TRAIN", "VAL", "TEST")[i % 3]
        rows.append((name, ef, 100 - ef, 100.0, 16, 16, fps, frames, split, f"patient{name}"))
    write_filelist(folder / "FileList.csv", pd.DataFrame(rows, columns=[*COLUMNS, PATIENT]))


def make_project(root: Path) -> Path:
    write_dataset(root / "data/train/phantom", REAL, 50.0, 16, seed=0)
    write_dataset(root / "reconstructions/train/phantom", REAL, 16.0, 8, seed=1)
    write_dataset(root / "samples/phantom", SYNTHETIC, 16.0, 8, seed=2)
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    write_json(root / "metrics/evaluate/phantom.json", {**METRICS, **WORDS})
    write_json(root / "metrics/train_vae/all.json", {"train_vae/val_loss": 0.25})
    listed = sha256_file(root / "samples/phantom/FileList.csv")
    write_json(root / "gates/release/phantom.json", {"filelist_sha256": listed})
    audit = {"filelist_sha256": listed, "numbers": AUDITED}
    write_json(root / "audit/phantom/audit.json", audit)
    write_json(root / "tracings/phantom/none.json", {"reason": "nobody traced them"})
    write_tables(root)
    write_lock(root)
    return root


def write_tables(root: Path) -> None:
    efs = [30.0 + 8 * i for i in range(6)]
    requested = {"FileName": SYNTHETIC, "ef_requested": efs, "ef_measured": [e + 2 for e in efs]}
    arms = {
        "arm": ["real"] * 6 + ["synthetic"] * 6,
        "FileName": REAL * 2,
        "ef_true": efs * 2,
        "ef_predicted": [e - 1 for e in efs * 2],
    }
    scores = {
        "kind": ["heldout"] * 6 + ["synthetic"] * 6,
        "similarity": [0.6, 0.7, 0.7, 0.8, 0.85, 0.89, 0.5, 0.7, 0.7, 0.8, 0.85, 0.95],
        "accepted": [True] * 11 + [False],
    }
    for path, table in (
        ("evaluation/phantom/requested.csv", requested),
        ("evaluation/phantom/predictions.csv", arms),
        ("privacy/phantom/hearts/scores.csv", scores),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(table).to_csv(root / path, index=False)


def write_lock(root: Path) -> None:
    """dvc.lock as DVC 3 writes it, with the real hashes of what `make_project` wrote."""

    def entry(path: str, md5: str | None = None) -> dict:
        return {"path": path, "hash": "md5", "md5": md5 or dvc_md5(root / path), "size": 1}

    train, samples = entry("data/train/phantom"), entry("samples/phantom")
    vae, other = entry("models/vae", "2" * 32 + ".dir"), entry("models/other", "3" * 32 + ".dir")
    source = entry("/mnt/clinic/echo", "1" * 32 + ".dir")
    code = entry("pipelines/sample_videos.py", "4" * 32)
    every = entry("data/train", "5" * 32 + ".dir")  # all datasets: the folder that holds an output
    dataset = {"datasets.phantom": PARAMS["datasets"]["phantom"]}
    knobs = {"seed": PARAMS["seed"], "sample_videos": PARAMS["sample_videos"]}
    stages = {
        "ingest@phantom": {"deps": [source], "params": {"params.yaml": dataset}, "outs": [train]},
        "train_vae": {"deps": [every], "outs": [vae, entry("curves/train_vae/all", "6" * 32)]},
        "train_lidm@other": {
            "deps": [vae],
            "params": {"params.yaml": {"train_lidm": PARAMS["train_lidm"]}},
            "outs": [other],
        },
        "sample_videos@phantom": {
            "cmd": "python -m pipelines.sample_videos phantom",
            "deps": [code, vae],
            "params": {"params.yaml": knobs, "conf/smoke/sample_videos.yaml": {"frames": 8}},
            "outs": [samples],
        },
        "evaluate@phantom": {"deps": [samples], "outs": [entry("metrics/evaluate/phantom.json")]},
    }
    stages = {name: {"cmd": "made elsewhere", **stage} for name, stage in stages.items()}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def released(root: Path, name: str = "phantom", **more: Any) -> dict:
    """The release of such a project, its manifest; `more` goes to `build_release`."""
    if "provenance" not in more:
        more["provenance"] = provenance(root, "phantom")
    return build_release(
        root / "samples/phantom",
        root / "data/train/phantom",
        root / "releases" / name,
        config=Params(root).stage("release", ReleaseConfig),
        name="echosyn-phantom",
        label="ef",
        **{"metrics": read_json(root / "metrics/evaluate/phantom.json"), **more},
    )
