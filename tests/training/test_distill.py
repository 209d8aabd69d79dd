"""A distilled student: its targets against closed forms, its training, and what is refused."""

import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_video import TINY, tiny_video

from echosyn.data.latents import LatentSet, pack, write_index, write_shard
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.objectives import DdpmV, Flow
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.diffusion.student import Student, read_student
from echosyn.models.published_image import UnetConfig
from echosyn.models.published_video import PublishedVideoDenoiser
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.tracking import NullRun
from echosyn.training.diffusion import LvdmTask, TrainLvdmConfig, video_spec
from echosyn.training.distill import DistillConfig, DistillTask, drawn_pieces, student_path
from echosyn.training.loop import LoopConfig, fit

SIZE, WINDOW = 8, 2
LOOP = LoopConfig(steps=3, batch=2, lr=1e-3, ema=0.9, precision="fp32", checkpoint_every=1)
DISTILL = DistillConfig(LOOP, guidance=2.0, steps=(1, 2), teacher_steps=4, validation_items=2)


def settings(**kwargs):
    return TrainLvdmConfig(LOOP, TINY, window=WINDOW, **kwargs)


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("latents"), torch.Generator().manual_seed(0)
    shard, rows = {}, []
    for i in range(6):
        mean = torch.randn(6, 4, SIZE, SIZE, generator=rng)
        shard[f"v{i}"] = pack(mean, torch.full_like(mean, -4.0))
        rows.append((f"v{i}", 30.0 + 5 * i, "TRAIN" if i < 4 else "VAL", 16.0, 6, "s"))
    write_shard(folder / "s", shard)
    columns = ["FileName", "EF", "Split", "FPS", "NumberOfFrames", "Shard"]
    write_index(folder, pd.DataFrame(rows, columns=columns))
    return [LatentSet(folder, "TRAIN")], [LatentSet(folder, "VAL")]


def teacher(folder, latents, clips, objective=None):
    torch.manual_seed(1)
    spec = video_spec(clips, latents[0])
    model = tiny_video(WINDOW, spec, SIZE, clips.continues > 0)
    model.save(folder)
    (objective or Flow()).save(folder)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory, latents):
    folder = teacher(tmp_path_factory.mktemp("lvdm"), latents, settings())
    return DistillTask(DISTILL, folder, settings(), *latents)


class Straight:
    """Stands for a model whose velocity is what it is given: the heart, over all frames."""

    def __call__(self, x, t, heart, condition, start=None, span=None, known=None):
        return heart[:, None].expand_as(x)


class Recorded(Straight):
    def __call__(self, *args, **given):
        self.args, self.given = args, given
        return super().__call__(*args, **given)


def batch_of(task, n=2):
    items = [task.batch(np.array([i % task.size]), np.random.default_rng(i)) for i in range(n)]
    return {k: torch.cat([item[k] for item in items]) for k in items[0]}


def test_hearts_get_noise_in_training_and_none_in_validation(latents):
    sds = []
    for noise in (0.0, 0.5):
        noisy = LvdmTask(settings(heart_noise=noise), *latents)
        clean = LvdmTask(settings(), *latents)
        assert torch.equal(noisy.val["heart"], clean.val["heart"])
        off = batch_of(noisy, 40)["heart"] - batch_of(clean, 40)["heart"]
        sds.append(off.std((1, 2, 3)))
    assert sds[0].max() == 0
    assert sds[1].max() < 0.55
    assert sds[1].mean() == pytest.approx(0.25, abs=0.05)  # uniform up to 0.5
    assert sds[1].min() < 0.1


def test_pieces_cover_the_path_of_each_number_of_steps():
    u = torch.tensor([0.0, 0.32, 0.34, 0.66, 0.67, 0.76, 0.84, 0.92, 0.9999999])
    t, span = drawn_pieces(u, (1, 2, 4))
    assert t.tolist() == [1, 1, 0.5, 1, 0.25, 0.5, 0.75, 1, 1]
    assert span.tolist() == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25]


def test_the_loss_of_a_student_that_knows_the_mean_velocity_is_zero(task, monkeypatch):
    """On a straight path every piece has the same mean velocity, whatever its length."""
    batch = batch_of(task)
    batch["u"] = torch.tensor([0.3, 0.6])  # the whole path; the second of two pieces
    monkeypatch.setattr(task, "_velocity", lambda x, t, part: part["heart"][:, None].expand_as(x))
    model = Recorded()
    assert float(task.loss(model, batch)[0]) < 1e-10
    x, t, _, _ = model.args
    span = model.given["span"]
    assert t.tolist() == [1000, 500]
    assert span.tolist() == [1, 0.5]
    assert torch.equal(x[0], batch["noise"][0])
    assert torch.allclose(x[1], (batch["x"][1] + batch["noise"][1]) / 2)


def test_the_mean_velocity_is_that_of_the_teachers_small_steps(task, monkeypatch):
    """Four small steps at times 1, 3/4, 1/2, 1/4: the velocity t has means 5/8, 7/8 and 3/8."""
    batch = batch_of(task, 3)
    seen = []

    def velocity(x, t, part):
        seen.append(len(x))
        return t[:, None, None, None, None].expand_as(x)

    monkeypatch.setattr(task, "_velocity", velocity)
    t, span = torch.tensor([1.0, 1.0, 0.5]), torch.tensor([1.0, 0.5, 0.5])
    found = task.mean_velocity(batch["noise"], t, span, batch)
    for row, mean in zip(found, (5 / 8, 7 / 8, 3 / 8), strict=True):
        assert torch.allclose(row, torch.full_like(row, mean), atol=1e-5)
    assert seen == [3, 3, 1, 1]  # pieces that are over cost nothing


def test_a_student_starts_as_its_teacher_whatever_the_length_of_its_step(tmp_path, latents):
    task = DistillTask(DISTILL, teacher(tmp_path, latents, settings()), settings(), *latents)
    batch = batch_of(task)
    inputs = (batch["noise"], torch.full((2,), 700.0), batch["heart"], batch["condition"])
    long, short = torch.ones(2), torch.full((2,), 0.25)
    student = task.build().eval()
    with torch.no_grad():
        velocity = task.teacher(*inputs)
        assert torch.equal(student(*inputs, span=long), velocity)
        assert torch.equal(student(*inputs, span=short), velocity)
        student.span.weight.normal_(generator=torch.manual_seed(0))
        apart = (student(*inputs, span=long) - student(*inputs, span=short)).abs().max()
    assert float(apart) > 1e-3


def test_the_teachers_path_is_what_the_sampler_walks(task):
    """Guidance, times and step lengths are those of VideoSampler."""
    batch, steps = batch_of(task), 4
    cfg = SampleVideosConfig(
        1, 0, 0, WINDOW, overlap=0, steps=steps, guidance=2.0, precision="fp32"
    )
    sampler = VideoSampler(task.folder, cfg)
    wanted = sampler.denoised(batch["noise"], batch["heart"], batch["condition"])
    path = task.teacher_path(batch, steps)
    assert len(path) == steps + 1
    assert torch.allclose(path[-1], wanted, atol=1e-4)
    assert not torch.allclose(path[-1], task.teacher_path(batch, 1)[-1], atol=1e-2)


def test_given_frames_stay_and_are_not_learned(tmp_path, latents):
    clips = settings(continues=1.0)
    task = DistillTask(DISTILL, teacher(tmp_path, latents, clips), clips, *latents)
    batch = batch_of(task)
    known = batch["known"].bool()
    assert known.any()
    assert not known.all()
    for state in task.teacher_path(batch, 2):
        assert torch.equal(state[known], batch["x"][known])
    model = task.build().requires_grad_(False)
    before = float(task.loss(model, batch)[0])

    def wrong(*args, known, **given):
        out = model(*args, known=known, **given)
        return torch.where(known[:, :, None, None, None] > 0, out + 100, out)

    assert float(task.loss(wrong, batch)[0]) == pytest.approx(before, rel=1e-4)
    end = student_path(model, batch, 1)[-1]
    assert torch.equal(end[known], batch["x"][known])


@pytest.mark.slow
def test_it_learns_the_path_and_leaves_the_teacher_alone(task, latents, tmp_path):
    """A path that speeds up: its two halves differ for the span or the time alone."""

    class Curved(DistillTask):
        def _velocity(self, x, t, batch):
            return 2 * (1 - t)[:, None, None, None, None] * batch["heart"][:, None]

    curved = Curved(DISTILL, task.folder, settings(), *latents)
    weights = {k: v.clone() for k, v in curved.teacher.state_dict().items()}
    cfg = dataclasses.replace(LOOP, steps=12, batch=3, lr=4e-3, ema=0.0, checkpoint_every=12)
    before = curved.validate(curved.build().eval())
    after = curved.validate(fit(curved, cfg, 0, tmp_path, NullRun(), "student"))
    assert after["loss"] < 0.6 * before["loss"]
    assert after["apart_1"] < 0.6 * before["apart_1"]
    assert all(torch.equal(v, weights[k]) for k, v in curved.teacher.state_dict().items())


def test_validation_compares_with_the_teachers_own_few_steps(task):
    numbers = task.validate(task.teacher)
    assert numbers == task.validate(task.teacher)
    assert numbers["teacher_apart_1"] > numbers["teacher_apart_2"] > 0
    batch = {k: v[:2] for k, v in task.clips.val.items()}
    far = (task.teacher_path(batch, 1)[-1] - task.teacher_path(batch, 4)[-1]).square().mean()
    assert numbers["teacher_apart_1"] == pytest.approx(float(far), rel=1e-4)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(task, latents, tmp_path):
    class Killed(Exception):
        pass

    class Dying(DistillTask):
        def loss(self, model, batch):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 3:
                raise Killed
            return super().loss(model, batch)

    whole = fit(task, LOOP, 0, tmp_path / "a", NullRun(), "t").state_dict()
    dying = Dying(DISTILL, task.folder, settings(), *latents)
    with pytest.raises(Killed):
        fit(dying, LOOP, 0, tmp_path / "b", NullRun(), "t")
    resumed = fit(task, LOOP, 0, tmp_path / "b", NullRun(), "t").state_dict()
    for name, value in whole.items():
        assert value.numpy().tobytes() == resumed[name].numpy().tobytes(), name


def test_a_student_folder_samples_at_its_steps_and_guidance_only(task, tmp_path):
    model = task.build()
    model.save(tmp_path)
    task.objective.save(tmp_path)
    DISTILL.student.save(tmp_path)
    assert read_student(tmp_path) == Student((1, 2), 2.0, 1.0)
    cfg = SampleVideosConfig(1, 0, 0, WINDOW, overlap=0, steps=2, guidance=2.0, precision="fp32")
    batch = batch_of(task)
    sampled = VideoSampler(tmp_path, cfg).denoised(
        batch["noise"], batch["heart"], batch["condition"]
    )
    with torch.no_grad():
        assert torch.allclose(sampled, student_path(model.eval(), batch, 2)[-1], atol=1e-4)
    for wrong in ({"steps": 4}, {"guidance": 3.0}, {"heart_guidance": 2.0}, {"sampler": "heun"}):
        with pytest.raises(EchosynError, match="distilled"):
            VideoSampler(tmp_path, dataclasses.replace(cfg, **wrong))


def test_workers_get_the_teachers_address_not_its_weights(task):
    assert task.teacher is task.teacher
    sent = pickle.dumps(task)
    assert len(sent) < 30_000
    batch = batch_of(task)
    copy = pickle.loads(sent)
    assert float(copy.loss(Straight(), batch)[0]) == float(task.loss(Straight(), batch)[0])


def test_teachers_that_cannot_be_distilled_are_refused(tmp_path, latents):
    plain = settings()
    folder = teacher(tmp_path / "v", latents, plain, DdpmV())
    with pytest.raises(EchosynError, match="'ddpm_v', but only the straight"):
        DistillTask(DISTILL, folder, plain, *latents)
    unet = UnetConfig((32, 32), 1, (False, True), (1, 1))
    published = TrainLvdmConfig(LOOP, unet=unet, window=WINDOW, layout="published")
    folder = tmp_path / "p"
    PublishedVideoDenoiser.create(unet, WINDOW, SIZE).save(folder)
    Flow().save(folder)
    with pytest.raises(EchosynError, match=r"set train_lvdm\.layout: own"):
        DistillTask(DISTILL, folder, published, *latents)
    folder = teacher(tmp_path / "t", latents, plain)
    with pytest.raises(EchosynError, match="train it again"):
        DistillTask(DISTILL, folder, settings(strides=(1, 2)), *latents)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": [1, 3]}, "teacher_steps 8 is not a multiple of 3"),
        ({"steps": [2, 2]}, "expected different numbers"),
        ({"steps": []}, "expected different numbers"),
        ({"steps": [0]}, "below the least allowed value 1"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    loop = {"steps": 1, "batch": 1, "lr": 1e-3}
    with pytest.raises(EchosynError, match=message):
        build(DistillConfig, {"loop": loop, "guidance": 1.0, **values}, "here")
