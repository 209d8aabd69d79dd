"""The video model: shapes, condition, its folder; and which network a folder holds."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tiny_video import TINY, tiny_video

from echosyn.models.condition import ConditionSpec
from echosyn.models.published_image import UnetConfig
from echosyn.models.published_video import PublishedVideoDenoiser, is_own, load_video
from echosyn.models.video import VideoConfig, VideoDenoiser
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.training.diffusion import TrainLvdmConfig, new_video, video_spec

SPEC = ConditionSpec(beat=0.1)
LOOP = {"steps": 1, "batch": 1, "lr": 1e-3}


def given(frames=5, size=6, ef=(30.0, 60.0), beat=((0.1, 0.2), (0.05, 0.7))):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, frames, 4, size, size, generator=generator)
    condition = SPEC.rows(2, torch.tensor(ef), beat=torch.tensor(beat))
    return x, torch.tensor([10.0, 900.0]), x[:, 0].clone(), condition


@pytest.mark.parametrize(("frames", "size"), [(1, 6), (5, 6), (12, 7), (3, 14)])
def test_any_number_of_frames_of_any_size(frames, size):
    model = tiny_video(5, SPEC, size)
    with torch.no_grad():
        out = model(*given(frames, size))
    assert out.shape == (2, frames, 4, size, size)
    assert bool(torch.isfinite(out).all())


def test_a_fresh_model_predicts_nothing_and_then_learns():
    torch.manual_seed(0)
    model = VideoDenoiser(TINY, 5, SPEC, 6)
    x, t, heart, condition = given()
    assert not model(x, t, heart, condition).any()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(30):
        loss = (model(x, t, heart, condition) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * float(x.square().mean())
    assert all(p.grad is not None for p in model.parameters())  # as DDP wants it


def test_a_model_of_unlabelled_videos_knows_the_heart_alone(tmp_path):
    """As of a folder of DICOM files, whose cines carry neither EF nor class nor tracings."""
    bare = SimpleNamespace(
        ef=np.full(2, np.nan, np.float32), classes=[None, None], beats=np.full((2, 2), np.nan),
        table=pd.DataFrame({"FPS": [32.0, 32.0]}),
    )  # fmt: skip
    spec = video_spec(SimpleNamespace(layout="own", strides=(1,)), [bare])
    assert spec == ConditionSpec(ef=False)
    tiny_video(5, spec).save(tmp_path)
    model = load_video(tmp_path)
    x, t, heart, _ = given()
    rows = spec.rows(2, torch.full((2,), torch.nan), classes=[None, None])
    with torch.no_grad():
        out, other = (model(x, t, h, rows) for h in (heart, 2 * heart))
    assert out.shape == x.shape
    assert not torch.equal(out, other)
    with pytest.raises(EchosynError, match="an EF is asked for, but this model was trained with"):
        spec.rows(1, torch.tensor([50.0]))


@pytest.mark.slow
def test_the_network_of_scale_paper_takes_a_step_on_two_seconds(request):
    values = yaml.safe_load((request.config.rootpath / "conf/paper/train_lvdm.yaml").read_text())
    cfg = build(TrainLvdmConfig, values, "conf/paper/train_lvdm.yaml")
    assert (cfg.window, cfg.model.inner, cfg.model.inner_blocks) == (64, 384, 12)
    torch.manual_seed(0)
    model = new_video(cfg, SPEC, 14)
    x, t, heart, condition = given(cfg.window, 6)  # smaller frames, which are the same network's
    optimizer = torch.optim.Adam(model.parameters(), cfg.loop.lr)
    losses = []
    for _ in range(2):
        loss = (model(x[:1], t[:1], heart[:1], condition[:1]) - x[:1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


def test_every_condition_reaches_every_frame():
    model = tiny_video(5, SPEC)
    with torch.no_grad():
        plain = model(*given())
        for other in (
            given(ef=(31.0, 61.0)),
            given(ef=(torch.nan, torch.nan)),
            given(beat=((0.1, 0.3), (0.05, 0.8))),
            given(beat=((0.12, 0.2), (0.06, 0.7))),
            given(beat=((torch.nan, 0.2), (torch.nan, 0.7))),
        ):
            moved = (model(*other) - plain).abs().amax((2, 3, 4))
            assert float(moved.min()) > 1e-5
        x, t, heart, condition = given()
        for other in (model(x, t + 50, heart, condition), model(x, t, heart + 0.1, condition)):
            assert float((other - plain).abs().amax((2, 3, 4)).min()) > 1e-5


def test_a_later_start_is_a_later_phase():
    model = tiny_video(5, SPEC)
    x, t, heart, condition = given()
    later = given(beat=((0.1, 0.2 + 0.7), (0.05, 0.7 + 0.35)))[3]
    with torch.no_grad():
        moved = model(x, t, heart, condition, torch.tensor([7, 7]))
        assert torch.allclose(moved, model(x, t, heart, later), atol=1e-5)
        assert not torch.allclose(moved, model(x, t, heart, condition), atol=1e-5)


def test_given_frames_are_marked():
    model = tiny_video(5, SPEC, continues=True)
    x, t, heart, condition = given()
    known = torch.tensor([[1.0, 1, 0, 0, 0]] * 2)
    with torch.no_grad():
        plain = model(x, t, heart, condition)
        assert torch.equal(plain, model(x, t, heart, condition, known=known * 0))
        assert not torch.allclose(plain, model(x, t, heart, condition, known=known))


def test_a_student_is_its_teacher_until_it_learns_the_length_of_its_step(tmp_path):
    student = tiny_video(5, SPEC).student()
    spans = torch.tensor([0.25, 1.0])
    with torch.no_grad():
        assert torch.equal(student(*given(), span=spans), tiny_video(5, SPEC)(*given()))
        student.span.weight.normal_(generator=torch.Generator().manual_seed(0))
        apart = (student(*given(), span=spans) - student(*given())).abs().amax((1, 2, 3, 4))
    assert float(apart.min()) > 1e-5
    student.save(tmp_path)
    back = load_video(tmp_path)
    with torch.no_grad():
        assert torch.equal(back(*given(), span=spans), student(*given(), span=spans))


def test_a_folder_gives_the_same_network_back(tmp_path):
    model = tiny_video(5, SPEC, 6, continues=True)
    model.save(tmp_path / "own")
    back = load_video(tmp_path / "own")
    assert (back.window, back.size, back.continues, back.spec) == (5, 6, True, SPEC)
    with torch.no_grad():
        assert torch.equal(back(*given()), model(*given()))
    model.save(tmp_path / "again")
    for path in (tmp_path / "own").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    config = json.loads((tmp_path / "again/config.json").read_text())
    older = {**config, "model": {**config["model"], "breadth": 16}}
    (tmp_path / "again/config.json").write_text(json.dumps(older))
    with pytest.raises(EchosynError, match=r"unknown setting 'breadth'.*: train it again"):
        load_video(tmp_path / "again")
    del config["spans"]
    (tmp_path / "again/config.json").write_text(json.dumps(config))
    with pytest.raises(EchosynError, match=r"config\.json lacks 'spans'"):
        load_video(tmp_path / "again")
    (tmp_path / "own/model.safetensors").unlink()
    with pytest.raises(EchosynError, match=r"model\.safetensors does not exist"):
        load_video(tmp_path / "own")


def test_a_folder_of_the_published_layout_is_recognised(tmp_path):
    sizes = UnetConfig(widths=(32, 32), attention=(False, True), heads=(1, 1))
    PublishedVideoDenoiser.create(sizes, 4, 6).save(tmp_path)
    assert not is_own(tmp_path)
    model = load_video(tmp_path)
    assert isinstance(model, PublishedVideoDenoiser)
    assert (model.window, model.size, model.spec.published) == (4, 6, True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {}, "layout": "published"}, "'published' takes its sizes from `unet`"),
        ({}, "'own' takes its sizes from `model`"),
        ({"model": {"inner": 50, "heads": 2}}, "inner 50 is no multiple of twice the heads, 4"),
        ({"model": {"width": 4}}, "below the least allowed value 8"),
    ],
)
def test_sizes_that_cannot_be_are_refused(values, message):
    with pytest.raises(EchosynError, match=message):
        build(TrainLvdmConfig, {"loop": LOOP, **values}, "conf")
    assert build(VideoConfig, {}, "conf").inner_blocks == 3
