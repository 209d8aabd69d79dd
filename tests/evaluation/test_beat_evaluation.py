"""The beat of synthetic videos beside that of real ones: rates, movement, what cannot be had."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.video_quality import frame_set
from echosyn.beat.lv_area import LvArea, load_area, save_area
from echosyn.data.latents import LatentSet, pack, write_index, write_shard
from echosyn.evaluation.beat import BeatEvaluation, off_numbers, rate_numbers, ratio
from echosyn.runtime.errors import EchosynError

FPS = 16.0


def beating(rate, frames=32, size=0.3, phase=0.1):
    """Latents (T, 4, 4, 4) whose mean beats."""
    turn = 2 * np.pi * (phase + rate / 60 * np.arange(frames) / FPS)
    curve = torch.from_numpy(size * (np.cos(turn) + 0.3 * np.cos(2 * turn + 0.4))).float()
    return curve[:, None, None, None].expand(-1, 4, 4, 4).contiguous()


class Codec:
    """Frames that are latents, 128 being 0 and a grey level 0.01."""

    def encode(self, frames):
        mean = (torch.from_numpy(frames.astype(np.float32)) - 128) / 100
        return mean[:, None].expand(-1, 4, -1, -1), None


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x.mean((1, 2, 3))


def real_set(folder, rates, size=0.3):
    latents = {f"r{i}": pack(z := beating(r, size=size), z * 0) for i, r in enumerate(rates)}
    folder.mkdir()
    write_shard(folder / "s.safetensors", latents)
    rows = [(name, 50.0, "TEST", FPS, 32, "s.safetensors") for name in latents]
    columns = ["FileName", "EF", "Split", "FPS", "NumberOfFrames", "Shard"]
    write_index(folder, pd.DataFrame(rows, columns=columns))
    return LatentSet(folder, "TEST")


def made_set(rates, size=0.3, asked=None, frames=28):
    videos = [
        (beating(r, frames, size)[:, 0].numpy() * 100 + 128).round().astype(np.uint8) for r in rates
    ]
    made = frame_set(videos, np.full(len(rates), 50.0), FPS)
    if asked is not None:
        made.table["HeartRate"] = asked
    return made


@pytest.fixture
def measure(tmp_path):
    def run(real, made, area=None):
        evaluation = BeatEvaluation(Codec(), tmp_path / "no", 200, 0)
        evaluation.area = area
        return evaluation.measure(real, made)

    return run


def test_rates_and_movement_are_those_of_the_videos(tmp_path, measure):
    rates = [60.0, 75.0, 90.0, 105.0]
    real = real_set(tmp_path / "z", rates)
    asked = np.array(rates) * 1.1
    same = measure(real, made_set(rates, asked=asked), Mean())
    for key in ("rate_q25", "rate_median", "rate_q75", "sure"):
        assert same[f"beat/{key}"] == pytest.approx(same[f"beat/{key}_real"], abs=1.5)
    assert same["beat/rate_median"] == pytest.approx(82.5, abs=1)
    assert same["beat/rate_off"] == pytest.approx(100 - 100 / 1.1, abs=1)
    assert same["beat/motion"] == pytest.approx(1.0, abs=0.02)
    assert same["beat/motion_lo"] <= same["beat/motion"] <= same["beat/motion_hi"]
    damped = measure(real, made_set([r / 1.5 for r in rates], size=0.15), Mean())
    assert damped["beat/motion"] == pytest.approx(0.25, abs=0.06)
    assert damped["beat/rate_median"] < 0.75 * damped["beat/rate_median_real"]
    assert "beat/rate_off" not in damped  # no rate was asked for


def test_without_tracings_there_is_movement_alone(tmp_path, measure):
    numbers = measure(real_set(tmp_path / "z", [70.0, 80.0]), made_set([70.0, 80.0]))
    assert set(numbers) == {"beat/motion", "beat/motion_lo", "beat/motion_hi"}


def test_videos_that_do_not_beat_have_no_rate(tmp_path, measure):
    still = measure(real_set(tmp_path / "z", [70.0, 80.0]), made_set([70.0] * 3, size=0), Mean())
    assert still["beat/sure"] == 0
    assert "beat/rate_median" not in still
    assert still["beat/motion"] == 0


def test_numbers_of_none_are_left_out():
    assert rate_numbers(np.array([np.nan]), "_real") == {"beat/sure_real": 0.0}
    assert off_numbers(np.array([np.nan, 60.0]), np.array([60.0, np.nan])) == {}
    wide = ratio(np.array([1.0, 3.0]), np.array([2.0, 2.0]), 500, 0)
    assert (wide.value, wide.lo, wide.hi) == (1.0, 0.5, 1.5)


def test_the_area_network_comes_back_from_its_folder(tmp_path):
    torch.manual_seed(0)
    made = LvArea(8, 6).eval()
    save_area(tmp_path, made, 8, 6)
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        assert torch.equal(load_area(tmp_path)(x), made(x))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(EchosynError, match=r"model\.safetensors does not exist"):
        load_area(tmp_path)
    assert load_area(tmp_path / "no") is None
