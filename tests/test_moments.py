"""Drawn hearts get TRAIN's mean and spread, and those drawn later the same map."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from echosyn.diffusion.heart_file import Hearts
from echosyn.diffusion.hearts import finish_hearts, load_hearts
from echosyn.diffusion.moments import WIDEST, MomentMap
from echosyn.runtime.errors import EchosynError


def hearts(n: int, mean: float, sd: float, seed: int) -> torch.Tensor:
    noise = torch.randn(n, 4, 3, 3, generator=torch.Generator().manual_seed(seed))
    return mean + sd * noise


@given(st.floats(-3, 3), st.floats(0.6, 1.6), st.integers(0, 9))
def test_the_moments_are_those_of_real_hearts(mean, sd, seed):
    real, drawn = hearts(50, 0.3, 1.0, 100), hearts(40, mean, sd, seed)
    moved = MomentMap.of(drawn, real)(drawn)
    ratio = real.std(0) / drawn.std(0)
    inside = (ratio < WIDEST) & (ratio > 1 / WIDEST)
    torch.testing.assert_close(moved.mean(0), real.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved.std(0)[inside], real.std(0)[inside], atol=1e-4, rtol=1e-4)
    assert (moved - moved.mean(0)).mul(drawn - drawn.mean(0)).min() >= -1e-5  # each keeps its place


def test_nothing_is_stretched_without_bound():
    still = hearts(40, 0.0, 1e-9, 0)
    moved = MomentMap.of(still, hearts(40, 0.0, 1.0, 1))
    assert moved.scale.max() == WIDEST


def test_too_few_hearts_are_refused():
    with pytest.raises(EchosynError, match=r"needs 32 hearts.*and 31 are drawn"):
        MomentMap.of(hearts(31, 0, 1, 0), hearts(40, 0, 1, 1))
    with pytest.raises(EchosynError, match=r"and 20 are of TRAIN"):
        MomentMap.of(hearts(40, 0, 1, 0), hearts(20, 0, 1, 1))


def test_a_folder_of_hearts_keeps_the_map_for_those_drawn_later(tmp_path):
    (tmp_path / "shard").mkdir()
    drawn, real = hearts(40, 1.0, 1.5, 2), hearts(60, -0.5, 1.0, 3)
    Hearts(drawn, ef=torch.arange(40).double().numpy()).write(tmp_path / "shard/0.safetensors")
    finish_hearts([tmp_path / "shard"], tmp_path / "hearts", real)
    kept = MomentMap.load(tmp_path / "hearts")
    whole = load_hearts(tmp_path / "hearts")
    torch.testing.assert_close(whole.latents, kept(drawn))
    torch.testing.assert_close(whole.latents.mean(0), real.mean(0), atol=1e-5, rtol=1e-5)
    assert whole.ef.tolist() == list(range(40))
    finish_hearts([tmp_path / "shard"], tmp_path / "plain")
    assert MomentMap.load(tmp_path / "plain") is None
    torch.testing.assert_close(load_hearts(tmp_path / "plain").latents, drawn)
