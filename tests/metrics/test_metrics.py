"""Metrics against closed forms, other libraries and brute force."""

import json

import cv2
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import structural_similarity_index_measure

from echosyn.metrics.ef import ef_scores, requested_vs_measured
from echosyn.metrics.features import EfNet, RandomFeatures2d, RandomFeatures3d, distance_name
from echosyn.metrics.frechet import frechet_distance, frechet_from_moments, frechet_interval
from echosyn.metrics.image import psnr_db, ssim
from echosyn.metrics.interval import Estimate, blocks_of, percentile_interval, resample_counts
from echosyn.metrics.kernel import kernel_distance
from echosyn.metrics.prdc import prdc
from echosyn.metrics.roc import Roc, auc_interval
from echosyn.models.r2plus1d import SMALL, R2Plus1d
from echosyn.runtime.errors import EchosynError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def gaussian(n: int, d: int, seed: int, mean: float = 0.0) -> np.ndarray:
    r = rng(seed)
    return r.normal(size=(n, d)) @ r.normal(size=(d, d)) / np.sqrt(d) + mean


def beating_discs(n: int, seed: int) -> np.ndarray:
    """Clips (n, 16, 48, 48): a dark disc on a bright, speckled ground, that grows and shrinks."""
    r = rng(seed)
    y, x = np.mgrid[:48, :48]
    t = np.arange(16)[:, None, None]
    clips = []
    for _ in range(n):
        cx, cy = r.uniform(18, 30, 2)
        radius = r.uniform(7, 11) * (
            1 + r.uniform(0.1, 0.3) * np.sin(np.pi * t / 6 + r.uniform(0, 6))
        )
        edge = np.clip((np.hypot(x - cx, y - cy) - radius) / 2, -1, 1)
        clips.append((130 + 70 * edge) * (1 + 0.05 * r.normal(size=edge.shape)))
    return np.clip(np.array(clips), 0, 255).astype(np.uint8)


# ---- Frechet


def sqrtm_distance(a: np.ndarray, b: np.ndarray) -> float:
    s1, s2 = np.cov(a.T, ddof=0), np.cov(b.T, ddof=0)
    root = scipy.linalg.sqrtm(s1 @ s2).real
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(s1 + s2 - 2 * root)


def test_frechet_agrees_with_sqrtm():
    a, b = gaussian(300, 24, 1), gaussian(260, 24, 2, mean=0.3)
    assert frechet_distance(a, b) == pytest.approx(sqrtm_distance(a, b), rel=1e-6)


def test_frechet_closed_form_for_diagonal_gaussians():
    mu1, mu2 = np.array([0.0, 1.0, -2.0]), np.array([1.0, 1.0, 0.0])
    v1, v2 = np.array([1.0, 4.0, 9.0]), np.array([4.0, 4.0, 1.0])
    expected = 5.0 + np.sum((np.sqrt(v1) - np.sqrt(v2)) ** 2)
    assert frechet_from_moments(mu1, np.diag(v1), mu2, np.diag(v2)) == pytest.approx(expected, 1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 12), st.integers(0, 10**6))
def test_frechet_any_shape_and_rank(n, m, d, seed):
    a, b = rng(seed).normal(size=(n, d)), rng(seed + 1).normal(size=(m, d))
    value = frechet_distance(a, b)
    assert value == pytest.approx(frechet_distance(b, a), rel=1e-9, abs=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-7)
    # A constant feature and a repeated one make both covariances singular and change nothing else.
    constant = [np.hstack([x, np.full((len(x), 1), 3.0)]) for x in (a, b)]
    assert frechet_distance(*constant) == pytest.approx(value, rel=1e-7, abs=1e-7)
    twice = [np.hstack([x, x]) for x in (a, b)]
    assert frechet_distance(*twice) == pytest.approx(2 * value, rel=1e-7, abs=1e-7)
    # Moving one of two sets of equal mean adds the squared move.
    shift = b - b.mean(0) + a.mean(0)
    assert frechet_distance(a, shift + 2.0) == pytest.approx(
        frechet_distance(a, shift) + 4.0 * d, rel=1e-7
    )


def test_frechet_with_fewer_rows_than_features_is_exact():
    # Rotate 3-d Gaussians into 50 dimensions: 20 rows, rank 3, the distance of the 3-d ones.
    a, b = gaussian(20, 3, 1), gaussian(18, 3, 2, mean=1.0)
    turn = np.linalg.qr(rng(3).normal(size=(50, 50)))[0][:3]
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(sqrtm_distance(a, b), rel=1e-6)


def test_frechet_interval_brackets_the_population_value():
    # N(0, I) against N(1, I) in 4 dimensions: exactly 4, plus a bias of order D / N.
    inside = 0
    for seed in range(20):
        r = rng(seed)
        e = frechet_interval(r.normal(size=(400, 4)), r.normal(size=(400, 4)) + 1.0)
        inside += e.lo <= 4.0 <= e.hi
        assert e.hi - e.lo < 2
    assert inside >= 16


def test_frechet_interval_keeps_videos_together():
    videos = rng(0).normal(size=(40, 3))
    frames = np.repeat(videos, 10, axis=0)
    groups = np.repeat(np.arange(40), 10)
    other = rng(1).normal(size=(400, 3)) + 2
    naive = frechet_interval(frames[np.argsort(rng(2).random(400))], other)
    honest = frechet_interval(frames, other, real_groups=groups)
    assert honest.hi - honest.lo > 1.3 * (naive.hi - naive.lo)


@pytest.mark.parametrize(
    ("real", "match"),
    [
        (np.zeros((0, 3)), "real features: expected a table"),
        (np.zeros(3), "expected a table"),
        (np.array([[0, 1, np.nan]]), "row 0 is not finite"),
        (np.zeros((2, 4)), "width 4 and 3"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(real, match):
    with pytest.raises(EchosynError, match=match):
        frechet_distance(real, np.zeros((2, 3)))


# ---- kernel distance


def test_kernel_distance_is_the_formula(monkeypatch):
    monkeypatch.setattr("echosyn.metrics.kernel.TILE", 7)
    a, b = gaussian(20, 5, 1), gaussian(17, 5, 2)

    def k(x, y):
        return (x @ y.T / 5 + 1) ** 3

    n, m = len(a), len(b)
    xx = (k(a, a).sum() - np.trace(k(a, a))) / (n * (n - 1))
    yy = (k(b, b).sum() - np.trace(k(b, b))) / (m * (m - 1))
    assert kernel_distance(a, b).value == pytest.approx(xx + yy - 2 * k(a, b).mean(), rel=1e-10)


def test_kernel_distance_is_unbiased_at_small_n_and_its_interval_covers():
    values, covered = [], 0
    for seed in range(60):
        r = rng(seed)
        e = kernel_distance(r.normal(size=(40, 8)), r.normal(size=(40, 8)))
        values.append(e.value)
        covered += e.lo <= 0 <= e.hi
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    assert covered >= 52
    assert kernel_distance(rng(0).normal(size=(40, 8)), rng(1).normal(size=(40, 8)) + 1).lo > 0


def test_kernel_distance_leaves_out_pairs_within_a_video():
    a = np.repeat(rng(0).normal(size=(30, 6)), 5, axis=0)
    b = np.repeat(rng(1).normal(size=(30, 6)), 5, axis=0)
    groups = np.repeat(np.arange(30), 5)
    one_each = kernel_distance(a[::5], b[::5]).value
    assert kernel_distance(a, b, groups, groups).value == pytest.approx(one_each, rel=1e-9)
    assert kernel_distance(a, b).value > one_each + 0.01


# ---- intervals


def test_counts_are_draws_and_do_not_depend_on_chunks(monkeypatch):
    whole = np.concatenate(list(resample_counts(7, 50, seed=3)))
    monkeypatch.setattr("echosyn.metrics.interval.CELLS", 30)
    assert np.array_equal(np.concatenate(list(resample_counts(7, 50, seed=3))), whole)
    assert whole.shape == (50, 7)
    assert (whole.sum(1) == 7).all()
    assert not np.array_equal(next(resample_counts(7, 50, seed=4)), whole[:4])


def test_blocks_hold_whole_groups():
    groups = np.array(["b", "b", "a", "c", "c", "a", "d"])
    assert blocks_of(groups, 2).tolist() == [0, 0, 1, 0, 0, 1, 1]


def test_an_estimate_writes_only_what_was_measured():
    assert Estimate(0.5, 0.4, 0.6).flat("ef/real/r2") == {
        "ef/real/r2": 0.5,
        "ef/real/r2_lo": 0.4,
        "ef/real/r2_hi": 0.6,
    }
    assert Estimate(0.5, float("nan"), float("nan")).flat("x") == {"x": 0.5}
    json.dumps(Estimate(float("nan"), 0.0, float("inf")).flat("x"), allow_nan=False)
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()


# ---- EF


def test_ef_scores_by_hand():
    scores = ef_scores(np.array([40.0, 50, 60]), np.array([42.0, 50, 56]), seed=0, resamples=100)
    assert scores["mae"].value == pytest.approx(2.0)
    assert scores["rmse"].value == pytest.approx(np.sqrt(20 / 3))
    assert scores["r2"].value == pytest.approx(1 - 20 / 200)


def test_ef_bootstrap_equals_the_loop():
    r = rng(0)
    t = r.uniform(20, 80, 60)
    p = t + r.normal(0, 6, 60)
    made = ef_scores(t, p, seed=5, resamples=400)
    r2, mae = [], []
    for counts in next(resample_counts(60, 400, seed=5)):
        i = np.repeat(np.arange(60), counts.astype(int))
        r2.append(1 - np.sum((p[i] - t[i]) ** 2) / np.sum((t[i] - t[i].mean()) ** 2))
        mae.append(np.abs(p[i] - t[i]).mean())
    assert (made["r2"].lo, made["r2"].hi) == pytest.approx(tuple(np.quantile(r2, [0.025, 0.975])))
    assert (made["mae"].lo, made["mae"].hi) == pytest.approx(
        tuple(np.quantile(mae, [0.025, 0.975]))
    )
    assert ef_scores(t, p, seed=5, resamples=400) == made
    assert ef_scores(t, p, seed=6, resamples=400) != made


def test_requested_vs_measured_on_a_known_line():
    x = np.linspace(20, 80, 41)
    scores = requested_vs_measured(x, 0.5 * x + 10, seed=0, resamples=200)
    assert scores["r"].value == pytest.approx(1)
    assert scores["slope"].value == pytest.approx(0.5)
    error = np.sum((0.5 * x - 10) ** 2)
    assert scores["r2"].value == pytest.approx(1 - error / np.sum((x - x.mean()) ** 2))
    assert scores["slope"].lo == pytest.approx(0.5)
    noisy = requested_vs_measured(x, x + rng(0).normal(0, 8, 41), seed=0, resamples=2000)
    assert noisy["slope"].lo < 1 < noisy["slope"].hi
    assert noisy["r"].value == pytest.approx(np.corrcoef(x, x + rng(0).normal(0, 8, 41))[0, 1])


def test_constant_ef_has_errors_but_no_r2():
    scores = ef_scores(np.full(5, 55.0), np.full(5, 57.0), seed=0, resamples=50)
    assert np.isnan(scores["r2"].value)
    assert scores["r2"].flat("r2") == {}
    assert scores["mae"].value == pytest.approx(2)


@pytest.mark.parametrize(
    ("true", "predicted"), [([], []), ([1.0], [1.0, 2.0]), ([1.0, np.nan], [1.0, 1.0])]
)
def test_ef_refuses_what_does_not_pair(true, predicted):
    with pytest.raises(EchosynError, match="true EF"):
        ef_scores(np.array(true), np.array(predicted), seed=0)


# ---- ROC


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
)
def test_auc_counts_pairs_and_eer_is_symmetric(positive, negative):
    p, n = np.array(positive, float), np.array(negative, float)
    pairs = (p[:, None] > n).mean() + (p[:, None] == n).mean() / 2
    roc = Roc(p, n)
    assert roc.auc() == pytest.approx(pairs)
    assert roc.eer() == pytest.approx(Roc(-n, -p).eer())
    # Weights are repetitions.
    w = rng(len(p)).integers(1, 4, len(p))
    assert roc.auc(w, np.ones(len(n))) == pytest.approx(Roc(np.repeat(p, w), n).auc())
    assert roc.eer(w, np.ones(len(n))) == pytest.approx(Roc(np.repeat(p, w), n).eer())


def test_eer_by_hand():
    assert Roc(np.array([3.0, 4]), np.array([1.0, 2])).eer() == 0
    assert Roc(np.array([1.0, 1]), np.array([1.0, 1])).eer() == pytest.approx(0.5)
    # Threshold between 2 and 3 refuses 1 of 4 positives and accepts 1 of 4 negatives.
    assert Roc(np.array([1.0, 4, 5, 6]), np.array([0.0, 1.5, 2, 7])).eer() == pytest.approx(0.25)


def test_auc_interval_covers_and_narrows():
    true = 0.7602  # Phi(1 / sqrt 2)
    wide = auc_interval(rng(1).normal(1, 1, 60), rng(2).normal(0, 1, 80), seed=0)
    narrow = auc_interval(rng(1).normal(1, 1, 600), rng(2).normal(0, 1, 800), seed=0)
    for e in (wide, narrow):
        assert e.lo < true < e.hi
    assert narrow.hi - narrow.lo < (wide.hi - wide.lo) / 2
    with pytest.raises(EchosynError, match="negative scores"):
        Roc(np.array([1.0]), np.array([]))


# ---- images


def test_psnr_by_hand():
    a = np.full((2, 8, 8), 100, np.uint8)
    b = a.copy()
    b[0] += 10
    assert psnr_db(a, b) == pytest.approx(10 * np.log10(255**2 / 50))
    assert psnr_db(a, a) == float("inf")


def test_ssim_agrees_with_torchmetrics():
    r = rng(0)
    a = r.integers(0, 256, (3, 40, 32), dtype=np.uint8)
    b = np.clip(a + r.normal(0, 40, a.shape), 0, 255).astype(np.uint8)
    _, theirs = structural_similarity_index_measure(
        *(torch.tensor(x, dtype=torch.float64)[:, None] for x in (a, b)),
        data_range=255.0,
        return_full_image=True,
    )
    # Theirs mirrors the border; inside it both follow the paper.
    assert ssim(a, b) == pytest.approx(theirs[..., 5:-5, 5:-5].mean().item(), abs=1e-6)
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)


def test_videos_that_do_not_pair_are_refused():
    v = np.zeros((2, 16, 16), np.uint8)
    for other, match in ((v[:1], "equal"), (v.astype(float), "uint8")):
        with pytest.raises(EchosynError, match=match):
            psnr_db(v, other)
    with pytest.raises(EchosynError, match="at least 11"):
        ssim(v[:, :8], v[:, :8])


# ---- feature spaces


def test_random_weights_are_pinned():
    # Numbers measured with these weights compare only with each other: a change must be noticed.
    assert RandomFeatures2d().sha256[:16] == "a66cd7b675b7acd4"
    assert RandomFeatures3d().sha256[:16] == "b72539a441529d84"


def test_features_do_not_depend_on_other_videos():
    clips = beating_discs(10, 0)
    for space, x in ((RandomFeatures2d(), clips[:, 0]), (RandomFeatures3d(), clips)):
        features = space(x)
        assert features.shape == (10, 64)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
        assert np.allclose(space(x[3:4]), features[3:4], atol=1e-5)
        assert np.allclose(space(x[::-1]), features[::-1], atol=1e-5)


def test_rand2d_orders_blur():
    space = RandomFeatures2d()
    a, b = beating_discs(60, 1)[:, 0], beating_discs(60, 2)[:, 0]
    blurred = [np.stack([cv2.GaussianBlur(x, (0, 0), s) for x in b]) for s in (0.7, 1.5, 3.0)]
    distances = [frechet_distance(space(a), space(x)) for x in (b, *blurred)]
    assert distances == sorted(distances)
    assert distances[-1] > 3 * distances[0]


def test_rand3d_sees_motion():
    space = RandomFeatures3d()
    a, b = beating_discs(48, 1), beating_discs(48, 2)
    real = space(a)
    floor = frechet_distance(real, space(b))
    frozen = np.repeat(b[:, :1], 16, 1)
    shuffled = b[:, rng(0).permutation(16)]
    slower = b[:, np.arange(16) // 2]
    assert frechet_distance(real, space(frozen)) > 10 * floor
    assert frechet_distance(real, space(shuffled)) > 5 * floor
    assert frechet_distance(real, space(slower)) > 1.5 * floor
    assert kernel_distance(real, space(b)).lo < 0 < kernel_distance(real, space(frozen)).lo


def test_efnet_is_the_regressors_features():
    torch.manual_seed(0)
    model = R2Plus1d(SMALL).eval()
    space = EfNet(model, 8, (100.0,), (50.0,))
    clips = beating_discs(9, 3)[:, :8]
    with torch.no_grad():
        expected = model.features((torch.tensor(clips).float()[:, None] - 100) / 50)
    assert np.allclose(space(clips), expected.numpy(), atol=1e-4)
    assert distance_name("fd", space, 9, 5) == "fd_efnet_8f_n9x5"
    with pytest.raises(EchosynError, match="16 frames; efnet takes 8f"):
        space(beating_discs(1, 0))


def test_names_state_the_protocol():
    assert distance_name("fd", RandomFeatures2d(), 2000, 1500) == "fd_rand2d_n2000x1500"
    assert distance_name("kd", RandomFeatures3d(), 128, 96) == "kd_rand3d_16f_n128x96"


@pytest.mark.parametrize(
    "frames",
    [np.zeros((2, 48, 48)), np.zeros((2, 8, 8), np.uint8), np.zeros((48, 48), np.uint8)],
)
def test_frames_of_another_kind_are_refused(frames):
    with pytest.raises(EchosynError, match="expected uint8 frames"):
        RandomFeatures2d()(frames)


# ---- precision, recall, density, coverage


def test_prdc_tells_collapse_from_noise():
    real = rng(0).normal(size=(200, 4))
    same = prdc(real, rng(1).normal(size=(200, 4)))
    assert min(same["precision"], same["recall"], same["coverage"]) > 0.8
    assert same["density"] == pytest.approx(1, abs=0.15)
    collapsed = prdc(real, 0.05 * rng(1).normal(size=(200, 4)))
    assert collapsed["precision"] == 1
    assert collapsed["coverage"] < 0.2
    assert collapsed["recall"] < 0.05
    far = prdc(real, rng(1).normal(size=(200, 4)) + 20)
    assert far == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}
    with pytest.raises(EchosynError, match="more than k = 5"):
        prdc(real[:5], real)


def test_prdc_by_hand():
    real = np.array([[0.0], [1.0], [3.0]])  # nearest other: 1, 1, 2
    fake = np.array([[0.5], [4.5], [9.0]])  # nearest other: 4, 4, 4.5
    assert prdc(real, fake, k=1) == pytest.approx(
        {"precision": 2 / 3, "recall": 1.0, "density": 1.0, "coverage": 1.0}
    )
