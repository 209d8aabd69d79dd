"""The audits of a release together, on small untrained models: numbers, tables and the pages."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from finished_project import ENCODING, SAMPLING, SEED, make_project
from plain_speckle import plain_speckle

from echosyn.cluster import run_shards
from echosyn.data.filelist import read_filelist
from echosyn.data.latents import LatentSet
from echosyn.metrics.interval import Estimate
from echosyn.models.reid import AugmentConfig
from echosyn.privacy.attacks.disguise import augment_videos
from echosyn.privacy.attacks.membership import AttackConfig
from echosyn.privacy.attacks.planted import PlantedConfig
from echosyn.privacy.detectors.embedding import Gallery, HeartEncoder
from echosyn.privacy.filters.calibration import CalibrationConfig
from echosyn.privacy.filters.hearts import AcceptedHearts
from echosyn.privacy.filters.video_detectors import RealVideos, VideoFilter
from echosyn.privacy.filters.video_scores import VideoFilterConfig
from echosyn.privacy.gate.requirements import Thresholds, hold_against
from echosyn.privacy.release_audit import (
    AuditConfig,
    any_heart,
    as_released,
    audit_hearts,
    audit_videos,
    one_per_person,
    real_records,
    released_clips,
    released_latents,
    released_records,
    training_clips,
)
from echosyn.report.privacy_build import build_privacy_pages, closest_pairs
from echosyn.report.privacy_page import LOCAL_ONLY, PAGE, PUBLIC
from echosyn.runtime.errors import EchosynError
from echosyn.synthesis.replace import filter_finished

LIGHT = AugmentConfig(shift=0.1, zoom=0.01, gain=0.02, noise=0.02)
CFG = AuditConfig(
    Thresholds(),
    AttackConfig(resamples=100, levels=(0.5,), draws=1),
    PlantedConfig(light=LIGHT, strengths=(1.0,), copies=4),
    PlantedConfig(light=LIGHT, strengths=(1.0,), copies=3),
    hearts_per_person=2,
    frames_per_video=2,
    pairs=2,
)
VIDEOS = VideoFilterConfig(CalibrationConfig(false_rejection=0.5, resamples=100), shard=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A project after filter_videos, with the numbers of both audits."""
    root = tmp_path_factory.mktemp("audited")
    sources = make_project(root, hearts=30)
    (root / "work").mkdir()

    def shards(folder, items, size, worker, label):
        return run_shards(folder, items, size, worker, "filter_videos", "video", label)

    result = filter_finished(sources, VIDEOS, SAMPLING, ENCODING, SEED, root / "work", shards)
    privacy, samples = root / "privacy/phantom", root / "samples/phantom"
    (privacy / "videos").mkdir()
    result.write(privacy / "videos")
    result.write_samples(samples)
    real = RealVideos.open(sources.latents, sources.videos, sources.cache, "ef")
    sets = {name: LatentSet(sources.latents, name) for name in ("TRAIN", "VAL", "TEST")}
    gallery = Gallery.of(HeartEncoder.load(sources.encoder), sets["TRAIN"], 0, True)
    accepted = AcceptedHearts(sources.hearts)
    tau = Estimate(0.9999, 0.9998, 1.0)
    drawn = accepted.take(accepted.indices)
    hearts = audit_hearts(
        sets, gallery, tau, drawn, drawn[:5], lambda x: x.square().flatten(1).mean(1).numpy(),
        CFG, SEED,
    )  # fmt: skip
    refuse = VideoFilter.load(
        privacy / "videos", real, sources.encoder, sources.vae, VIDEOS, ENCODING
    )
    clips, people = training_clips(real.split("TRAIN"), refuse.frames, 3, SEED)
    released = released_latents(samples, 2, real.fps, refuse.scorer.embeddable)
    candidates = released_clips(samples, refuse.frames, 2, real.fps, SEED)
    videos = audit_videos(
        sets, gallery, released, read_filelist(samples / "FileList.csv"), clips, people, candidates,
        refuse, augment_videos, refuse.scorer.rebuild, CFG, SEED,
    )  # fmt: skip
    scores = pd.DataFrame({"kind": ["synthetic", "heldout"] * 9, "similarity": 0.5})
    scores.to_csv(privacy / "hearts/scores.csv", index=False)
    numbers = {**result.numbers(), **hearts.numbers, **videos.numbers,
               "privacy/calibration_people": 5, "privacy/tau": tau.value}  # fmt: skip
    return {"sources": sources, "sets": sets, "real": real, "privacy": privacy,
            "samples": samples, "hearts": hearts, "videos": videos, "numbers": numbers}  # fmt: skip


@pytest.mark.slow
def test_every_attack_and_every_kind_of_coverage_is_measured(world):
    numbers = world["numbers"]
    wanted = [f"privacy/membership_{k}" for k in ("auc", "dcr_share", "nn_auc", "loss_auc")]
    wanted += [f"privacy/drawn/membership_{k}" for k in ("auc", "dcr_share", "nn_auc")]
    wanted += [f"{p}/planted_{k}_recall" for p in ("privacy", "privacy_videos")
               for k in ("exact", "light")]  # fmt: skip
    wanted += [f"coverage{v}/{k}{r}" for v in ("", "/videos") for r in ("", "_real")
               for k in ("learned_fraction", "irs_inf", "chao1")]  # fmt: skip
    wanted += [f"privacy/{attack}_{k}" for attack in ("attribute", "singling_out", "linkability")
               for k in ("risk", "risk_lo", "risk_hi", "success", "control", "naive")]  # fmt: skip
    assert not [k for k in wanted if k not in numbers]
    assert "privacy/drawn/membership_loss_auc" not in numbers
    assert numbers["privacy/planted_exact_recall"] == 1  # the gallery holds every frame
    assert numbers["privacy/planted_curve/flip_100"] == 1
    assert numbers["privacy_videos/planted_exact_recall"] == 1
    assert 0 <= numbers["privacy_videos/planted_rebuilt_recall"] <= 1
    assert numbers["privacy_videos/planted_rebuilt_recall_lo"] < 1
    # Held-out queries are people, one each: 5 of VAL and 3 of TEST; 5 released hearts.
    assert numbers["coverage/queries"] == 5


@pytest.mark.slow
def test_planted_tables_say_their_level(world):
    for audited, level in ((world["hearts"], "hearts"), (world["videos"], "videos")):
        assert set(audited.planted["level"]) == {level}
        assert {"exact", "light", "shift", "flip"} <= set(audited.planted["disguise"])
    assert set(world["videos"].planted["copies"]) == {3}


@pytest.mark.slow
def test_the_audit_repeats(world):
    sets = world["sets"]
    assert torch.equal(any_heart(sets["TRAIN"], 1), any_heart(sets["TRAIN"], 1))
    assert not torch.equal(any_heart(sets["TRAIN"], 1), any_heart(sets["TRAIN"], 2))
    train = world["real"].split("TRAIN")
    clips, people = training_clips(train, 6, 3, 0)
    assert clips.shape == (3, 6, 112, 112)
    assert len(set(people)) == 3
    assert torch.equal(clips, training_clips(train, 6, 3, 0)[0])
    with pytest.raises(EchosynError, match="no TRAIN video has 1000 frames"):
        training_clips(train, 1000, 3, 0)


def test_one_item_a_person():
    assert one_per_person(np.array(["b", "a", "b", "c", "a"])).tolist() == [0, 1, 3]


def test_attackers_hold_one_video_a_person_and_every_released_one():
    """Embeddings number the frames, so that a row of another video would show."""

    def split(names, people, ef, rate, classes):
        table = pd.DataFrame({"FileName": names, "Patient": people})
        beats = np.stack([rate, np.zeros(len(rate))], 1)
        return SimpleNamespace(table=table, ef=np.array(ef), beats=beats, classes=classes)

    val = split(["a", "b", "c"], ["p", "p", "q"], [50, 51, 52], [60, 61, np.nan], ["x", "x", None])
    test = split(["d"], [None], [53], [63], ["z"])
    filelist = pd.DataFrame({"EF": [40.0, np.nan], "HeartRate": [70.0, 71.0], "Class": ["y", "x"]})
    people = real_records([val, test], np.arange(16.0).reshape(8, 2), filelist)
    assert people.frames[:, 0, 0].tolist() == [0, 8, 12]  # videos a, c, d of two frames each
    assert people.labels["ef"].tolist() == [50, 52, 53]
    assert np.array_equal(people.labels["rate"], [60, np.nan, 63], equal_nan=True)
    assert np.array_equal(people.labels["class"], [0, np.nan, -1], equal_nan=True)
    released = released_records(np.arange(8.0).reshape(4, 2), filelist)
    assert released.frames[:, 0, 0].tolist() == [0, 4]
    assert released.labels["rate"].tolist() == [70, 71]
    assert released.labels["class"].tolist() == [1, 0]
    bare = released_records(np.arange(8.0).reshape(4, 2), filelist[["EF"]])
    assert bare.known() == ["ef"]


def test_pairs_are_the_most_similar_released_videos_beside_their_patients(world):
    pairs = closest_pairs(world["privacy"], world["samples"], world["real"], 3)
    table = pd.read_csv(world["privacy"] / "videos/local_video_matches.csv")
    kept = table[table["accepted"]].sort_values("similarity", ascending=False)
    assert [p.similarity for p in pairs] == pytest.approx(kept["similarity"][:3].tolist())
    for pair, row in zip(pairs, kept.itertuples(), strict=False):
        assert (pair.synthetic_name, pair.real_name) == (row.video, row.similar_to)
        names = list(world["real"].frames.table["FileName"])
        patient = world["real"].frames.video(names.index(pair.real_name))
        assert np.array_equal(pair.real, patient[row.similar_to_frame])
        assert pair.clips[0].fps == world["real"].fps


@pytest.mark.slow
def test_one_page_shows_patients_and_the_other_names_nobody(world):
    numbers = world["numbers"]
    tables = [world["hearts"].planted, world["videos"].planted]
    cfg = dataclasses.replace(CFG, thresholds=Thresholds(planted_light=0.5))
    outcome = hold_against(numbers, cfg.thresholds)
    make = partial(build_privacy_pages, "phantom", outcome, cfg, numbers,
                   tables, world["privacy"], world["samples"], world["real"])  # fmt: skip
    pages = make()
    assert pages == make()
    assert LOCAL_ONLY in pages[PAGE]
    assert LOCAL_ONLY not in pages[PUBLIC]
    names = world["real"].frames.table["FileName"]
    assert any(name in pages[PAGE] for name in names)
    assert not any(name in pages[PUBLIC] for name in names)
    for page in pages.values():
        assert "planted_light: 0.5 instead of 0.95" in page
        assert "copy detector" in page
        assert "Do not release" in page


def test_a_copy_is_shown_to_the_filter_as_a_release_would_show_it():
    clip = np.full((6, 112, 112), 90, np.uint8)

    def rebuild(frames):
        return frames + np.uint8(10)

    assert np.array_equal(as_released(rebuild, None, 0)(clip), rebuild(clip))
    one, again = (as_released(rebuild, plain_speckle(), 0) for _ in range(2))
    first, second = one(clip), one(clip)
    assert (first != rebuild(clip)).mean() > 0.5
    assert (first != second).mean() > 0.5
    assert np.array_equal(again(clip), first)
