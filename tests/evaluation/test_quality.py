"""Distances of a synthetic set with their floors, from videos to named numbers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from echosyn.data.frames import FrameSet
from echosyn.evaluation import EvaluateConfig, QualityEvaluation, Sets
from echosyn.evaluation.quality import PAIRS, clips_of
from echosyn.metrics.feature_cache import FeatureCache
from echosyn.metrics.features import RandomFeatures2d, RandomFeatures3d
from echosyn.models.ef_regressor import EfRegressor
from echosyn.models.r2plus1d import R2Plus1d, R2Plus1dConfig
from echosyn.runtime.errors import EchosynError

N, T, SIZE = 36, 20, 24
CONFIG = EvaluateConfig(quality_videos=N, frames_per_video=2, motion_frames=16)


def discs(n, seed, move=1.0, length=T, size=SIZE):
    """Videos of a disc that beats deeper the higher EF is, with speckle."""
    r = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    t = np.arange(length)[:, None, None]
    ef, clips = r.permutation(np.linspace(20, 70, n)), []
    for e in ef:
        radius = 7 * (1 - move * e / 200 * (1 - np.cos(2 * np.pi * t / 12 + r.uniform(0, 6))))
        edge = np.clip((np.hypot(x - size / 2, y - size / 2) - radius) / 2, -1, 1)
        clips.append((130 + 70 * edge) * (1 + 0.08 * r.normal(size=edge.shape)))
    data = np.clip(np.concatenate(clips), 0, 255).astype(np.uint8)
    table = pd.DataFrame({"FileName": [f"v{seed}-{i}" for i in range(n)], "EF": ef})
    return FrameSet(
        data, table, length * np.arange(n), np.full(n, length), 16.0,
        np.array([f"{seed}-{move}-{i}" for i in range(n)]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def regressor(tmp_path_factory):
    torch.manual_seed(0)
    config = R2Plus1dConfig(widths=(4,), blocks=(1,), stem_width=4, stem_stride=4, in_channels=1)
    folder = tmp_path_factory.mktemp("real") / "seed0"
    EfRegressor(R2Plus1d(config), 100.0, 50.0, 12.0, 16, 16.0).save(folder)
    return folder


class Over:
    """Computes in shards of five and remembers what was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, name, items, worker):
        self.asked.append(name)
        compute = worker()
        starts = range(0, items, 5)
        return np.concatenate([compute(range(i, min(i + 5, items))) for i in starts])


def measured(folder, regressor, sets, cfg=CONFIG):
    over = Over()
    quality = QualityEvaluation(cfg, 0, over, FeatureCache(folder))
    quality.measure(sets, regressor)
    return quality.numbers, over.asked


@pytest.fixture(scope="module")
def good(tmp_path_factory, regressor):
    """A generator that freezes half of the motion, on otherwise right pictures."""
    sets = Sets(discs(40, 1), discs(N, 2), discs(40, 3), discs(38, 4, move=0.3))
    folder = tmp_path_factory.mktemp("cache")
    return sets, folder, *measured(folder, regressor, sets)


@pytest.mark.slow
def test_every_distance_has_its_interval_and_its_references_at_the_same_n(good):
    _, _, numbers, _ = good
    bases = [
        f"quality/{kind}_{space}_n{n}x{n}"
        for kind in ("fd", "kd")
        for space, n in (("rand2d", 2 * N), ("rand3d_16f", N), ("efnet_16f", N), ("motion_16f", N))
    ]
    bases += [f"us/{k}" for k in ("snr", "axial_px", "lateral_px", "temporal", "spectrum_db")]
    for base in bases:
        for suffix in PAIRS:
            assert {f"{base}{suffix}{end}" for end in ("", "_lo", "_hi")} <= set(numbers), base
    for suffix in PAIRS:
        assert f"quality/precision_motion_16f_n{N}x{N}{suffix}" in numbers
        assert f"quality/kd_motion_16f_ef_conditional{suffix}" in numbers
        assert f"quality/fd_motion_16f_ef_conditional{suffix}" not in numbers
    bands = {k.split("_n")[1].split("_")[0] for k in numbers if "_ef_lt40_n" in k}
    assert len(bands) == 1, "a band and its floors use as many videos"
    for space in ("rand2d", "rand3d", "efnet", "motion"):
        assert len(numbers[f"protocol/{space}/extractor_sha256"]) == 64
        assert numbers[f"protocol/{space}/videos_per_side"] == str(N)


def test_motion_that_is_too_small_is_seen_where_motion_is_looked_at(good):
    _, _, numbers, _ = good
    base = f"quality/fd_motion_16f_n{N}x{N}"
    assert numbers[f"{base}_lo"] > 2 * numbers[f"{base}_floor_hi"]
    conditional = "quality/kd_motion_16f_ef_conditional"
    assert numbers[f"{conditional}_lo"] > numbers[f"{conditional}_floor_hi"]


@pytest.mark.slow
def test_a_second_evaluation_reads_features_unless_their_videos_changed(good, regressor):
    sets, folder, numbers, asked = good
    assert len([name for name in asked if name.startswith("ultrasound")]) == 4
    again, asked = measured(folder, regressor, sets)
    assert again == numbers
    assert {name.split("-")[0] for name in asked} == {"ultrasound"}
    other = Sets(sets.train, sets.test, sets.reconstructed, discs(38, 5))
    changed, asked = measured(folder, regressor, other)
    assert {n for n in asked if "ultra" not in n} == {
        f"{space}-synthetic" for space in ("rand2d", "rand3d", "efnet", "motion")
    }
    key = "quality/fd_rand2d_n72x72_floor"
    assert changed[key] == numbers[key]


@pytest.mark.slow
def test_a_copying_generator_is_nearer_to_train_than_to_test(tmp_path, regressor):
    train = discs(N, 1)
    sets = Sets(train, discs(N, 2), discs(N, 3), train)
    numbers, _ = measured(tmp_path, regressor, sets)
    base = f"quality/fd_motion_16f_n{N}x{N}"
    assert numbers[f"{base}_vs_train"] < 0.1 * numbers[base]


def test_videos_too_short_for_motion_leave_it_out_and_say_so(tmp_path, regressor):
    sets = Sets(*(discs(6, s, length=12) for s in range(4)))
    numbers, _ = measured(tmp_path, regressor, sets)
    assert numbers["protocol/motion/left_out"] == "the shortest video has 12 frames"
    assert not [k for k in numbers if "_motion_" in k]
    assert "quality/fd_rand3d_16f_n6x6" in numbers


def test_constant_videos_have_finite_numbers(tmp_path, regressor):
    still = discs(6, 4)
    still = replace(still, data=np.full_like(still.data, 90), content=np.array(list("abcdef")))
    numbers, _ = measured(tmp_path, regressor, Sets(discs(6, 1), discs(6, 2), discs(6, 3), still))
    values = [v for v in numbers.values() if not isinstance(v, str)]
    assert np.isfinite(values).all()
    assert numbers["quality/fd_motion_16f_n6x6"] > 10 * numbers["quality/fd_motion_16f_n6x6_floor"]


def test_sets_that_cannot_be_compared_are_refused(tmp_path, regressor):
    small = discs(6, 4, size=16)
    with pytest.raises(EchosynError, match=r"frames differ in size.*'synthetic': \(16, 16\)"):
        measured(tmp_path, regressor, Sets(discs(6, 1), discs(6, 2), discs(6, 3), small))
    with pytest.raises(EchosynError, match="at least two videos"):
        measured(tmp_path, regressor, Sets(discs(6, 1), discs(1, 2), discs(6, 3), discs(6, 4)))


def test_clips_are_drawn_within_the_video_and_frames_are_spread():
    videos = discs(5, 0)
    clips = clips_of(RandomFeatures3d(), videos, 1, seed=3)
    assert [c.video for c in clips] == list(range(5))
    assert all(np.array_equal(np.diff(c.frames), np.ones(15)) for c in clips)
    assert len({c.frames[0] for c in clips}) > 1
    assert max(c.frames[-1] for c in clips) < T
    frames = clips_of(RandomFeatures2d(), videos, 3, seed=3)
    assert [c.frames.tolist() for c in frames] == [[0, 10, 19]] * 5
