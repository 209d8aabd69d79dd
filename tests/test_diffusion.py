"""Objectives, guidance, windows: against closed forms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn.diffusion.condition import drop_condition, ef_condition
from echosyn.diffusion.generate import draw_ef
from echosyn.diffusion.objectives import DdpmV, Flow, load_objective, make_objective, time_samples
from echosyn.diffusion.sampling import (
    denoise,
    guided,
    sample_generators,
    sample_noise,
    window_starts,
    windowed,
)
from echosyn.errors import EchosynError


def test_flow_is_a_straight_line_with_constant_velocity():
    x, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    u = torch.tensor([0.0, 0.25, 1.0])
    noisy, target, t = Flow().noisy(x, noise, u)
    assert torch.equal(noisy[0], x[0])
    assert torch.equal(noisy[2], noise[2])
    assert torch.allclose(noisy[1], 0.75 * x[1] + 0.25 * noise[1])
    assert torch.allclose(target, noise - x)
    assert torch.equal(t, torch.tensor([0.0, 250.0, 1000.0]))


def test_ddpm_v_matches_salimans_and_ho_on_the_reference_schedule():
    x, noise = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)
    noisy, target, t = DdpmV().noisy(x, noise, torch.tensor([0.0, 0.5]))
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - betas)[[0, 500]]
    a = torch.tensor(np.sqrt(alpha_bar), dtype=torch.float32).view(2, 1, 1, 1)
    s = torch.tensor(np.sqrt(1 - alpha_bar), dtype=torch.float32).view(2, 1, 1, 1)
    assert t.tolist() == [0, 500]
    assert torch.allclose(noisy, a * x + s * noise, atol=1e-5)
    assert torch.allclose(target, a * noise - s * x, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "sampler"), [("flow", "euler"), ("flow", "heun"), ("ddpm_v", "dpmpp")]
)
def test_the_true_predictor_leads_every_sampler_to_the_data(name, sampler):
    """With the exact prediction for a single data point, sampling must land on that point."""
    objective = make_objective(name)
    point = torch.full((1, 4, 2, 2), 0.7)
    alpha_bar = torch.tensor(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)), dtype=torch.float32)

    def exact(x, t):
        if name == "flow":
            return (x - point) / (t / 1000)  # (x_t - x) / t = noise - x
        a, s = alpha_bar[t.long()].sqrt(), (1 - alpha_bar[t.long()]).sqrt()
        return a * (x - a * point) / s - s * point

    noise = sample_noise((4, 2, 2), sample_generators(0, [0]))
    out = denoise(exact, noise, objective.scheduler(sampler, 12))
    assert torch.allclose(out, point, atol=2e-2)


def test_a_sampler_of_the_other_objective_is_refused():
    with pytest.raises(EchosynError, match="use one of euler, heun"):
        Flow().scheduler("ddpm", 4)


def test_objective_survives_its_folder(tmp_path):
    for objective in (Flow(), DdpmV()):
        objective.save(tmp_path / objective.name)
        assert load_objective(tmp_path / objective.name).name == objective.name
    assert load_objective(tmp_path / "published").name == "ddpm_v"


def test_noise_depends_on_the_index_alone():
    together = sample_noise((3,), sample_generators(7, [0, 1, 2]))
    alone = sample_noise((3,), sample_generators(7, [2]))
    assert torch.equal(together[2], alone[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(alone, sample_noise((3,), sample_generators(8, [2])))


def test_ancestral_noise_depends_on_the_index_alone():
    def run(indices):
        generators = sample_generators(1, indices)
        noise = sample_noise((4, 2, 2), generators)
        scheduler = DdpmV().scheduler("ddpm", 5)
        return denoise(lambda x, t: torch.zeros_like(x), noise, scheduler, generators)

    assert torch.allclose(run([0, 1])[1], run([1])[0])


def test_guidance_extrapolates_from_the_unconditional_prediction():
    def model(x, t, heart, condition):
        return x * 0 + condition[:, :1, None, None]

    x, heart = torch.zeros(2, 4, 2, 2), torch.zeros(2, 4, 2, 2)
    condition = torch.tensor([[1.0, 1.0], [2.0, 1.0]])
    for scale in (0.0, 1.0, 2.5):
        out = guided(model, heart, condition, scale)(x, torch.tensor(500.0))
        assert torch.allclose(out[:, 0, 0, 0], scale * condition[:, 0])
    with pytest.raises(EchosynError, match="below 0"):
        guided(model, heart, condition, -1.0)


@given(st.integers(2, 12), st.integers(0, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_windows_cover_every_frame_and_end_flush(window, extra, data):
    overlap = data.draw(st.integers(0, window - 1))
    frames = window + extra
    starts = window_starts(frames, window, overlap)
    covered = {f for s in starts for f in range(s, s + window)}
    assert covered == set(range(frames))
    assert starts[-1] + window == frames
    assert all(b - a <= window - overlap for a, b in pairwise(starts))


def test_windows_refuse_what_they_cannot_cover():
    with pytest.raises(EchosynError, match="window is 16"):
        window_starts(10, 16, 4)
    with pytest.raises(EchosynError, match="overlap 16"):
        window_starts(20, 16, 16)


@given(st.integers(16, 60), st.integers(0, 15))
@settings(max_examples=40, deadline=None)
def test_blended_windows_agree_with_a_model_that_acts_frame_by_frame(frames, overlap):
    x = torch.randn(2, frames, 4, generator=torch.Generator().manual_seed(frames))
    blended = windowed(lambda x, t: 3 * x + t, 16, overlap)(x, torch.tensor(1.0))
    assert torch.allclose(blended, 3 * x + 1, atol=1e-5)


def test_blending_is_continuous_across_a_window_edge():
    """Two windows that predict 0 and 1 must be joined by a ramp, not by a step."""
    calls = iter([0.0, 1.0])

    def predict(x, t):
        return torch.full_like(x, next(calls))

    out = windowed(predict, 16, 8)(torch.zeros(1, 24, 1), torch.tensor(0.0))[0, :, 0]
    steps = out.diff()
    assert out[0] == 0
    assert out[-1] == 1
    assert steps.max() < 0.15
    assert (steps >= 0).all()


def test_missing_ef_differs_from_mean_ef():
    tokens = ef_condition(torch.tensor([55.0, 67.0]))
    assert tokens.tolist() == [[0.0, 1.0], [1.0, 1.0]]
    dropped = drop_condition(tokens, 1.0, torch.Generator())
    assert dropped.abs().sum() == 0
    assert torch.equal(drop_condition(tokens, 0.0, torch.Generator()), tokens)
    assert ef_condition(torch.tensor([50.0]), dim=1).tolist() == [[0.5]]


@pytest.mark.parametrize("ef", [-1.0, 101.0, float("nan")])
def test_impossible_ef_is_refused(ef):
    with pytest.raises(EchosynError, match="outside 0-100"):
        ef_condition(torch.tensor([50.0, ef]))


def test_drawn_ef_follows_the_distribution_asked_for():
    real = np.random.default_rng(0).normal(56, 8, 500)
    drawn = draw_ef("real", real, 400, seed=3)
    assert abs(drawn.mean() - real.mean()) < 0.5
    assert abs(drawn.std() - real.std()) < 0.5
    uniform = draw_ef("uniform", real, 400, seed=3)
    assert 10 <= uniform.min() < 11
    assert 89 < uniform.max() <= 90
    assert np.array_equal(drawn, draw_ef("real", real, 400, seed=3))
    assert not np.array_equal(drawn, np.sort(drawn))
    with pytest.raises(EchosynError, match="no TRAIN video has one"):
        draw_ef("real", np.array([np.nan]), 4, seed=0)


def test_a_time_shift_moves_the_median_as_a_logit():
    u = time_samples(4000, "logit_normal", torch.Generator().manual_seed(0), shift=1.5)
    assert u.median() == pytest.approx(1 / (1 + np.exp(-1.5)), abs=0.02)


def test_time_samples_stay_inside_the_unit_interval():
    for kind in ("uniform", "logit_normal"):
        u = time_samples(2000, kind, torch.Generator().manual_seed(0))
        assert 0 <= u.min() < 0.1
        assert 0.9 < u.max() < 1
