"""Pictures of a video model, with tiny untrained networks: each clip is what its label says."""

import io
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_video import tiny_video

from echosyn.diffusion.objectives import make_objective
from echosyn.diffusion.student import Student
from echosyn.models.condition import ConditionSpec
from echosyn.report.sweeps import EFS, STEPS, Sweeps, draw_sweeps

WINDOW, FRAMES = 4, 6


class FirstChannel:
    """In the codec's place: a frame is a latent's first channel, in steps of 0.1."""

    def decode(self, z):
        return (128 + 10 * z[:, 0]).clamp(0, 255).to(torch.uint8).numpy()


class OneVideo:
    """In a latent set's place: a video of FRAMES latents, EF 42."""

    def __init__(self, ef=42.0, classes=(None,)):
        self.lengths, self.ef, self.classes = np.array([FRAMES]), np.array([ef]), list(classes)
        self.table = pd.DataFrame({"FPS": [16.0]})
        generator = torch.Generator().manual_seed(1)
        self.z = torch.randn(FRAMES, 4, 6, 6, generator=generator)

    def mean(self, v, start, stop):
        return self.z[start:stop]

    def hearts(self, v, k):
        return self.z[:k]

    def __len__(self):
        return 1


class Nothing:
    def __len__(self):
        return 0


def model(folder, spec, objective="flow", student=None):
    torch.manual_seed(0)
    tiny_video(WINDOW, spec).save(folder)
    make_objective(objective).save(folder)
    if student:
        student.save(folder)
    return folder


def test_a_heart_at_every_ef_begins_with_the_real_clip(tmp_path):
    real = OneVideo()
    clips = Sweeps(model(tmp_path, ConditionSpec()), real, FirstChannel()).labels()
    assert [label for label, _ in clips] == ["real EF 42", *(f"EF {ef:.0f}" for ef in EFS)]
    assert np.array_equal(clips[0][1], FirstChannel().decode(real.z[:WINDOW]))
    made = [clip for _, clip in clips[1:]]
    assert all(clip.shape == (WINDOW, 6, 6) for clip in made)
    assert all((a != b).any() for a, b in pairwise(made)), "EF changes nothing"


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["flow", "ddpm_v"])
def test_more_steps_of_one_heart(tmp_path, objective):
    folder = model(tmp_path, ConditionSpec(), objective)
    clips = Sweeps(folder, OneVideo(), FirstChannel()).by_steps()
    assert [label for label, _ in clips[1:]] == ["1 step", *(f"{n} steps" for n in STEPS[1:])]
    assert (clips[1][1] != clips[-1][1]).any()


def test_a_student_shows_its_own_steps_alone(tmp_path):
    folder = model(tmp_path, ConditionSpec(), student=Student((2, 1), 3.0, 1.0))
    clips = Sweeps(folder, OneVideo(), FirstChannel()).by_steps()
    assert [label for label, _ in clips] == ["real EF 42", "1 step", "2 steps"]


@pytest.mark.slow
def test_classes_where_there_is_no_ef(tmp_path):
    spec = ConditionSpec(ef=False, classes=("PAH", "well"))
    real = OneVideo(ef=np.nan, classes=["PAH"])
    sweeps = Sweeps(model(tmp_path, spec), real, FirstChannel())
    assert [label for label, _ in sweeps.labels()] == ["real", "PAH", "well"]
    assert len(sweeps.by_steps()) == 1 + len(STEPS)


@pytest.mark.slow
def test_what_is_drawn_is_of_the_first_set_with_a_video(tmp_path, monkeypatch):
    monkeypatch.setattr("echosyn.report.sweeps.VideoCodec", lambda vae: FirstChannel())
    monkeypatch.setattr("echosyn.report.sweeps.Vae.load", lambda folder: None)
    folder = model(tmp_path / "model", ConditionSpec())
    draw_sweeps(folder, tmp_path, [Nothing(), OneVideo()], tmp_path / "out")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"labels.png", "labels.gif", "steps.png"}
    moving = Image.open(io.BytesIO((tmp_path / "out/labels.gif").read_bytes()))
    assert moving.n_frames == WINDOW
    assert Image.open(tmp_path / "out/steps.png").height > 6 * (1 + len(STEPS))
