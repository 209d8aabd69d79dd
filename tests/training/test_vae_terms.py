"""What the VAE's training adds to reconstruction: a discriminator, LPIPS, posterior statistics."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchmetrics.functional.image import lpips as reference

from echosyn.data.frames import FrameSet
from echosyn.models.discriminator import AdversarialVae, PatchDiscriminator, _Balance
from echosyn.models.vae import Vae, VaeConfig
from echosyn.runtime.config import build, read_yaml
from echosyn.runtime.errors import EchosynError
from echosyn.tracking import NullRun
from echosyn.training.loop import LoopConfig, fit
from echosyn.training.perceptual import Lpips, RandomFeatures
from echosyn.training.vae import (
    AdversarialConfig,
    TrainVaeConfig,
    VaeTask,
    posterior_statistics,
    vae_of,
)

CONF = Path(__file__).parents[2] / "conf"
TINY = VaeConfig(widths=(8, 8, 8), groups=4)
LOOP = LoopConfig(
    steps=6, batch=2, lr=1e-3, accumulate=2, ema=0.9, precision="fp32", checkpoint_every=2
)
CONFIG = TrainVaeConfig(TINY, LOOP, adversarial=AdversarialConfig(0.5, start=3, width=8))


def videos(n=3, length=4):
    data = np.random.default_rng(0).integers(0, 256, (n * length, 112, 112), np.uint8)
    return FrameSet(data, pd.DataFrame(index=range(n)), np.arange(n) * length,
                    np.full(n, length), 16.0)  # fmt: skip


def task(cfg=CONFIG, cls=VaeTask, **more):
    return cls(cfg, [videos()], [videos(2)], **more)


def batch(n=2, side=112):
    torch.manual_seed(1)
    x = torch.rand(n, 4, side // 2, side // 2) * 2 - 1
    return x, torch.randn(n, 4, side // 8, side // 8)


def adversarial(start=0, **more):
    torch.manual_seed(0)
    return AdversarialVae(Vae.create(TINY), 8, 0.5, start, **more).train()


def gradients(model):
    made = {k: p.grad for k, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return made


def test_each_term_reaches_its_own_network_and_no_other():
    model, (x, noise) = adversarial(), batch()
    judged = model(x, noise)
    judged.discriminator.backward(retain_graph=True)
    assert all(g is None for g in gradients(model.vae).values())
    reached = gradients(model.discriminator)
    assert all(g is not None for g in reached.values())
    assert all(g.abs().sum() > 0 for k, g in reached.items() if k.endswith("weight"))

    error = (judged.output - x).square().mean()
    error.backward(retain_graph=True)
    plain = gradients(model.vae)
    (error + judged.generator).backward()
    assert all(g is None for g in gradients(model.discriminator).values())
    both = gradients(model.vae)
    assert not torch.allclose(both["net.encoder.conv_in.weight"],
                              plain["net.encoder.conv_in.weight"], rtol=0.01)  # fmt: skip


def test_the_terms_push_in_opposite_directions():
    """The discriminator's step parts real from decoded; the generator's raises the decoded."""
    torch.manual_seed(0)
    model, (x, noise) = adversarial(), batch()
    x = x * 0.2

    def logits():
        with torch.no_grad():
            output = model.vae(x, noise)[0]
            judge = model.discriminator
            return judge(model.vae.to_grey(x)).mean(), judge(model.vae.to_grey(output)).mean()

    real, fake = logits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model(x, noise).discriminator.backward()
    optimizer.step()
    apart = logits()
    assert apart[0] - apart[1] > real - fake
    optimizer.zero_grad(set_to_none=True)
    model = AdversarialVae(model.vae, 8, 100.0, 0).train()  # nearly all of it the generator's
    _, fake = logits()
    judged = model(x, noise)
    (judged.output.sum() * 1e-4 + judged.generator).backward()
    optimizer.step()
    assert logits()[1] > fake


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_generators_gradient_is_a_share_of_the_others_in_every_frame(scale):
    """Whatever the scale of either term, and of the whole as fp16's scaler changes it."""
    x = torch.randn(3, 2, 4, 4, requires_grad=True)
    one, other = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    a, b = _Balance.apply(x, 0.5)
    (scale * ((a * one).sum() + 1e-3 * (b * other).sum())).backward()

    def norm(t):
        return t.flatten(1).norm(dim=1)[:, None, None, None]

    assert torch.allclose(x.grad / scale, one + 0.5 * norm(one) / norm(other) * other, atol=1e-5)
    x.grad = None
    a, b = _Balance.apply(x, 0.5)
    ((a * one).sum() + 0 * b.sum()).backward()  # as before the start
    assert torch.equal(x.grad, one)


def test_no_term_counts_before_the_start_and_only_training_counts_passes():
    model, (x, noise) = adversarial(start=2), batch()
    model.eval()
    assert model(x, noise).generator == 0
    model.train()
    for _ in range(2):
        judged = model(x, noise)
        assert judged.generator == judged.discriminator == 0
    judged = model(x, noise)
    assert judged.generator != 0
    assert judged.discriminator > 0
    assert model.passes == 3


def test_the_start_is_in_optimizer_steps():
    assert task().build().start == LOOP.accumulate * 3


class Killed(Exception):
    """Stands for a power cut."""


class Mortal(VaeTask):
    die_at, calls = None, 0

    def batch(self, indices, rng):
        self.calls += 1
        if self.calls == self.die_at:
            raise Killed
        return super().batch(indices, rng)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(tmp_path):
    whole = fit(task(), LOOP, 0, tmp_path / "a", NullRun(), "t")
    mortal = task(cls=Mortal)
    mortal.die_at = 8  # items, two a step: in the fourth step, the first that counts
    with pytest.raises(Killed):
        fit(mortal, LOOP, 0, tmp_path / "b", NullRun(), "t")
    resumed = fit(task(), LOOP, 0, tmp_path / "b", NullRun(), "t")
    assert whole.passes == resumed.passes == LOOP.steps * LOOP.accumulate
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    off = dataclasses.replace(CONFIG, adversarial=AdversarialConfig())
    plain = fit(task(off), LOOP, 0, tmp_path / "c", NullRun(), "t")
    assert type(plain) is Vae
    differ = [
        k for k, v in plain.state_dict().items() if not torch.equal(v, whole.vae.state_dict()[k])
    ]
    assert differ


@pytest.mark.slow
def test_until_the_start_the_vae_is_that_of_no_discriminator(tmp_path):
    """The same draws, and no step but by its own gradient; the clip is off, for it sees both."""
    loop = dataclasses.replace(LOOP, steps=2, clip=0.0)
    cfg = dataclasses.replace(CONFIG, loop=loop)
    late = fit(task(cfg), loop, 0, tmp_path / "a", NullRun(), "t")
    off = dataclasses.replace(cfg, adversarial=AdversarialConfig())
    plain = fit(task(off), loop, 0, tmp_path / "b", NullRun(), "t")
    for name, value in plain.state_dict().items():
        assert torch.equal(value, late.vae.state_dict()[name]), name


def test_it_trains_spread_over_processes(tmp_path):
    """DistributedDataParallel refuses a weight that a step does not reach."""
    import torch.distributed as dist

    dist.init_process_group("gloo", f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        made = task()
        model = nn.parallel.DistributedDataParallel(made.build().train())
        items = made.batch(np.arange(2), np.random.default_rng(0))
        for _ in range(2):
            made.loss(model, items)[0].backward()
        assert all(p.grad is not None for p in model.parameters())
        assert vae_of(model) is model.module.vae
    finally:
        dist.destroy_process_group()


def test_the_saved_vae_is_a_plain_folder(tmp_path):
    model = adversarial()
    vae_of(model).save(tmp_path)
    kept = Vae.load(tmp_path).state_dict()
    assert kept.keys() == model.vae.state_dict().keys()
    assert all(torch.equal(v, kept[k]) for k, v in model.vae.state_dict().items())


def test_a_patch_sees_70_pixels_and_frames_are_judged_alone():
    torch.manual_seed(0)
    judge = PatchDiscriminator(8)
    x = torch.randn(2, 1, 112, 112, requires_grad=True)
    logits = judge(x)
    assert logits.shape == (2, 1, 12, 12)
    assert torch.allclose(judge(x[:1]), logits[:1], atol=1e-6)
    convolutions = nn.Sequential(*[m for m in judge.layers if isinstance(m, nn.Conv2d)])
    seen = torch.autograd.grad(convolutions(x)[0, 0, 6, 6], x)[0][0, 0].abs() > 0
    assert seen.any(0).sum() == seen.any(1).sum() == 70


def vgg16_features():
    """Simonyan 2014, table 1, D, with torchvision's names."""
    layers, inputs = [], 3
    for c in [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]:
        layers += [nn.Conv2d(inputs, c, 3, padding=1), nn.ReLU()] if c else [nn.MaxPool2d(2)]
        inputs = c or inputs
    return nn.Sequential(*layers)


def as_torchvision(features):
    weights = {f"features.{k}": v for k, v in features.state_dict().items()}
    return {**weights, "classifier.6.bias": torch.zeros(1000)}


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    torch.manual_seed(0)
    path, features = tmp_path_factory.mktemp("vgg") / "vgg16.pth", vgg16_features()
    torch.save(as_torchvision(features), path)
    return path, features


def test_lpips_is_that_of_torchmetrics(vgg, monkeypatch):
    path, features = vgg
    monkeypatch.setattr(reference, "_get_tv_model_features", lambda *_: features)
    theirs = reference._LPIPS(pretrained=False, net="vgg", pnet_rand=True)
    weights = Path(reference.__file__).parent / "lpips_models/vgg.pth"
    theirs.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=False)
    a, b = torch.rand(2, 2, 1, 32, 32) * 2 - 1
    b.requires_grad_()
    expected = theirs(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)).mean()
    ours = Lpips(path)(a, b)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
    ours.backward()
    assert b.grad.abs().sum() > 0


def test_lpips_counts_in_the_loss_and_is_no_weight_of_the_model(vgg):
    cfg = dataclasses.replace(CONFIG, perceptual=str(vgg[0]), perceptual_weight=0.3)
    with_it, without = task(cfg), task()
    torch.manual_seed(0)
    model = with_it.build()
    assert model.state_dict().keys() == without.build().state_dict().keys()
    few = {k: v[:1] for k, v in with_it.batch(np.arange(1), np.random.default_rng(0)).items()}
    with torch.no_grad():
        loss, parts = with_it.loss(model.eval(), few)
        assert loss == pytest.approx(float(without.loss(model, few)[0] + 0.3 * parts["perceptual"]))


def test_random_features_need_no_file_and_tell_texture_from_its_mean():
    """Speckle and its local mean differ by more than speckle and the same, a little shifted in
    grey; squared error says the opposite."""
    rng = torch.Generator().manual_seed(0)
    grain = 0.1 * torch.randn(2, 1, 64, 64, generator=rng)
    flat, brighter = torch.zeros_like(grain), grain + 0.12
    distance = RandomFeatures()
    assert distance(grain, flat) > distance(grain, brighter)
    assert (grain - flat).square().mean() < (grain - brighter).square().mean()
    assert distance(grain, grain) == 0
    flat.requires_grad_()
    distance(grain, flat).backward()
    assert flat.grad.abs().sum() > 0
    assert torch.equal(RandomFeatures().kernel3, distance.kernel3)
    cfg = dataclasses.replace(CONFIG, perceptual="features")
    with torch.no_grad():
        assert task(cfg).validate(adversarial().eval())["perceptual"] > 0


def test_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(EchosynError, match=r"perceptual: .*vgg16.pth does not exist"):
        task(dataclasses.replace(CONFIG, perceptual=str(tmp_path / "vgg16.pth"))).perceptual  # noqa: B018
    weights = {"features.0.weight": torch.zeros(64, 3, 3, 3), "classifier.6.bias": torch.zeros(9)}
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(EchosynError, match=r"part.pth: weight 'features\.\S+' is missing"):
        Lpips(tmp_path / "part.pth")


def test_posterior_statistics_of_a_known_posterior():
    """Two of three channels say something; theirs is a sd of half of what the means spread."""
    rng = torch.Generator().manual_seed(0)
    mean = torch.randn(4000, 3, 2, 2, generator=rng) * torch.tensor([1.0, 4.0, 0.0])[:, None, None]
    logvar = (2 * torch.tensor([0.5, 2.0, 1.0]).log())[:, None, None].expand_as(mean)
    found = posterior_statistics(mean[:, :2], logvar[:, :2])
    assert found["posterior_sd"] == pytest.approx(0.5, rel=0.02)
    assert found["active_units"] == 1
    assert posterior_statistics(mean, logvar)["active_units"] == pytest.approx(2 / 3)
    silent = posterior_statistics(mean[:, 2:], logvar[:, 2:])
    assert (silent["active_units"], silent["kl_per_unit"]) == (0, 0)
    # KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1) / 2 - log s
    expected = np.mean([(1 + 0.25 - 1) / 2 - np.log(0.5), (16 + 4 - 1) / 2 - np.log(2)])
    assert found["kl_per_unit"] == pytest.approx(expected, rel=0.05)


def test_validation_is_of_the_vae_alone_and_holds_the_statistics():
    made, model = task(), adversarial().eval()
    with torch.no_grad():
        scores = made.validate(model)
        assert scores == made.validate(model.vae)
    assert {
        "loss",
        "psnr_db",
        "l1",
        "mse",
        "kl",
        "posterior_sd",
        "active_units",
        "kl_per_unit",
    } == set(scores)
    assert scores["kl"] == pytest.approx(scores["kl_per_unit"] * 4 * 14 * 14, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adversarial": {"weight": 0.5, "width": 12}}, "width 12 is not a multiple of 8"),
        (
            {"adversarial": {"weight": 0.5}, "loop": {"select": "best"}},
            "select 'best' would keep weights from before the discriminator",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    values = read_yaml(CONF / "demo/train_vae.yaml")
    for key, value in change.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    with pytest.raises(EchosynError, match=message):
        build(TrainVaeConfig, values, "conf")


def test_the_paper_has_the_references_discriminator():
    cfg = build(TrainVaeConfig, read_yaml(CONF / "paper/train_vae.yaml"), "conf")
    assert cfg.adversarial == AdversarialConfig(weight=0.5, start=50_001, width=64)
    judge = PatchDiscriminator(cfg.adversarial.width)
    # pix2pix's 70x70 PatchGAN has 2,768,705 on 6 channels; this one has 5 fewer at the input.
    assert sum(p.numel() for p in judge.parameters()) == 2_768_705 - 5 * 64 * 16
