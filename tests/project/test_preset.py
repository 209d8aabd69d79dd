"""Presets of params.yaml, and the reference's own: published weights in, ddpm_v samples out."""

import dataclasses
import importlib
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from small_project import write_dataset
from tiny_video import tiny_video

from echosyn.beat.lv_area import without_beats
from echosyn.cli import main as echosyn
from echosyn.cluster.models import MODELS
from echosyn.data.beats import write_beats
from echosyn.data.latents import INDEX_COLUMNS, LatentSet, pack, write_index, write_shard
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.hearts import HeartSampler
from echosyn.diffusion.objectives import Flow
from echosyn.diffusion.settings import SampleHeartsConfig, SampleVideosConfig
from echosyn.models.condition import ConditionSpec
from echosyn.models.image import ImageConfig, ImageDenoiser
from echosyn.models.published_image import PublishedImageDenoiser, UnetConfig, load_image
from echosyn.models.published_video import PublishedVideoDenoiser, load_video
from echosyn.models.vae import Vae, VaeConfig
from echosyn.project.config_patch import set_value
from echosyn.project.preset import all_presets
from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError
from echosyn.training.diffusion import TrainLidmConfig, TrainLvdmConfig
from echosyn.training.ef import TrainEfConfig
from echosyn.training.vae import TrainVaeConfig

ROOT = Path(__file__).parents[2]
# Of 7x7 latents padded to 8x8: a published config may name either size.
SIZE, PADDED, WINDOW, SCALING = 7, 8, 4, 0.5
UNET = UnetConfig(widths=(32, 64), layers=1, attention=(False, True), heads=(4, 8))
PUBLISHED = ConditionSpec(published=True)
STAGES = {
    "train_vae": TrainVaeConfig,
    "train_lidm": TrainLidmConfig,
    "train_lvdm": TrainLvdmConfig,
    "sample_hearts": SampleHeartsConfig,
    "sample_videos": SampleVideosConfig,
    "train_ef": TrainEfConfig,
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The settings of this project, alone in a folder."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    edit(tmp_path / "params.yaml", generate=["phantom"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(path, **values):
    text = path.read_text()
    for key, value in values.items():
        text = set_value(text, key.split("__"), value)
    path.write_text(text)


def settings(root, stage):
    return Params(root).stage(stage, STAGES[stage])


# ---- the command


def test_the_list_describes_every_preset(root, capsys):
    assert echosyn(["preset"]) == 0
    listed = capsys.readouterr().out.splitlines()
    files = sorted((ROOT / "conf/presets").glob("*.yaml"))
    for file, line in zip(files, listed, strict=True):
        name, about = line.split(maxsplit=1)
        assert (name, f"# {about}") == (file.stem, file.read_text().splitlines()[0])
    assert any(line.startswith("reference ") for line in listed)


def test_the_patch_applied_by_git_is_what_write_writes(root, capsys):
    before = (root / "params.yaml").read_text()
    assert echosyn(["preset", "reference"]) == 0
    patch = capsys.readouterr().out
    assert (root / "params.yaml").read_text() == before
    subprocess.run(["git", "apply", "-"], input=patch, text=True, check=True)
    applied = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(before)
    assert echosyn(["preset", "reference", "--write"]) == 0
    printed = capsys.readouterr().out
    assert (root / "params.yaml").read_text() == applied != before
    assert "scale: demo -> paper\n" in printed
    assert "sample_videos.windows: not set -> discard\n" in printed
    comments = [line.partition("#")[2] for line in before.splitlines() if "#" in line]
    assert [line.partition("#")[2] for line in applied.splitlines() if "#" in line] == comments
    assert sorted(path.name for path in root.iterdir()) == ["conf", "params.yaml"]


def test_applied_twice_it_changes_nothing_and_says_so(root, capsys):
    echosyn(["preset", "reference", "--write"])
    once = (root / "params.yaml").read_text()
    capsys.readouterr()
    for options in (["--write"], []):
        assert echosyn(["preset", "reference", *options]) == 0
        out, err = capsys.readouterr()
        assert (out, err) == ("", "nothing to change: params.yaml has all of 'reference'\n")
    assert (root / "params.yaml").read_text() == once


def test_the_reference_is_what_the_paper_did(root):
    echosyn(["preset", "reference", "--write"])
    lidm, lvdm = settings(root, "train_lidm"), settings(root, "train_lvdm")
    hearts, videos = settings(root, "sample_hearts"), settings(root, "sample_videos")
    assert {lidm.objective, lvdm.objective} == {"ddpm_v"}
    assert {(c.sampler, c.steps, c.guidance) for c in (hearts, videos)} == {("ddpm", 64, 1.0)}
    assert (lidm.condition, lidm.loop.batch, lidm.loop.lr) == ("none", 256, 3e-4)
    assert (lidm.layout, lidm.posterior, lvdm.posterior) == ("published", "sample", "sample")
    assert (lvdm.layout, lvdm.window, lvdm.noise_offset, lvdm.drop_label) == (
        "published", 64, 0.1, 0.1,
    )  # fmt: skip
    assert (videos.windows, videos.frames, videos.ef, videos.ef_truth) == (
        "discard", 192, "real", "keep",
    )  # fmt: skip
    assert (videos.heart_guidance, videos.image_steps, videos.model) == (1.0, (), "lvdm")
    assert settings(root, "train_vae").model.latent_size == 14
    assert settings(root, "train_ef").protocol == "reference"
    for preset in all_presets(root):  # none writes a section that no stage here was asked about
        assert {section for section, *_ in preset.settings} <= {"scale", *STAGES}


def fails(capsys, *arguments):
    assert echosyn(["preset", *arguments]) == 1
    return capsys.readouterr().err


def test_what_the_command_refuses(root, capsys):
    before = (root / "params.yaml").read_text()
    said = fails(capsys, "referense")
    assert "no preset 'referense'; did you mean 'reference'?" in said
    assert "which preset?" in fails(capsys, "--write")
    (root / "conf/presets/mine.yaml").write_text("# Mine\ntrain_lvmd: {objective: flow}\n")
    assert "no section 'train_lvmd'; did you mean 'train_lvdm'?" in fails(capsys, "mine")
    (root / "conf/presets/mine.yaml").write_text("scale: demo\n")
    assert "first line is not a comment" in fails(capsys, "mine", "--write")
    assert (root / "params.yaml").read_text() == before
    edit(root / "params.yaml", train_lvdm__window=32)
    said = fails(capsys, "reference", "--write")
    assert "train_lvdm.window is also set in conf/paper/train_lvdm.yaml" in said
    assert "scale: demo" in (root / "params.yaml").read_text()


def test_weights_are_looked_for_where_dvc_watches(root, capsys):
    assert "no weights in weights/vae, weights/lidm/phantom, weights/lvdm: put" in fails(
        capsys, "reference", "--weights"
    )
    for name in ("vae", "lidm/a4c", "lidm/dynamic", "lvdm"):
        (root / "weights" / name).mkdir(parents=True)
        (root / "weights" / name / ".gitkeep").touch()
        (root / "weights" / name / "config.json").touch()
    said = fails(capsys, "reference", "--weights", "--write")
    assert "no weights in weights/lidm/phantom (in weights/lidm: a4c, dynamic)" in said
    shutil.rmtree(root / "weights/lidm/a4c")  # then there is but one for the one dataset
    assert echosyn(["preset", "reference", "--weights", "--write"]) == 0
    assert settings(root, "train_vae").weights == "weights/vae"
    assert settings(root, "train_lidm").weights == "weights/lidm/dynamic"
    assert settings(root, "train_lvdm").weights == "weights/lvdm"
    shutil.copytree(root / "weights/lidm/dynamic", root / "weights/lidm/a4c")
    edit(root / "params.yaml", generate=["a4c", "dynamic"])
    assert echosyn(["preset", "reference", "--weights", "--write"]) == 0
    assert settings(root, "train_lidm").weights == "weights/lidm/{dataset}"


def test_an_empty_section_is_filled_where_it_stands():
    text = "a:\nb: # nothing yet\nc: {d: 1}\n"
    after = set_value(set_value(text, ["a", "x"], 1), ["b", "y"], "two")
    assert after == "a: {x: 1}\nb: {y: two} # nothing yet\nc: {d: 1}\n"


# ---- published weights through the stages


def published_vae(folder, **changes):
    cfg = {"widths": (8, 8, 8, 8), "patch": 1, "colours": 3, "groups": 8, **changes}
    vae = Vae.create(VaeConfig(**cfg))
    vae.net.register_to_config(scaling_factor=SCALING)
    vae.save(folder)
    return vae


def published_lidm(folder, size=PADDED):
    """As an EMA's `save_pretrained` leaves it: more in config.json than the network's own."""
    model = PublishedImageDenoiser.create(UNET, size)
    model.net.save_pretrained(folder / "unet_ema")
    rewrite(folder / "unet_ema/config.json", decay=0.9999, optimization_step=500000)
    return model


def published_lvdm(folder, size=SIZE, spec=PUBLISHED, window=WINDOW):
    if not spec.published:
        model = tiny_video(window, spec, size)
        model.save(folder)
    else:
        model = PublishedVideoDenoiser.create(UNET, window, size)
        model.net.save_pretrained(folder / "unet_ema")
    return model


def rewrite(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project before train_vae with weights/, preset `reference` applied; its networks."""
    root = tmp_path_factory.mktemp("preset") / "project"
    shutil.copytree(ROOT / "conf", root / "conf")
    shutil.copy(ROOT / "params.yaml", root)
    # What a small network is measured on; everything else stays as the preset has it.
    edit(root / "conf/paper/train_vae.yaml", validation_frames=4)
    edit(root / "conf/paper/train_lidm.yaml", validation_items=4)
    edit(root / "conf/paper/train_lvdm.yaml", validation_items=2, window=WINDOW)
    write_dataset(root / "data/train/phantom", [f"v{i}" for i in range(4)], 32.0, 4, seed=0)
    write_latents(root / "latents/train/phantom")
    latents = LatentSet(root / "latents/train/phantom")
    write_beats(root / "beats/train/phantom", without_beats(latents))
    torch.manual_seed(0)
    nets = SimpleNamespace(
        vae=published_vae(root / "weights/vae"),
        lidm=published_lidm(root / "weights/lidm/phantom"),
        lvdm=published_lvdm(root / "weights/lvdm"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert echosyn(["preset", "reference", "--weights", "--write"]) == 0
    return root, nets


@pytest.fixture
def project(made, monkeypatch):
    monkeypatch.chdir(made[0])
    return made[0]


def write_latents(folder):
    folder.mkdir(parents=True)
    generator, shard, rows = torch.Generator().manual_seed(0), {}, []
    for i, split in enumerate(("TRAIN", "TRAIN", "VAL", "TEST")):
        z = torch.randn(6, 4, SIZE, SIZE, generator=generator)
        shard[f"v{i}"] = pack(z, z * 0 - 6)
        rows.append((f"v{i}", 40.0 + 5 * i, split, 32.0, 6, "s.safetensors"))
    write_shard(folder / "s.safetensors", shard)
    write_index(folder, pd.DataFrame(rows, columns=INDEX_COLUMNS))


def same(a, b):
    a, b = a.net.state_dict(), b.net.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def stage(name, *arguments):
    importlib.import_module(f"pipelines.{name}").main(*arguments)
    (metrics,) = Path(f"metrics/{name}").glob("*.json")
    return json.loads(metrics.read_text())


def prepared(name, *arguments, **changes):
    """The task of a stage with some of its settings changed, and what it reads."""
    params = Params(Path.cwd())
    cfg = dataclasses.replace(params.stage(name, STAGES[name]), **changes)
    (model,) = (m for m in MODELS.values() if m.stage == name)
    return model.prepare(params, cfg, *arguments)


@pytest.mark.slow
def test_a_published_vae_keeps_its_weights_and_its_scale(project, made):
    numbers = stage("train_vae")
    assert numbers["train_vae/val_psnr_db"] > 0
    vae = Vae.load("models/vae")
    assert same(vae, made[1].vae)
    assert vae.normalise(torch.ones(1, 4, 2, 2)).unique().tolist() == [SCALING]
    assert Path("weights/vae") in prepared("train_vae")[1]


@pytest.mark.slow
def test_a_published_lidm_draws_hearts_as_it_is(project, made):
    assert stage("train_lidm", "phantom")["train_lidm/val_loss"] > 0
    assert same(load_image("models/lidm/phantom"), made[1].lidm)
    cfg = dataclasses.replace(settings(project, "sample_hearts"), steps=3)
    train = LatentSet("latents/train/phantom", "TRAIN")
    sampler = HeartSampler(Path("models/lidm/phantom"), cfg, train)
    hearts = sampler.draw(range(2), seed=0).latents
    assert hearts.shape == (2, 4, SIZE, SIZE)
    assert not torch.equal(hearts[0], hearts[1])
    assert Path("weights/lidm/phantom") in prepared("train_lidm", "phantom")[1]


@pytest.mark.slow
def test_a_published_lvdm_animates_as_it_is(project, made):
    if not Path("models/vae").is_dir():
        stage("train_vae")  # its sweeps are decoded
    assert stage("train_lvdm")["train_lvdm/val_loss"] > 0
    model = load_video("models/lvdm")
    assert same(model, made[1].lvdm)
    assert model.spec.published
    cfg = dataclasses.replace(settings(project, "sample_videos"), steps=2, frames=6, batch=1)
    sampler = VideoSampler(Path("models/lvdm"), cfg)
    hearts = torch.randn(1, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    videos = [sampler.animate(hearts, torch.tensor([ef]), [0], seed=0) for ef in (30.0, 60.0)]
    assert videos[0].shape == (1, 6, 4, SIZE, SIZE)
    assert not torch.equal(*videos)
    assert sampler.frame_passes() == 2 * WINDOW * 2  # two windows overlapping by half, two steps
    assert Path("weights/lvdm") in prepared("train_lvdm")[1]


def test_published_weights_are_never_trained(project):
    task, _ = prepared("train_lidm", "phantom")
    with pytest.raises(EchosynError, match="used as they are: set weights: none"):
        task.batch(None, None)


def test_hearts_that_the_video_model_does_not_expect_are_warned_of(project, capsys):
    """A published image model beside a video model that learns from end-diastolic hearts."""
    known = without_beats(LatentSet("latents/train/phantom")).assign(HeartRate=70.0, Phase=0.0)
    said = "warning: train_lidm uses published weights, which draw hearts of any moment"
    write_beats(Path("beats/train/phantom"), known)
    prepared("train_lidm", "phantom")
    assert capsys.readouterr().err == ""  # with a published video model
    edit(Path("params.yaml"), train_lvdm__weights="none")
    prepared("train_lidm", "phantom")
    assert said in capsys.readouterr().err
    prepared("train_lvdm")
    assert said in capsys.readouterr().err
    write_beats(Path("beats/train/phantom"), without_beats(LatentSet("latents/train/phantom")))
    prepared("train_lvdm")
    assert capsys.readouterr().err == ""  # no beat is known: it learns from any frame
    edit(Path("params.yaml"), train_lvdm__weights="weights/lvdm")


# ---- what does not fit is named, with the fix


def refused(name, folder, message, *arguments, **changes):
    with pytest.raises(EchosynError, match=message) as error:
        prepared(name, *arguments, weights=str(folder), **changes)[0].build()
    assert str(folder) in str(error.value)


SUBJECT = {"train_vae": (), "train_lidm": ("phantom",), "train_lvdm": ()}


@pytest.mark.parametrize("name", SUBJECT)
def test_a_folder_that_dvc_does_not_watch_is_refused(project, name):
    Path("zoo").mkdir(exist_ok=True)
    place = f"weights/{name.removeprefix('train_')}"
    refused(name, "zoo", f"DVC watches {place}: put .* there, or give a whole path", *SUBJECT[name])


@pytest.mark.parametrize("name", SUBJECT)
def test_a_folder_must_be_there_and_hold_that_model(project, tmp_path, name):
    subject = SUBJECT[name]
    refused(
        name, tmp_path / "none", f"no such folder, .* of {name}: put .* weights: none", *subject
    )
    refused(name, tmp_path, "no config.json.* found nothing: give the folder", *subject)
    (tmp_path / "config.json").write_text('{"_class_name": "MotionAdapter"}')
    refused(name, tmp_path, "class MotionAdapter, but a .* is needed", *subject)


def test_a_vae_of_other_latents_is_refused(project, tmp_path):
    published_vae(tmp_path / "fine", widths=(8, 8, 8))
    refused("train_vae", tmp_path / "fine", "latents of 28x28, but `model` .* of 14x14: give")
    published_vae(tmp_path / "deep")
    rewrite(tmp_path / "deep/config.json", latent_channels=16)
    refused("train_vae", tmp_path / "deep", "3 input and 16 latent channels; known are")


@pytest.mark.parametrize(("name", "make"), [("train_lidm", published_lidm),
                                            ("train_lvdm", published_lvdm)])  # fmt: skip
def test_a_denoiser_of_another_objective_or_size_is_refused(project, tmp_path, name, make):
    subject = SUBJECT[name]
    make(tmp_path, size=14)
    refused(name, tmp_path, "for latents of 14, but those of latents/train are 7x7", *subject)
    refused(name, tmp_path, f"'ddpm_v', but {name} has 'flow': set objective: ddpm_v", *subject,
            objective="flow")  # fmt: skip
    Flow().save(tmp_path)
    refused(name, tmp_path, f"'flow', but {name} has 'ddpm_v': set objective: flow", *subject)
    DDPMScheduler(beta_end=0.02).save_pretrained(tmp_path / "scheduler")
    refused(name, tmp_path, "prediction_type epsilon, but 'ddpm_v' is v_prediction", *subject)


def test_a_lidm_of_other_channels_or_labels_is_refused(project, tmp_path):
    config = {**PublishedImageDenoiser.create(UNET, SIZE).net.config}
    del config["_use_default_values"]
    grey = {**config, "in_channels": 3, "out_channels": 3}
    UNet2DModel.from_config(grey).save_pretrained(tmp_path / "grey")
    refused("train_lidm", tmp_path / "grey", "3 channels to 3, but latents have 4", "phantom")
    own = ImageDenoiser(ImageConfig(), SIZE, ConditionSpec())
    own.save(tmp_path / "ef")
    refused("train_lidm", tmp_path / "ef", "'own', but .* 'published': set layout: o", "phantom")
    refused("train_lidm", tmp_path / "ef", "on EF, but .* have nothing: set `cond", "phantom",
            layout="own")  # fmt: skip
    foreign = UNet2DModel.from_config({**config, "num_class_embeds": 3})
    foreign.save_pretrained(tmp_path / "foreign")
    refused("train_lidm", tmp_path / "foreign", "conditioned on a class, in a way", "phantom")


@pytest.mark.slow
def test_a_lvdm_of_another_layout_or_window_is_refused(project, tmp_path):
    published_lvdm(tmp_path / "p", window=8)
    refused("train_lvdm", tmp_path / "p", "clips of 8 frames, .* window 4: set window: 8")
    refused("train_lvdm", tmp_path / "p", "'published', but .* 'own': set layout: p", layout="own")
    classes = ConditionSpec(classes=("a", "b"))
    published_lvdm(tmp_path / "own", spec=classes)
    refused("train_lvdm", tmp_path / "own", "'own', but .* 'published': set layout: own")
    refused("train_lvdm", tmp_path / "own", "on EF, class a, class b, but .* have EF: choose",
            layout="own")  # fmt: skip
    assert same(
        prepared("train_lvdm", weights="weights/lvdm")[0].build(),
        load_video("weights/lvdm"),
    )
