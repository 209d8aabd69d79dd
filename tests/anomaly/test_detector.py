"""The detector: what it learns in seconds, what it cannot learn, and what it refuses to score."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from echosyn.anomaly.kinds import KINDS
from echosyn.anomaly.measure import (
    drawn_numbers,
    drawn_videos,
    made_numbers,
    require_better_than_chance,
)
from echosyn.anomaly.task import AnomalyConfig, AnomalyTask, Clips
from echosyn.data.frames import FrameSet
from echosyn.data.phantom import PhantomConfig, render_patient
from echosyn.models.anomaly import AnomalyDetector, AnomalyNet, clip_scores
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.tracking import NullRun
from echosyn.training.loop import fit

PHANTOM = PhantomConfig(train=10, val=6, test=6, frames=36, size=64)
UNSEEN = [kind for kind in KINDS if kind != "pace"]  # what is learned in seconds
CONF = {
    "loop": {"steps": 40, "batch": 4, "lr": 6e-3, "warmup": 5, "precision": "fp32"},
    "width": 8,
    "window": 12,
    "measured": 6,
    "held_out": UNSEEN,
}


def config(**more):
    return build(AnomalyConfig, {**CONF, **more}, "test")


@pytest.fixture(scope="module")
def frames():
    """The phantom at 16 frames a second."""
    videos = [render_patient(i, PHANTOM, 0).frames[::2] for i in range(PHANTOM.videos)]
    lengths = np.full(len(videos), len(videos[0]))
    table = pd.DataFrame({"Split": [PHANTOM.split(i) for i in range(len(videos))]})
    starts = np.cumsum(lengths) - lengths
    return FrameSet(np.concatenate(videos), table, starts, lengths, 16.0)


@pytest.fixture(scope="module")
def clips(frames):
    return {split: Clips.of(frames, split, config()) for split in ("TRAIN", "VAL", "TEST")}


class Shuffled(AnomalyTask):
    """Labels that belong to no clip: half of the anomalies are called sound."""

    def batch(self, indices, rng):
        made = super().batch(indices, rng)
        return {**made, "target": made["target"].flip(1) if rng.random() < 0.5 else made["target"]}


@pytest.fixture(scope="module")
def trained(clips, tmp_path_factory):
    """A network that learned, and one whose labels were shuffled, with what VAL says."""

    def learn(kind):
        task = kind(config(), clips["TRAIN"], clips["VAL"])
        work = tmp_path_factory.mktemp("work")
        net = fit(task, task.cfg.loop, 0, work, NullRun(), "test")
        return net, task.validate(net)

    return {kind: learn(kind) for kind in (AnomalyTask, Shuffled)}


def test_it_finds_kinds_that_it_did_not_learn(trained, clips):
    net, _ = trained[AnomalyTask]
    numbers = made_numbers(net, clips["TEST"], config(), 0)
    names = {k.split("/")[1] for k in numbers}
    assert names == {"learned_pace", *(f"unseen_{k}" for k in UNSEEN)}
    for name in names:
        lo, value, hi = (numbers[f"anomaly/{name}/auroc{end}"] for end in ("_lo", "", "_hi"))
        assert lo <= value <= hi
    assert numbers["anomaly/unseen_frozen/auroc"] > 0.8
    require_better_than_chance(numbers["anomaly/unseen_frozen/auroc"], 0.6, "phantom")


def test_one_that_learned_nothing_is_noticed(trained):
    _, found = trained[Shuffled]
    assert found["least_auroc"] <= found["auroc"] == 1 - found["loss"]
    assert abs(found["auroc"] - 0.5) < 0.2
    with pytest.raises(EchosynError, match=r"it would refuse videos at random.*loop.steps"):
        require_better_than_chance(found["least_auroc"], 0.6, "phantom")


def test_drawn_kinds_are_scored_as_videos(trained, clips):
    detector = AnomalyDetector(trained[AnomalyTask][0])
    cfg = config(measured=5)
    numbers = drawn_numbers(detector, clips["TEST"], PHANTOM, cfg, 0)
    found = {k.split("/")[1] for k in numbers}
    assert found == {
        f"unseen_drawn_{kind}"
        for kind in ("extra_chamber", "missing_wall", "doubled_valve", "frozen", "reversed")
    }
    ring = dataclasses.replace(PHANTOM, view="psax")
    assert len(list(drawn_videos(ring, "frozen", 2, 0))) == 2


def test_a_score_is_that_of_the_strangest_window(trained):
    detector = AnomalyDetector(trained[AnomalyTask][0])
    sound = render_patient(0, PHANTOM, 0).frames
    maps, starts = detector.maps(sound, 32.0)
    assert starts.tolist() == [0, 6]
    assert maps.shape == (2, 32, 32)
    each = clip_scores(torch.from_numpy(maps)[:, None])
    assert detector.score(sound, 32.0) == pytest.approx(float(each.max()))
    assert len(detector.maps(sound[::2], 16.0)[1]) == 2
    assert len(detector.maps(sound[:24:2], 16.0)[1]) == 1
    with pytest.raises(EchosynError, match="11 at 16, and the anomaly detector looks at 12: lower"):
        detector.score(sound[:22:2], 16.0)


def test_it_survives_the_disk(trained, tmp_path):
    net, _ = trained[AnomalyTask]
    net.save(tmp_path / "model")
    back = AnomalyNet.load(tmp_path / "model")
    x = torch.rand(2, 12, 64, 64)
    assert torch.equal(net(x), back(x))
    assert (back.window, back.fps) == (12, 16.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out": []}, "no anomaly kind is left for validation"),
        ({"held_out": list(KINDS)}, "none is left to learn from"),
        ({"held_out": ["wal"]}, r"'wal' is not one of .*did you mean 'wall'"),
        ({"width": 12}, "no multiple of 8"),
        ({"windows": 8}, "unknown setting 'windows'; did you mean 'window'"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(EchosynError, match=message):
        config(**change)


def test_videos_shorter_than_the_window_are_left_out_and_too_few_refused(frames):
    assert len(Clips.of(frames, "VAL", config())) == 6
    with pytest.raises(EchosynError, match="0 of 6 VAL videos have 20 frames at 16 a second"):
        Clips.of(frames, "VAL", config(window=20))
