"""Strange videos among the candidates: refused, replaced, named and shown."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from finished_project import ENCODING, FPS, SAMPLING, SEED, make_project

from echosyn.cluster import run_shards
from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import resample_indices, write_video
from echosyn.models.anomaly import AnomalyDetector, AnomalyNet
from echosyn.privacy.filters.calibration import CalibrationConfig
from echosyn.privacy.filters.video_scores import VideoFilterConfig
from echosyn.report.strange import strange_section
from echosyn.runtime.errors import EchosynError
from echosyn.synthesis.replace import filter_finished
from echosyn.synthesis.strangest import STRANGEST, write_strangest

pytestmark = pytest.mark.slow  # all need the finished project

CFG = VideoFilterConfig(
    CalibrationConfig(false_rejection=0.5, resamples=100),
    limit=6.0,
    shard=2,
    anomaly_rate=0.25,
    anomaly_most=0.5,
)
WHITE = 3  # the place of a candidate that no heart looks like


def brightness(self, video, fps):
    """Stands for what a trained network finds: windows whose corners are bright."""
    seen = video[resample_indices(len(video), fps, self.net.fps)]
    n, window = self.frames(len(video), fps), self.net.window
    starts = np.arange(0, n - window + 1, 2)
    maps = [seen[s : s + window, ::2, ::2].mean(0) / 10 - 12 for s in starts]
    return np.stack(maps).astype(np.float32), starts


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    root = tmp_path_factory.mktemp("strange")
    sources = make_project(root, hearts=30)
    name = read_filelist(sources.candidates / "FileList.csv")["FileName"][WHITE]
    white = np.full((SAMPLING.frames, 112, 112), 255, np.uint8)
    write_video(video_path(sources.candidates, name), white, ENCODING.fps)
    AnomalyNet(8, 6, FPS / 2).save(root / "detectors/phantom")
    sources = dataclasses.replace(sources, anomaly=root / "detectors/phantom")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnomalyDetector, "maps", brightness)
        result = run(root, sources)
        out = tmp_path_factory.mktemp("out")
        result.write(out)
        write_strangest(out, result, AnomalyDetector.load(sources.anomaly))
    return sources, result, out, name


def run(root, sources, cfg=CFG):
    def shards(folder, items, size, worker, label):
        return run_shards(folder, items, size, worker, "filter_videos", "video", label)

    work = root / "work"
    work.mkdir(exist_ok=True)
    return filter_finished(sources, cfg, SAMPLING, ENCODING, SEED, work, shards)


def test_what_is_strange_is_replaced_and_the_reason_named(outcome):
    _, result, out, name = outcome
    assert name not in set(result.samples()["FileName"])
    assert len(result.samples()) == 5
    table = pd.read_csv(out / "video_scores.csv", keep_default_na=False)
    row = table[table["video"] == name].iloc[0]
    assert "anomaly" in row["refused_by"].split("+")
    assert float(row["anomaly"]) == pytest.approx(13.5)
    assert ((table["refused_by"] == "") == table["accepted"]).all()


def test_numbers_say_what_was_refused_and_why(outcome):
    _, result, _, _ = outcome
    numbers = result.numbers()
    assert numbers["anomaly/refused"] >= 0.2
    assert numbers["anomaly/false_alarm_asked"] == 0.25
    assert numbers["anomaly/calibration_people"] == 4
    assert numbers["privacy_videos/accepted"] == 5
    assert not [k for k in numbers if k.startswith("privacy_videos") and "anomaly" in k]
    kept = result.scores.anomaly[result.accepted]
    assert (kept < result.gate.tau).all()


def test_the_strangest_are_shown_with_their_maps(outcome):
    _, result, out, name = outcome
    with np.load(out / STRANGEST) as shown:
        names, refused = shown["names"].tolist(), shown["refused"]
        assert shown["frames"].shape == shown["maps"].shape
        assert shown["maps"][names.index(name)].min() > 250
    assert refused[names.index(name)]
    assert names[0] == name  # the strangest first
    assert 0 < (~refused).sum() <= 4
    section = strange_section(out / STRANGEST, result.numbers())
    assert [title for title, _, _ in section["pictures"]] == ["Refused", "Kept"]
    assert "25% of held-out real videos" in section["sentences"][0]
    assert strange_section(out / "none.npz", {}) is None


def test_bad_input_says_what_to_set(outcome):
    sources, _, _, _ = outcome
    root = sources.candidates.parents[1]
    with pytest.raises(EchosynError, match=r"4 VAL people .*takes 10 to calibrate: set `anomaly"):
        run(root, sources, dataclasses.replace(CFG, anomaly_rate=0.1))
    AnomalyNet(8, 16, FPS / 2).save(root / "detectors/long")
    long = dataclasses.replace(sources, anomaly=root / "detectors/long")
    with pytest.raises(EchosynError, match="10 at 16, and the anomaly detector looks at 16: lower"):
        run(root, long)
