"""`echosyn weights test` and `export`: folders in the layout of the published generators."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from repro import ROOT
from safetensors.torch import load_file, save_file

from echosyn.cli import main as echosyn
from echosyn.data.frames import FrameSet
from echosyn.data.phantom import PhantomConfig, write_dataset
from echosyn.diffusion.objectives import DdpmV, Flow
from echosyn.evaluation.quality import Sets
from echosyn.metrics.interval import Estimate
from echosyn.models.condition import ConditionSpec
from echosyn.models.image import ImageConfig, ImageDenoiser
from echosyn.models.published_image import PublishedImageDenoiser, UnetConfig
from echosyn.models.published_video import PublishedVideoDenoiser
from echosyn.models.vae import Vae, VaeConfig
from echosyn.project.preset import find_preset
from echosyn.project.weights_figures import PUBLISHED, Figure, compare, differences
from echosyn.project.weights_request import Request
from echosyn.project.weights_selftest import _Test

WEIGHTS = "diffusion_pytorch_model.safetensors"
UNET = UnetConfig(widths=(32, 32), layers=1, attention=(False, True), heads=(4, 4))
WINDOW = 16
COUNTS = ["--hearts", "8", "--videos", "8", "--frames", "16", "--steps", "2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project with networks of the published layout in models/, and real videos."""
    root = tmp_path_factory.mktemp("weights")
    write_dataset(root / "real", PhantomConfig(train=8, val=1, test=8, frames=16), 0, 1)
    torch.manual_seed(0)
    Vae.create(VaeConfig(widths=(8, 8, 8, 8), patch=1, colours=3)).save(root / "models/vae")
    for folder, model in (
        ("lidm/phantom", PublishedImageDenoiser.create(UNET, 14)),
        ("lvdm", PublishedVideoDenoiser.create(UNET, WINDOW, 14)),
    ):
        model.save(root / "models" / folder)
        DdpmV().save(root / "models" / folder)
    (root / "params.yaml").write_text("scale: smoke\n")
    (root / "none.json").write_text('{"numbers": {}, "protocol": {}, "files": {}}')
    return root


@pytest.fixture(scope="module", autouse=True)
def _nothing_fetched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("echosyn.metrics.weights.cached", lambda name: Path("none"))
        yield


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def exported(here, tmp_path):
    assert echosyn(["weights", "export", "phantom", str(tmp_path / "weights")]) == 0
    return tmp_path / "weights"


def run_test(folder, *more, out="out"):
    command = ["weights", "test", str(folder), "--real", "real", "--dataset", "phantom", *COUNTS]
    return echosyn([*command, "--out", str(out), *map(str, more)])


def result(out):
    return json.loads((out / "result.json").read_text())


def changed(folder, name, change):
    """The same weights, but for what `change` makes of the tensor `name`."""
    path = folder / WEIGHTS
    weights = load_file(path)
    weights[name] = change(weights[name]).contiguous()
    save_file(weights, path, {"format": "pt"})


# ---- the test itself


@pytest.fixture(scope="module")
def original(place):
    """The result of a test of the project's own models/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run_test("models", "--figures", "none.json", out=place / "original") == 0
    return place / "original"


@pytest.mark.slow
def test_what_was_exported_scores_as_the_original(exported, original, tmp_path, capsys):
    assert run_test(exported, "--figures", original / "result.json", out=tmp_path / "out") == 0
    ours, known = result(tmp_path / "out"), result(original)
    assert ours["numbers"] == known["numbers"]
    assert {row["verdict"] for row in ours["figures"]} <= {"the same"}
    keys = {row["key"] for row in ours["figures"]}
    assert {"vae/psnr_db", "lidm/fd_rand2d_n8x8", "lvdm/kd_rand3d_16f_n8x8"} <= keys
    assert len(list((tmp_path / "out/samples/Videos").iterdir())) == 8
    said = capsys.readouterr().out
    assert f"{len(keys)} of {len(keys)} figures that can be compared lie inside" in said
    assert ours["notes"] == []  # every file that both have is the same


@pytest.mark.slow
def test_a_damaged_copy_is_found(exported, original, tmp_path, capsys):
    """Of networks that never learned, no other damage can be seen: any weights are as good."""
    changed(exported / "lvdm", "conv_norm_out.weight", torch.zeros_like)
    assert run_test(exported, "--figures", original / "result.json", out=tmp_path / "out") == 1
    verdicts = {row["key"]: row["verdict"] for row in result(tmp_path / "out")["figures"]}
    assert verdicts["vae/psnr_db"] == verdicts["lidm/fd_rand2d_n8x8"] == "the same"
    assert verdicts["lvdm/us/high_share"] == verdicts["lvdm/us/temporal_mean"] == "outside"
    said = capsys.readouterr().out
    assert "outside" in said
    assert f"note: lvdm/{WEIGHTS} is not the file that the figures are of" in said
    assert "lidm" not in said.partition("note: ")[2]


def test_the_protocol_is_that_of_the_preset():
    """But for EFs: the reference evaluates on evenly drawn ones (its lvdm/README.md)."""
    settings = find_preset(ROOT, "reference").settings
    request = Request(*[ROOT] * 3)
    for section, own in (
        ("sample_hearts", request.hearts_config),
        ("sample_videos", request.videos_config),
    ):
        for (name, *key), value in settings.items():
            if name == section and key != ["ef"]:
                assert getattr(own, key[0]) == value, key
    sizes = yaml.safe_load((ROOT / "conf/paper/sample_videos.yaml").read_text())
    assert (request.frames, request.videos_config.ef) == (sizes["frames"], "uniform")


# ---- figures


def test_verdicts_follow_the_interval_and_say_what_is_missing():
    numbers = {
        **Estimate(20.0, 18.0, 22.0).flat("lvdm/fid50k_full"),
        **Estimate(24.9, 24.9, 24.9).flat("vae/psnr_db"),
        "lidm/is50k": 2.0,
    }
    stated = [("lvdm/fid50k_full", 21.9), ("lvdm/fid50k_full", 22.1), ("vae/psnr_db", 24.9),
              ("lidm/is50k", 2.4), ("lvdm/is50k", 2.3)]  # fmt: skip
    figures = [Figure(key, key, value, "paper") for key, value in stated]
    rows = compare(figures, numbers, "", {"lvdm/is50k": "needs inception"})
    assert [row.verdict for row in rows] == [
        "inside", "outside", "the same", "not comparable", "not measured",
    ]  # fmt: skip
    assert rows[-1].why == "needs inception"
    rows = compare(figures, numbers, "steps 8 (there 64)", {})
    assert [row.verdict for row in rows[:3]] == ["not comparable", "not comparable", "the same"]
    assert rows[0].why == "steps 8 (there 64)"


class Frames:
    """Two numbers of a frame, as Inception is used."""

    name, clip, sha256, width, classes, published = "inception", "", "a" * 64, 2, 2, True

    def __call__(self, frames):
        x = frames.astype(np.float32) / 255
        return np.stack([x[:, 0, 0], x.mean((1, 2))], 1)

    def probabilities(self, features):
        return np.stack([features[:, 0], 1 - features[:, 0]], 1).astype(np.float64)


class Clips(Frames):
    """The same of a clip's middle frame, as I3D is used."""

    name = "i3d"

    def __init__(self, clip):
        self.clip = clip

    def __call__(self, clips):
        return super().__call__(clips[:, clips.shape[1] // 2])


def test_numbers_carry_published_names_only_at_the_published_counts():
    rng = np.random.default_rng(0)
    names = pd.DataFrame({"FileName": [f"v{i}" for i in range(4)]})
    four = [
        FrameSet(rng.integers(0, 255, (80, 8, 8), np.uint8), names, np.arange(4) * 20,
                 np.full(4, 20), 32.0)
        for _ in range(4)
    ]  # fmt: skip
    test = _Test.__new__(_Test)
    test.request = Request(*[ROOT] * 3, hearts_from="real", inception=Frames)
    test.numbers, test.why = {}, {}
    test.over = lambda name, n, worker: worker()(range(n))
    test._published("lvdm_real_hearts", Sets(*four), Clips)
    assert {"lvdm_real_hearts/fd_inception_n80x80", "lvdm_real_hearts/fd_i3d_16f_n4x4_lo"} <= set(
        test.numbers
    )
    assert not any("fid50k" in key or "fvd" in key for key in test.numbers)
    figures = PUBLISHED["dynamic"]
    rows = {row.key: row for row in compare(figures, test.numbers, "", test.why)}
    why = rows["lvdm_real_hearts/fid50k_full"].why
    assert why == "fid50k_full needs 50,000 synthetic frames, there are 80"
    assert "128f needs videos of 128 frames" in test.why["lvdm_real_hearts/fvd2048_128f"]
    assert "2,048 real videos" in test.why["lvdm_real_hearts/fvd2048_16f"]


def test_protocols_differ_in_words():
    ours, theirs = Request(*[ROOT] * 3).protocol, Request(*[ROOT] * 3, steps=8).protocol
    assert differences(ours, ours) == ""
    assert differences(theirs, ours) == "steps 8 (there 64)"


def test_published_figures_have_keys_that_a_test_could_measure():
    keys = {figure.key for figure in PUBLISHED["dynamic"]}
    assert {"lidm/fid50k_full", "lvdm/fvd2048_16f", "lvdm/fvd2048_128f", "lvdm/is50k"} <= keys
    assert all(np.isfinite(figure.value) and figure.source for figure in PUBLISHED["dynamic"])


# ---- folders that are not whole, or of another layout


def refused(capsys, folder, *more):
    assert run_test(folder, "--figures", "none.json", *more) == 1
    return capsys.readouterr().err


def test_each_missing_file_is_named(exported, capsys):
    for name in (f"lvdm/{WEIGHTS}", "vae/config.json"):
        (exported / name).unlink()
    shutil.rmtree(exported / "lidm_phantom")
    said = refused(capsys, exported)
    assert (
        f"{exported}/lvdm/{WEIGHTS} (UNetSpatioTemporalConditionModel); there is config.js" in said
    )
    assert f"{exported}/vae/config.json (AutoencoderKL); there is {WEIGHTS}" in said
    assert f"{exported}/lidm_phantom/config.json (UNet2DModel); there is no such folder" in said
    assert "no such folder: give the one that holds vae" in refused(capsys, exported / "none")


def test_weights_of_another_layout_say_what_was_expected_and_found(exported, capsys):
    folder = exported / "lidm_phantom"
    shutil.rmtree(folder)
    ImageDenoiser(ImageConfig(), 14, ConditionSpec(ef=False)).save(folder)
    said = refused(capsys, exported)
    assert "expected layout 'published' (UNet2DModel: config.json, diffusion_" in said
    assert "found a network of layout 'own'" in said
    shutil.rmtree(folder)
    shutil.copytree(exported / "lvdm", folder)
    said = refused(capsys, exported)
    assert "of class UNetSpatioTemporalConditionModel, but a UNet2DModel is needed" in said
    shutil.rmtree(folder)
    PublishedImageDenoiser.create(UNET, 28).net.save_pretrained(folder)
    assert "for latents of 28, but those of" in refused(capsys, exported)


def test_damage_that_needs_no_sampling(exported, capsys):
    path = exported / "lvdm/config.yaml"
    schedule = yaml.safe_load(path.read_text())
    schedule["noise_scheduler"]["beta_end"] = 0.012
    path.write_text(yaml.safe_dump(schedule))
    assert "noise_scheduler has beta_end 0.012, but the protocol samples with 0.02" in refused(
        capsys, exported
    )
    path.unlink()
    changed(exported / "lvdm", "conv_in.weight", lambda x: x * torch.nan)
    assert "weight 'conv_in.weight' has values that are not finite" in refused(capsys, exported)
    (exported / "lvdm" / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "is a pointer of Git LFS" in refused(capsys, exported)


def test_what_is_odd_but_can_be_sampled_is_noted(exported):
    from echosyn.project.weights_folder import examine

    changed(exported / "lvdm", "conv_out.weight", torch.zeros_like)
    (exported / "lidm_phantom/config.yaml").unlink()
    contents = examine(exported, "phantom")
    assert contents.missing == ()
    first, second = sorted(contents.notes)
    assert first.endswith("config.yaml is missing: the reference's noise schedule is taken to hold")
    assert second.endswith("weight 'conv_out.weight' is zero throughout")
    assert set(contents.files) == {
        *(
            f"{part}/{name}"
            for part in ("vae", "lidm", "lvdm")
            for name in ("config.json", WEIGHTS)
        ),
        "lvdm/config.yaml",
    }


def test_what_a_test_cannot_do_without(exported, capsys):
    assert echosyn(["weights", "test", str(exported), "--real", "real", "--dataset", "a4c"]) == 1
    assert "no published figures are known of dataset 'a4c', only of dynamic" in (
        capsys.readouterr().err
    )
    assert "no FileList.csv: give a real dataset" in refused(capsys, exported, "--real", "models")
    assert "--videos 1: too few" in refused(capsys, exported, "--videos", "1")
    (exported / "none.json").write_text("[]")
    said = refused(capsys, exported, "--figures", exported / "none.json")
    assert "not the result.json of an earlier `echosyn weights test`" in said


def test_only_networks_of_the_published_layout_are_exported(here, tmp_path, capsys):
    models = shutil.copytree("models", tmp_path / "models")
    (tmp_path / "params.yaml").touch()
    Flow().save(models / "lvdm")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert echosyn(["weights", "export", "phantom", "out"]) == 1
        assert "'flow', but this layout is of 'ddpm_v'" in capsys.readouterr().err
        assert echosyn(["weights", "export", "other", "out"]) == 1
        assert "models/lidm/other: no such model: run the stage" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
