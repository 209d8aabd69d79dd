"""Re-identification encoders: losses against their formulas, interface, augmentations."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from echosyn.errors import EchosynError
from echosyn.models.reid import (
    AugmentConfig,
    ReidConfig,
    augment_latents,
    build_reid,
    contrastive_loss,
    minmax,
    siamese_loss,
)
from echosyn.models.resnet import ResNet50
from echosyn.models.store import load_model, save_model
from echosyn.privacy import verification_scores
from echosyn.privacy.embedding import HeartEncoder

STILL = AugmentConfig(shift=0.0, zoom=0.0, gain=0.0, noise=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_latents(n: int, seed: int = 0) -> torch.Tensor:
    coarse = torch.randn(n, 4, 5, 5, generator=generator(seed))
    return F.interpolate(coarse, size=14, mode="bilinear", align_corners=True)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return build_reid({"encoder": "resnet50", "embedding": 128}).eval()


def test_resnet50_is_torchvisions():
    # torchvision docs, ResNet50_Weights: num_params 25557032
    model = ResNet50()
    assert sum(p.numel() for p in model.parameters()) == 25_557_032
    state = model.state_dict()
    assert len(state) == 320  # torchvision.models.resnet50().state_dict()
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert state["layer4.2.conv2.weight"].shape == (512, 512, 3, 3)
    assert state["layer3.5.bn3.running_var"].shape == (1024,)


def test_siamese_has_the_references_names(resnet):
    state = resnet.state_dict()
    assert state["model.conv1.weight"].shape == (64, 4, 7, 7)
    assert state["model.fc.weight"].shape == (128, 2048)
    assert state["fc_end.weight"].shape == (1, 128)
    z = resnet.embed(torch.randn(2, 4, 14, 14))
    assert z.shape == (2, 128)
    assert 0 <= z.min() <= z.max() <= 1


def test_contrastive_loss_by_hand():
    # Two people, orthogonal: each row sees its partner (cosine 1) and two negatives (cosine 0).
    a = torch.eye(2)
    t = 0.5
    expected = -np.log(np.exp(1 / t) / (np.exp(1 / t) + 2))
    assert contrastive_loss(a, a, t).item() == pytest.approx(expected, rel=1e-6)


def test_contrastive_loss_spares_rows_of_one_person():
    torch.manual_seed(0)
    a, b = F.normalize(torch.randn(3, 8), dim=1), F.normalize(torch.randn(3, 8), dim=1)
    ids = torch.tensor([0, 0, 1])
    rows = torch.cat([a, b])
    people = [0, 0, 1, 0, 0, 1]
    losses = []
    for i in range(6):
        partner = (i + 3) % 6
        keep = [j for j in range(6) if people[j] != people[i]] + [partner]
        sims = torch.stack([rows[i] @ rows[j] for j in keep]) / 0.2
        losses.append(torch.logsumexp(sims, 0) - rows[i] @ rows[partner] / 0.2)
    assert contrastive_loss(a, b, 0.2, ids).item() == pytest.approx(
        torch.stack(losses).mean().item(), rel=1e-5
    )


def test_siamese_loss_is_balanced_cross_entropy():
    same, different = torch.tensor([2.0, -1.0]), torch.tensor([0.5])
    bce = F.binary_cross_entropy_with_logits
    expected = (bce(same, torch.ones(2)) + bce(different, torch.zeros(1))) / 2
    assert siamese_loss(same, different).item() == pytest.approx(expected.item(), rel=1e-6)


def test_siamese_pairs_skip_one_person(resnet):
    a = torch.randn(3, 4, 14, 14, generator=generator(1))
    fa = resnet.embed(a)
    different = resnet.fc_end((fa - fa.roll(-1, 0)).abs())
    loss = resnet.pair_loss(a, a, torch.tensor([0, 0, 1]))
    same = resnet.fc_end(torch.zeros(3, 128))
    assert loss.item() == pytest.approx(siamese_loss(same, different[1:]).item(), rel=1e-5)
    with pytest.raises(ValueError, match="two persons"):
        resnet.pair_loss(a, a, torch.zeros(3))


@pytest.mark.parametrize("size", [(14, 14), (16, 16), (7, 9)])
def test_small_embeds_any_size_to_unit_vectors(size):
    model = build_reid({"encoder": "small", "embedding": 32})
    z = model.embed(torch.randn(3, 4, *size))
    assert z.shape == (3, 32)
    assert torch.allclose(z.norm(dim=1), torch.ones(3), atol=1e-5)


def test_training_beats_the_untrained_encoder():
    torch.manual_seed(0)
    model = build_reid({"widths": [16, 32], "embedding": 16})
    train, unseen = smooth_latents(64, 1), smooth_latents(40, 2)
    disguise = AugmentConfig(shift=2.0, zoom=0.2, gain=0.3, noise=1.0)
    draw = generator(3)

    def measured() -> float:
        frames = torch.cat([augment_latents(unseen, disguise, generator(s)) for s in (4, 5)])
        people = np.tile(np.arange(40), 2)
        return verification_scores(HeartEncoder(model)(frames), people, 0, resamples=10)[
            "auc"
        ].value

    before = measured()
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        rows = torch.randint(0, 64, (32,), generator=draw)
        pair = [augment_latents(train[rows], disguise, draw) for _ in range(2)]
        loss = model.pair_loss(*pair, ids=rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert measured() > max(before + 0.05, 0.9)


def test_saved_encoder_embeds_alike(tmp_path):
    cfg = ReidConfig(widths=(8, 16), embedding=8)
    model = build_reid(asdict(cfg))
    save_model(tmp_path / "reid", model, asdict(cfg))
    x = torch.randn(2, 4, 14, 14)
    again = load_model(tmp_path / "reid", build_reid)
    assert np.array_equal(HeartEncoder(again)(x), HeartEncoder(model)(x))


@pytest.mark.parametrize(
    ("values", "message"),
    [({"encoder": "resnet"}, "did you mean 'resnet50'"), ({"widths": [12]}, "multiples of 8")],
)
def test_wrong_config_is_refused_by_name(values, message):
    with pytest.raises(EchosynError, match=message):
        build_reid(values)


def test_augmentation_repeats_from_its_generator_and_leaves_the_global_one_alone():
    z, cfg = smooth_latents(4), AugmentConfig()
    state = torch.get_rng_state()
    first = augment_latents(z, cfg, generator(7))
    assert torch.equal(first, augment_latents(z, cfg, generator(7)))
    assert not torch.equal(first, augment_latents(z, cfg, generator(8)))
    assert torch.equal(torch.get_rng_state(), state)


def test_zeros_change_nothing_and_flip_mirrors():
    z = smooth_latents(3)
    assert torch.equal(augment_latents(z, STILL, generator()), z)
    flipped = augment_latents(z, AugmentConfig(0.0, 0.0, 0.0, 0.0, flip=1.0), generator())
    assert torch.allclose(flipped, z.flip(-1), atol=1e-5)


def test_shift_moves_by_at_most_its_limit():
    z = torch.zeros(64, 1, 15, 15)
    z[:, :, 7, 7] = 1.0
    moved = augment_latents(z, AugmentConfig(2.0, 0.0, 0.0, 0.0), generator())[:, 0]
    grid = torch.arange(15.0)
    x = (moved.sum(1) * grid).sum(1) / moved.sum((1, 2)) - 7
    assert x.abs().max() <= 2.0 + 1e-4
    assert x.min() < -1.5
    assert x.max() > 1.5


def test_siamese_features_do_not_depend_on_scale(resnet):
    z = smooth_latents(2)
    assert torch.allclose(resnet.embed(z), resnet.embed(3 * z + 1), atol=1e-4)


def test_minmax_fills_minus_one_to_one():
    x = minmax(torch.randn(3, 4, 5, 5))
    assert torch.allclose(x.amin((1, 2, 3)), torch.full((3,), -1.0))
    assert torch.allclose(x.amax((1, 2, 3)), torch.full((3,), 1.0))
