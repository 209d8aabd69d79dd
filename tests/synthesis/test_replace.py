"""The filter on finished videos from end to end: scored, replaced, resumed, loaded again."""

import dataclasses
import json
import shutil

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from finished_project import ENCODING, FRAMES, REID, SAMPLING, SEED, make_project, models_in, plant

from echosyn.cluster import run_shards
from echosyn.data.filelist import read_filelist, video_path, write_filelist
from echosyn.data.frames import load_frames
from echosyn.data.phantom import PhantomConfig, render_patient
from echosyn.data.video import read_video, write_video
from echosyn.models.ef_regressor import EfRegressor
from echosyn.models.r2plus1d import R2Plus1d, R2Plus1dConfig
from echosyn.models.reid import AugmentConfig, build_reid
from echosyn.models.store import save_model
from echosyn.privacy.attacks.disguise import augment_videos
from echosyn.privacy.attacks.planted import PlantedConfig, planted_curve
from echosyn.privacy.detectors.copies import CopyConfig, CopyDetector
from echosyn.privacy.filters import video_detectors
from echosyn.privacy.filters.calibration import CalibrationConfig
from echosyn.privacy.filters.video_detectors import RealVideos, VideoFilter, open_scorer
from echosyn.privacy.filters.video_result import LOCAL_MATCHES, VIDEO_SCORES
from echosyn.privacy.filters.video_scores import VideoFilterConfig, VideoScores
from echosyn.runtime.errors import EchosynError
from echosyn.synthesis import replace as replacing
from echosyn.synthesis.ef_truth import EfMeter
from echosyn.synthesis.replace import filter_finished, replace_refused

# An untrained network decides what else is refused: `limit` leaves room for it.
pytestmark = pytest.mark.slow  # all need the finished project

CFG = VideoFilterConfig(CalibrationConfig(false_rejection=0.5, resamples=100), limit=6.0, shard=2)
STOLEN = (1, 2, 4)  # candidates that are refused whatever the networks are


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A project with TRAIN videos among its candidates; tests copy it before they change it."""
    root = tmp_path_factory.mktemp("finished")
    sources = make_project(root, hearts=30)
    for place in STOLEN:
        plant(sources, place)
    return root


@pytest.fixture
def project(original, tmp_path):
    root = tmp_path / "project"
    shutil.copytree(original, root, symlinks=True)
    return root, sources_in(root)


def sources_in(root):
    return replacing.Sources(
        "phantom", root / "candidates/phantom", root / "privacy/phantom/hearts",
        root / "latents/train/phantom", root / "data/train/phantom", root / "models/reid/phantom",
        models_in(root), root / ".echosyn/frames",
    )  # fmt: skip


def shards(folder, items, size, worker, label):
    return run_shards(folder, items, size, worker, "filter_videos", "video", label)


def run(root, sources, cfg=CFG, sampling=SAMPLING, work="work"):
    (root / work).mkdir(exist_ok=True)
    return filter_finished(sources, cfg, sampling, ENCODING, SEED, root / work, shards)


def real_of(sources):
    return RealVideos.open(sources.latents, sources.videos, sources.cache, "ef")


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---- the whole


@pytest.fixture(scope="module")
def outcome(original, tmp_path_factory):
    """The result, and the folder that it was written to."""
    out = tmp_path_factory.mktemp("outcome")
    result = run(original, sources_in(original))
    result.write(out / "videos")
    result.write_samples(out / "samples")
    return result, out


@pytest.mark.slow
def test_a_stolen_video_is_replaced_in_its_place(original, outcome):
    result, out = outcome
    first = read_filelist(original / "candidates/phantom/FileList.csv")
    last = read_filelist(out / "samples/FileList.csv")
    stolen = first["FileName"][list(STOLEN)]
    assert not set(stolen) & set(last["FileName"])
    columns = [c for c in first.columns if c != "FileName"]
    pd.testing.assert_frame_equal(first[columns], last[columns])
    kept = first["FileName"] == last["FileName"]
    passed = result.accepted[: len(first)]
    assert (kept == passed).all()
    assert not passed[list(STOLEN)].any()
    files = sorted(p.stem for p in (out / "samples/Videos").iterdir())
    assert files == sorted(last["FileName"])
    for name in last["FileName"][kept]:
        before = video_path(original / "candidates/phantom", name).read_bytes()
        assert video_path(out / "samples", name).read_bytes() == before


def test_replacements_are_the_next_hearts_in_order(original, outcome):
    result, _ = outcome
    tried = result.tried
    hearts = replacing.AcceptedHearts(original / "privacy/phantom/hearts")
    indices = tried["FileName"].str.rsplit("_", n=1).str[1].astype(int)
    assert indices.tolist() == hearts.indices[: len(tried)].tolist()
    for number in range(1, int(tried["round"].max()) + 1):
        before = (tried["round"] == number - 1).to_numpy()
        refused = tried["place"][before & ~result.accepted]
        assert tried["place"][tried["round"] == number].tolist() == refused.tolist()


def test_numbers_count_what_the_tables_hold(outcome):
    result, out = outcome
    numbers = result.numbers()
    table = pd.read_csv(out / "videos" / VIDEO_SCORES)
    assert list(table.columns) == ["kind", "video", "round", "similarity", "ncc", "accepted"]
    synthetic, heldout = (table[table["kind"] == k] for k in ("synthetic", "heldout"))
    assert numbers["privacy_videos/videos"] == len(synthetic) == len(result.tried)
    assert numbers["privacy_videos/accepted"] == synthetic["accepted"].sum() == 5
    assert numbers["privacy_videos/rounds"] == synthetic["round"].max() >= 1
    assert (
        numbers["privacy_videos/replaced"] == (synthetic[synthetic["accepted"]]["round"] > 0).sum()
    )
    refused = 1 - synthetic["accepted"].mean()
    assert numbers["privacy_videos/rejection_rate"] == pytest.approx(refused)
    assert numbers["privacy_videos/rejected_by_ncc"] >= 1 / len(synthetic)
    assert numbers["privacy_videos/frames"] == SAMPLING.frames
    assert numbers["privacy_videos/windows"] == 1
    assert numbers["privacy_videos/comparisons"] == 4 * FRAMES // 2
    assert numbers["privacy_videos/calibration_people"] == 4
    assert numbers["privacy_videos/calibration_too_short"] == 1
    assert numbers["privacy_videos/heldout_people"] == len(heldout) == 3
    assert heldout["video"].isna().all()
    assert synthetic["video"].str.startswith("SYN_").all()


def test_patients_are_named_in_the_local_table_alone(outcome):
    result, out = outcome
    folder = out / "videos"
    for path in folder.iterdir():
        assert ("0XREAL" in path.read_text()) == (path.name == LOCAL_MATCHES)
    local = pd.read_csv(folder / LOCAL_MATCHES)
    row = local.iloc[1]
    assert (row["copy_of"], row["similar_to"]) == ("0XREAL02", "0XREAL02")
    assert row["copy_of_frame"] == row["copied_frame"] + 1  # planted from its second frame on
    assert row["similar_to_frame"] == row["similar_frame"] + 1
    assert (row["down"], row["right"], row["mirrored"]) == (0, 0, False)
    assert local["video"].tolist() == result.tried["FileName"].tolist()


def test_workers_elsewhere_give_the_same_bytes(original, outcome, tmp_path):
    def remote(folder, items, size, worker, label):
        return shards(folder, items, size, cloudpickle.loads(cloudpickle.dumps(worker)), label)

    (tmp_path / "work").mkdir()
    result = filter_finished(
        sources_in(original), CFG, SAMPLING, ENCODING, SEED, tmp_path / "work", remote
    )
    result.write(tmp_path / "out/videos")
    result.write_samples(tmp_path / "out/samples")
    assert content(tmp_path / "out") == content(outcome[1])


def test_a_rerun_gives_the_same_bytes(original, outcome, tmp_path):
    again = run(original, sources_in(original), work="again")
    again.write(tmp_path / "videos")
    again.write_samples(tmp_path / "samples")
    assert content(tmp_path) == content(outcome[1])


@pytest.mark.slow
def test_a_filter_killed_between_rounds_ends_as_an_undisturbed_one(
    original, outcome, project, monkeypatch, tmp_path
):
    root, sources = project
    calls, sample = [], replacing.sample_shard

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        sample(*arguments)

    monkeypatch.setattr(replacing, "sample_shard", killed)
    shutil.rmtree(root / "work", ignore_errors=True)
    with pytest.raises(KeyboardInterrupt):
        run(root, sources)
    left = sorted(p.name for p in (root / "work").iterdir())
    assert "gallery" in left
    assert "round-01" in left
    before = len(calls)
    result = run(root, sources)
    total = len(result.tried) - 5
    undone = sum(-(-n // 2) for n in result.tried["round"].value_counts().drop(0)) - 1
    assert total > 2
    assert len(calls) - before == undone  # what was done is not done again
    result.write(tmp_path / "out/videos")
    result.write_samples(tmp_path / "out/samples")
    assert content(tmp_path / "out") == content(outcome[1])


def test_replacements_are_relabelled_as_the_candidates_were(project):
    root, sources = project
    write_regressor(sources.models.regressor)
    path = sources.candidates / "FileList.csv"
    before = read_filelist(path)
    write_filelist(path, before.assign(EFAsked=before["EF"], EF=1.0))
    sampling = dataclasses.replace(SAMPLING, ef_truth="relabel")
    result = run(root, sources, sampling=sampling, work="relabelled")
    samples = result.samples()
    assert samples["EFAsked"].tolist() == before["EF"].tolist()
    new = samples[samples["round"] > 0]
    assert len(new) >= len(STOLEN)
    meter = EfMeter(sources.models.regressor, SAMPLING.precision)
    shown = [meter(*read_video(p)) for p in new["path"]]
    assert new["EF"].tolist() == pytest.approx(shown, abs=1.0)  # measured before JPEG
    assert (samples["EF"][samples["round"] == 0] == 1.0).all()


@pytest.mark.slow
def test_longer_videos_are_scored_whole(project):
    root, sources = project
    name = plant(sources, 3)
    path = video_path(sources.candidates, name)
    stolen, _ = read_video(path)
    first = read_filelist(sources.candidates / "FileList.csv")["FileName"][0]
    innocent, _ = read_video(video_path(sources.candidates, first))
    mixed = np.concatenate([innocent[:-1], stolen[-1:]])  # one stolen frame, the very last
    write_video(path, mixed, ENCODING.fps)
    result = run(root, sources, dataclasses.replace(CFG, frames=4), work="short")
    numbers = result.numbers()
    assert numbers["privacy_videos/frames"] == 4
    assert numbers["privacy_videos/windows"] == 3  # 0-3, 4-7 and 6-9
    assert numbers["privacy_videos/calibration_too_short"] == 1  # 2 frames at 16 a second
    assert not result.accepted[3]
    assert result.local_matches()["copied_frame"][3] == SAMPLING.frames - 1


def stage_project(original, tmp_path, monkeypatch, sampling):
    """A copy of a project as stages find it, and the working directory of this test."""
    root = tmp_path / "project"
    shutil.copytree(original, root, ignore=shutil.ignore_patterns("work", "again"))
    monkeypatch.chdir(root)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    params = {
        "scale": "smoke",
        "seed": SEED,
        "datasets": {"phantom": {"role": "train", "source": "phantom", "path": "none"}},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "conf/smoke").mkdir(parents=True)
    for stage, cfg in (("filter_videos", CFG), ("sample_videos", sampling), ("encode", ENCODING)):
        sizes = yaml.safe_dump(dataclasses.asdict(cfg))
        (root / f"conf/smoke/{stage}.yaml").write_text(sizes)
    return root


def write_regressor(folder):
    torch.manual_seed(0)
    net = R2Plus1d(R2Plus1dConfig(widths=(4,), blocks=(1,), stem_width=4, stem_stride=4))
    EfRegressor(net, 100.0, 50.0, 12.0, 4, 8.0).save(folder / "seed0")


@pytest.mark.slow
def test_sample_videos_says_its_cost_and_what_it_measured(original, tmp_path, monkeypatch, capsys):
    from pipelines.sample_videos import main

    sampling = dataclasses.replace(SAMPLING, ef_truth="reject", ef_tolerance=0.0, ef_attempts=2)
    root = stage_project(original, tmp_path, monkeypatch, sampling)
    write_regressor(root / "models/ef/phantom/real")
    main("phantom")
    assert capsys.readouterr().out.count("frames through the network per video") == 1
    table = read_filelist(root / "candidates/phantom/FileList.csv")
    assert table["EFMeasured"].between(0, 100).all()
    numbers = json.loads((root / "metrics/sample_videos/phantom.json").read_text())
    assert numbers["sample_videos/frames_through_network"] == SAMPLING.frames
    assert numbers["sample_videos/attempts"] == 2
    off = (table["EFMeasured"] - table["EF"]).abs()
    assert numbers["sample_videos/ef_mae"] == pytest.approx(off.mean())
    shutil.rmtree(root / "models/lvdm")
    with pytest.raises(EchosynError, match=r"models/lvdm does not exist.*stage train_lvdm makes"):
        main("phantom")
    assert len(read_filelist(root / "candidates/phantom/FileList.csv")) == 5


@pytest.mark.slow
def test_the_stage_leaves_its_outputs(original, outcome, tmp_path, monkeypatch):
    from pipelines.filter_videos import main

    root = stage_project(original, tmp_path, monkeypatch, SAMPLING)
    main("phantom")
    _, out = outcome
    assert content(root / "samples/phantom") == content(out / "samples")
    assert content(root / "privacy/phantom/videos") == content(out / "videos")
    numbers = json.loads((root / "metrics/filter_videos/phantom.json").read_text())
    assert numbers == json.loads(json.dumps(outcome[0].numbers()))


# ---- replacement


def scores_of(values):
    n, zero = len(values), np.zeros(len(values), np.int64)
    high = np.array(values, np.float32)
    return VideoScores(high, high * 0, *[zero] * 7, np.full(n, 8), 10)


def places(n):
    return pd.DataFrame({"FileName": [f"v{i}" for i in range(n)], "EF": np.arange(n) + 30.0})


TAUS = {"similarity": 0.5, "ncc": 0.5}


def replace(hearts, bad, limit=3.0, n=4):
    """Replace among n candidates; hearts in `bad` give videos that are refused."""
    rounds = []

    def animate(part, indices, number):
        rounds.append((number, part["EF"].tolist(), indices.tolist()))
        made = part.assign(path=[f"{i}.avi" for i in indices])
        return made, scores_of([float(i in bad) for i in indices])

    candidates = places(n).assign(path=[f"v{i}.avi" for i in range(n)])
    first = candidates, scores_of([0.9, 0.0, 0.9, 0.0][:n])
    table, scores = replace_refused(
        first, np.array(hearts), animate, TAUS, limit, lambda i: f"heart{i}"
    )
    return table, scores, rounds


def test_each_round_takes_the_next_hearts_for_the_places_left():
    table, scores, rounds = replace([10, 11, 12, 13, 14], bad={10, 12})
    assert rounds == [(1, [30.0, 32.0], [10, 11]), (2, [30.0], [12]), (3, [30.0], [13])]
    assert table["place"].tolist() == [0, 1, 2, 3, 0, 2, 0, 0]
    assert table["round"].tolist() == [0, 0, 0, 0, 1, 1, 2, 3]
    assert table["FileName"].tolist()[4:] == ["heart10", "heart11", "heart12", "heart13"]
    assert table["path"].tolist()[-1] == "13.avi"
    assert scores.similarity.tolist() == pytest.approx([0.9, 0, 0.9, 0, 1, 0, 1, 0])


def test_hearts_that_run_out_are_counted():
    with pytest.raises(EchosynError) as e:
        replace([10, 11, 12], bad={10, 11, 12})
    said = str(e.value)
    assert "4 videos are wanted, 2 of 6 tried were accepted" in said
    assert "4 by similarity (tau 0.5000) and 0 by ncc" in said
    assert "1 accepted hearts are left, and `limit` allows 12 videos in all" in said
    assert "About 7 more are needed" in said


def test_the_limit_counts_every_video_that_was_tried():
    hearts = list(range(10, 60))
    with pytest.raises(EchosynError, match=r"`limit` allows 8 videos in all"):
        replace(hearts, bad=set(hearts), limit=2.0)
    table, _, _ = replace(hearts, bad={10, 11}, limit=2.0)
    assert len(table) == 8


def test_running_out_leaves_no_samples(project):
    root, sources = project
    cfg = dataclasses.replace(CFG, limit=1.0)
    with pytest.raises(EchosynError, match="5 videos are wanted"):
        run(root, sources, cfg, work="limited")
    assert not (root / "samples").exists()


# ---- inputs that do not fit


def test_too_few_people_says_what_to_change(project):
    root, sources = project
    cfg = VideoFilterConfig(CalibrationConfig(false_rejection=0.4, resamples=100))
    with pytest.raises(EchosynError) as e:
        run(root, sources, cfg, work="few")
    said = str(e.value)
    assert "4 VAL people with videos of at least 10 frames" in said
    assert "1 of 5 videos are shorter" in said
    assert "needs 5: hold out more people in VAL, lower `frames`" in said
    result = run(root, sources, dataclasses.replace(cfg, frames=2), work="shorter")
    assert result.numbers()["privacy_videos/calibration_people"] == 5


def test_candidates_of_other_hearts_are_refused(project):
    root, sources = project
    path = sources.candidates / "FileList.csv"
    table = read_filelist(path)
    table.loc[2, "FileName"] = "SYN_phantom_3_000005"  # odd hearts were refused
    write_filelist(path, table)
    with pytest.raises(EchosynError, match="SYN_phantom_3_000005 is of no heart"):
        run(root, sources)


def test_latents_of_other_videos_are_refused(project):
    root, sources = project
    path = sources.videos / "FileList.csv"
    table = read_filelist(path)
    write_filelist(path, table.iloc[:-1])
    with pytest.raises(EchosynError, match="12 videos of 134 frames, against 11 of 122, not all"):
        run(root, sources)
    short = read_video(video_path(sources.videos, "0XREAL01"))[0][:-2]
    write_video(video_path(sources.videos, "0XREAL01"), short, 32.0)
    table.loc[1, "NumberOfFrames"] -= 2
    write_filelist(path, table)
    with pytest.raises(EchosynError, match="12 videos of 134 frames, against 12 of 133; run"):
        run(root, sources)


# ---- the loaded filter


def open_filter(sources, folder):
    return VideoFilter.load(folder, real_of(sources), sources.encoder, sources.vae, CFG, ENCODING)


def test_the_filter_decides_as_the_stage_did(original, outcome):
    result, out = outcome
    sources = sources_in(original)
    judged = open_filter(sources, out / "videos")
    clips = np.stack([read_video(path)[0] for path in result.tried["path"]])
    assert (judged(clips) == ~result.accepted).all()
    assert (judged(torch.from_numpy(clips[:2])) == ~result.accepted[:2]).all()


def test_the_filter_refuses_patients_and_lets_strangers_pass(original, outcome):
    result, out = outcome
    judged = open_filter(sources_in(original), out / "videos")
    real = real_of(sources_in(original))
    train, test = (real.split(name).frames for name in ("TRAIN", "TEST"))
    stolen = np.stack([train.video(i)[1:11] for i in range(4)])
    assert judged(stolen).all()
    assert judged(stolen[..., ::-1]).all()
    strangers = np.stack([test.video(i)[1:11] for i in range(3)])  # as calibration took them
    passed = result.table().query("kind == 'heldout'")["accepted"].to_numpy(bool)
    assert (judged(strangers) == ~passed).all()
    assert passed.any()


def test_a_judge_of_another_encoder_vae_dataset_or_setting_is_refused(project, outcome):
    root, sources = project
    folder = outcome[1] / "videos"
    other = dataclasses.replace(CFG, mirror=False)
    real = real_of(sources)
    with pytest.raises(EchosynError, match="calibrated with mirror True"):
        VideoFilter.load(folder, real, sources.encoder, sources.vae, other, ENCODING)
    index = sources.latents / "index.csv"
    kept = index.read_text()
    index.write_text(kept.replace("40.0", "41.0"))
    with pytest.raises(EchosynError, match="calibrated with latents"):
        open_filter(sources, folder)
    index.write_text(kept)
    video = video_path(sources.videos, "0XREAL00")
    frames, fps = read_video(video)
    write_video(video, frames[:, ::-1].copy(), fps)
    with pytest.raises(EchosynError, match="calibrated with videos"):
        open_filter(sources, folder)
    torch.manual_seed(1)
    save_model(sources.encoder, build_reid(REID), REID)
    with pytest.raises(EchosynError, match=r"calibrated with encoder .* run the privacy filter"):
        open_filter(sources, folder)
    with pytest.raises(EchosynError, match="does not exist"):
        open_filter(sources, root)


def test_the_filter_refuses_what_it_has_no_tau_for(original, outcome):
    judged = open_filter(sources_in(original), outcome[1] / "videos")
    with pytest.raises(EchosynError, match="of 10 frames or more"):
        judged(np.zeros((1, 9, 112, 112), np.uint8))
    with pytest.raises(EchosynError, match="takes uint8"):
        judged(np.zeros((1, 10, 112, 112), np.float32))


def test_pieces_do_not_change_scores(original, monkeypatch):
    sources = sources_in(original)
    scorer = open_scorer(real_of(sources), sources.encoder, sources.vae, CFG, ENCODING)
    clips = [read_video(p)[0] for p in sorted((sources.candidates / "Videos").iterdir())]
    together = scorer.score(clips)
    monkeypatch.setattr(video_detectors, "PIECE", 15)
    apart = scorer.score(iter(clips))
    assert apart.frames.tolist() == [10] * 5
    assert np.allclose(apart.similarity, together.similarity, atol=1e-5)
    assert np.allclose(apart.ncc, together.ncc, atol=1e-5)
    assert (apart.copied_row == together.copied_row).all()


# ---- disguised copies

STILL = AugmentConfig(shift=0.0, zoom=0.0, gain=0.0, noise=0.0)


def disguised(clips, seed=0, **changes):
    cfg = dataclasses.replace(STILL, **changes)
    return augment_videos(clips, cfg, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def clips(original):
    frames = load_frames(original / "data/train/phantom", 16.0, original / ".echosyn/frames")
    return np.stack([frames.video(i)[:10] for i in range(4)])


def test_no_disguise_changes_nothing(clips):
    copy = disguised(clips)
    assert copy.dtype == torch.uint8
    assert (copy.numpy() == clips).all()


def test_a_clip_has_one_disguise_and_clips_differ(clips):
    still = np.repeat(clips[:1, :1], 4, axis=1).repeat(3, axis=0)  # 3 clips of 4 equal frames
    for change in ({"shift": 2.0}, {"rotation": 9.0}, {"gain": 0.5}, {"blur": 1.0}, {"crop": 0.3}):
        copy = disguised(still, **change).numpy()
        assert (copy == copy[:, :1]).all(), change
        assert (copy[0, 0] != copy[1, 0]).any(), change
    noisy = disguised(still, noise=1.0).numpy()
    assert (noisy[:, 0] != noisy[:, 1]).any()


def test_units_are_pixels_and_grey_levels(clips):
    assert (disguised(clips, flip=1.0).numpy() == clips[..., ::-1]).all()
    grey = np.full((40, 2, 32, 32), 128, np.uint8)
    levels = disguised(grey, noise=0.4).numpy().astype(float).std(axis=(1, 2, 3))
    assert levels.max() == pytest.approx(0.4 * 50, rel=0.1)
    gains = disguised(grey, gain=0.25).numpy()[:, 0, 0, 0]
    assert gains.min() >= 96
    assert 150 < gains.max() <= 160
    edge = np.zeros((60, 1, 64, 64), np.uint8)
    edge[..., 32:] = 200
    moved = (disguised(edge, shift=1.0).numpy() > 100).sum(-1)[:, 0, 32] - 32
    assert np.abs(moved).max() <= 8
    assert np.abs(moved).max() >= 7


def test_the_same_draws_serve_every_strength():
    grey = np.full((20, 1, 32, 32), 100, np.uint8)
    weak, strong = (disguised(grey, gain=g).numpy()[:, 0, 0, 0] - 100.0 for g in (0.2, 0.4))
    assert strong == pytest.approx(2 * weak, abs=1)
    assert weak.max() > 10


TRAIN, LENGTH = 12, 10


@pytest.fixture(scope="module")
def detector():
    """Patients in a copy detector's gallery, and their clips; clips of as many strangers."""
    cfg = PhantomConfig(train=2 * TRAIN, val=1, test=1, frames=32)
    frames = np.stack([render_patient(i, cfg, 8).frames for i in range(2 * TRAIN)])
    data = frames[:TRAIN].reshape(-1, 112, 112)
    return CopyDetector(data, np.arange(len(data)), CopyConfig()), frames[:, 5 : 5 + LENGTH]


def highest(found, videos):
    frames = videos.reshape(-1, 112, 112)
    return found(np.asarray(frames)).ncc.reshape(len(videos), -1).max(1)


@pytest.mark.parametrize(
    "disguise",
    [{}, {"flip": 1.0}, {"shift": 1.0}, {"gain": 0.3}, {"noise": 0.2}, {"blur": 0.2}],
    ids=["exact", "mirrored", "shifted", "brightened", "noised", "blurred"],
)
def test_the_copy_detector_alone_catches_disguised_videos(detector, disguise):
    found, videos = detector
    strangers = highest(found, videos[TRAIN:])
    copies = highest(found, disguised(videos[:TRAIN], **disguise))
    assert copies.min() > strangers.max()
    assert strangers.max() < 0.92


@pytest.mark.slow
def test_planted_videos_are_caught_and_strangers_are_not(detector):
    found, videos = detector
    tau = highest(found, videos[TRAIN:]).max() + 1e-4
    small = AugmentConfig(
        shift=0.5, zoom=0.01, gain=0.2, noise=0.1, flip=1.0, rotation=1.0, blur=0.1, crop=0.01
    )
    cfg = PlantedConfig(light=dataclasses.replace(small, rotation=0.5), full=small)
    refused_pool = []

    def refuse(mixed):
        assert mixed.dtype == torch.uint8
        refused = highest(found, mixed) >= tau
        refused_pool.append(int(refused.sum()))
        return refused

    one_strength = dataclasses.replace(cfg, strengths=(1.0,))
    result = planted_curve(
        torch.from_numpy(videos[:TRAIN]), np.arange(TRAIN), torch.from_numpy(videos[TRAIN:]),
        refuse, one_strength, 0, augment_videos,
    )  # fmt: skip
    assert result.recall("exact").value == 1.0
    assert result.recall("light").value == 1.0
    assert result.recall("flip").value == 1.0
    assert result.recall("shift").value == 1.0
    assert result.recall("gain").value == 1.0
    assert max(refused_pool) <= TRAIN  # no stranger among them
