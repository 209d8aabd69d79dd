"""What benchmarks measure of generated videos: against closed forms."""

import numpy as np
import pytest
import torch

from benchmarks.video_quality import Judge, frame_set, seam_score
from echosyn.models.ef_regressor import EfRegressor
from echosyn.models.r2plus1d import R2Plus1d, R2Plus1dConfig
from echosyn.runtime.errors import EchosynError

FRAMES, FPS = 16, 16.0


def videos(n, seed, rate=1.0, size=32):
    """Rings that beat at `rate` Hz, n uint8 (20, size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2 + 0.5
    made = []
    for phase in rng.uniform(0, 2 * np.pi, n):
        t = np.arange(20)[:, None, None] / FPS
        radius = size / 4 * (1 + 0.3 * np.sin(2 * np.pi * rate * t + phase))
        ring = np.exp(-((np.hypot(x, y) - radius) ** 2) / 8)
        made.append((200 * ring + rng.uniform(0, 20, ring.shape)).astype(np.uint8))
    return made


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    """Two regressors of random weights."""
    folder = tmp_path_factory.mktemp("real")
    for k in range(2):
        torch.manual_seed(k)
        net = R2Plus1d(R2Plus1dConfig(widths=(8, 8), blocks=(1, 1)))
        EfRegressor(net, 50.0, 50.0, 12.0, FRAMES, FPS).save(folder / f"seed{k}")
    return folder


@pytest.fixture(scope="module")
def judge(arm):
    return Judge(frame_set(videos(24, 0), np.full(24, 50.0), FPS), arm, FRAMES, test_clips=2)


@pytest.mark.slow
def test_videos_of_the_same_kind_are_near_and_others_far(judge):
    near = judge.measure(videos(20, 1), np.linspace(30, 70, 20))
    far = judge.measure(videos(20, 1, rate=2.5), np.linspace(30, 70, 20))
    assert near.videos == 20
    assert near.kd_motion.lo < 0.05 * far.kd_motion.value
    assert far.kd_motion.lo > near.kd_motion.hi
    assert far.fd_motion.lo > near.fd_motion.hi
    negative = judge.measure([255 - v for v in videos(20, 1)], np.linspace(30, 70, 20))
    assert negative.kd_efnet.lo > near.kd_efnet.hi


def test_a_set_is_at_no_distance_from_itself(judge):
    numbers = judge.distances(judge.real)
    assert numbers["fd_motion"].value == pytest.approx(0, abs=1e-3)
    assert numbers["fd_efnet"].value == pytest.approx(0, abs=1e-3)
    assert numbers["kd_motion"].value <= 0  # unbiased: the pairs of a video with itself lie across


def test_ef_scores_are_those_of_what_the_regressors_see(judge, monkeypatch):
    asked = np.linspace(30, 70, 20)
    monkeypatch.setattr("benchmarks.video_quality.measure_ef", lambda arm, made, clips: 2 * made.ef)
    quality = judge.measure(videos(20, 1), asked)
    assert quality.r.value == pytest.approx(1)
    assert quality.slope.value == pytest.approx(2)
    assert quality.mae.value == pytest.approx(asked.mean())
    assert quality.mae.lo < quality.mae.value < quality.mae.hi


def test_videos_that_cannot_be_measured_are_refused(judge, arm):
    with pytest.raises(EchosynError, match="shortest video has 10"):
        judge.measure([v[:10] for v in videos(4, 1)], np.full(4, 50.0))
    with pytest.raises(EchosynError, match="at least two videos"):
        judge.distances(judge.real.take([0]))
    with pytest.raises(EchosynError, match="clips of 24 frames"):
        Judge(judge.real, arm, 24)


def test_frame_set_keeps_videos_apart():
    made = frame_set([np.full((k, 2, 2), k, np.uint8) for k in (3, 1, 2)], np.arange(3.0), FPS)
    assert made.lengths.tolist() == [3, 1, 2]
    assert all((made.video(i) == k).all() for i, k in enumerate((3, 1, 2)))
    assert made.take([2]).ef.tolist() == [2.0]


def test_seams_are_jumps_over_what_is_between_them():
    time = torch.arange(12.0).view(1, 12, 1, 1, 1).expand(5, -1, 4, 2, 2)  # 1 a frame
    assert seam_score(time, [4, 8]).value == pytest.approx(1)
    sign = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]).view(5, 1, 1, 1, 1)
    jumps = time + 3 * (torch.arange(12) >= 4).view(1, 12, 1, 1, 1)  # 1 + 3 at frame 4
    found = seam_score(sign * jumps, [4])
    assert found.value == pytest.approx(4)
    assert found.lo == pytest.approx(4)
    assert seam_score(jumps, [4, 8]).value == pytest.approx(2.5)
    assert seam_score(jumps, [8]).value == pytest.approx(1 / (1 + 3 / 10))


def test_the_seams_interval_holds_chance():
    noise = torch.randn(40, 12, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    found = seam_score(noise, [6])
    assert found.lo < 1 < found.hi
    assert found.hi - found.lo < 0.4


@pytest.mark.parametrize("seams", [[], [0], [12], list(range(1, 12))])
def test_seams_that_are_none_are_refused(seams):
    with pytest.raises(EchosynError, match="expected one or more"):
        seam_score(torch.zeros(2, 12, 4, 2, 2), seams)
