"""The image model: shapes, condition, its folder; and which network a folder holds."""

import json

import pytest
import torch

from echosyn.models.condition import NOTHING, ConditionSpec
from echosyn.models.image import ImageConfig, ImageDenoiser
from echosyn.models.published_image import (
    PublishedImageDenoiser,
    UnetConfig,
    is_own_image,
    load_image,
)
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.training.diffusion import TrainLidmConfig

SIZES = ImageConfig(width=16, inner=32, inner_blocks=2, heads=2, embedding=32)
CLASSES = ConditionSpec(ef=False, classes=("a", "b"))
LOOP = {"steps": 1, "batch": 1, "lr": 1e-3}


def image(spec=NOTHING, size=7):
    torch.manual_seed(0)
    model = ImageDenoiser(SIZES, size, spec).eval()
    for p in model.parameters():  # a fresh one predicts nothing
        torch.nn.init.normal_(p, std=0.1)
    return model


def given(size=7):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, size, size, generator=generator)
    return x, torch.tensor([10.0, 500.0, 900.0])


@pytest.mark.parametrize("size", [6, 7, 14])
def test_hearts_keep_their_size_and_one_time_does_for_all(size):
    model = image(size=size)
    x, t = given(size)
    with torch.no_grad():
        out = model(x, t)
        assert out.shape == x.shape
        assert not torch.allclose(out, model(x, t + 50))
        together = model(x, t[:1].expand(3))
        assert torch.allclose(model(x, t[:1]), together, atol=1e-5)


def test_a_fresh_model_predicts_nothing_and_then_learns():
    torch.manual_seed(0)
    model = ImageDenoiser(SIZES, 7, CLASSES)
    x, t = given()
    rows = CLASSES.rows(3, classes=["a", "b", None])
    assert not model(x, t, rows).any()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        loss = (model(x, t, rows) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * float(x.square().mean())
    assert all(p.grad is not None for p in model.parameters())  # as DDP wants it


def test_a_label_is_seen_and_no_condition_is_none_given():
    model = image(CLASSES)
    x, t = given()
    rows = CLASSES.rows(3, classes=["a", "b", "a"])
    with torch.no_grad():
        none = model(x, t)
        assert torch.equal(none, model(x, t, CLASSES.unlabelled(rows)))
        assert float((model(x, t, rows) - none).abs().amax((1, 2, 3)).min()) > 1e-3


def test_places_differ():
    """Attention alone would not see where a position lies."""
    model = image(size=14)
    x, t = torch.ones(1, 4, 14, 14), torch.tensor([500.0])
    model.place.data.zero_()
    with torch.no_grad():
        without = model(x, t)
        model.place.data[2, 3] = 1.0
        assert not torch.allclose(without, model(x, t), atol=1e-3)


def test_a_folder_gives_the_same_network_back(tmp_path):
    model = image(CLASSES)
    model.save(tmp_path / "own")
    assert is_own_image(tmp_path / "own")
    back = load_image(tmp_path / "own")
    assert (back.size, back.spec, back.cfg) == (7, CLASSES, SIZES)
    with torch.no_grad():
        assert torch.equal(back(*given()), model(*given()))
    model.save(tmp_path / "again")
    for path in (tmp_path / "own").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    config = json.loads((tmp_path / "again/config.json").read_text())
    older = {**config, "model": {**config["model"], "breadth": 16}}
    (tmp_path / "again/config.json").write_text(json.dumps(older))
    with pytest.raises(EchosynError, match=r"unknown setting 'breadth'.*: train it again"):
        load_image(tmp_path / "again")
    del config["size"]
    (tmp_path / "again/config.json").write_text(json.dumps(config))
    with pytest.raises(EchosynError, match=r"config\.json lacks 'size': train it again"):
        load_image(tmp_path / "again")


def test_a_folder_of_the_published_layout_is_recognised(tmp_path):
    sizes = UnetConfig(widths=(32, 32), attention=(False, True), heads=(1, 1))
    made = PublishedImageDenoiser.create(sizes, 7).eval()
    made.save(tmp_path)
    assert not is_own_image(tmp_path)
    back = load_image(tmp_path)
    assert isinstance(back, PublishedImageDenoiser)
    assert (back.size, back.spec) == (7, NOTHING)
    with torch.no_grad():
        assert torch.equal(back(*given()), made(*given()))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {}, "layout": "published"}, "'published' takes its sizes from `unet`"),
        ({"unet": {}}, "'own' takes its sizes from `model`"),
        ({"unet": {}, "layout": "published", "condition": "ef"}, "unconditional: condition 'ef'"),
        ({"model": {"inner": 50, "heads": 4}}, "inner 50 is no multiple of heads 4"),
        ({"model": {"width": 4}}, "below the least allowed value 8"),
    ],
)
def test_sizes_that_cannot_be_are_refused(values, message):
    with pytest.raises(EchosynError, match=message):
        build(TrainLidmConfig, {"loop": LOOP, **values}, "conf")
