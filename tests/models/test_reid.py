"""Re-identification encoders: losses against their formulas, interface, augmentations."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn.data.latents import LatentSet, pack, write_index, write_shard
from echosyn.models.reid import (
    AugmentConfig,
    ReidConfig,
    SiameseResNet50,
    augment_latents,
    build_reid,
    contrastive_loss,
    minmax,
    siamese_loss,
)
from echosyn.models.resnet import ResNet50
from echosyn.models.store import load_model, save_model
from echosyn.privacy.detectors.embedding import HeartEncoder
from echosyn.privacy.detectors.verification import verification_scores
from echosyn.runtime.config import SCALES, build
from echosyn.runtime.errors import EchosynError
from echosyn.training.reid import PairLoss, ReidTask, TrainReidConfig, measure_reid

ROOT = Path(__file__).parents[2]
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


@pytest.mark.slow
def test_the_references_file_is_loaded_by_key(resnet, tmp_path):
    path = tmp_path / "reid.pt"
    state = {f"module.{k}": v for k, v in resnet.state_dict().items()}  # as DataParallel saves it
    torch.save({"state_dict": state}, path)
    model = {"encoder": "resnet50", "embedding": 128}
    settings = {"model": model, "augment": {}, "loop": {"steps": 1, "batch": 2, "lr": 1e-3}}
    cfg = build(TrainReidConfig, {**settings, "init": str(path), "as_published": True}, "conf")
    task = ReidTask.__new__(ReidTask)
    task.cfg = cfg
    loaded = task.build().encoder.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in resnet.state_dict().items())
    del state["module.fc_end.bias"]
    torch.save(state, path)
    with pytest.raises(EchosynError, match=r"weight 'fc_end.bias' is missing"):
        task.build()
    with pytest.raises(EchosynError, match="as_published: true needs"):
        build(TrainReidConfig, {**settings, "as_published": True}, "conf")


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


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 3.0))
def test_hard_negatives_weigh_by_nearness_and_one_on_average(seed, beta):
    draw, t = generator(seed), 0.3
    a, b = (F.normalize(torch.randn(3, 4, generator=draw), dim=1) for _ in range(2))
    rows, losses = torch.cat([a, b]), []
    for i in range(6):
        partner = (i + 3) % 6
        e = torch.stack([torch.exp(rows[i] @ rows[j] / t) for j in range(6) if j % 3 != i % 3])
        weight = e**beta / (e**beta).mean()
        match = torch.exp(rows[i] @ rows[partner] / t)
        losses.append(-torch.log(match / (match + (weight * e).sum())))
    loss = contrastive_loss(a, b, t, hard_negatives=beta)
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)
    # Weights that grow with the term they weigh can only raise its mean.
    assert loss >= contrastive_loss(a, b, t) - 1e-5


def test_hard_negatives_pull_harder_on_the_nearest_person():
    turns = torch.tensor([0.0, 0.3, 1.5])  # angles of three people: the second is near the first
    pulls = []
    for beta in (0.0, 2.0):
        rows = torch.stack([turns.cos(), turns.sin()], 1).requires_grad_()
        a = rows.detach()
        contrastive_loss(a, rows, 0.5, hard_negatives=beta).backward()
        pulls.append(rows.grad[1].norm() / rows.grad[2].norm())
    assert pulls[1] > pulls[0]


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_batch_of_one_person_teaches_nothing(beta):
    a = F.normalize(torch.randn(3, 4, generator=generator()), dim=1).requires_grad_()
    loss = contrastive_loss(a, a, 0.5, torch.zeros(3), beta)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(a.grad, torch.zeros(3, 4))


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
    [
        ({"encoder": "resnet"}, "did you mean 'resnet50'"),
        ({"widths": [12]}, "multiples of 8"),
        ({"encoder": "resnet50", "hard_negatives": 1.0}, "only the small encoder"),
    ],
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


def still(**change: float) -> AugmentConfig:
    return AugmentConfig(**{**asdict(STILL), **change})


def point(x: int, y: int, n: int = 64, w: int = 15, h: int = 15) -> torch.Tensor:
    """n latents with a smooth spot at column x and row y."""
    across = torch.exp(-((torch.arange(w) - x) ** 2) / 4.0)
    down = torch.exp(-((torch.arange(h) - y) ** 2) / 4.0)
    return (down[:, None] * across).expand(n, 1, h, w).clone()


def centre(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns and rows of the centres of mass of (N, 1, h, w), from the middle of the latent."""
    h, w = z.shape[-2:]
    x = (z[:, 0].sum(1) * (torch.arange(w) - (w - 1) / 2)).sum(1)
    y = (z[:, 0].sum(2) * (torch.arange(h) - (h - 1) / 2)).sum(1)
    return x / z.sum((1, 2, 3)), y / z.sum((1, 2, 3))


@pytest.mark.parametrize(("w", "h"), [(15, 15), (21, 15)])
def test_rotation_turns_cells_by_at_most_its_limit(w, h):
    turned = augment_latents(point(w // 2 + 4, h // 2, w=w, h=h), still(rotation=30.0), generator())
    x, y = centre(turned)
    assert torch.allclose(torch.hypot(x, y), torch.full((64,), 4.0), atol=0.15)
    degrees = torch.rad2deg(torch.atan2(y, x))
    assert degrees.abs().max() <= 31
    assert degrees.min() < -20
    assert degrees.max() > 20


def test_blur_spreads_by_its_sd_and_keeps_a_flat_latent():
    z = torch.zeros(64, 1, 31, 31)
    z[:, :, 15, 15] = 1.0
    blurred = augment_latents(z, still(blur=2.0), generator())
    along = blurred[:, 0].sum(1)
    sd = ((along * (torch.arange(31.0) - 15) ** 2).sum(1) / along.sum(1)).sqrt()
    assert torch.allclose(along.sum(1), torch.ones(64), atol=1e-4)
    assert sd.max() <= 2.05
    assert sd.max() > 1.7
    assert sd.min() < 0.4
    flat = torch.full((4, 2, 7, 9), 3.0)
    assert torch.allclose(augment_latents(flat, still(blur=2.0), generator()), flat, atol=1e-5)


def test_crop_shows_a_window_inside_the_latent():
    # On a ramp the window's borders can be read off: never outside, each axis its own place.
    ramp = torch.linspace(-1, 1, 40).expand(200, 1, 40, 40)
    z = torch.cat([ramp, ramp.mT], 1)
    cut = augment_latents(z, still(crop=0.4), generator())
    assert cut.min() >= -1
    assert cut.max() <= 1
    width = (cut[:, 0, 0, -1] - cut[:, 0, 0, 0]) / 2
    height = (cut[:, 1, -1, 0] - cut[:, 1, 0, 0]) / 2
    assert torch.allclose(width, height, atol=0.03)  # but for half a cell
    assert width.min() > 0.55
    assert width.min() < 0.65
    assert width.max() > 0.97
    middle = cut.mean((2, 3))
    assert middle.max() > 0.3
    assert middle.min() < -0.3
    assert abs(np.corrcoef(middle.numpy().T)[0, 1]) < 0.2


@settings(max_examples=40, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "shift": st.floats(0, 3),
            "zoom": st.floats(0, 0.9),
            "flip": st.sampled_from([0.0, 0.5, 1.0]),
            "rotation": st.floats(0, 180),
            "blur": st.floats(0, 5),
            "crop": st.floats(0, 0.9),
        }
    ),
    st.integers(0, 10**6),
)
def test_moves_and_blurs_never_leave_the_range_of_a_latent(change, seed):
    z = smooth_latents(3, seed)
    changed = augment_latents(z, still(**change), generator(seed))
    assert changed.shape == z.shape
    assert (changed.amax((2, 3)) <= z.amax((2, 3)) + 1e-4).all()
    assert (changed.amin((2, 3)) >= z.amin((2, 3)) - 1e-4).all()


def test_each_latent_gets_its_own_disguise():
    one = smooth_latents(1)
    for change in ({"rotation": 20.0}, {"blur": 1.0}, {"crop": 0.3}):
        a, b = augment_latents(one.expand(2, -1, -1, -1), still(**change), generator())
        assert not torch.allclose(a, b, atol=1e-3)


def test_new_disguises_leave_the_old_draws_alone():
    z = smooth_latents(2)
    old = augment_latents(z, AugmentConfig(), generator(5))
    again = augment_latents(z, AugmentConfig(blur=1e-9), generator(5))
    assert torch.allclose(old, again, atol=1e-6)


def latent_set(folder: Path, patients: list[str | None] | None, split="TRAIN", seed=0) -> LatentSet:
    """Six videos of 3 frames whose every cell holds 10 x video + frame."""
    frames = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 4, 8, 8)
    videos = {f"v{i}": pack(frames + 10 * i + seed, torch.zeros(3, 4, 8, 8)) for i in range(6)}
    folder.mkdir()
    write_shard(folder / "a.safetensors", videos)
    table = pd.DataFrame({"FileName": list(videos), "EF": 50.0, "Split": split, "FPS": 16.0})
    table["NumberOfFrames"], table["Shard"] = 3, "a.safetensors"
    if patients is not None:
        table["Patient"] = patients
    write_index(folder, table)
    return LatentSet(folder, split)


def task(train, val, **changes) -> ReidTask:
    values = {
        "model": {"widths": [8], "embedding": 4},
        "loop": {"steps": 4, "batch": 4, "lr": 1e-3, "checkpoint_every": 2, "precision": "fp32"},
        "augment": asdict(STILL),
        **changes,
    }
    return ReidTask(build(TrainReidConfig, values, "test"), train, val)


def drawn(t: ReidTask, items: list[int], seed: int = 0) -> tuple[list, list, list]:
    """Videos of either side of pairs, and the persons, of `items` drawn one at a time."""
    batches = [t.batch(np.array([i]), np.random.default_rng([seed, i])) for i in items]
    a, b = ([int(x[k][0, 0, 0, 0]) // 10 for x in batches] for k in "ab")
    return a, b, [int(x["ids"][0]) for x in batches]


def test_pairs_are_of_one_person(tmp_path):
    people = ["p", "p", "p", "q", "q", "r"]
    t = task(latent_set(tmp_path / "a", people), latent_set(tmp_path / "b", people, "VAL"))
    items = list(range(6)) * 40
    a, _, ids = drawn(t, items, seed=1)
    assert a == items
    assert ids == [[0, 0, 0, 1, 1, 2][i] for i in items]
    pairs = [drawn(t, [0], seed)[1][0] for seed in range(200)]
    assert set(pairs) == {0, 1, 2}
    assert 60 < pairs.count(0) < 140
    assert {drawn(t, [5], seed)[1][0] for seed in range(20)} == {5}
    same = task(latent_set(tmp_path / "c", people), [], other_video=0.0)
    assert drawn(same, items)[1] == items


def test_unknown_patients_are_people_of_their_own(tmp_path):
    none = task(latent_set(tmp_path / "a", None), [])
    assert drawn(none, list(range(6)))[2] == list(range(6))
    some = task(latent_set(tmp_path / "b", ["p", None, "p", None, None, "v1"]), [])
    _, b, ids = drawn(some, [0, 1, 2, 3, 4, 5])
    assert ids == [0, 1, 0, 2, 3, 4]  # patient "v1" is not the video v1
    assert b[1] == 1


def test_several_datasets_train_together_and_share_nobody(tmp_path):
    people = ["p", "p", "q", "r", "s", "t"]
    sets = [latent_set(tmp_path / name, people, seed=k) for k, name in enumerate("ab")]
    t = task(sets, sets)
    assert t.size == 12
    ids = drawn(t, list(range(12)))[2]
    assert ids == [0, 0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]
    for i in (0, 6):
        values = {int(drawn_b) for s in range(30) for drawn_b in drawn(t, [i], s)[1]}
        assert values == {0, 1}
    with torch.no_grad():
        assert np.isfinite(t.validate(t.build())["loss"])


def test_one_person_cannot_be_learned_from(tmp_path):
    lonely = latent_set(tmp_path / "a", ["p"] * 6)
    with pytest.raises(EchosynError, match="all 6 TRAIN videos are of one person"):
        task(lonely, [])
    t = task(latent_set(tmp_path / "b", None), lonely)
    assert np.isnan(t.validate(t.build())["loss"])


@pytest.mark.slow
def test_measures_of_disguised_people_are_named_and_lower(tmp_path):
    torch.manual_seed(0)
    z = smooth_latents(80, 9)
    videos = {f"v{i}": pack(z[i] + 0.1 * torch.randn(4, 4, 14, 14), z[:4]) for i in range(80)}
    folder = tmp_path / "test"
    folder.mkdir()
    write_shard(folder / "a.safetensors", videos)
    table = pd.DataFrame({"FileName": list(videos), "EF": 50.0, "Split": "TEST", "FPS": 16.0})
    table["NumberOfFrames"], table["Shard"] = 4, "a.safetensors"
    write_index(folder, table)
    model = PairLoss(build_reid({"widths": [16], "embedding": 16}))
    heavy = still(noise=3.0, shift=3.0)
    numbers = measure_reid(model, LatentSet(folder, "TEST"), 4, 0, heavy)
    plain = measure_reid(model, LatentSet(folder, "TEST"), 4, 0)
    names = [n for m in ("auc", "eer", "recall_at_0p1pct") for n in (m, f"{m}_lo", f"{m}_hi")]
    assert set(plain) == {f"reid/{n}" for n in names}
    assert set(numbers) == set(plain) | {f"reid/disguised_{n}" for n in names}
    assert plain == {k: numbers[k] for k in plain}
    assert numbers["reid/disguised_recall_at_0p1pct_hi"] < plain["reid/recall_at_0p1pct_lo"]


@pytest.mark.parametrize("scale", SCALES)
def test_presets_build_and_the_papers_is_the_references_network(scale):
    values = yaml.safe_load((ROOT / f"conf/{scale}/train_reid.yaml").read_text())
    cfg = build(TrainReidConfig, values, scale)
    model = build_reid(asdict(cfg.model))
    assert isinstance(model, SiameseResNet50) == (scale == "paper")


def test_siamese_features_do_not_depend_on_scale(resnet):
    z = smooth_latents(2)
    assert torch.allclose(resnet.embed(z), resnet.embed(3 * z + 1), atol=1e-4)


def test_minmax_fills_minus_one_to_one():
    x = minmax(torch.randn(3, 4, 5, 5))
    assert torch.allclose(x.amin((1, 2, 3)), torch.full((3,), -1.0))
    assert torch.allclose(x.amax((1, 2, 3)), torch.full((3,), 1.0))
