"""Objectives, guidance, windows: against closed forms."""

import math

import numpy as np
import pytest
import torch

from echosyn.diffusion.ef_draw import draw_ef
from echosyn.diffusion.objectives import DdpmV, Flow, load_objective, make_objective, time_samples
from echosyn.diffusion.sampling import (
    denoise,
    guidance_passes,
    guided,
    sample_generators,
    sample_noise,
)
from echosyn.models.condition import ConditionSpec
from echosyn.runtime.errors import EchosynError


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


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_samplers_of_flow_take_equal_steps_and_have_their_order(sampler, order):
    """dx/dt = -x from t = 1 to 0 multiplies x by e; half the step, 1 / 2^order of the error."""

    def end(steps):
        scheduler = make_objective("flow").scheduler(sampler, steps)
        levels = sorted(set(scheduler.sigmas.tolist()))
        assert np.diff(levels) == pytest.approx(np.full(steps, 1 / steps))
        return float(denoise(lambda x, t: -x, torch.ones(1, 1), scheduler))

    errors = [abs(end(n) - math.e) for n in (16, 32)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.15)


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
    assert not torch.equal(alone, sample_noise((3,), sample_generators(7, [2], stream=1)))


def test_ancestral_noise_depends_on_the_index_alone():
    def run(indices):
        generators = sample_generators(1, indices)
        noise = sample_noise((4, 2, 2), generators)
        scheduler = DdpmV().scheduler("ddpm", 5)
        return denoise(lambda x, t: torch.zeros_like(x), noise, scheduler, generators)

    assert torch.allclose(run([0, 1])[1], run([1])[0])


def test_guidance_extrapolates_from_the_unconditional_prediction():
    seen = []

    def model(x, t, heart, condition, start):
        seen.append(len(x))
        return x * 0 + condition[:, :1, None, None] + heart

    x, heart = torch.zeros(2, 4, 2, 2), torch.full((2, 4, 2, 2), 10.0)
    condition = torch.tensor([[1.0, 1.0], [2.0, 1.0]])
    none = torch.zeros_like(condition)
    for scale, heart_scale in ((0.0, 1.0), (1.0, 1.0), (2.5, 1.0), (1.0, 3.0), (2.5, 0.0)):
        predict = guided(model, heart, condition, none, scale, heart_scale)
        out = predict(x, torch.tensor(500.0))
        assert torch.allclose(out[:, 0, 0, 0], scale * condition[:, 0] + 10 * heart_scale)
        assert seen.pop() == 2 * guidance_passes(scale, heart_scale)
        three = predict(torch.zeros(6, 4, 2, 2), torch.tensor(500.0))  # parts of the same videos
        assert torch.equal(three, out.repeat(3, 1, 1, 1))
        seen.pop()
    assert [guidance_passes(*s) for s in ((1, 1), (3, 1), (1, 2), (3, 2))] == [1, 2, 3, 3]
    with pytest.raises(EchosynError, match="guidance scale -1"):
        guided(model, heart, condition, none, -1.0)
    with pytest.raises(EchosynError, match="heart's guidance scale -1"):
        guided(model, heart, condition, none, 1.0, -1.0)


def test_missing_ef_differs_from_mean_ef():
    spec = ConditionSpec()
    tokens = spec.rows(3, torch.tensor([55.0, 67.0, torch.nan]))
    assert tokens.tolist() == [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    dropped = spec.dropped(tokens, 1.0, torch.Generator())
    assert dropped.abs().sum() == 0
    assert torch.equal(spec.dropped(tokens, 0.0, torch.Generator()), tokens)
    assert ConditionSpec(published=True).rows(1, torch.tensor([50.0])).tolist() == [[0.5]]


def test_the_rate_outlives_a_dropped_label():
    spec = ConditionSpec(fps=True, classes=("PAH", "non-PAH"))
    rows = spec.rows(2, torch.tensor([55.0, 43.0]), 16.0, ["non-PAH", None])
    assert rows.tolist() == [[0.0, 1.0, -1.0, 0.0, 1.0], [-1.0, 1.0, -1.0, 0.0, 0.0]]
    assert spec.unlabelled(rows).tolist() == [[0.0, 0.0, -1.0, 0.0, 0.0]] * 2
    dropped = spec.dropped(rows.repeat(500, 1), 0.25, torch.Generator().manual_seed(0))
    assert (dropped[:, 1] == 0).float().mean() == pytest.approx(0.25, abs=0.04)
    assert (dropped[:, 2] == -1).all()


def test_a_condition_survives_its_folder_and_must_fit_the_network(tmp_path):
    spec = ConditionSpec(fps=True, classes=("a", "b"), ef_range=(21.5, 80.0))
    spec.save(tmp_path)
    assert ConditionSpec.load(tmp_path, 5) == spec
    with pytest.raises(EchosynError, match=r"takes 2 numbers .* describes 5"):
        ConditionSpec.load(tmp_path, 2)
    assert ConditionSpec.load(tmp_path / "published", 1).published


def test_efs_that_train_never_had_are_said():
    spec = ConditionSpec(ef_range=(21.5, 80.0))
    said = spec.beyond([10.0, 21.48, 50.0, 80.04, 85.5, np.nan])
    assert said.startswith("2 of 6 EFs asked for, 10 to 85.5, are outside the 21.5 to 80.0 percent")
    assert spec.beyond([21.46, 80.04]) == ConditionSpec().beyond([3.0]) == ""


@pytest.mark.parametrize("ef", [-1.0, 101.0, float("inf")])
def test_impossible_ef_is_refused(ef):
    with pytest.raises(EchosynError, match="outside 0-100"):
        ConditionSpec().rows(2, torch.tensor([50.0, ef]))


def test_what_a_model_never_learned_cannot_be_asked_for():
    with pytest.raises(EchosynError, match="trained without EF"):
        ConditionSpec(ef=False, classes=("a",)).rows(1, torch.tensor([50.0]))
    with pytest.raises(EchosynError, match=r"'PAH' is not one .* \(a\)"):
        ConditionSpec(classes=("a",)).rows(1, classes=["PAH"])
    with pytest.raises(EchosynError, match="trained without classes"):
        ConditionSpec().rows(1, classes=["PAH"])
    with pytest.raises(EchosynError, match="needs the frame rate"):
        ConditionSpec(fps=True).rows(1)


def test_min_snr_weights_are_hangs():
    assert Flow().weight(torch.tensor([3.0])) is None
    assert DdpmV().weight(torch.tensor([3])) is None
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[[0, 500, 999]]
    snr = alpha_bar / (1 - alpha_bar)
    wanted = np.minimum(snr, 5) / (snr + 1)
    weight = make_objective("ddpm_v", "min_snr").weight(torch.tensor([0, 500, 999]))
    assert np.allclose(weight, wanted, rtol=1e-3)


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
