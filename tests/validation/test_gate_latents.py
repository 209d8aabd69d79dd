"""The gate of latents: each check passes on good shards, and fails on a defect that is its own."""

import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from echosyn.data.filelist import COLUMNS
from echosyn.data.latents import INDEX_COLUMNS
from echosyn.data.video import resample_indices
from echosyn.models.vae import LATENT_CHANNELS
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json
from echosyn.validation import LatentsConfig, run_latents_gate
from echosyn.validation.engine import evaluate
from echosyn.validation.gate import SHAPES, latents_checks
from echosyn.validation.latents import read_latents
from echosyn.validation.suites import load_suite

N, FPS, SOURCE_FPS, SOURCE_FRAMES = 8, 16.0, 50.0, 40
FRAMES = len(resample_indices(SOURCE_FRAMES, SOURCE_FPS, FPS))
SPLITS = ["TRAIN"] * 4 + ["VAL"] * 2 + ["TEST"] * 2
NAMES = [f"v{i}" for i in range(N)]
SHARDS = [f"latents-{4 * (i // 4):06d}.safetensors" for i in range(N)]


def latent(seed, frames=FRAMES, scale=1.0, offset=0.0):
    rng = np.random.default_rng(seed)
    mean = rng.normal(offset, scale, (frames, 4, 14, 14))
    return np.concatenate([mean, np.full_like(mean, -4.0)], axis=1).astype(np.float16)


class Folder:
    """A dataset's FileList and its latents; `write` puts both on the disk."""

    def __init__(self, root):
        self.latents, self.dataset = root / "latents" / "ds", root / "data" / "ds"
        self.root = root
        ef = [30.0 + 5 * i for i in range(N)]
        listed = (NAMES, ef, "", "", 112, 112, SOURCE_FPS, SOURCE_FRAMES, SPLITS)
        self.listed = pd.DataFrame(dict(zip(COLUMNS, listed, strict=True)))
        self.listed["Patient"] = [f"p{i}" for i in range(N)]
        self.index = pd.DataFrame(
            {
                "FileName": NAMES,
                "EF": ef,
                "Split": SPLITS,
                "FPS": FPS,
                "NumberOfFrames": FRAMES,
                "Shard": SHARDS,
                "Patient": self.listed["Patient"],
            }
        )
        self.tensors = {s: {} for s in SHARDS}
        for i, (name, shard) in enumerate(zip(NAMES, SHARDS, strict=True)):
            self.tensors[shard][name] = latent(i)

    def put(self, i, value):
        self.tensors[SHARDS[i]][NAMES[i]] = value

    def write(self):
        for folder, file, table in (
            (self.latents, "index.csv", self.index),
            (self.dataset, "FileList.csv", self.listed),
        ):
            folder.mkdir(parents=True)
            table.to_csv(folder / file, index=False)
        for shard, tensors in self.tensors.items():
            save_file(tensors, self.latents / shard)
        return self

    def judge(self, **settings):
        self.write()
        config = LatentsConfig(**settings)
        tables = read_latents(self.latents, self.dataset, config.fps_tolerance)
        checks = latents_checks(tables, config)
        return {o.check.name: o for o in evaluate(checks, tables, None, "latents ds")}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def failing(outcomes):
    return {name for name, o in outcomes.items() if not o.passed}


@pytest.mark.slow
def test_good_latents_pass_with_the_same_bytes_each_time(folder):
    folder.write()
    passed, docs = folder.root / "gates" / "ds.json", folder.root / "docs"
    made = []
    for config in (LatentsConfig(), LatentsConfig(mean=0.5)):
        result = run_latents_gate(
            folder.latents, folder.dataset, config, passed=passed, docs=docs, datasets=["ds"]
        )
        result.require()
        assert not result.warned
        made.append(passed.read_bytes())
    assert made[0] == made[1]
    assert read_json(passed)["frames"] == N * FRAMES
    assert {o.check.name for o in result.outcomes} == {c.name for c in load_suite("latents").checks}
    numbers = result.metrics()
    assert numbers["gate/channel_1/sd"] == pytest.approx(1.0, abs=0.05)
    assert numbers["gate/channel_4/posterior_sd"] == pytest.approx(np.exp(-2))
    assert "Channels" in result.page.read_text()


def drop(table, column):
    return table.drop(columns=column)


# What is done to good latents, the checks that must fail, what must be shown.
DEFECTS = {
    "a column is missing": (
        lambda f: setattr(f, "index", drop(f.index, "EF")),
        {"columns"},
        "FileName, EF, Split",
    ),
    "a video is twice in the index": (
        lambda f: setattr(f, "index", pd.concat([f.index, f.index[5:6]])),
        {"unique_names"},
        "line 7, v5: FileName v5",
    ),
    "a video is not in the FileList": (
        lambda f: setattr(f, "listed", f.listed.drop(3)),
        {"listed"},
        "line 5, v3: FileName v3",
    ),
    "a video of the FileList has no latents": (
        lambda f: (
            setattr(f, "index", f.index.drop(6)),
            f.tensors[SHARDS[6]].pop("v6"),
        ),
        {"complete"},
        "line 8, v6: Split TEST",
    ),
    "a video is not in its shard": (
        lambda f: f.tensors[SHARDS[2]].pop("v2"),
        {"readable", "complete"},
        "line 4, v2: Error 'latents-000000.safetensors does not hold it'",
    ),
    "a shard is missing": (
        lambda f: f.tensors.pop(SHARDS[7]),
        {"readable", "complete"},
        "line 6, v4: Error 'latents-000004.safetensors does not exist'",
    ),
    "the index leaves the folder": (
        lambda f: f.index.__setitem__("Shard", ["../x.safetensors", *SHARDS[1:]]),
        {"readable", "complete", "all_indexed"},
        "line 2, v0: Error \"'../x.safetensors' is not a plain file name\"",
    ),
    "a shard holds more than the index": (
        lambda f: f.tensors[SHARDS[0]].update(stray=latent(99)),
        {"all_indexed"},
        "latents-000000.safetensors: Unindexed 1, First stray",
    ),
    "the splits differ": (
        lambda f: f.index.__setitem__("Split", ["VAL", *SPLITS[1:]]),
        {"same_split"},
        "line 2, v0: Split VAL, ListedSplit TRAIN",
    ),
    "the EFs differ": (
        lambda f: f.index.__setitem__("EF", [31.0, *f.listed["EF"][1:]]),
        {"same_ef"},
        "line 2, v0: EF 31, ListedEF 30",
    ),
    "the patients differ": (
        lambda f: f.index.__setitem__("Patient", ["q", *f.listed["Patient"][1:]]),
        {"same_patient"},
        "line 2, v0: Patient q, ListedPatient p0",
    ),
    "another frame rate": (
        lambda f: f.index.__setitem__("FPS", [FPS] * 7 + [32.0]),
        {"one_rate", "frames_expected"},
        "line 9, v7: FPS 32",
    ),
    "the index says more frames": (
        lambda f: f.index.__setitem__("NumberOfFrames", [FRAMES] * 7 + [FRAMES + 1]),
        {"frames_true", "frames_expected"},
        f"line 9, v7: NumberOfFrames {FRAMES + 1}, Frames {FRAMES}",
    ),
    "frames were lost": (
        lambda f: (
            f.put(1, latent(1, FRAMES - 2)),
            f.index.__setitem__("NumberOfFrames", [FRAMES, FRAMES - 2] + [FRAMES] * 6),
        ),
        {"frames_expected"},
        f"line 3, v1: NumberOfFrames {FRAMES - 2}, ExpectedFrames {FRAMES}",
    ),
    "another shape": (
        lambda f: f.put(1, latent(1)[:, :, :12, :12].copy()),
        {"shape"},
        "line 3, v1: Shape 'float16 8x12x12'",
    ),
    "another type": (
        lambda f: f.put(1, latent(1).astype(np.float32)),
        {"shape"},
        "line 3, v1: Shape 'float32 8x14x14'",
    ),
    "three axes": (
        lambda f: f.put(1, latent(1)[:, 0].copy()),
        {"shape"},
        f"line 3, v1: Shape 'float16 ({FRAMES}, 14, 14)'",
    ),
    "NaN and infinity": (
        lambda f: f.put(
            1, np.where(np.indices((FRAMES, 8, 14, 14))[3] == 3, np.inf, latent(1)).astype("f2")
        ),
        {"finite"},
        f"line 3, v1: NotFinite {FRAMES * 8 * 14}",
    ),
    "a constant video": (
        lambda f: f.put(1, np.zeros((FRAMES, 8, 14, 14), np.float16)),
        {"not_constant"},
        "line 3, v1: Mean 0, Sd 0",
    ),
    "shifted latents": (
        lambda f: [f.put(i, latent(i, offset=2.0)) for i in range(N)],
        {"channel_mean"},
        "1: Mean 2",
    ),
    "latents of another scale": (
        lambda f: [f.put(i, latent(i, scale=0.18)) for i in range(N)],
        {"channel_sd"},
        "1: Sd 0.1",
    ),
    "a posterior that says nothing": (
        lambda f: [f.put(i, np.abs(latent(i))) for i in range(N)],
        {"posterior"},
        "1: PosteriorSd 7.3",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found_by_its_checks_and_no_others(folder, name):
    change, expected, shown = DEFECTS[name]
    change(folder)
    outcomes = folder.judge()
    assert failing(outcomes) == expected
    texts = [e for c in expected for e in outcomes[c].examples]
    assert any(shown in text for text in texts), texts


def test_every_check_has_a_defect():
    tested = {check for _, checks, _ in DEFECTS.values() for check in checks}
    assert tested == {c.name for c in load_suite("latents").checks}


def test_the_suite_asks_for_what_encode_writes():
    checks = {c.name: c.arguments for c in load_suite("latents").checks}
    assert checks["columns"]["column_set"] == list(INDEX_COLUMNS)
    assert checks["shape"]["value_set"] == "$shapes"
    assert [f"float16 {2 * LATENT_CHANNELS}x{n}x{n}" for n in (14, 28)] == list(SHAPES)


@pytest.mark.slow
def test_one_folder_has_latents_of_one_size(folder):
    """Either size passes, a few of the other do not."""
    for i in range(N):
        folder.put(i, latent(i)[:, :, :1, :1].repeat(28, 2).repeat(28, 3))
    assert "shape" not in failing(folder.judge())
    folder.put(3, latent(3))
    shutil.rmtree(folder.latents)
    shutil.rmtree(folder.dataset)
    assert "shape" in failing(folder.judge())


def test_channels_are_those_of_train(folder):
    for i in range(4, N):  # VAL and TEST
        folder.put(i, latent(i, offset=3.0))
    assert not failing(folder.judge())


@pytest.mark.slow
def test_a_guest_without_train_is_judged_whole(folder):
    folder.index["Split"] = folder.listed["Split"] = "TEST"
    folder.put(0, latent(0, offset=40.0))
    outcomes = folder.judge()
    assert failing(outcomes) == {"channel_mean", "channel_sd"}
    assert all(outcomes[c].warns for c in failing(outcomes))


def test_a_damaged_shard_is_named(folder):
    folder.write()
    path = folder.latents / SHARDS[0]
    path.write_bytes(path.read_bytes()[:-100])
    tables = read_latents(folder.latents, folder.dataset)
    errors = tables["videos"].frame["Error"]
    assert errors[:4].str.contains("latents-000000.safetensors cannot be read").all()
    assert errors[4:].isna().all()


def test_a_dataset_without_ef(folder):
    folder.index["EF"] = folder.listed["EF"] = ""
    assert not failing(folder.judge())
    (folder.latents / "index.csv").write_text("FileName\n")
    with pytest.raises(EchosynError, match="no rows"):
        read_latents(folder.latents, folder.dataset)


@pytest.mark.parametrize(("tolerance", "passes"), [(4.5, True), (0.5, False)])
def test_a_frame_rate_rounded_in_the_list_is_no_lost_frame(folder, tolerance, passes):
    """The listed rate makes one frame more than the file's own, from which the latents are."""
    folder.listed["FPS"] = SOURCE_FPS - 4
    assert len(resample_indices(SOURCE_FRAMES, SOURCE_FPS - 4, FPS)) > FRAMES
    outcomes = folder.judge(fps_tolerance=tolerance)
    assert ("frames_expected" not in failing(outcomes)) == passes
