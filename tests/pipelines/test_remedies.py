"""Errors that had no remedy, or no file: each says what to run, set or change."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from refusals import refused, written

from echosyn.beat.tracings import traced_areas
from echosyn.data.beats import read_beats
from echosyn.data.latents import INDEX_COLUMNS, LatentSet, write_index
from echosyn.diffusion.ef_draw import draw_ef
from echosyn.diffusion.hearts import draw_labels
from echosyn.diffusion.inversion import invert
from echosyn.diffusion.windows import window_starts
from echosyn.encoding.encode import _check_size
from echosyn.evaluation.quality import Sets
from echosyn.metrics.interval import Estimate
from echosyn.models.condition import ConditionSpec
from echosyn.models.store import read_config, unet_folder
from echosyn.privacy.filters.false_rejection import false_rejection
from echosyn.runtime import lineage
from echosyn.synthesis.samples import _draw_classes
from echosyn.training.diffusion import heart_spec

BARE = SimpleNamespace(folder="latents/train/a", ef=np.array([np.nan]), classes=[None])


def latents(folder, rows):
    folder.mkdir()
    write_index(folder, pd.DataFrame(rows, columns=INDEX_COLUMNS))
    return LatentSet(folder)


CALLS = {
    "an EF to draw": (lambda _: draw_ef("real", BARE.ef, 2, 0), "set ef: uniform"),
    "a class to draw": (
        lambda _: draw_labels(ConditionSpec(ef=False, classes=("x",)), "real", BARE, [0], 0),
        "latents/train/a: classes cannot be drawn.*set `condition` of train_lidm to ef or none",
    ),
    "a class to sample": (
        lambda _: _draw_classes([], 2, np.random.default_rng(0)),
        "set `label` of the dataset to ef or none",
    ),
    "an EF to condition on": (
        lambda _: heart_spec(SimpleNamespace(condition="ef"), BARE),
        "set `condition` of train_lidm to class or none",
    ),
    "a class to condition on": (
        lambda _: heart_spec(SimpleNamespace(condition="class"), BARE),
        "set `condition` of train_lidm to ef or none",
    ),
    "a class of a published model": (
        lambda _: ConditionSpec(published=True).rows(1, None, None, ["x"]),
        "set layout: own of train_lvdm",
    ),
    "an EF of a model without": (
        lambda _: ConditionSpec(ef=False).rows(1, torch.tensor([50.0]), None),
        "train it on a dataset with label: ef",
    ),
    "an overlap": (lambda _: window_starts(20, 8, 9), "overlap 9 of sample_videos.*overlap: 4"),
    "an inversion": (
        lambda _: invert(lambda x, t: x * torch.nan, torch.ones(1), 2, 0),
        "set precision: fp32, or train the model longer",
    ),
    "too few videos": (
        lambda _: Sets([1], [1, 2], [1, 2], [1, 2]).matched(9),
        "there are train 1, test 2, .*: add patients to the split, or sample more",
    ),
    "another frame size": (
        lambda _: _check_size("v", (8, 8), (9, 9)),
        "video v: .* ingest the dataset again",
    ),
    "another tau": (
        lambda _: false_rejection(np.ones(2), np.arange(2), Estimate(np.nan, 0.0, 1.0)),
        "not finite: run privacy_filter again",
    ),
    "a shard that is gone": (
        lambda at: latents(at / "z", [("v", 1.0, "TRAIN", 9.0, 3, "s.safetensors")]).mean(0),
        r"z/s\.safetensors: .*: run encode again",
    ),
    "beats without a column": (
        lambda at: read_beats(written(at / "beats.csv", b"FileName\nv\n").parent, ["v"]),
        r"beats\.csv: no column HeartRate; .*: run the stage beats again",
    ),
    "a tracing": (
        lambda at: traced_areas(written(at / "t.csv", b"FileName,X,Y,Frame\n\na,1,2,x\n")),
        r"t\.csv: line 3: Frame 'x' is no finite number: correct or remove that line",
    ),
    "a lock file": (
        lambda at: lineage.read_lock(written(at / "dvc.lock", b"stages: {a: [1]}\n").parent),
        "restore it, or remove it and run dvc repro",
    ),
    "a model folder": (lambda at: unet_folder(at / "no"), "no: .*run the stage that trains it"),
    "half a model": (read_config, "not a whole model: train or download the model"),
    "a model's config": (
        lambda at: read_config(written(at / "config.json", b"{").parent),
        r"config\.json is not valid JSON \(.*\): train or download the model again",
    ),
}


@pytest.mark.parametrize("kind", CALLS)
def test_an_error_says_what_to_do(tmp_path, kind):
    call, wanted = CALLS[kind]
    said = refused(call, tmp_path)
    assert re.search(wanted, said), said
