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


def moments(x: torch.Tensor) -> torch.Tensor:
    """Mean and spread of each channel, over hearts and positions."""
    return torch.stack([x.mean((0, 2, 3)), x.var(0).log().mean((1, 2))])


@given(st.floats(-3, 3), st.floats(0.8, 1.4), st.integers(0, 9))
def test_each_channel_gets_the_mean_and_spread_of_real_hearts(mean, sd, seed):
    real, drawn = hearts(50, 0.3, 1.0, 100), hearts(40, mean, sd, seed)
    moved = MomentMap.of(drawn, real)(drawn)
    torch.testing.assert_close(moments(moved), moments(real), atol=1e-3, rtol=1e-3)
    assert (moved - moved.mean(0)).mul(drawn - drawn.mean(0)).min() >= -1e-5  # each keeps its place


@pytest.mark.parametrize(("n", "left"), [(400, 0.15), (12, 0.8)])
def test_positions_are_told_apart_as_far_as_the_hearts_tell_them(n, left):
    # Half of the positions are twice as bright and half as varied as the others.
    pattern = (torch.arange(9).reshape(3, 3) % 2).float()
    drawn = hearts(n, 0.0, 1.0, 5)
    real = hearts(n, 0.0, 1.0, 6) * (1 - 0.5 * pattern) + pattern
    gone = MomentMap.of(drawn, real)(drawn)
    even, odd = gone.mean(0)[:, pattern == 0].mean(), gone.mean(0)[:, pattern == 1].mean()
    assert abs(float(odd - even) - 1) < left
    chance = MomentMap.of(hearts(n, 0.0, 1.0, 7), hearts(n, 0.0, 1.0, 8))
    alone = hearts(n, 0.0, 1.0, 8).std(0) / hearts(n, 0.0, 1.0, 7).std(0)
    assert chance.scale.std() < 0.6 * alone.std()  # where nothing differs, less is distinguished


def test_nothing_is_stretched_without_bound():
    still = hearts(40, 0.0, 1e-9, 0)
    moved = MomentMap.of(still, hearts(40, 0.0, 1.0, 1))
    assert moved.scale.max() == WIDEST


def test_too_few_hearts_are_refused():
    with pytest.raises(EchosynError, match=r"needs 8 hearts.*and 7 are drawn"):
        MomentMap.of(hearts(7, 0, 1, 0), hearts(40, 0, 1, 1))
    with pytest.raises(EchosynError, match=r"and 4 are of TRAIN"):
        MomentMap.of(hearts(40, 0, 1, 0), hearts(4, 0, 1, 1))


def test_a_folder_of_hearts_keeps_the_map_for_those_drawn_later(tmp_path):
    (tmp_path / "shard").mkdir()
    drawn, real = hearts(40, 1.0, 1.5, 2), hearts(60, -0.5, 1.0, 3)
    Hearts(drawn, ef=torch.arange(40).double().numpy()).write(tmp_path / "shard/0.safetensors")
    finish_hearts([tmp_path / "shard"], tmp_path / "hearts", real)
    kept = MomentMap.load(tmp_path / "hearts")
    whole = load_hearts(tmp_path / "hearts")
    torch.testing.assert_close(whole.latents, kept(drawn))
    torch.testing.assert_close(moments(whole.latents), moments(real), atol=1e-3, rtol=1e-3)
    assert whole.ef.tolist() == list(range(40))
    finish_hearts([tmp_path / "shard"], tmp_path / "plain")
    assert MomentMap.load(tmp_path / "plain") is None
    torch.testing.assert_close(load_hearts(tmp_path / "plain").latents, drawn)
