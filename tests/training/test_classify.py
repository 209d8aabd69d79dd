"""Classification: folds by patient, scores against closed forms, no leak, the stage end to end."""

import dataclasses
import shutil
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from echonet_layout import make as make_echonet
from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn import cluster
from echosyn.data.filelist import CLASS, COLUMNS, PATIENT, read_filelist, video_path, write_filelist
from echosyn.data.frames import FrameSet, load_frames
from echosyn.data.ingest import ingest
from echosyn.data.video import write_video
from echosyn.metrics.classification import (
    NAMES,
    classification_numbers,
    classification_scores,
    roc_points,
)
from echosyn.models.r2plus1d import R2Plus1dConfig
from echosyn.report.roc_plots import roc_figure
from echosyn.runtime.config import SCALES, SECTIONS, Params, build
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_json
from echosyn.tracking import NullRun
from echosyn.training.classify import (
    ClassifierTask,
    ClassifyConfig,
    classify_settings,
    plan_jobs,
    predict_all,
    predict_job,
    probabilities,
)
from echosyn.training.folds import ClassifyTask, Labelled, hold_out, label_videos, patient_folds
from echosyn.training.loop import LoopConfig, fit
from pipelines.classify import main

LOOP = LoopConfig(steps=40, batch=8, lr=1e-2, precision="fp32", checkpoint_every=20)
CONFIG = ClassifyConfig(
    model=R2Plus1dConfig(widths=(4,), blocks=(1,), stem_width=4, stem_stride=4, in_channels=1),
    loop=LOOP,
    frames=4,
    pad=1,
    test_clips=2,
    folds=3,
    resamples=100,
)


def labelled(positive, patient=None, split=None, look=None, size=16):
    """Videos of 6 frames; `look` (V,) is their mean grey level, the same for all when not given."""
    positive = np.asarray(positive, bool)
    n = len(positive)
    look = np.full(n, 100) if look is None else np.asarray(look)
    noise = np.random.default_rng(0).integers(-20, 21, (n, 6, size, size))
    data = (look[:, None, None, None] + noise).clip(0, 255).astype(np.uint8)
    patient = np.array([f"p{i}" for i in range(n)] if patient is None else patient, str)
    table = pd.DataFrame(
        {
            "FileName": [f"v{i}" for i in range(n)],
            "EF": np.where(positive, 30.0, 60.0),
            "Split": (["TRAIN", "TRAIN", "VAL", "TEST"] * n)[:n] if split is None else split,
            PATIENT: patient,
        }
    )
    frames = FrameSet(data.reshape(-1, size, size), table, np.arange(n) * 6, np.full(n, 6), 16.0)
    return Labelled(frames, positive, patient)


# ---- Column Class


def test_class_follows_patient_and_survives_ingest(tmp_path):
    classes = ("PAH", "non-PAH", "", "ASD")
    columns = ((CLASS, classes), ("Note", "abcd"), (PATIENT, ("p0", "p1", "p2", "p3")))
    raw = make_echonet(tmp_path / "raw", columns=columns)
    out = tmp_path / "out"
    ingest("echonet", raw, out, "ef")
    table = read_filelist(out / "FileList.csv")
    assert list(table.columns) == [*COLUMNS, PATIENT, CLASS]
    assert tuple(table[CLASS]) == classes
    write_filelist(tmp_path / "again.csv", table)
    assert (tmp_path / "again.csv").read_bytes() == (out / "FileList.csv").read_bytes()
    write_filelist(tmp_path / "without.csv", table.drop(columns=[CLASS]))
    assert list(read_filelist(tmp_path / "without.csv").columns) == [*COLUMNS, PATIENT]


# ---- Settings and labels


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "positive and negative .* or ef_below"),
        ({"positive": "PAH"}, "positive and negative"),
        ({"positive": "PAH", "negative": "non-PAH", "ef_below": 50}, "either"),
        ({"positive": "PAH", "ef_below": 50}, "either"),
        ({"positive": "PAH", "negative": "PAH"}, "are both 'PAH'"),
        ({"ef_below": 500}, "ef_below: 500.0 is above"),
        ({"positiv": "PAH"}, "did you mean 'positive'"),
    ],
)
def test_a_task_is_one_of_two_forms(values, named):
    with pytest.raises(EchosynError, match=named):
        build(ClassifyTask, {"dataset": "x", **values}, "here")


def with_classes(*values):
    videos = labelled([True] * len(values))
    videos.frames.table[CLASS] = list(values)
    return videos.frames


def test_a_class_task_takes_its_two_classes_and_leaves_others_out():
    frames = with_classes("ASD", "PAH", "non-PAH", "", "PAH ")
    task = ClassifyTask("x", positive="PAH", negative="non-PAH")
    found = label_videos(frames, task, "F.csv")
    assert found.frames.table["FileName"].tolist() == ["v1", "v2", "v4"]
    assert found.positive.tolist() == [True, False, True]
    assert found.patient.tolist() == ["p1", "p2", "p4"]
    assert (found.frames.video(1) == frames.video(2)).all()


def test_an_ef_task_is_strictly_below_and_leaves_unknown_ef_out():
    frames = with_classes(*"abcd")
    frames.table["EF"] = [49.9, 50.0, np.nan, 20.0]
    frames.table[PATIENT] = ["p", " ", "p", "p"]
    found = label_videos(frames, ClassifyTask("x", ef_below=50.0), "F.csv")
    assert found.positive.tolist() == [True, False, True]
    assert found.patient.tolist() == ["p", "v1", "p"]


def test_labels_that_make_no_two_classes_are_refused_by_name():
    task = ClassifyTask("x", positive="PAH", negative="non-PAH")
    with pytest.raises(EchosynError, match=r"F.csv: no video has Class 'non-PAH' \(is 'nonPAH'"):
        label_videos(with_classes("PAH", "nonPAH", "nonPAH"), task, "F.csv")
    with pytest.raises(EchosynError, match=r"'non-PAH'; found: 'empty' \(1\), 'PAH' \(1\)"):
        label_videos(with_classes("PAH", ""), task, "F.csv")
    frames = labelled([True, False]).frames
    with pytest.raises(EchosynError, match=r"F.csv: column 'Class' is missing.*ef_below"):
        label_videos(frames, task, "F.csv")
    with pytest.raises(EchosynError, match="ef_below 20 makes no two classes: EF is 30 to 60"):
        label_videos(frames, ClassifyTask("x", ef_below=20.0), "F.csv")
    frames.table["EF"] = np.nan
    with pytest.raises(EchosynError, match="EF is empty"):
        label_videos(frames, ClassifyTask("x", ef_below=50.0), "F.csv")


# ---- Folds

PEOPLE = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["TRAIN", "VAL", "TEST"]), st.integers(1, 3)),
    min_size=8,
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(PEOPLE, st.integers(2, 5), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_folds_keep_patients_whole_and_spread_classes_evenly(people, folds, seed, shuffle):
    rows = [(k, *person[:2]) for k, person in enumerate(people) for _ in range(person[2])]
    shuffle.shuffle(rows)
    videos = labelled(
        [r[1] for r in rows], [f"p{r[0]}" for r in rows], [r[2] for r in rows], size=2
    )
    counts = [sum(p[0] == kind for p in people) for kind in (True, False)]
    if min(counts) < folds:
        with pytest.raises(EchosynError, match=f"{min(counts)} real patients are .* {folds} folds"):
            patient_folds(videos, folds, seed)
        return
    fold = patient_folds(videos, folds, seed)
    assert set(fold) == set(range(folds))
    home = dict(zip(videos.patient, fold, strict=True))
    assert all(home[p] == f for p, f in zip(videos.patient, fold, strict=True))
    for kind in (True, False):
        for unseen in (True, False):
            held = [
                home[f"p{k}"]
                for k, p in enumerate(people)
                if p[0] == kind and (not unseen or p[1] != "TRAIN")
            ]
            sizes = np.bincount(held, minlength=folds)
            assert sizes.max() - sizes.min() <= 1
    turned = patient_folds(videos.take(np.arange(len(rows))[::-1]), folds, seed)
    assert (turned[::-1] == fold).all()
    if len(people) > 20:
        assert (patient_folds(videos, folds, seed + 1) != fold).any()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40))
def test_held_out_patients_are_whole_and_of_both_classes(videos):
    patient, positive = [f"p{k}" for k, _ in videos], [p for _, p in videos]
    data = labelled(positive, patient, size=2)
    held = hold_out(data, 0.2, seed=0)
    assert not set(data.patient[held]) & set(data.patient[~held])
    assert not hold_out(data, 0.0, seed=0).any()
    ill = {k for k, p in zip(patient, positive, strict=True) if p}
    for people in (ill, set(patient) - ill):
        chosen = people & set(data.patient[held])
        assert len(chosen) == (max(1, int(0.2 * len(people))) if len(people) > 1 else 0)


def test_no_job_trains_on_or_selects_with_a_patient_that_it_is_tested_on():
    people = [f"p{i // 2}" for i in range(48)]
    real = labelled([i // 2 % 2 == 0 for i in range(48)], people)
    synthetic = labelled([i % 2 == 0 for i in range(10)], [f"s{i}" for i in range(10)])
    fold = patient_folds(real, 3, 0)
    jobs = plan_jobs(real, synthetic, fold, CONFIG, 0)
    assert [j.name for j in jobs] == [
        f"{arm}-{k}" for k in range(3) for arm in ("real", "synthetic", "both")
    ]
    for k in range(3):
        assert len({j.seed for j in jobs[3 * k : 3 * k + 3]}) == 1
        held = [{p for part in j.val for p in part.patient} for j in jobs[3 * k : 3 * k + 3]]
        assert held[0] | held[1] == held[2]
    assert len({j.seed for j in jobs}) == 3
    for arm in ("real", "synthetic", "both"):
        rows = np.concatenate([j.test for j in jobs if j.arm == arm])
        assert sorted(rows) == list(range(48))
    for job in jobs:
        train, val = ({p for part in side for p in part.patient} for side in (job.train, job.val))
        assert train
        assert val
        assert not train & val
        assert not (train | val) & set(real.patient[job.test])
        sources = {p[0] for p in train | val}
        assert sources == {"real": {"p"}, "synthetic": {"s"}, "both": {"p", "s"}}[job.arm]
        if job.arm != "synthetic":
            rest = set(real.patient) - set(real.patient[job.test])
            assert {p for p in train | val if p[0] == "p"} == rest


def test_videos_that_the_generator_has_seen_alone_cannot_be_tested_on():
    real = labelled([True, False] * 6, split=["TRAIN"] * 12)
    with pytest.raises(EchosynError, match="every real video of the task is in TRAIN"):
        plan_jobs(real, real, patient_folds(real, 2, 0), CONFIG, 0)
    real = labelled([True, False] * 6)
    with pytest.raises(EchosynError, match=r"real frames are \(16, 16\), synthetic ones \(8, 8\)"):
        plan_jobs(real, labelled([True, False], size=8), patient_folds(real, 2, 0), CONFIG, 0)


# ---- Scores


def scored(truth, probability, patients=None, folds=None, resamples=100):
    n = len(truth)
    patients = np.arange(n) if patients is None else patients
    folds = np.zeros(n, int) if folds is None else folds
    return classification_scores(truth, probability, patients, folds, 0, resamples)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 8), st.integers(0, 2)), min_size=2, max_size=40
    )
)
def test_scores_agree_with_scikit_learn_and_with_counting_pairs(rows):
    from sklearn import metrics

    truth, probability, folds = (np.array(c) for c in zip(*rows, strict=True))
    probability = probability / 8  # ties, and some at exactly 0.5
    found = dict(zip(NAMES, scored(truth, probability, folds=folds).values, strict=True))
    called = probability >= 0.5
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, called))
    if truth.all() or not truth.any():
        side, absent = ("sensitivity", "specificity")[:: 1 if truth.all() else -1]
        assert found[side] == found["accuracy"]
        undefined = ("auc", "auc_within_folds", "balanced_accuracy", "f1", absent)
        assert all(np.isnan(found[k]) for k in undefined)
        return
    expected = {
        "auc": metrics.roc_auc_score(truth, probability),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, called),
        "f1": metrics.f1_score(truth, called, zero_division=0),
        "sensitivity": metrics.recall_score(truth, called),
        "specificity": metrics.recall_score(truth, called, pos_label=False),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name
    p, n = np.nonzero(truth)[0][:, None], np.nonzero(~truth)[0][None]
    same = folds[p] == folds[n]
    wins = (probability[p] > probability[n]) + (probability[p] == probability[n]) / 2
    within = wins[same].mean() if same.any() else np.nan
    assert found["auc_within_folds"] == pytest.approx(within, nan_ok=True)
    fpr, tpr = roc_points(truth, probability)
    assert np.trapezoid(tpr, fpr) == pytest.approx(expected["auc"])
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


def test_a_scale_that_differs_between_folds_lowers_auc_but_not_auc_within_folds():
    rng = np.random.default_rng(0)
    truth, folds = np.arange(200) % 2 == 0, np.arange(200) // 100
    score = np.where(truth, 0.6, 0.4) + rng.uniform(-0.15, 0.15, 200)
    shifted = score * 0.4 + 0.5 * folds
    before, after = (scored(truth, s, folds=folds).estimates() for s in (score, shifted))
    assert after["auc_within_folds"].value == pytest.approx(before["auc_within_folds"].value)
    assert after["auc"].value < before["auc"].value - 0.1


def test_intervals_are_over_patients_not_videos():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(30) % 2 == 0, 8)
    people = np.repeat(np.arange(30), 8)
    probability = np.repeat((0.25 * truth[::8] + rng.uniform(0.1, 0.65, 30)), 8)
    widths = [
        {k: e.hi - e.lo for k, e in scored(truth, probability, who, None, 500).estimates().items()}
        for who in (people, np.arange(240))
    ]
    for name in NAMES:
        assert widths[0][name] > 2 * widths[1][name], name


def test_the_interval_of_accuracy_is_that_of_a_proportion():
    truth = np.ones(400, bool)
    e = scored(truth, np.where(np.arange(400) % 4, 0.9, 0.1), resamples=2000).estimates()
    assert e["accuracy"].value == 0.75
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert e["accuracy"].lo == pytest.approx(0.75 - half, abs=0.01)
    assert e["accuracy"].hi == pytest.approx(0.75 + half, abs=0.01)
    assert "x" not in e["auc"].flat("x")


def test_differences_are_paired():
    rng = np.random.default_rng(1)
    truth = np.arange(60) % 2 == 0
    a = np.clip(0.3 * truth + rng.uniform(0, 0.7, 60), 0, 1)
    one, same = scored(truth, a), scored(truth, a)
    zero = one.minus(same)["auc"]
    assert (zero.value, zero.lo, zero.hi) == (0, 0, 0)
    better = scored(truth, np.clip(a + 0.02 * truth, 0, 1)).minus(one)["auc"]
    assert better.value > 0
    assert better.hi - better.lo < one.estimates()["auc"].hi - one.estimates()["auc"].lo


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.5, np.inf])
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(EchosynError, match="at position 1 is not between 0 and 1"):
        scored(np.array([True, False]), np.array([0.5, bad]))


def test_headlines_leave_out_what_the_generator_has_seen():
    n = 40
    truth = np.arange(n) % 2
    split = np.where(np.arange(n) < 20, "TRAIN", np.where(np.arange(n) < 30, "VAL", "TEST"))
    one = pd.DataFrame(
        {"fold": np.arange(n) % 3, "Split": split, "Patient": np.arange(n), "truth": truth}
    )
    knows = np.where(split == "TRAIN", truth, 0.5)  # has memorised TRAIN, knows nothing else
    table = pd.concat(
        [one.assign(arm="real", probability=truth), one.assign(arm="both", probability=knows)]
    )
    numbers = classification_numbers(table, "t", seed=0, resamples=100)
    assert numbers["classify/t/both/auc"] == 0.5
    assert numbers["classify/t/both/on_train/auc"] == 1
    assert numbers["classify/t/real/auc"] == 1
    assert numbers["classify/t/both_minus_real/auc"] == -0.5
    assert numbers["classify/t/both_minus_real/auc_hi"] <= 0
    assert (numbers["classify/t/videos"], numbers["classify/t/positive_patients"]) == (20, 10)
    assert numbers["classify/t/majority_accuracy"] == 0.5
    assert all(np.isfinite(v) for v in numbers.values())


# ---- Training


def run(job, real, cfg=CONFIG, work=None):
    task = ClassifierTask(cfg, job.train, job.val)
    model = fit(task, cfg.loop, job.seed, work, NullRun(), job.name)
    return model, probabilities(model, real.take(job.test).frames, cfg)


def test_classes_weigh_the_same_and_a_batch_keeps_its_labels():
    task = ClassifierTask(CONFIG, [labelled([True, False, False, False])], [])
    batch = task.batch(np.arange(4), np.random.default_rng(0))
    assert batch["clips"].shape == (4, 4, 16, 16)
    assert batch["truth"].tolist() == [1, 0, 0, 0]
    truth, weight = batch["truth"].numpy(), batch["weight"].numpy()
    assert weight[truth == 1].sum() == pytest.approx(weight[truth == 0].sum())
    assert weight.mean() == pytest.approx(1)
    always = torch.nn.Flatten(0)  # stands for a network: a logit per clip, given as its clip
    loss, parts = task.loss(always, {**batch, "clips": torch.full((4,), 2.0)})
    assert float(loss) == pytest.approx((np.logaddexp(0, -2) + np.logaddexp(0, 2)) / 2)
    assert float(parts["accuracy"]) == 0.25
    again = task.batch(np.arange(4), np.random.default_rng(0))
    assert torch.equal(batch["clips"], again["clips"])
    untrained = task.build().eval()
    assert probabilities(untrained, task.train[0][0], CONFIG) == pytest.approx(0.5, abs=0.1)


def test_a_visible_class_is_learned_and_validation_measures_it(tmp_path):
    positive = np.arange(48) % 2 == 0
    real = labelled(positive, look=np.where(positive, 140, 60))
    fold = patient_folds(real, 3, 0)
    job = next(j for j in plan_jobs(real, real, fold, CONFIG, 0) if j.name == "real-1")
    model, found = run(job, real, work=tmp_path)
    assert scored(positive[job.test], found).values[0] == 1
    task = ClassifierTask(CONFIG, job.train, job.val)
    learned, fresh = task.validate(model), task.validate(task.build().eval())
    assert learned["loss"] < fresh["loss"]
    assert learned["accuracy"] == 1


def test_a_label_that_only_identity_tells_is_not_found_across_folds():
    """Each patient has a grey level of their own and four videos; classes are given by lot. A
    classifier that remembers every training video knows a patient again, if it ever met them."""
    ill = np.random.default_rng(3).permutation(np.arange(24) % 2 == 0)
    people = np.repeat(np.arange(24), 4)
    real = labelled(ill[people], [f"p{k}" for k in people], look=30 + 8 * people)

    def nearest(job):
        known = [part for part in (*job.train, *job.val) if len(part)]
        levels = np.concatenate([[p.frames.video(v).mean() for v in range(len(p))] for p in known])
        classes = np.concatenate([p.positive for p in known])
        asked = np.array([real.frames.video(v).mean() for v in job.test])
        return classes[np.abs(levels - asked[:, None]).argmin(1)]

    def auc(videos):
        table = predict_all(videos, videos, CONFIG, 0, nearest)
        table = table[table["arm"] == "real"]
        return scored(real.positive, table["probability"].to_numpy(), people, resamples=400)

    by_video = Labelled(real.frames, real.positive, real.frames.table["FileName"].to_numpy())
    assert auc(by_video).values[0] == 1
    honest = auc(real).estimates()["auc"]
    assert honest.lo < 0.5 < honest.hi
    assert honest.value < 0.7


def write_videos(folder, prefix, n, bright, classes=None, patients=None, seed=0):
    rng = np.random.default_rng(seed)
    (folder / "Videos").mkdir(parents=True)
    rows = []
    for i in range(n):
        ill = i % 2 == 0
        level = 150 if ill == bright else 60
        name = f"{prefix}{i}"
        video = rng.integers(level - 30, level + 30, (6, 16, 16), np.uint8)
        write_video(video_path(folder, name), video, 16.0)
        split = ("TRAIN", "TRAIN", "VAL", "VAL", "TEST", "TEST")[i % 6]
        rows.append((name, 30.0 if ill else 60.0, "", "", 16, 16, 16.0, 6, split))
    table = pd.DataFrame(rows, columns=COLUMNS)
    if patients:
        table[PATIENT] = patients
    if classes:
        table[CLASS] = [classes[i % 2] for i in range(n)]
    write_filelist(folder / "FileList.csv", table)


SIZES = {
    "model": {"widths": [4], "blocks": [1], "stem_width": 4, "stem_stride": 4, "in_channels": 1},
    "loop": {"steps": 20, "batch": 6, "lr": 1e-2, "precision": "fp32", "checkpoint_every": 10},
    "frames": 4, "pad": 1, "test_clips": 2, "folds": 2, "resamples": 100,
}  # fmt: skip
TASKS = {
    "pah": {"dataset": "heart", "positive": "PAH", "negative": "non-PAH"},
    "low_ef": {"dataset": "heart", "ef_below": 50},
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Real and synthetic videos that agree on what a positive looks like."""
    names = ("PAH", "non-PAH")
    people = [f"p{i // 2 % 2}{i % 2}{i // 4}" for i in range(24)]
    write_videos(tmp_path / "data/train/heart", "r", 24, True, names, people)
    write_videos(tmp_path / "samples/heart", "s", 8, True, names, seed=1)
    (tmp_path / "conf/smoke").mkdir(parents=True)
    (tmp_path / "conf/smoke/classify.yaml").write_text(yaml.safe_dump(SIZES))
    dataset = {"role": "train", "source": "echonet", "path": "x"}
    params = {"scale": "smoke", "datasets": {"heart": dataset}, "generate": ["heart"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**params, "seed": 0}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def sets(project, task, cfg):
    return [
        label_videos(load_frames(project / f, cfg.fps, project / "cache"), task, f)
        for f in ("data/train/heart", "samples/heart")
    ]


def params_of(project, tasks=TASKS):
    params = Params(project)
    params.raw["classify"] = tasks
    return params


@pytest.mark.slow
def test_all_arms_learn_and_a_kill_changes_no_probability(project, monkeypatch):
    task, cfg = classify_settings(params_of(project), "pah")

    def predict(work, items=10**6):
        """Train and test all; killed when training asks for one item more."""
        real, synthetic = sets(project, task, cfg)
        left, original = iter(range(items)), ClassifierTask.batch

        def batch(*arguments):
            if next(left, None) is None:
                raise KilledError
            return original(*arguments)

        def test(job):
            return predict_job(cluster.fit, job, real, cfg, project / work, NullRun(), "pah")

        with monkeypatch.context() as patch:
            patch.setattr(ClassifierTask, "batch", batch)
            return predict_all(real, synthetic, cfg, 0, test)

    table = predict("a")
    assert len(table) == 3 * 24
    assert table["probability"].between(0, 1).all()
    assert table.groupby("arm", sort=False).size().to_dict() == {
        "real": 24,
        "synthetic": 24,
        "both": 24,
    }
    assert sorted(p.name for p in (project / "a").iterdir()) == [
        f"{arm}-{k}.npy" for arm in ("both", "real", "synthetic") for k in (0, 1)
    ]
    pd.testing.assert_frame_equal(predict("a", items=0), table, check_exact=True)
    steps, per_step = cfg.loop.steps, cfg.loop.batch
    with pytest.raises(KilledError):  # in the third model, after its checkpoint of step 10
        predict("b", items=(2 * steps + 14) * per_step)
    left = [p.name for p in (project / "b/both-0").glob("checkpoint-*")]
    assert left == ["checkpoint-00000010"]
    pd.testing.assert_frame_equal(predict("b"), table, check_exact=True)
    numbers = classification_numbers(table, "pah", 0, cfg.resamples)
    assert numbers["classify/pah/videos"] == 16
    for arm in ("real", "synthetic", "both"):
        assert numbers[f"classify/pah/{arm}/auc"] > 0.9
    assert [line.get_label() for line in roc_figure(table).axes[0].lines[1:]] == [
        "real (n = 16)", "synthetic (n = 16)", "both (n = 16)",
    ]  # fmt: skip
    low, _ = classify_settings(params_of(project), "low_ef")
    assert (sets(project, low, cfg)[0].positive == sets(project, task, cfg)[0].positive).all()


class KilledError(Exception):
    """Stands for a power cut."""


class Run(NullRun):
    """Stands for an MLflow run: takes a stage's outputs, and writes its numbers."""

    def __init__(self):
        self.outputs, self.figures = [], []

    def output(self, path):
        self.outputs.append(str(path))

    def figure(self, figure, name):
        self.figures.append(name)

    def final(self, values, path):
        write_json(path, values)


@pytest.mark.slow
def test_the_stage_leaves_its_files_and_the_same_bytes_twice(project, monkeypatch):
    monkeypatch.setattr("echosyn.runtime.config.SECTIONS", (*SECTIONS, "classify"))
    monkeypatch.setattr("echosyn.tracking.stage_run", lambda *a: nullcontext(runs[-1]))
    path = project / "params.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "classify": TASKS}))
    runs, written = [], []
    for _ in range(2):
        runs.append(Run())
        main("pah")
        files = [*(project / "classification/pah").iterdir(), project / "metrics/classify/pah.json"]
        written.append({f.name: f.read_bytes() for f in files})
        shutil.rmtree(project / ".echosyn")
    assert set(written[0]) == {"predictions.csv", "roc.png", "pah.json"}
    assert written[0] == written[1]
    assert (runs[0].outputs, runs[0].figures) == (["classification/pah"], ["roc.png"])


def test_the_synthetic_arm_learns_from_no_real_video(project, monkeypatch):
    """Other real videos, other real classes: the same synthetic model, bit for bit."""
    task, cfg = classify_settings(params_of(project), "low_ef")
    real, synthetic = sets(project, task, cfg)
    turned = Labelled(
        dataclasses.replace(real.frames, data=255 - np.asarray(real.frames.data)),
        ~real.positive,
        real.patient,
    )
    weights, read = [], []
    original = FrameSet.clip
    monkeypatch.setattr(FrameSet, "clip", lambda s, *a: read.append(s) or original(s, *a))
    for k, those in enumerate((real, turned)):
        fold = patient_folds(those, cfg.folds, 0)
        job = next(j for j in plan_jobs(those, synthetic, fold, cfg, 0) if j.arm == "synthetic")
        task = ClassifierTask(cfg, job.train, job.val)
        work = project / f"w{k}"
        weights.append(fit(task, cfg.loop, job.seed, work, NullRun(), "s").state_dict())
        assert (task.mean, task.std) == (
            pytest.approx(float(np.stack([s.video(v)[0] for s, v in task.train]).mean())),
            pytest.approx(float(np.stack([s.video(v)[0] for s, v in task.train]).std())),
        )
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert {name[0] for s in read for name in s.table["FileName"]} == {"s"}


def test_what_params_ask_is_checked_by_name(project):
    with pytest.raises(EchosynError, match=r"no 'asd' under classify; known: pah, low_ef"):
        classify_settings(params_of(project), "asd")
    other = {"t": {"dataset": "lungs", "ef_below": 50}}
    with pytest.raises(EchosynError, match=r"classify.t: dataset 'lungs' has no synthetic .*heart"):
        classify_settings(params_of(project, other), "t")
    with pytest.raises(EchosynError, match="expected 'name: settings'"):
        classify_settings(params_of(project, ["t"]), "t")
    wrong = {**SIZES, "model": {**SIZES["model"], "outputs": 2}}
    (project / "conf/smoke/classify.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(EchosynError, match=r"conf/smoke/classify.yaml: model: outputs 2"):
        classify_settings(params_of(project), "pah")


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_has_its_sizes(scale, request, project):
    conf = request.config.rootpath / "conf" / scale / "classify.yaml"
    (project / "conf/smoke/classify.yaml").write_text(conf.read_text())
    _, cfg = classify_settings(params_of(project), "pah")
    assert (cfg.frames, cfg.model.widths[-1]) == {
        "smoke": (8, 4), "demo": (16, 64), "study": (16, 64), "paper": (32, 512),
    }[scale]  # fmt: skip
