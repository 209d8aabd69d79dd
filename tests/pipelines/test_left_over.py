"""Folders of datasets that params.yaml does not have any more, and who still asks for them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from refusals import refused

from echosyn.data.training_sets import trained_on
from echosyn.runtime.config import Params
from echosyn.synthesis.animate_video import _only
from echosyn.training.published_denoiser import prepare_lvdm
from echosyn.training.published_vae import prepare_vae
from echosyn.training.reid import prepare_reid

ENTRY = {"role": "train", "source": "phantom", "path": "x"}


def project(folder, **sections):
    known = {"scale": "smoke", "datasets": {"a": ENTRY}, "generate": ["a"]}
    (folder / "params.yaml").write_text(yaml.safe_dump({**known, **sections}))
    return Params(folder)


STAGES = {
    "train_vae": ("data/train", lambda params: prepare_vae(params, None, Path("frames"))),
    "train_lvdm": ("latents/train", lambda params: prepare_lvdm(params, None)),
    "train_lvdm's beats": ("beats/train", lambda params: prepare_lvdm(params, None)),
    "train_reid": (
        "latents/train",
        lambda params: prepare_reid(params, SimpleNamespace(joint=True), "a"),
    ),
    "distill_lvdm": ("latents/train", lambda params: trained_on(params, "TRAIN")),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_that_is_left_over_is_named(tmp_path, monkeypatch, stage):
    monkeypatch.chdir(tmp_path)
    folder, prepare = STAGES[stage]
    for place in ("data/train", "latents/train", "beats/train"):
        Path(place, "a").mkdir(parents=True)
    Path(folder, "t").mkdir()
    wanted = f"{folder}/t belongs to no dataset in params.yaml: remove it, or put the entry back"
    assert refused(prepare, project(Path())) == wanted
    guest = {"a": ENTRY, "t": {**ENTRY, "role": "guest"}}
    said = refused(prepare, project(Path(), datasets=guest))
    assert said.startswith(f"{folder}/t is left over: datasets.t in params.yaml has role 'guest'")


@pytest.mark.parametrize(
    ("sections", "who"),
    [
        ({"generate": ["a", "t"]}, "generate"),
        ({"animate": {"t": {}}}, "animate.t"),
        ({"canary": {"t": None}}, "canary.t"),
        ({"ef_arms": {"t": {}}}, "ef_arms.t"),
        ({"classify": {"pah": {"dataset": "t"}}}, "classify.pah"),
        ({"generate": ["t"], "animate": {"t": {}}}, "generate and animate.t"),
    ],
)
def test_who_asks_for_a_dataset_that_is_gone_is_named(tmp_path, sections, who):
    params = project(tmp_path, **sections)
    wanted = f"no 't' under datasets: put the entry back, or take it out of {who}"
    assert refused(params.dataset, "t") == f"params.yaml: {wanted}"
    assert "no 'u' under datasets; known: a" in refused(params.dataset, "u")
    odd = project(tmp_path, generate="t", animate=["t"], classify=["t"])
    assert "no 't' under datasets: put the entry back" in refused(odd.dataset, "t")


def test_models_of_a_dataset_that_is_gone_are_named(tmp_path):
    for name in ("a", "t"):
        (tmp_path / "models/reid" / name).mkdir(parents=True)
    said = refused(_only, tmp_path / "models/reid", project(tmp_path))
    assert "add --models a or --models t" in said
    assert said.endswith("models/reid/t is left over: 't' is not under generate in params.yaml)")
