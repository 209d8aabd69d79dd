"""Splits of a release are of the sizes asked for, whatever the filter refused on the way."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from small_project import make_project, released, write_lock

from echosyn.data.filelist import read_filelist, video_path
from echosyn.data.video import write_video
from echosyn.diffusion.settings import SampleVideosConfig, sampling_of
from echosyn.privacy.filters.video_result import VideoFilterResult
from echosyn.privacy.filters.video_scores import VideoScores
from echosyn.release import verify
from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError
from echosyn.synthesis.replace import replace_refused
from echosyn.synthesis.samples import synthetic_table

ASKED = SampleVideosConfig(train=5, val=3, test=2, frames=8)
TAUS = {"similarity": 0.5, "ncc": 0.5}
REFUSED = {0, 4, 6, 9, 10, 12}  # candidates of every split, and two of their replacements


def made(folder, table, indices):
    """A video of each heart, and what a filter would find."""
    paths = []
    for index in indices:
        paths.append(folder / f"{index}.avi")
        frames = np.random.default_rng(int(index)).integers(0, 255, (8, 16, 16), np.uint8)
        write_video(paths[-1], frames, 16.0)
    high = np.array([float(i in REFUSED) for i in indices], np.float32)
    rest = [np.zeros(len(high), np.int64)] * 7
    scores = VideoScores(high, high * 0, *rest, np.full(len(high), 8), 10)
    return table.assign(path=paths), scores


def filtered(folder, hearts):
    """What is left of ten candidates with so many hearts for those refused."""
    splits = [name for name, n in ASKED.counts.items() for _ in range(n)]
    efs = np.linspace(25, 70, 10)
    table = synthetic_table([f"SYN_phantom_3_{i:06d}" for i in range(10)], efs, splits, 8, 16.0)
    tried, scores = replace_refused(
        made(folder, table.assign(FrameHeight=16, FrameWidth=16), range(10)),
        np.arange(10, hearts),
        lambda part, indices, _: made(folder, part, indices),
        TAUS,
        3.0,
        lambda index: f"SYN_phantom_3_{index:06d}",
    )
    return VideoFilterResult(SimpleNamespace(taus=TAUS), tried, scores, (), {}, {})


def test_a_release_has_the_splits_asked_for(tmp_path):
    project, clips = make_project(tmp_path / "project"), tmp_path / "clips"
    clips.mkdir()
    shutil.rmtree(project / "samples/phantom")
    filtered(clips, 20).write_samples(project / "samples/phantom")
    write_lock(project)
    manifest = released(project)
    release = project / "releases/phantom"
    table = read_filelist(release / "FileList.csv")
    assert table["Split"].tolist() == ["TRAIN"] * 5 + ["VAL"] * 3 + ["TEST"] * 2
    assert table["EF"].tolist() == np.linspace(25, 70, 10).tolist()  # and the EFs asked for
    assert all(video_path(release, name).is_file() for name in table["FileName"])
    assert len(list((release / "Videos").iterdir())) == 10
    assert not {f"SYN_phantom_3_{i:06d}" for i in REFUSED} & set(table["FileName"])
    assert (manifest["videos"], manifest["splits"]) == (10, {"TRAIN": 5, "VAL": 3, "TEST": 2})
    assert "- splits: 5 TRAIN, 3 VAL, 2 TEST\n" in (release / "README.md").read_text()
    assert verify(release) == []


def test_a_dataset_may_ask_for_its_own_sizes(tmp_path):
    conf = tmp_path / "conf/smoke/sample_videos.yaml"
    conf.parent.mkdir(parents=True)
    conf.write_text("{train: 8, val: 2, test: 2, frames: 16}")
    one = {"role": "train", "source": "echonet", "path": "raw"}

    def counts(**entry):
        params = {"scale": "smoke", "datasets": {"one": {**one, **entry}}}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        return sampling_of(Params(tmp_path), "one").counts

    assert counts() == {"TRAIN": 8, "VAL": 2, "TEST": 2}
    assert counts(synthetic={"TRAIN": 5, "VAL": 3}) == {"TRAIN": 5, "VAL": 3, "TEST": 2}
    with pytest.raises(EchosynError, match=r"datasets\.one\.synthetic: train: 0 is below"):
        counts(synthetic={"TRAIN": 0})
    with pytest.raises(EchosynError, match="synthetic: 'train' is not one of TRAIN, VAL, TEST"):
        counts(synthetic={"train": 5})


def test_without_hearts_to_replace_with_there_is_no_smaller_release(tmp_path):
    with pytest.raises(EchosynError, match="10 videos are wanted, 8 of 14 tried were accepted"):
        filtered(tmp_path, 15)
