"""Hearts with labels: drawn per index, asked of the model, kept with the hearts."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from echosyn.data.latents import LatentSet, pack, write_index, write_shard
from echosyn.diffusion.heart_file import Hearts
from echosyn.diffusion.hearts import (
    HeartSampler,
    draw_labels,
    finish_hearts,
    load_hearts,
    read_hearts,
    read_shards,
)
from echosyn.diffusion.objectives import Flow
from echosyn.diffusion.sampling import autoguided
from echosyn.diffusion.settings import SampleHeartsConfig
from echosyn.models.condition import ConditionSpec
from echosyn.models.image import GUIDE, ImageConfig, ImageDenoiser
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.tracking import NullRun
from echosyn.training.diffusion import LidmTask, TrainLidmConfig
from echosyn.training.loop import LoopConfig, fit

SIZES = ImageConfig(width=16, inner=32, inner_blocks=1, heads=2, embedding=32)
LOOP = LoopConfig(steps=80, batch=16, lr=1e-2, ema=0.9, precision="fp32")
CLASSES = ("PAH", "non-PAH")
EF, CLASS = ConditionSpec(), ConditionSpec(ef=False, classes=CLASSES)


def write_latents(folder, n=40):
    """TRAIN and VAL of bright PAH hearts, a quarter of them, and dark others."""
    folder.mkdir()
    rng = torch.Generator().manual_seed(0)
    rows, shard = [], {}
    for i in range(n):
        ill = i % 4 == 0
        z = (2.0 if ill else -1.0) + 0.1 * torch.randn(3, 4, 8, 8, generator=rng)
        shard[f"v{i}"] = pack(z, z * 0 - 9)
        split = "TRAIN" if i < n - 8 else "VAL"
        rows.append((f"v{i}", 20.0 + i, split, 16.0, 3, "s.safetensors", CLASSES[not ill]))
    write_shard(folder / "s.safetensors", shard)
    columns = ["FileName", "EF", "Split", "FPS", "NumberOfFrames", "Shard", "Class"]
    write_index(folder, pd.DataFrame(rows, columns=columns))
    return LatentSet(folder, "TRAIN"), LatentSet(folder, "VAL")


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return write_latents(tmp_path_factory.mktemp("hearts") / "z")


@pytest.fixture(scope="module")
def lidm(latents, tmp_path_factory):
    """A LIDM conditioned on classes, trained until it follows them."""
    folder = tmp_path_factory.mktemp("lidm")
    task = LidmTask(TrainLidmConfig(LOOP, SIZES, condition="class", drop_label=0.2), *latents)
    model = fit(task, LOOP, 0, folder / "work", NullRun(), "lidm")
    model.save(folder)
    task.objective.save(folder)
    return folder


def untrained(folder, spec):
    torch.manual_seed(0)
    ImageDenoiser(SIZES, 8, spec).save(folder)
    Flow().save(folder)
    return folder


CONFIG = SampleHeartsConfig(hearts=8, steps=6, precision="fp32")


def test_a_label_belongs_to_its_index_and_to_nothing_else(latents):
    both = dataclasses.replace(EF, classes=CLASSES)
    ef, classes = draw_labels(both, "real", latents[0], range(12), seed=3)
    later, others = draw_labels(both, "real", latents[0], [11, 5], seed=3)
    assert later.tolist() == ef[[11, 5]].tolist()
    assert others == (classes[11], classes[5])
    assert draw_labels(both, "real", latents[0], range(12), seed=4)[0].tolist() != ef.tolist()
    assert draw_labels(ConditionSpec(ef=False), "real", latents[0], [0], 0) == (None, None)


def test_labels_have_the_distribution_of_train(latents):
    train = latents[0]
    both = dataclasses.replace(EF, classes=CLASSES)
    ef, classes = draw_labels(both, "real", train, range(4000), seed=0)
    at = np.linspace(0.05, 0.95, 10)
    assert np.abs(np.quantile(ef, at) - np.quantile(train.ef, at)).max() < 1
    assert np.mean([c == "PAH" for c in classes]) == pytest.approx(0.25, abs=0.025)
    uniform, _ = draw_labels(EF, "uniform", train, range(4000), seed=0)
    assert np.abs(np.quantile(uniform, at) - (10 + 80 * at)).max() < 3


@pytest.mark.slow
def test_hearts_are_of_the_class_they_were_drawn_for(lidm, latents):
    hearts = HeartSampler(lidm, CONFIG, latents[0]).draw(range(24), seed=1)
    assert hearts.classes == draw_labels(CLASS, "real", latents[0], range(24), 1)[1]
    assert set(hearts.classes) == set(CLASSES)
    bright = hearts.latents.mean((1, 2, 3)) > 0.5
    assert np.mean([b == (c == "PAH") for b, c in zip(bright, hearts.classes, strict=True)]) > 0.9


def test_guidance_exaggerates_the_class_and_none_ignores_it(lidm, latents):
    drawn = {
        scale: HeartSampler(lidm, dataclasses.replace(CONFIG, guidance=scale), latents[0]).draw(
            range(24), seed=1
        )
        for scale in (0.0, 1.0, 3.0)
    }
    names = np.array(drawn[1.0].classes)

    def apart(scale):
        means = drawn[scale].latents.mean((1, 2, 3)).numpy()
        return means[names == "PAH"].mean() - means[names == "non-PAH"].mean()

    assert apart(3.0) > apart(1.0) + 0.2
    assert apart(1.0) > abs(apart(0.0)) + 0.5


def test_a_heart_does_not_depend_on_its_batch(lidm, latents):
    sampler = HeartSampler(lidm, CONFIG, latents[0])
    together, alone = sampler.draw([4, 9, 2], seed=0), sampler.draw([9], seed=0)
    assert torch.allclose(together.latents[1], alone.latents[0], atol=1e-4)
    assert alone.classes == together.classes[1:2]


@pytest.mark.parametrize("spec", [EF, CLASS, ConditionSpec(ef=False)])
def test_labels_stay_with_their_hearts_on_disk(tmp_path, latents, spec):
    model = untrained(tmp_path / "m", spec)
    sampler = HeartSampler(model, CONFIG, latents[0])
    whole = sampler.draw(range(7), seed=0)
    shards = [tmp_path / "s0", tmp_path / "s1"]
    for folder, rows in zip(shards, (range(4), range(4, 7)), strict=True):
        folder.mkdir()
        sampler.write_shard(rows, folder, seed=0)
    assert read_shards(shards).classes == whole.classes
    finish_hearts(shards, tmp_path / "out")
    kept = load_hearts(tmp_path / "out")
    assert torch.equal(read_hearts(tmp_path / "out"), kept.latents)
    assert torch.allclose(kept.latents, whole.latents, atol=1e-4)
    assert (None if kept.ef is None else kept.ef.tolist()) == (
        None if whole.ef is None else whole.ef.tolist()
    )
    assert kept.classes == whole.classes
    with pytest.raises(EchosynError, match="run sample_hearts"):
        load_hearts(tmp_path / "nowhere")


def test_the_same_hearts_give_the_same_bytes(tmp_path):
    """safetensors hashes anew each time it writes: several metadata entries would change places."""
    hearts = Hearts(torch.ones(3, 4, 2, 2), np.array([1.0, 2.0, 3.0]), ("b", "a", "c"))
    path, made = tmp_path / "h.safetensors", set()
    for _ in range(8):
        hearts.write(path, indices=torch.arange(3))
        made.add(path.read_bytes())
    assert len(made) == 1
    assert Hearts.read(path).classes == ("b", "a", "c")
    assert Hearts.read(path).ef.tolist() == [1.0, 2.0, 3.0]


def test_guidance_needs_a_model_that_has_a_condition(tmp_path, latents):
    model = untrained(tmp_path, ConditionSpec(ef=False))
    with pytest.raises(EchosynError, match=r"guidance 2 of sample_hearts.*`condition`"):
        HeartSampler(model, dataclasses.replace(CONFIG, guidance=2.0), latents[0])


def test_autoguidance_goes_on_from_the_weaker_model_to_the_better():
    """Karras et al. 2024, eq. 5, with the scale as guidance counts it: 1 is the better alone."""
    better, weaker = (lambda x, t, starts, k=k: k * x for k in (2.0, 1.5))
    x = torch.randn(3, 4, 2, 2)
    for scale, factor in ((1.0, 2.0), (2.0, 2.5), (3.0, 3.0)):
        steered = autoguided(better, weaker, scale)
        assert torch.allclose(steered(x, torch.zeros(3)), factor * x)


def test_a_guide_as_good_as_the_model_changes_nothing_and_a_worse_one_does(tmp_path, lidm, latents):
    model = shutil.copytree(lidm, tmp_path / "m", ignore=shutil.ignore_patterns("work"))
    plain = HeartSampler(model, CONFIG, latents[0]).draw(range(6), seed=1)
    steered = dataclasses.replace(CONFIG, autoguidance=2.0)
    with pytest.raises(EchosynError, match=r"m: autoguidance 2 of sample_hearts.*`guide`"):
        HeartSampler(model, steered, latents[0])
    shutil.copytree(model, tmp_path / "same")
    (tmp_path / "same").rename(model / GUIDE)
    same = HeartSampler(model, steered, latents[0]).draw(range(6), seed=1)
    assert torch.allclose(same.latents, plain.latents, atol=1e-4)
    assert same.classes == plain.classes
    untrained(model / GUIDE, CLASS)
    other = HeartSampler(model, steered, latents[0]).draw(range(6), seed=1)
    assert (other.latents - plain.latents).abs().mean() > 0.1


def test_a_guide_is_trained_for_its_share_of_the_steps():
    cfg = TrainLidmConfig(dataclasses.replace(LOOP, warmup=30), SIZES, guide=0.25)
    assert (cfg.guide_loop.steps, cfg.guide_loop.warmup) == (20, 19)
    assert dataclasses.replace(cfg.guide_loop, steps=80, warmup=30) == cfg.loop
    assert dataclasses.replace(cfg, guide=0.001).guide_loop.steps == 1


def test_a_model_conditioned_on_labels_must_also_learn_to_do_without(latents):
    sizes = {"model": dataclasses.asdict(SIZES), "loop": {"steps": 1, "batch": 1, "lr": 1e-3}}
    for share in (0.0, 1.0):
        with pytest.raises(EchosynError, match="drop_label"):
            build(TrainLidmConfig, {**sizes, "condition": "class", "drop_label": share}, "x")
    build(TrainLidmConfig, {**sizes, "drop_label": 0.0}, "x")


def test_an_audit_that_gives_no_label_asks_for_none(lidm, latents):
    """denoising_losses and the canary call model(x, t): the row that guidance drops to."""
    model = ImageDenoiser.load(lidm)
    x, t = torch.randn(2, 4, 8, 8), torch.full((2,), 400.0)
    rows = model.spec.rows(2, classes=["PAH", "non-PAH"])
    with torch.no_grad():
        assert torch.equal(model(x, t), model(x, t, model.spec.unlabelled(rows)))
        assert not torch.allclose(model(x, t), model(x, t, rows), atol=1e-2)
