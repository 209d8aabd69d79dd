"""The VAE, the denoisers, the regressor: shapes, folders, scaling; and the paper's sizes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel
from safetensors.torch import load_file, save_file
from tiny_video import tiny_video

from echosyn.data.filelist import read_filelist
from echosyn.data.frames import FrameSet
from echosyn.data.latents import LatentSet
from echosyn.data.video import read_video
from echosyn.diffusion.objectives import make_objective
from echosyn.encoding.codec import VideoCodec
from echosyn.encoding.encode import encode_shard, finish_encoding
from echosyn.models.condition import ConditionSpec
from echosyn.models.published_image import PublishedImageDenoiser, UnetConfig
from echosyn.models.published_video import PublishedVideoDenoiser, load_video
from echosyn.models.reid import build_reid
from echosyn.models.vae import Vae, VaeConfig, vae_loss
from echosyn.runtime.config import build, read_yaml
from echosyn.runtime.errors import EchosynError
from echosyn.training.diffusion import TrainLidmConfig, TrainLvdmConfig
from echosyn.training.ef import EfTask, TrainEfConfig
from echosyn.training.reid import PairLoss, TrainReidConfig
from echosyn.training.vae import TrainVaeConfig, evenly_spaced_frames, standardise
from echosyn.validation.gate import SHAPES

TINY = VaeConfig(widths=(8, 8, 8), groups=4)
FINE = VaeConfig(widths=(8, 8), groups=4)  # latents of 28x28
PAPER = Path(__file__).parents[2] / "conf" / "paper"
KNOBS = {
    "train_lidm": {"layout": "published", "objective": "ddpm_v"},
    "train_lvdm": {"layout": "published", "objective": "ddpm_v", "drop_label": 0.1},
}

SPEC, PUBLISHED = ConditionSpec(), ConditionSpec(published=True)


def paper(stage, cls):
    return build(cls, {**read_yaml(PAPER / f"{stage}.yaml"), **KNOBS.get(stage, {})}, stage)


def frames(n=4):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 112, 112), np.uint8))


@pytest.mark.parametrize(
    ("patch", "colours", "widths", "side"),
    [
        (2, 1, (8, 8, 8), 14),
        (1, 3, (8, 8, 8, 8), 14),
        (4, 1, (8, 8), 14),
        (2, 1, (8, 8), 28),
        (1, 3, (8, 8, 8), 28),
        (4, 1, (8,), 28),
    ],
)
def test_frames_to_latents_and_back_in_every_layout(patch, colours, widths, side):
    cfg = build(
        VaeConfig, {"widths": widths, "groups": 4, "patch": patch, "colours": colours}, "conf"
    )
    vae = Vae.create(cfg)
    mean, logvar = vae.encode(frames())
    assert cfg.latent_size == side
    assert mean.shape == logvar.shape == (4, 4, side, side)
    decoded = vae.decode(mean)
    assert decoded.shape == (4, 112, 112)
    assert decoded.dtype == torch.uint8


def test_input_scaling_is_the_references_and_inverts():
    vae = Vae.create(TINY)
    x = frames()
    scaled = vae.to_input(x)
    assert scaled.min() == -1
    assert scaled.max() == 255 / 128 - 1
    assert torch.equal(vae.to_frames(scaled), x)


@pytest.mark.parametrize(("widths", "factor"), [([8], 2), ([8] * 4, 16)])
def test_sizes_that_shrink_by_neither_eight_nor_four_are_refused(widths, factor):
    allowed = rf"by {factor}, not by 8 \(latents of 14x14\) or 4 \(latents of 28x28\)"
    with pytest.raises(EchosynError, match=allowed):
        build(VaeConfig, {"widths": widths, "groups": 4}, "conf")


@pytest.mark.parametrize("cfg", [TINY, FINE])
def test_saved_folder_is_a_diffusers_model_and_keeps_its_scale(tmp_path, cfg):
    vae = Vae.create(cfg)
    standardise(vae, frames(8).numpy())
    vae.save(tmp_path)
    plain = AutoencoderKL.from_pretrained(tmp_path)
    assert plain.config.latents_std == pytest.approx(vae.net.config.latents_std)
    loaded = Vae.load(tmp_path)
    z = loaded.normalise(loaded.encode(frames(8))[0])
    assert z.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert (z.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3
    assert torch.allclose(loaded.denormalise(z), loaded.encode(frames(8))[0], atol=1e-5)


def test_published_folders_without_statistics_use_their_scaling_factor():
    vae = Vae.create(TINY)
    z = torch.ones(1, 4, 2, 2)
    assert torch.allclose(vae.normalise(z), z * 0.18215)


def test_missing_and_foreign_folders_are_named(tmp_path):
    with pytest.raises(EchosynError, match=r"config.json is missing"):
        Vae.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EchosynError, match="not a AutoencoderKL"):
        Vae.load(tmp_path)


def test_a_file_that_lacks_a_weight_is_refused(tmp_path):
    """diffusers would leave it random, with a warning."""
    Vae.create(TINY).save(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["decoder.conv_in.weight"]
    save_file(weights, file)
    with pytest.raises(EchosynError, match=r"weight 'decoder\.conv_in\.weight' is missing"):
        Vae.load(tmp_path)


def test_latents_of_28x28_are_stored_and_their_videos_keep_their_size(tmp_path):
    torch.manual_seed(0)
    vae = Vae.create(FINE)
    standardise(vae, frames(8).numpy())
    table = pd.DataFrame(
        {"FileName": ["a", "b"], "EF": 50.0, "ESV": 40.0, "EDV": 80.0, "Split": "TEST"}
    )
    videos = FrameSet(frames(12).numpy(), table, np.array([0, 7]), np.array([7, 5]), 16.0)
    codec, shard = VideoCodec(vae, batch=4, precision="fp32"), tmp_path / "shard"
    shard.mkdir()
    encode_shard(codec, videos, range(2), shard)
    finish_encoding([shard], videos, tmp_path / "latents", tmp_path / "seen")
    latents = LatentSet(tmp_path / "latents")
    assert latents.mean(0).shape == (7, 4, 28, 28)
    assert torch.equal(latents.mean(1), codec.encode(videos.video(1))[0].half().float())
    seen = read_filelist(tmp_path / "seen/FileList.csv")
    assert set(seen["FrameHeight"]) == set(seen["FrameWidth"]) == {112}
    assert read_video(tmp_path / "seen/Videos/b.avi")[0].shape == (5, 112, 112)
    stored = latents._slice(0)[:]
    kind = f"{str(stored.dtype).removeprefix('torch.')} " + "x".join(map(str, stored.shape[1:]))
    assert kind in SHAPES


def test_vae_loss_is_zero_for_a_perfect_standard_normal_code():
    x = torch.rand(2, 4, 8, 8)
    zero = torch.zeros(2, 4, 14, 14)
    loss, parts = vae_loss(x, x, zero, zero, 1.0)
    assert loss == 0
    loss, parts = vae_loss(x, x + 0.5, zero + 1, zero, 0.1)
    assert parts["l1"] == pytest.approx(0.5)
    assert parts["kl"] == pytest.approx(0.5 * 4 * 14 * 14)
    assert loss == pytest.approx(0.25 + 0.05 * 0.5 + 0.1 * 392)


def test_denoisers_keep_14x14_and_their_folders(tmp_path):
    cfg = UnetConfig(widths=(32, 32), attention=(False, True), heads=(1, 1))
    image, video = PublishedImageDenoiser.create(cfg, 14).eval(), tiny_video(8, SPEC, 14)
    x, t = torch.randn(2, 4, 14, 14), torch.tensor([10.0, 900.0])
    assert image(x, t).shape == x.shape
    clip, heart = torch.randn(2, 8, 4, 14, 14), torch.randn(2, 4, 14, 14)
    out = video(clip, t, heart, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    assert out.shape == clip.shape
    assert not torch.equal(out, video(clip, t, heart, torch.tensor([[2.0, 1.0], [2.0, 1.0]])))
    assert not torch.equal(out, video(clip, t, heart + 1, torch.tensor([[0.0, 1.0], [0.0, 1.0]])))
    image.save(tmp_path / "i")
    video.save(tmp_path / "v")
    assert isinstance(UNet2DModel.from_pretrained(tmp_path / "i" / "unet"), UNet2DModel)
    loaded = load_video(tmp_path / "v")
    assert (loaded.window, loaded.spec) == (8, SPEC)
    assert torch.equal(out, loaded(clip, t, heart, torch.tensor([[0.0, 1.0], [0.0, 1.0]])))


def test_unet_sizes_that_cannot_be_built_are_refused():
    with pytest.raises(EchosynError, match="multiples of 32"):
        build(UnetConfig, {"widths": [40], "attention": [True], "heads": [1]}, "conf")
    with pytest.raises(EchosynError, match="one value per level"):
        build(UnetConfig, {"widths": [32, 32], "attention": [True], "heads": [1]}, "conf")


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_paper_models_have_the_references_sizes():
    """Built on the meta device, without memory. 144 M is the published video UNet's count."""
    with torch.device("meta"):
        lvdm_cfg = paper("train_lvdm", TrainLvdmConfig)
        lvdm = PublishedVideoDenoiser.create(lvdm_cfg.unet, lvdm_cfg.window)
        lidm = PublishedImageDenoiser.create(paper("train_lidm", TrainLidmConfig).unet, 14)
    assert round(parameters(lvdm) / 1e6) == 144
    assert lvdm_cfg.layout == "published"
    assert (lvdm.net.config.in_channels, lvdm.window, lvdm.spec.dim) == (8, 64, 1)
    assert lidm.net.config.attention_head_dim == 8


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train_lidm", "train_lvdm"])
def test_paper_denoisers_take_a_training_step(stage):
    """Real weights, one tiny batch, one optimizer step; the loss at the same batch goes down."""
    torch.manual_seed(0)
    if stage == "train_lidm":
        cfg = paper(stage, TrainLidmConfig)
        model, x, extra = PublishedImageDenoiser.create(cfg.unet, 14), torch.randn(1, 4, 14, 14), ()
    else:
        cfg = paper(stage, TrainLvdmConfig)
        model = PublishedVideoDenoiser.create(cfg.unet, cfg.window)
        x, extra = torch.randn(1, 2, 4, 14, 14), (torch.randn(1, 4, 14, 14), torch.ones(1, 1))
    noisy, target, t = make_objective(cfg.objective).noisy(
        x, torch.randn_like(x), torch.tensor([0.5])
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def loss():
        return (model(noisy, t, *extra) - target).square().mean()

    first = loss()
    first.backward()
    optimizer.step()
    with torch.no_grad():
        assert loss() < first


@pytest.mark.slow
def test_paper_vae_reid_and_regressor_take_a_training_step():
    torch.manual_seed(0)
    vae = Vae.create(paper("train_vae", TrainVaeConfig).model)
    assert round(parameters(vae) / 1e6) in range(50, 90)
    x = vae.to_input(frames(1))[:, :, :32, :32]
    output, mean, logvar = vae(x, torch.randn(1, 4, 4, 4))
    vae_loss(x, output, mean, logvar, 1e-6)[0].backward()
    assert all(p.grad is not None for p in vae.parameters())

    reid = paper("train_reid", TrainReidConfig)
    pairs = PairLoss(build_reid({"encoder": "resnet50", "embedding": reid.model.embedding}))
    z = torch.randn(3, 4, 14, 14)
    pairs(z, z + 0.1 * torch.randn_like(z), torch.arange(3)).backward()
    assert all(p.grad is not None for p in pairs.parameters())

    cfg = paper("train_ef", TrainEfConfig)
    assert (cfg.frames, cfg.loop.lr, cfg.loop.batch) == (32, 1e-4, 20)
    model = EfTask(cfg, [], []).build()
    assert parameters(model) == 31_505_325 - 399 * 513  # r2plus1d_18 with 1 output instead of 400
    loss = (model(frames(8)[None, :, :56, :56]) - 60).square().mean()
    loss.backward()
    assert model.net.fc.weight.grad.abs().sum() > 0


def test_no_video_to_validate_on_is_said():
    with pytest.raises(EchosynError, match="no dataset of role train has a VAL video"):
        evenly_spaced_frames([], 8)
