"""Exact search whatever the block, and the filter on finished videos on simulated people."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn.data.phantom import PhantomConfig, render_patient
from echosyn.privacy.detectors.copies import CopyConfig, CopyDetector
from echosyn.privacy.detectors.embedding import Gallery
from echosyn.privacy.detectors.similarity import max_similarity, unit_rows
from echosyn.privacy.filters.calibration import CalibrationConfig
from echosyn.privacy.filters.video_scores import (
    VideoFilterConfig,
    VideoScores,
    calibrate_videos,
    passes,
    score_videos,
)
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError

# ---- the search


def exact(q, g):
    """Products in double precision rounded once, and the first row that reaches the highest."""
    product = (q.astype(np.float64) @ g.astype(np.float64).T).astype(np.float32)
    return np.clip(product.max(1), -1, 1), product.argmax(1)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 60),
    st.integers(1, 40),
    st.sampled_from([1, 2, 5, 33]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_the_search_is_exact_whatever_the_block(n, m, block, d, crowded, seed):
    r = np.random.default_rng(seed)
    # Crowded: rows that single precision cannot tell apart, and equal ones.
    spread = 1e-7 if crowded else 1.0
    g = unit_rows(np.ones((m, d)) + spread * r.normal(size=(m, d)), "cosine")
    g = g[r.integers(0, m, m)]
    q = unit_rows(r.normal(size=(n, d)), "cosine")
    values, indices = max_similarity(q, g, block)
    expected, first = exact(q, g)
    assert values.dtype == np.float32
    assert (values == expected).all()
    assert (indices == first).all()


@pytest.mark.slow
def test_blocks_agree_to_the_last_bit_on_many_rows():
    r = np.random.default_rng(0)
    g = unit_rows(r.normal(size=(3000, 128)), "cosine")
    g[1500:] = g[:1500]
    q = np.concatenate([unit_rows(r.normal(size=(500, 128)), "cosine"), g[::31]])
    expected = max_similarity(q, g, 1024)
    assert (expected[1] < 1500).all()
    for block in (7, 100, 5000):
        found = max_similarity(q, g, block)
        assert (found[0] == expected[0]).all()
        assert (found[1] == expected[1]).all()


def test_a_row_that_is_not_finite_is_refused_not_accepted():
    x = np.eye(3, dtype=np.float32)
    bad = x.copy()
    bad[1, 0] = np.nan
    with pytest.raises(EchosynError, match="query 1 is not finite"):
        max_similarity(bad, x)
    with pytest.raises(EchosynError, match="gallery row 1 is not finite"):
        max_similarity(x, bad)


# ---- scores of videos


def rows_of(latents):
    """An encoder that reads a latent (N, 8, 1, 1) as its embedding, up to length."""
    return unit_rows(latents.flatten(1).numpy(), "cosine")


def as_latents(rows):
    return torch.from_numpy(rows.reshape(-1, 8, 1, 1))


def gallery_of(rows, mirror=False):
    flat = rows.reshape(-1, 8)
    return Gallery(rows_of, flat, np.arange(len(flat)) // 32, mirror)


@pytest.fixture(scope="module")
def phantom():
    cfg = PhantomConfig(train=6, val=3, test=1, frames=32)
    frames = np.stack([render_patient(i, cfg, 5).frames for i in range(9)])
    r = np.random.default_rng(0)
    rows = unit_rows(r.normal(size=(9 * 32, 8)), "cosine").reshape(9, 32, 8)
    return frames, rows


@pytest.fixture(scope="module")
def detector(phantom):
    train = phantom[0][:6].reshape(-1, 112, 112)
    return CopyDetector(train, np.arange(len(train)), CopyConfig())


def test_a_video_scores_its_highest_frame(phantom, detector):
    frames, rows = phantom
    gallery = gallery_of(rows[:6])
    videos = frames[6:, :8].copy()
    videos[1, 5] = frames[2, 17]  # one frame of pixels of one patient,
    mixed = rows[6:, :8].copy()
    mixed[2, 3] = rows[4, 9]  # one embedding of another
    scores = score_videos(
        as_latents(mixed), videos.reshape(-1, 112, 112), [8, 8, 8], gallery, detector
    )
    expected = (mixed.reshape(-1, 8) @ gallery.rows.T).max(1).reshape(3, 8).max(1)
    assert np.allclose(scores.similarity, expected, atol=1e-6)
    assert (scores.similar_row[2], scores.similar_frame[2]) == (4 * 32 + 9, 3)
    assert (scores.copied_row[1], scores.copied_frame[1]) == (2 * 32 + 17, 5)
    assert scores.ncc[1] > 0.999
    assert (scores.ncc[[0, 2]] < 0.95).all()
    assert (scores.frames.tolist(), scores.comparisons) == ([8, 8, 8], 192)
    apart = [
        score_videos(as_latents(mixed[i]), videos[i], [8], gallery, detector) for i in range(3)
    ]
    joined = VideoScores.join(apart)
    assert np.allclose(joined.ncc, scores.ncc, atol=1e-5)
    assert (joined.similar_row == scores.similar_row).all()


def test_videos_of_other_lengths_keep_their_own_frames(phantom, detector):
    frames, rows = phantom
    gallery = gallery_of(rows[:6])
    lengths, video = [5, 11, 3], frames[7, :19].copy()
    video[5 + 10] = frames[1, 3]  # the last frame of the middle video
    latents = rows[7, :19].copy()
    latents[16] = rows[0, 2]  # the first frame of the last one
    scores = score_videos(as_latents(latents), video, lengths, gallery, detector)
    assert scores.frames.tolist() == lengths
    assert (scores.copied_row[1], scores.copied_frame[1]) == (32 + 3, 10)
    assert (scores.similar_row[2], scores.similar_frame[2]) == (2, 0)


def test_a_video_is_as_high_as_its_highest_window(phantom, detector):
    frames, rows = phantom
    gallery = gallery_of(rows[:6])
    latents, video = as_latents(rows[8]), frames[8].copy()
    video[30] = frames[3, 8]
    whole = score_videos(latents, video, [32], gallery, detector)
    starts = [0, 12, 20]  # windows of 12, the last one flush with the end
    windows = VideoScores.join(
        [
            score_videos(latents[a : a + 12], video[a : a + 12], [12], gallery, detector)
            for a in starts
        ]
    )
    assert whole.ncc[0] == pytest.approx(windows.ncc.max(), abs=1e-5)
    assert windows.ncc.argmax() == 2
    assert whole.similarity[0] == pytest.approx(windows.similarity.max(), abs=1e-6)


def test_a_mirrored_embedding_is_found_where_mirrors_are_looked_at(phantom, detector):
    frames, rows = phantom
    lying = torch.from_numpy(rows[7, :4].reshape(4, 1, 1, 8))
    lying[2, 0, 0] = torch.from_numpy(rows[3, 5, ::-1].copy())
    for mirror, found in ((True, 1.0), (False, None)):
        scores = score_videos(lying, frames[7, :4], [4], gallery_of(rows[:6], mirror), detector)
        if found:
            assert scores.similarity[0] == pytest.approx(found, abs=1e-6)
            assert (scores.similar_row[0], scores.similar_frame[0]) == (3 * 32 + 5, 2)
        else:
            assert scores.similarity[0] < 0.99


def test_scoring_refuses_counts_that_do_not_agree(phantom, detector):
    frames, rows = phantom
    x, y, gallery = as_latents(rows[7]), frames[7], gallery_of(rows[:6])
    with pytest.raises(EchosynError, match="31 latents and 32 frames"):
        score_videos(x[:31], y, [32], gallery, detector)
    with pytest.raises(EchosynError, match="of 2 videos with 31 frames in all"):
        score_videos(x, y, [16, 15], gallery, detector)
    with pytest.raises(EchosynError, match="160 embeddings of TRAIN frames, but 192"):
        score_videos(x, y, [32], gallery_of(rows[:5]), detector)


def test_scores_survive_the_disk(tmp_path):
    scores, _ = simulated(7, 0)
    scores.save(tmp_path / "scores.npz")
    back = VideoScores.load(tmp_path / "scores.npz")
    assert back.comparisons == scores.comparisons
    for name, values in vars(scores).items():
        assert np.array_equal(getattr(back, name), values), name


# ---- decisions


def simulated(people, seed, videos=1, shift=0.0, frames=64, comparisons=1000):
    """Scores of `videos` videos each of `people` people, alike within a person."""
    r = np.random.default_rng(seed)
    n = people * videos

    def draw():
        own = np.repeat(r.normal(size=people), videos) + 0.3 * r.normal(size=n)
        return (0.6 + 0.05 * own + shift).astype(np.float32)

    whole = np.arange(n)
    scores = VideoScores(
        draw(), draw(), whole % comparisons, whole % frames, (whole * 7) % comparisons,
        whole % frames, np.zeros(n), np.zeros(n), np.zeros(n, bool), np.full(n, frames),
        comparisons,
    )  # fmt: skip
    return scores, np.repeat(np.arange(people), videos)


CFG = CalibrationConfig(false_rejection=0.1, resamples=300)


def test_calibration_gives_the_false_rejection_asked_for():
    rates, covered = [], 0
    for seed in range(20):
        calibration, people = simulated(300, 3 * seed)
        heldout, others = simulated(300, 3 * seed + 1)
        fresh, _ = simulated(300, 3 * seed + 2)
        result = calibrate_videos(calibration, people, heldout, others, CFG, 0)
        rates.append(1 - passes(fresh, result.taus).mean())
        covered += result.false_rejection.lo <= 0.1 <= result.false_rejection.hi
    # Independent detectors at 0.05 each refuse 0.0975 together; the rate is of 6,000 videos.
    assert 0.08 < np.mean(rates) < 0.11
    assert covered >= 19


def test_the_interval_holds_the_luck_of_those_who_set_the_taus():
    cfg, covered, widths = dataclasses.replace(CFG, false_rejection=0.05), 0, []
    for seed in range(40):
        calibration, people = simulated(40, 2 * seed)
        heldout, others = simulated(40, 2 * seed + 1)
        rate = calibrate_videos(calibration, people, heldout, others, cfg, seed).false_rejection
        assert rate.lo <= rate.value <= rate.hi
        covered += rate.lo <= 0.05 <= rate.hi
        widths.append(rate.hi - rate.lo)
    assert covered >= 36
    assert np.median(widths) < 0.3


def test_a_broken_promise_is_seen():
    calibration, people = simulated(300, 0)
    heldout, others = simulated(300, 1, shift=0.03)
    rate = calibrate_videos(calibration, people, heldout, others, CFG, 0).false_rejection
    assert rate.lo > 0.1


def test_either_detector_refuses():
    calibration, people = simulated(200, 0)
    heldout, others = simulated(200, 1)
    synthetic, _ = simulated(50, 2, shift=-0.3)
    similarity, ncc = synthetic.similarity.copy(), synthetic.ncc.copy()
    similarity[3], ncc[7], similarity[9], ncc[9] = 0.99, 0.99, 0.99, 0.99
    planted = dataclasses.replace(synthetic, similarity=similarity, ncc=ncc)
    result = calibrate_videos(calibration, people, heldout, others, CFG, 0)
    assert np.flatnonzero(~passes(planted, result.taus)).tolist() == [3, 7, 9]
    numbers = result.numbers()
    assert numbers["privacy_videos/false_rejection_calibrated"] == 0.1
    assert numbers["privacy_videos/frames"] == 64
    assert numbers["privacy_videos/calibration_people"] == 200
    assert np.isfinite(list(numbers.values())).all()


def test_a_tau_itself_is_refused():
    scores, _ = simulated(3, 0)
    taus = {"similarity": float(scores.similarity[1]), "ncc": 2.0}
    assert not passes(scores, taus)[1]


def test_unequal_comparisons_are_refused():
    calibration, people = simulated(200, 0)
    longer, others = simulated(200, 1, frames=128)
    with pytest.raises(EchosynError, match=r"held-out windows of \[64, 128\] frames"):
        calibrate_videos(calibration, people, longer, others, CFG, 0)
    fewer, others = simulated(200, 1, comparisons=900)
    with pytest.raises(EchosynError, match="against 1000 TRAIN frames, held-out ones against 900"):
        calibrate_videos(calibration, people, fewer, others, CFG, 0)
    with pytest.raises(EchosynError, match="both must agree"):
        VideoScores.join([calibration, fewer])


def test_too_few_people_says_how_many_are_needed():
    scores, people = simulated(19, 0, videos=4)
    heldout, others = simulated(30, 1)
    with pytest.raises(EchosynError, match=r"19 held-out people.* needs 20"):
        calibrate_videos(scores, people, heldout, others, CFG, 0)
    scores, people = simulated(20, 0, videos=4)
    result = calibrate_videos(scores, people, heldout, others, CFG, 0)
    assert result.calibrations["ncc"].people == 20
    assert result.people == 30


def test_the_reference_s_rule_is_of_hearts_alone():
    with pytest.raises(EchosynError, match="the reference filters hearts alone"):
        build(VideoFilterConfig, {"calibration": {"rule": "reference"}}, "filter_videos")
    assert build(VideoFilterConfig, {"calibration": {}}, "filter_videos").frames == 64
