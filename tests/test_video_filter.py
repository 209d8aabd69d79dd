"""Exact search whatever the block, and the filter on finished videos on simulated people."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn.data.phantom import PhantomConfig, render_patient
from echosyn.errors import EchosynError
from echosyn.privacy.calibration import CalibrationConfig
from echosyn.privacy.copies import CopyConfig, CopyDetector
from echosyn.privacy.similarity import max_similarity, unit_rows
from echosyn.privacy.videos import (
    LOCAL_MATCHES,
    VIDEO_SCORES,
    VideoScores,
    calibrate_maxima,
    consecutive_rows,
    filter_videos,
    refused_share,
    score_videos,
)

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


@pytest.fixture(scope="module")
def phantom():
    cfg = PhantomConfig(train=6, val=3, test=1, frames=32)
    frames = np.stack([render_patient(i, cfg, 5).frames for i in range(9)])
    r = np.random.default_rng(0)
    rows = unit_rows(r.normal(size=(9 * 32, 8)), "cosine").reshape(9, 32, 8)
    return frames, rows


def test_a_video_scores_its_highest_frame(phantom):
    frames, rows = phantom
    train = frames[:6].reshape(-1, 112, 112)
    gallery = rows[:6].reshape(-1, 8)
    detector = CopyDetector(train, np.arange(len(train)), CopyConfig())
    videos = frames[6:, :8].copy()
    videos[1, 5] = frames[2, 17]  # one frame of pixels of one patient,
    mixed = rows[6:, :8].copy()
    mixed[2, 3] = rows[4, 9]  # one embedding of another
    scores = score_videos(mixed.reshape(-1, 8), videos.reshape(-1, 112, 112), gallery, detector, 8)
    expected = (mixed.reshape(-1, 8) @ gallery.T).max(1).reshape(3, 8).max(1)
    assert np.allclose(scores.similarity, expected, atol=1e-6)
    assert (scores.similar_row[2], scores.similar_frame[2]) == (4 * 32 + 9, 3)
    assert (scores.copied_row[1], scores.copied_frame[1]) == (2 * 32 + 17, 5)
    assert scores.ncc[1] > 0.999
    assert (scores.ncc[[0, 2]] < 0.95).all()
    assert (scores.frames, scores.comparisons) == (8, 192)
    halves = [
        score_videos(mixed[i].reshape(-1, 8), videos[i], gallery, detector, 8) for i in range(3)
    ]
    joined = VideoScores.join(halves)
    assert np.allclose(joined.ncc, scores.ncc, atol=1e-5)
    assert (joined.similar_row == scores.similar_row).all()


def test_scoring_refuses_counts_that_do_not_agree(phantom):
    frames, rows = phantom
    detector = CopyDetector(frames[0], np.arange(32), CopyConfig())
    x, y = rows[1], frames[1]
    with pytest.raises(EchosynError, match="31 embeddings of 32 frames"):
        score_videos(x[:31], y, rows[0], detector, 8)
    with pytest.raises(EchosynError, match="in videos of 5"):
        score_videos(x, y, rows[0], detector, 5)
    with pytest.raises(EchosynError, match="30 embeddings of TRAIN frames, but 32"):
        score_videos(x, y, rows[0][:30], detector, 8)


def test_consecutive_frames_of_the_videos_that_have_them():
    rows, kept = consecutive_rows(np.array([0, 10, 14]), np.array([10, 4, 7]), 6)
    assert kept.tolist() == [0, 2]
    assert rows.tolist() == [2, 3, 4, 5, 6, 7, 14, 15, 16, 17, 18, 19]


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
        whole % frames, np.zeros(n), np.zeros(n), np.zeros(n, bool), frames, comparisons,
    )  # fmt: skip
    return scores, np.repeat(np.arange(people), videos)


CFG = CalibrationConfig(false_rejection=0.1, resamples=300)


def test_calibration_gives_the_false_rejection_asked_for():
    rates, covered = [], 0
    for seed in range(20):
        calibration, people = simulated(300, 3 * seed)
        heldout, others = simulated(300, 3 * seed + 1)
        fresh, _ = simulated(300, 3 * seed + 2)
        result = filter_videos(fresh, calibration, people, heldout, others, CFG, 0)
        rates.append(1 - result.accepted.mean())
        covered += result.false_rejection.lo <= 0.1 <= result.false_rejection.hi
    # Independent detectors at 0.05 each refuse 0.0975 together; the rate is of 6,000 videos.
    assert 0.08 < np.mean(rates) < 0.11
    assert covered >= 15


def test_the_interval_resamples_people_not_videos():
    refused = np.repeat(np.random.default_rng(0).random(60) < 0.2, 20)
    people = np.repeat(np.arange(60), 20)
    by_person = refused_share(refused, people, 500, 0)
    by_video = refused_share(refused, np.arange(1200), 500, 0)
    assert by_person.value == by_video.value == refused.mean()
    assert by_person.hi - by_person.lo > 3 * (by_video.hi - by_video.lo)


def test_either_detector_refuses():
    calibration, people = simulated(200, 0)
    heldout, others = simulated(200, 1)
    synthetic, _ = simulated(50, 2, shift=-0.3)
    similarity, ncc = synthetic.similarity.copy(), synthetic.ncc.copy()
    similarity[3], ncc[7], similarity[9], ncc[9] = 0.99, 0.99, 0.99, 0.99
    planted = dataclasses.replace(synthetic, similarity=similarity, ncc=ncc)
    result = filter_videos(planted, calibration, people, heldout, others, CFG, 0)
    assert np.flatnonzero(~result.accepted).tolist() == [3, 7, 9]
    numbers = result.numbers()
    assert numbers["privacy_videos/rejected_by_similarity"] == pytest.approx(2 / 50)
    assert numbers["privacy_videos/rejected_by_ncc"] == pytest.approx(2 / 50)
    assert numbers["privacy_videos/rejection_rate"] == pytest.approx(3 / 50)
    assert numbers["privacy_videos/accepted"] == 47
    assert numbers["privacy_videos/false_rejection_calibrated"] == 0.1
    assert np.isfinite(list(numbers.values())).all()


def test_unequal_comparisons_are_refused():
    calibration, people = simulated(200, 0)
    heldout, others = simulated(200, 1)
    longer, _ = simulated(20, 2, frames=128)
    with pytest.raises(EchosynError, match="on 128 frames against 1000, calibration ones on 64"):
        filter_videos(longer, calibration, people, heldout, others, CFG, 0)
    fewer, _ = simulated(20, 2, comparisons=900)
    with pytest.raises(EchosynError, match="held-out ones on 64 against 900"):
        filter_videos(calibration, calibration, people, fewer, others, CFG, 0)
    with pytest.raises(EchosynError, match="both must agree"):
        VideoScores.join([calibration, longer])


def test_too_few_people_says_how_many_are_needed():
    scores, people = simulated(19, 0, videos=4)
    half = CalibrationConfig(false_rejection=0.05, resamples=100)
    with pytest.raises(EchosynError, match=r"19 held-out people.* needs 20"):
        calibrate_maxima(scores.ncc, people, 10, half, 0)
    enough, people = simulated(20, 0, videos=4)
    assert calibrate_maxima(enough.ncc, people, 10, half, 0).people == 20


def test_names_are_in_the_local_table_alone(tmp_path):
    calibration, people = simulated(200, 0)
    heldout, others = simulated(200, 1)
    synthetic, _ = simulated(30, 2)
    result = filter_videos(synthetic, calibration, people, heldout, others, CFG, 0)
    names = np.array([f"0X{i // 10:04X}" for i in range(1000)])
    result.write(tmp_path, names)
    public = (tmp_path / VIDEO_SCORES).read_text()
    assert "0X" not in public
    table = pd.read_csv(tmp_path / VIDEO_SCORES)
    assert list(table.columns) == ["kind", "similarity", "ncc", "accepted"]
    assert (table["kind"] == "synthetic").sum() == 30
    assert (table["kind"] == "heldout").sum() == 200
    assert (table["accepted"][:30] == result.accepted).all()
    local = pd.read_csv(tmp_path / LOCAL_MATCHES)
    assert local["similar_to"][12] == names[12]
    assert local["similar_to_frame"][12] == 2
    assert local["copy_of"][12] == names[84]
    assert sorted(p.name for p in tmp_path.iterdir()) == [LOCAL_MATCHES, VIDEO_SCORES]
