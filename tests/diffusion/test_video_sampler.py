"""The video sampler with tiny untrained networks: what it asks of them, and what it refuses."""

import dataclasses

import pytest
import torch
from tiny_video import tiny_video

from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.objectives import make_objective
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.diffusion.student import Student
from echosyn.models.condition import ConditionSpec
from echosyn.models.image import ImageConfig, ImageDenoiser
from echosyn.runtime.errors import EchosynError

SIZES = ImageConfig(width=8, inner=16, inner_blocks=1, heads=1, embedding=16)
CFG = SampleVideosConfig(
    train=1, val=0, test=0, frames=12, steps=2, guidance=2.0, overlap=2, precision="fp32"
)
EF = torch.tensor([30.0, 60.0])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A video model that continues videos and knows its rate, and an image model beside it."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    spec = ConditionSpec(fps=True, classes=("a", "b"), beat=0.1)
    video = tiny_video(6, spec, continues=True)
    image = ImageDenoiser(SIZES, size=6)
    for name, model in (("lvdm", video), ("lidm", image)):
        model.save(root / name)
        make_objective("flow").save(root / name)
    return root


@pytest.fixture(scope="module")
def hearts():
    return torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def animate(folders, hearts, ef=EF, **settings):
    sampler = VideoSampler(folders / "lvdm", dataclasses.replace(CFG, **settings), folders / "lidm")
    return sampler, sampler.animate(hearts, ef, [0, 5], seed=3, classes=["a", "b"], fps=16.0)


@pytest.mark.parametrize("windows", ["blend", "shift", "continue", "discard"])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_what_goes_through_the_network_is_what_is_said(folders, hearts, windows, sampler):
    made = VideoSampler(
        folders / "lvdm", dataclasses.replace(CFG, windows=windows, sampler=sampler)
    )
    seen = []
    hook = made.model.register_forward_hook(lambda m, args, out: seen.append(args[0].shape))
    out = made.animate(hearts, EF, [0, 5], 3, ["a", "b"], 16.0)
    hook.remove()
    assert out.shape == (2, 12, 4, 6, 6)
    assert sum(shape[0] * shape[1] for shape in seen) == 2 * made.frame_passes()
    assert f"{made.frame_passes():,} frames through the network" in made.cost()


def test_a_continued_window_is_given_the_frames_before_it(folders, hearts):
    """They enter clean and marked, in both passes of guidance."""
    sampler = VideoSampler(folders / "lvdm", dataclasses.replace(CFG, windows="continue"))
    seen = []
    hook = sampler.model.register_forward_hook(
        lambda m, args, given, out: seen.append((args[0], args[4], given.get("known"))),
        with_kwargs=True,
    )
    out = sampler.animate(hearts, EF, [0, 5], 3, ["a", "b"], 16.0)
    hook.remove()
    (_, start, known), (x, later, given) = seen[0], seen[2]  # of two steps each
    assert known is None
    assert torch.equal(given.float(), torch.tensor([[1.0, 1, 0, 0, 0, 0]] * 4))
    assert torch.equal(x[:2, :2], out[:, 4:6])
    assert torch.equal(x[2:, :2], out[:, 4:6])
    assert (start.tolist(), later.tolist()) == ([0] * 4, [4] * 4)


@pytest.mark.slow
def test_every_condition_changes_the_video(folders, hearts):
    _, plain = animate(folders, hearts)
    assert torch.equal(plain, animate(folders, hearts)[1])
    sampler = VideoSampler(folders / "lvdm", CFG)
    ask = {"ef": EF, "classes": ["a", "b"], "fps": 16.0}
    beat = torch.tensor([[0.1, 0.3], [0.1, 0.3]])
    for change in (
        {"ef": None},
        {"classes": None},
        {"classes": ["b", "a"]},
        {"fps": 32.0},
        {"beat": beat},
        {"beat": beat * torch.nan},
    ):
        other = {**ask, **change}
        out = sampler.animate(hearts, other.pop("ef"), [0, 5], 3, **other)
        assert not torch.allclose(out, plain, atol=1e-4), change
    assert not torch.allclose(animate(folders, hearts, heart_guidance=2.0)[1], plain, atol=1e-4)


def test_the_image_model_acts_at_its_steps_alone(folders, hearts):
    """JVID with every step the image model's is every frame denoised by itself."""
    joint, out = animate(folders, hearts, image_steps=(0, 1))
    assert joint.frame_passes() == 0
    other, _ = animate(folders, hearts, image_steps=(1,))
    assert other.frame_passes() == animate(folders, hearts)[0].frame_passes() / 2
    x = joint.animate(hearts.flip(0), EF, [0, 5], 3, ["b", "a"], 16.0)
    assert torch.equal(x, out)  # it sees neither hearts nor labels


@pytest.mark.slow
def test_a_student_takes_the_steps_and_guidance_that_it_learned(folders, hearts, tmp_path):
    torch.manual_seed(1)
    spec = ConditionSpec()
    tiny_video(6, spec).student().save(tmp_path)
    make_objective("flow").save(tmp_path)
    Student((1, 2), 2.0, 1.0).save(tmp_path)
    sampler = VideoSampler(tmp_path, CFG)
    spans = []
    hook = sampler.model.register_forward_hook(
        lambda m, args, given, out: spans.append(given["span"].tolist()), with_kwargs=True
    )
    assert sampler.animate(hearts, EF, [0, 5], 3).shape == (2, 12, 4, 6, 6)
    hook.remove()
    rows = [x for s in spans for x in s]
    assert set(rows) == {0.5}  # half the path
    assert len(rows) == 2 * 3 * 2  # videos, windows, steps: one pass, without guidance
    for change, match in (
        ({"steps": 4}, "for 1, 2 steps, not for 4"),
        ({"guidance": 3.0}, "set guidance: 2 in sample_videos"),
        ({"heart_guidance": 2.0}, "set heart_guidance: 1"),
        ({"sampler": "heun"}, "'euler' only"),
    ):
        with pytest.raises(EchosynError, match=match):
            VideoSampler(tmp_path, dataclasses.replace(CFG, **change))
    with pytest.raises(EchosynError, match="needs a model trained with given frames"):
        VideoSampler(tmp_path, dataclasses.replace(CFG, windows="continue"))


def test_windows_beat_as_one_video(folders, hearts):
    """Each is conditioned on the phase of its own first frame."""
    sampler = VideoSampler(folders / "lvdm", dataclasses.replace(CFG, windows="shift"))
    phases, per_frame = [], sampler.model.spec.per_frame
    beat = torch.tensor([[0.05, 0.25]]).expand(2, 2)

    class Listening(ConditionSpec):
        def per_frame(self, rows, frames, start=None):
            made = per_frame(rows, frames, start)
            phases.append(made[0, :, -6:-4])
            return made

    sampler.model.spec = Listening(**vars(sampler.model.spec))
    sampler.animate(hearts, EF, [0, 5], 3, ["a", "b"], 16.0, beat)
    whole = torch.cat(phases[:2])  # both windows of the first step
    turn = 2 * torch.pi * (0.25 + 0.05 * torch.arange(12))
    assert torch.allclose(whole, torch.stack([turn.cos(), turn.sin()], 1), atol=1e-5)


def test_what_cannot_be_sampled_is_said(folders, hearts):
    sampler = VideoSampler(folders / "lvdm", CFG)
    with pytest.raises(EchosynError, match=r"trained on latents of \(4, 6, 6\)"):
        sampler.animate(torch.zeros(2, 4, 14, 14), EF, [0, 1], 0, fps=16.0)
    with pytest.raises(EchosynError, match="EF 101 is outside"):
        sampler.animate(hearts, torch.tensor([30.0, 101.0]), [0, 1], 0, fps=16.0)
    with pytest.raises(EchosynError, match="5 frames are asked for, but this model's window is 6"):
        VideoSampler(folders / "lvdm", dataclasses.replace(CFG, frames=5))
    joint = dataclasses.replace(CFG, image_steps=(0,))
    with pytest.raises(EchosynError, match="no image model does not share"):
        VideoSampler(folders / "lvdm", joint)
    with pytest.raises(EchosynError, match="use one of euler, heun"):
        VideoSampler(folders / "lvdm", dataclasses.replace(CFG, sampler="ddpm"))
