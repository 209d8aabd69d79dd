"""Privacy: similarity, tau, the audits and coverage, against brute force and simulation."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn.models.reid import build_reid
from echosyn.privacy.attacks.membership import membership_auc, nearest_per_person
from echosyn.privacy.coverage.learned_fraction import learned_fraction, nearest_videos
from echosyn.privacy.detectors.embedding import Gallery, HeartEncoder, people_of
from echosyn.privacy.detectors.similarity import max_similarity, unit_rows
from echosyn.privacy.detectors.verification import verification_scores
from echosyn.privacy.filters.calibration import (
    CalibrationConfig,
    accepted,
    calibrate_maxima,
    calibrate_reference,
    read_taus,
    save_taus,
)
from echosyn.runtime.errors import EchosynError


def people_embeddings(
    people: int, frames: int, seed: int, d: int = 16, spread: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings around one random direction per person, and the person of each."""
    r = np.random.default_rng(seed)
    centres = np.repeat(r.normal(size=(people, d)), frames, axis=0)
    rows = unit_rows(centres + spread * r.normal(size=centres.shape), "cosine")
    return rows, np.repeat(np.arange(people), frames)


# ---- similarity


def test_unit_rows_make_cosine_and_pearson():
    x = np.random.default_rng(0).random((5, 9))
    cosine, pearson = unit_rows(x, "cosine"), unit_rows(x, "pearson")
    assert np.allclose(pearson @ pearson.T, np.corrcoef(x), atol=1e-6)
    length = np.linalg.norm(x, axis=1)
    assert np.allclose(cosine @ cosine.T, x @ x.T / np.outer(length, length), atol=1e-6)


def test_a_row_without_direction_is_similar_to_nothing():
    flat = unit_rows(np.array([[0.1, 0.1, 0.1], [1.0, 0.0, 0.0]]), "pearson")
    assert (flat[0] == 0).all()
    assert (unit_rows(np.zeros((1, 3)), "cosine") == 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 7), st.integers(0, 10**6))
def test_max_similarity_is_brute_force_for_any_block(n, m, block, seed):
    r = np.random.default_rng(seed)
    q, g = (unit_rows(r.integers(-1, 2, (k, 3)), "cosine") for k in (n, m))
    values, indices = max_similarity(q, g, block)
    product = q @ g.T
    assert np.allclose(values, product.max(1), atol=1e-6)
    assert np.allclose(product[np.arange(n), indices], product.max(1), atol=1e-6)


def test_the_first_of_equals_is_named():
    g = np.array([[0.0, 1], [1, 0], [1, 0], [1, 0]], np.float32)
    _, indices = max_similarity(g[3:], g, block=2)
    assert indices.tolist() == [1]


def test_memory_does_not_grow_with_the_product():
    q, _ = people_embeddings(3000, 1, 0, d=8)
    g, _ = people_embeddings(4000, 1, 1, d=8)
    tracemalloc.start()
    max_similarity(q, g, block=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 4000 * 4 / 20


def test_sides_that_cannot_be_compared_are_refused():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(EchosynError, match="0 queries and 2 gallery"):
        max_similarity(x[:0], x)
    with pytest.raises(EchosynError, match="width 3, gallery of 2"):
        max_similarity(x, x[:, :2])
    with pytest.raises(EchosynError, match="embedding 1 is not finite"):
        unit_rows(np.array([[1.0, 2], [np.inf, 0]]), "cosine")


def test_embedding_is_the_same_alone_and_with_others():
    model = build_reid({"widths": [8, 16], "embedding": 8})
    x = torch.randn(10, 4, 14, 14, generator=torch.Generator().manual_seed(0))
    together = HeartEncoder(model, batch=4)(x)
    assert np.allclose(together[7:8], HeartEncoder(model)(x[7:8]), atol=1e-5)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_a_mirrored_heart_is_as_near_as_the_heart(planted):
    latents, encoder = planted
    rows = encoder(latents)
    for mirror in (True, False):
        gallery = Gallery(encoder, rows, np.arange(60), mirror)
        similarity, row = gallery.nearest(latents.flip(-1))
        assert (similarity.min() > 0.9999) == mirror
        assert (row == np.arange(60)).all() == mirror
    plain = max_similarity(encoder(latents), rows)
    kept = Gallery(encoder, rows, np.arange(60), False).nearest(latents)
    assert all(np.array_equal(a, b) for a, b in zip(kept, plain, strict=True))


def test_people_without_a_patient_are_their_videos():
    class Set:
        table = pd.DataFrame(
            {"FileName": ["v1", "v2", "v3", "v4"], "Patient": ["a", None, "v2", "a"]}
        )

    names = people_of(Set())
    assert len(set(names)) == 3
    assert names[0] == names[3] == "a"
    Set.table = Set.table.drop(columns="Patient")
    assert len(set(people_of(Set()))) == 4


# ---- calibration


def calibrate(heldout, people, gallery, cfg, seed):
    maxima, _ = max_similarity(heldout, gallery)
    return calibrate_maxima(maxima, people, len(gallery), cfg, seed)


def test_tau_refuses_the_stated_share_of_the_heldout():
    gallery, _ = people_embeddings(300, 4, 0)
    heldout, people = people_embeddings(200, 5, 1)
    cfg = CalibrationConfig(false_rejection=0.05, resamples=200)
    c = calibrate(heldout, people, gallery, cfg, seed=0)
    refused = np.mean(~accepted(c.similarities, c.tau.value))
    assert 0.04 < refused <= 0.05
    assert c.tau.lo < c.tau.value < c.tau.hi
    assert (c.comparisons, c.hearts, c.people) == (1200, 1000, 200)
    again = calibrate(heldout, people, gallery, cfg, seed=0)
    assert again.tau == c.tau


def test_symmetric_tau_keeps_its_promise_where_the_references_does_not():
    # Hearts of new people, none a copy: what is refused is refused by chance.
    train, _ = people_embeddings(1500, 1, 0)
    heldout, people = people_embeddings(250, 1, 1)
    fresh, _ = people_embeddings(2000, 1, 2)
    cfg = CalibrationConfig(false_rejection=0.05, resamples=100)
    similarity, _ = max_similarity(fresh, train)
    taus = (
        calibrate(heldout, people, train, cfg, 0).tau.value,
        calibrate_reference(train, heldout, cfg, 0).tau.value,
    )
    ours, theirs = (1 - accepted(similarity, tau).mean() for tau in taus)
    assert 0.02 < ours < 0.09
    assert theirs > 2 * ours


def test_reference_tau_is_its_percentile():
    train, _ = people_embeddings(400, 1, 0)
    test, _ = people_embeddings(80, 1, 1)
    c = calibrate_reference(train, test, CalibrationConfig(resamples=100), 0)
    # Their code is numpy.percentile, which interpolates.
    assert c.tau.value == pytest.approx(np.percentile((train @ test.T).max(1), 95), abs=1e-7)
    assert c.comparisons == 80


def test_the_interval_resamples_people_not_frames():
    gallery, _ = people_embeddings(200, 1, 0)
    heldout, people = people_embeddings(60, 20, 1, spread=0.02)
    cfg = CalibrationConfig(resamples=500)
    by_person = calibrate(heldout, people, gallery, cfg, 0).tau
    by_frame = calibrate(heldout, np.arange(len(people)), gallery, cfg, 0).tau
    assert by_person.value == by_frame.value
    assert by_person.hi - by_person.lo > 2 * (by_frame.hi - by_frame.lo)


def test_equal_similarities_are_refused_together():
    gallery = np.eye(3, dtype=np.float32)
    heldout = np.eye(3, dtype=np.float32)[[0] * 10] * np.repeat([1.0, 0.5], 5)[:, None]
    c = calibrate(
        heldout.astype(np.float32),
        np.arange(10),
        gallery,
        CalibrationConfig(false_rejection=0.3),
        0,
    )
    # Five ones: refusing any refuses half, so the safe side is the highest value.
    assert c.tau.value == 1.0


def test_tau_needs_people():
    maxima = np.linspace(0, 1, 40)
    cfg = CalibrationConfig(false_rejection=0.05, resamples=100)
    with pytest.raises(EchosynError, match=r"19 held-out people .* needs 20: hold out more"):
        calibrate_maxima(maxima, np.arange(40) % 19, 9, cfg, 0)
    assert calibrate_maxima(maxima, np.arange(40) % 20, 9, cfg, 0).people == 20


def test_a_tau_is_kept_with_what_it_was_calibrated_on(tmp_path):
    maxima, path = np.linspace(0, 1, 40), tmp_path / "calibration.json"
    c = calibrate_maxima(maxima, np.arange(40), 9, CalibrationConfig(resamples=100), 0)
    made = {"encoder": "a1", "latents": "b2", "mirror": True}
    save_taus(path, {"hearts": c}, made)
    assert read_taus(path, made) == {"hearts": c.tau}
    for other in ({"encoder": "zz"}, {"latents": "zz"}, {"mirror": False}):
        with pytest.raises(EchosynError, match=f"with {next(iter(other))} .* run the privacy"):
            read_taus(path, {**made, **other})
    with pytest.raises(EchosynError, match="does not exist"):
        read_taus(tmp_path / "none.json", made)


# ---- audits


@pytest.fixture(scope="module")
def planted():
    torch.manual_seed(0)
    model = build_reid({"widths": [8, 16], "embedding": 16})
    latents = torch.randn(60, 4, 14, 14, generator=torch.Generator().manual_seed(1))
    return latents, HeartEncoder(model)


def test_membership_is_a_coin_toss_unless_the_release_copies():
    members, member_people = people_embeddings(120, 2, 0)
    others, other_people = people_embeddings(120, 2, 1)
    independent, _ = people_embeddings(200, 1, 2)
    args = (members, member_people, others, other_people)
    safe = membership_auc(*args, independent, seed=0)
    assert safe.lo < 0.5 < safe.hi
    copied = membership_auc(*args, np.concatenate([independent, members[::4]]), seed=0)
    assert copied.lo > 0.6


def test_a_person_scores_by_the_nearest_heart():
    released = np.array([[1.0, 0.0]], np.float32)
    hearts = unit_rows(np.array([[1.0, 1], [0, 1], [1, 0], [-1, 0]]), "cosine")
    scores = nearest_per_person(hearts, np.array(["b", "b", "a", "a"]), released)
    assert scores == pytest.approx([1.0, np.sqrt(0.5)])


# ---- coverage


def test_nearest_videos_names_the_video():
    gallery = np.eye(3, dtype=np.float32)
    videos = np.array(["x", "y", "y"])
    assert nearest_videos(gallery[[2, 0, 1]], gallery, videos).tolist() == ["y", "x", "y"]


def test_learned_fraction_counts_distinct_videos():
    e = learned_fraction(np.array(["a", "b", "a", "c"]), videos=10, seed=0)
    assert e.value == pytest.approx(0.3)
    assert 0 <= e.lo <= e.value <= e.hi <= 1


def test_rarefaction_is_the_mean_over_subsets():
    r = np.random.default_rng(0)
    nearest = np.minimum(r.geometric(0.15, 60), 20)
    subsets = [len(np.unique(r.choice(nearest, 25, replace=False))) for _ in range(4000)]
    e = learned_fraction(nearest, videos=20, seed=0, at=25)
    assert e.value == pytest.approx(np.mean(subsets) / 20, abs=0.005)


@pytest.mark.parametrize(("videos", "queries"), [(100, 60), (100, 400), (400, 150)])
def test_learned_fraction_interval_covers_repeated_draws(videos, queries):
    r = np.random.default_rng(1)
    p = r.exponential(size=videos) ** 2
    p /= p.sum()
    expected = np.sum(1 - (1 - p) ** queries) / videos
    covered = 0
    for seed in range(60):
        nearest = r.choice(videos, queries, p=p)
        e = learned_fraction(nearest, videos, seed=seed, resamples=200)
        covered += e.lo <= expected <= e.hi
    assert covered >= 48


def test_coverage_refuses_impossible_counts():
    with pytest.raises(EchosynError, match="at 5 queries, of 3"):
        learned_fraction(np.arange(3), 10, 0, at=5)
    with pytest.raises(EchosynError, match="3 distinct videos retrieved from a gallery of 2"):
        learned_fraction(np.arange(3), 2, 0)
    with pytest.raises(EchosynError, match="of 0 that exist"):
        learned_fraction(np.array([]), 2, 0)


# ---- verification


def test_verification_counts_all_pairs():
    x, people = people_embeddings(6, 3, 0, d=4, spread=0.8)
    scores = verification_scores(x, people, seed=0, resamples=50)
    i, j = np.triu_indices(18, 1)
    similarity = (x @ x.T)[i, j]
    same = people[i] == people[j]
    p, n = similarity[same], similarity[~same]
    assert scores["auc"].value == pytest.approx((p[:, None] > n).mean())
    assert scores["auc"].lo < scores["auc"].value < scores["auc"].hi


def test_verification_tells_separable_people_from_chance():
    good = verification_scores(*people_embeddings(40, 4, 0, spread=0.05), seed=0, resamples=20)
    assert good["auc"].value > 0.999
    assert good["eer"].value < 0.01
    x, people = people_embeddings(160, 1, 0)
    none = verification_scores(x, people // 4, seed=0, resamples=50)
    assert none["auc"].lo < 0.5 < none["auc"].hi
    assert none["eer"].value == pytest.approx(0.5, abs=0.06)


def test_sampled_pairs_estimate_all_pairs():
    x, people = people_embeddings(60, 6, 0, spread=1.0)
    everything = verification_scores(x, people, seed=0, resamples=10)
    sampled = verification_scores(x, people, seed=0, max_pairs=700, resamples=10)
    assert sampled["auc"].value == pytest.approx(everything["auc"].value, abs=0.04)
    assert sampled == verification_scores(x, people, seed=0, max_pairs=700, resamples=10)
    assert sampled != verification_scores(x, people, seed=1, max_pairs=700, resamples=10)


def test_verification_needs_pairs_of_both_kinds():
    x, _ = people_embeddings(4, 1, 0)
    with pytest.raises(EchosynError, match="0 pairs of one person"):
        verification_scores(x, np.arange(4), 0)
    with pytest.raises(EchosynError, match="got 1 people"):
        verification_scores(x, np.zeros(4), 0)
