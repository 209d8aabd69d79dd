"""Releases and packs, read by the libraries that people have: webdataset, datasets, and by what
EchoNet-Dynamic's own loader asks of a folder."""

import io
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from tiny_release import tiny_release

import echosyn
from echosyn.data.filelist import TRACINGS, video_path
from echosyn.release.pack import pack

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"  # before its import
NAMES = [f"v{i}" for i in range(9)]
PAGE = Path(__file__).parents[2] / "docs/loading.md"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return tiny_release(tmp_path_factory.mktemp("readers") / "release", NAMES)


@pytest.fixture(scope="module")
def packed(release):
    pack(release, release.parent / "packed", shard_bytes=20_000)
    return release.parent / "packed"


def decoded(avi):
    """The frames of an AVI file in memory, uint8 (N, H, W, 3)."""
    capture, frames = cv2.VideoCapture(io.BytesIO(avi), cv2.CAP_FFMPEG, []), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return np.stack(frames)


def test_webdataset(release, packed):
    import webdataset as wds

    shards = sorted(map(str, (packed / "shards").glob("train-*.tar")))
    assert len(shards) > 1
    samples = list(
        wds.WebDataset(shards, shardshuffle=False).decode().to_tuple("__key__", "avi", "json")
    )
    assert [key for key, _, _ in samples] == NAMES[::3]
    for key, avi, row in samples:
        assert avi == video_path(release, key).read_bytes()
        assert row["EF"] == 30.5 + NAMES.index(key)
        assert decoded(avi).shape == (9, 16, 16, 3)


@pytest.fixture
def load(tmp_path):
    from datasets import load_dataset

    return lambda *args, **options: load_dataset(*args, cache_dir=str(tmp_path / "hf"), **options)


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_a_pack_with_its_splits(release, packed, load, streaming):
    from datasets import Video

    splits = load(str(packed), streaming=streaming)
    assert set(splits) == {"train", "validation", "test"}
    samples = list(splits["validation"].cast_column("avi", Video(decode=False)))
    assert [s["__key__"] for s in samples] == NAMES[1::3]
    for sample in samples:
        name = sample["__key__"]
        assert sample["avi"]["bytes"] == video_path(release, name).read_bytes()
        assert sample["json"]["EF"] == 30.5 + NAMES.index(name)
        assert sample["json"]["ESV"] is None


@pytest.mark.slow
def test_datasets_reads_shards_by_name(packed, load):
    files = {"train": str(packed / "shards/train-*.tar")}
    assert load("webdataset", data_files=files)["train"].num_rows == 3


@pytest.mark.slow
def test_datasets_reads_the_tables(release, packed, load):
    listed = load("parquet", data_files=str(packed / "FileList.parquet"))["train"]
    assert listed["FileName"][:] == NAMES
    phases = load("parquet", data_files=str(packed / "Phases.parquet"))["train"]
    assert phases.num_rows == 9 * len(NAMES)
    assert load("csv", data_files=str(release / "FileList.csv"))["train"]["EF"][:] == [
        30.5 + i for i in range(9)
    ]


class EchoContract:
    """What `echonet.datasets.Echo` (github.com/echonet/dynamic, e01d029) asks of a folder and gives
    for EF, from its documentation: its licence allows no use of the code itself.

    FileList.csv with a Split in capitals, a FileName with or without `.avi`, every video in Videos;
    VolumeTracings.csv, always, of which videos with fewer than two traced frames are left out.
    """

    HEADER = ["FileName", "X1", "Y1", "X2", "Y2", "Frame"]

    def __init__(self, root, split, length=16, period=2):
        table = pd.read_csv(root / "FileList.csv")
        table = table[table["Split"] == split.upper()]
        table["FileName"] = [n if "." in n else f"{n}.avi" for n in table["FileName"]]
        if missing := set(table["FileName"]) - {p.name for p in (root / "Videos").iterdir()}:
            raise FileNotFoundError(sorted(missing)[0])
        tracings = pd.read_csv(root / TRACINGS)
        assert list(tracings) == self.HEADER
        traced = tracings.groupby("FileName")["Frame"].nunique()
        self.table = table[table["FileName"].map(traced).fillna(0) >= 2]
        self.root, self.length, self.period = root, length, period

    def __len__(self):
        return len(self.table)

    def __getitem__(self, i):
        row = self.table.iloc[i]
        video = decoded((self.root / "Videos" / row["FileName"]).read_bytes())
        video = video[..., ::-1].transpose(3, 0, 1, 2).astype(np.float32)
        short = max(0, self.length * self.period - video.shape[1])
        video = np.pad(video, ((0, 0), (0, short), (0, 0), (0, 0)))
        return video[:, : self.length * self.period : self.period], np.float32(row["EF"])


def test_echonets_contract_gives_the_clips_of_load_release(release, tmp_path):
    (tmp_path / "Videos").symlink_to(release / "Videos")
    (tmp_path / "FileList.csv").write_bytes((release / "FileList.csv").read_bytes())
    with pytest.raises(FileNotFoundError, match=TRACINGS):
        EchoContract(tmp_path, "val")
    lines = [f"{n}.avi,1,2,3,4,{f}" for n in NAMES[:-2] for f in (0, 5)]
    (tmp_path / TRACINGS).write_text("\n".join([",".join(EchoContract.HEADER), *lines]) + "\n")
    theirs = EchoContract(tmp_path, "val")
    ours = echosyn.load_release(release).dataset("val", random_start=False)
    assert len(theirs) == 2  # v7 is not traced
    for (clip, ef), i in zip(theirs, range(2), strict=False):
        np.testing.assert_array_equal(ours[i][0], clip)
        assert ours[i][1] == ef


@pytest.mark.slow
def test_the_code_of_the_page_runs(release, packed, tmp_path, monkeypatch, capsys):
    import datasets

    (tmp_path / "releases").mkdir()
    (tmp_path / "releases/phantom").symlink_to(release)
    (tmp_path / "phantom_packed").symlink_to(packed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    space: dict = {}
    for block in blocks:
        exec(block, space)
    said = capsys.readouterr().out
    assert "9 videos in releases/phantom> 34.5" in said
    assert f"{NAMES[6]} 36.5" in said
    assert space["clips"].shape == (3, 3, 16, 16, 16)
    assert space["train"].num_rows == 3
