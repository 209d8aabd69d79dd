"""Plans and shards of synthetic videos: what is asked for; that a sample's bytes are its own."""

import dataclasses
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from plain_speckle import plain_speckle
from small_project import write_dataset
from tiny_video import tiny_video

from echosyn.data.filelist import read_filelist
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.heart_file import HEARTS, Hearts
from echosyn.diffusion.objectives import make_objective
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.encoding.codec import VideoCodec
from echosyn.models.condition import ConditionSpec
from echosyn.models.published_image import UnetConfig
from echosyn.models.published_video import PublishedVideoDenoiser
from echosyn.models.vae import Vae, VaeConfig
from echosyn.privacy.filters.hearts import AcceptedHearts
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.synthesis import video_writer
from echosyn.synthesis.samples import (
    SamplePlan,
    finish_samples,
    plan_samples,
    replanned,
    sample_numbers,
    sample_shard,
)
from echosyn.synthesis.video_writer import WAITING, VideoModels, VideoWriter

SIZE, WINDOW, FPS = 8, 4, 16.0
TINY = UnetConfig(widths=(32, 32), attention=(False, True), heads=(1, 1))
CFG = SampleVideosConfig(
    train=2, val=1, test=1, frames=7, overlap=2, steps=2, batch=4, precision="fp32"
)


def write_model(folder, spec=ConditionSpec(), objective="flow", **changes):  # noqa: B008
    torch.manual_seed(0)
    if spec.published:
        model = PublishedVideoDenoiser.create(TINY, WINDOW, SIZE)
    else:
        model = tiny_video(WINDOW, spec, SIZE, continues=True)
    if changes:
        config = {**model.net.config, **changes}
        model = PublishedVideoDenoiser(UNetSpatioTemporalConditionModel.from_config(config))
    model.save(folder)
    make_objective(objective).save(folder)
    speckle = folder.parent / "speckle"
    speckle.mkdir()
    plain_speckle().save(speckle)
    names = ("vae", "ef", "lidm", "speckle")
    return VideoModels(folder, *(folder.parent / name for name in names))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """An untrained video model and VAE."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(1)
    Vae.create(VaeConfig(widths=(8, 16, 16))).save(root / "vae")
    return write_model(root / "lvdm")


def accepted(folder, ef=None, classes=None, size=SIZE, n=9):
    generator = torch.Generator().manual_seed(5)
    drawn = Hearts(torch.randn(n, 4, size, size, generator=generator), ef, classes)
    folder.mkdir(exist_ok=True)
    drawn.write(folder / HEARTS, indices=torch.arange(n) * 3)
    return AcceptedHearts(folder)


def test_the_hearts_of_samples_are_those_that_their_names_say(tmp_path):
    hearts = accepted(tmp_path / "hearts")
    write_dataset(tmp_path / "samples", ["set_000009", "set_000003"], 16.0, 4, seed=0)
    assert torch.equal(hearts.shown_in(tmp_path / "samples"), hearts.take(np.array([9, 3])))
    write_dataset(tmp_path / "others", ["set_000004"], 16.0, 4, seed=0)
    with pytest.raises(EchosynError, match="heart 4 is not among those accepted"):
        hearts.shown_in(tmp_path / "others")


def real(ef=(30.0, 50.0, 60.0, 70.0), classes=(None,) * 4, beats=None):
    """What of TRAIN's latents a plan reads."""
    table = pd.DataFrame({"FPS": [FPS] * len(ef)})
    beats = np.full((len(ef), 2), np.nan) if beats is None else np.array(beats)
    return SimpleNamespace(ef=np.array(ef), classes=list(classes), table=table, beats=beats)


class Recorder:
    """A codec that keeps the latents it gets: pixels are rounded, latents show every bit."""

    def __init__(self):
        self.videos = []

    def decode(self, z):
        self.videos += [part.numpy().tobytes() for part in z.split(CFG.frames)]
        return np.zeros((len(z), 8, 8), np.uint8)


def recorded(sampler, plan, shards, folder):
    codec = Recorder()
    for rows in shards:
        folder.mkdir(exist_ok=True)
        sample_shard(sampler, codec, plan, rows, folder, 0)
    return sorted(codec.videos)  # of threads, the first one done


# ---- a sample's bytes are its own


@pytest.mark.slow
@pytest.mark.parametrize("windows", ["blend", "shift", "continue", "discard"])
def test_batches_shards_and_threads_change_no_bit_of_a_video(
    models, tmp_path, windows, monkeypatch
):
    plan = plan_samples("set", CFG, accepted(tmp_path / "hearts"), real(), 0)
    cfg = dataclasses.replace(CFG, windows=windows)
    monkeypatch.setenv("ECHOSYN_THREADS", "3")
    together = recorded(VideoSampler(models.video, cfg), plan, [range(4)], tmp_path / "together")
    monkeypatch.setenv("ECHOSYN_THREADS", "1")
    alone = VideoSampler(models.video, dataclasses.replace(cfg, batch=1))
    cut = [range(1), range(1, 4)]
    assert recorded(alone, plan, cut, tmp_path / "apart") == together
    assert len(set(together)) == 4


@pytest.mark.slow
def test_files_are_the_same_however_the_work_is_cut(models, tmp_path):
    plan = plan_samples("set", CFG, accepted(tmp_path / "hearts"), real(), 0)
    tables = []
    for name, cuts in (("whole", [range(4)]), ("cut", [range(1), range(1, 4)])):
        sampler, codec, speckle, meter = models.open(CFG, plan.fps, FPS, plan.has_ef)
        assert meter is None
        folders = [tmp_path / name / str(r.start) for r in cuts]
        for rows, folder in zip(cuts, folders, strict=True):
            folder.mkdir(parents=True)
            sample_shard(sampler, codec, plan, rows, folder, 0, speckle, meter)
        tables.append(finish_samples(folders, plan, tmp_path / name / "out"))
    files = [
        {p.name: p.read_bytes() for p in (tmp_path / n / "out").rglob("*") if p.is_file()}
        for n in ("whole", "cut")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 6
    assert tables[0].equals(tables[1])
    numbers = sample_numbers(tables[0], folders, CFG, 0)
    assert numbers["sample_videos/videos"] == 4
    assert numbers["sample_videos/frames"] == 4 * CFG.frames
    assert numbers["sample_videos/ef_mean"] == pytest.approx(tables[0]["EF"].mean())
    assert json.dumps(numbers, allow_nan=False)
    assert set(numbers) == {f"sample_videos/{k}" for k in ("videos", "frames", "ef_mean", "ef_sd")}


def test_videos_decoded_together_stay_apart(models, tmp_path):
    plan = plan_samples("set", CFG, accepted(tmp_path / "hearts"), real(), 0)
    sampler, codec = VideoSampler(models.video, CFG), VideoCodec(Vae.load(models.vae))
    z = sampler.animate(plan.hearts.take(plan.indices[:2]), torch.tensor(plan.ef[:2]), [0, 3], 0)
    together = codec.decode(z.flatten(0, 1)).reshape(2, CFG.frames, 64, 64).astype(int)
    apart = np.stack([codec.decode(one) for one in z]).astype(int)
    assert np.abs(together - apart).max() <= 1  # rounding
    assert np.abs(together[0] - apart[1]).max() > 1


# ---- plans


def test_a_plan_gives_every_heart_an_ef_and_a_split(tmp_path):
    hearts = accepted(tmp_path / "hearts")
    plan = plan_samples("set", CFG, hearts, real(), 7)
    assert plan.indices.tolist() == [0, 3, 6, 9]
    assert plan.table["FileName"].tolist()[1] == "SYN_set_7_000003"
    assert plan.table["Split"].tolist() == ["TRAIN"] * 2 + ["VAL", "TEST"]
    assert plan.fps == FPS
    assert plan.has_ef
    assert plan.classes is None
    assert plan.table["EF"].between(30, 70).all()
    with pytest.raises(EchosynError, match="9 accepted hearts, but 12 videos are wanted"):
        plan_samples("set", dataclasses.replace(CFG, train=10), hearts, real(), 7)
    with pytest.raises(EchosynError, match="no TRAIN video has one"):
        plan_samples("set", CFG, hearts, real((np.nan, np.nan)), 7)


def test_what_a_heart_was_drawn_for_is_asked_of_its_video(tmp_path):
    asked = np.arange(9) + 40.0
    names = tuple("abc"[i % 3] for i in range(9))
    plan = plan_samples("set", CFG, accepted(tmp_path / "ef", ef=asked), real(), 0)
    assert plan.table["EF"].tolist() == asked[:4].tolist()
    hearts = accepted(tmp_path / "classes", classes=names)
    plan = plan_samples("set", CFG, hearts, real((np.nan,) * 4, "aabb"), 0, "class")
    assert plan.classes == list(names[:4])
    assert not plan.has_ef


def test_classes_are_drawn_by_trains_frequencies_in_every_split(tmp_path):
    hearts = accepted(tmp_path / "hearts", n=60)
    cfg = dataclasses.replace(CFG, train=40, val=8, test=8)
    train = real((np.nan,) * 4, ("PAH", "non-PAH", "non-PAH", "non-PAH"))
    plan = plan_samples("set", cfg, hearts, train, 0, "class")
    share = plan.table.groupby("Split")["Class"].agg(lambda c: (c == "PAH").mean())
    assert share.tolist() == [0.25, 0.25, 0.25]
    assert plan.table["EF"].isna().all()
    assert plan.classes[:40] != sorted(plan.classes[:40])
    with pytest.raises(EchosynError, match="no TRAIN video has one"):
        plan_samples("set", cfg, hearts, real((np.nan,) * 4), 0, "class")


def test_a_class_dataset_is_sampled_without_ef(tmp_path):
    found = write_model(tmp_path / "lvdm", ConditionSpec(ef=False, classes=("a", "b")))
    train = real((np.nan,) * 4, "abab")
    plan = plan_samples("set", CFG, accepted(tmp_path / "hearts"), train, 0, "class")
    sampler = found.sampler(CFG, plan.fps, FPS)
    first = recorded(sampler, plan, [range(2)], tmp_path / "out")
    other = plan.table.assign(Class=[{"a": "b", "b": "a"}[c] for c in plan.classes])
    swapped = SamplePlan(plan.hearts, plan.indices, other)
    assert recorded(sampler, swapped, [range(2)], tmp_path / "out") != first
    table = finish_samples([tmp_path / "out"], plan, tmp_path / "done")
    written = read_filelist(tmp_path / "done/FileList.csv", "class")
    assert written["Class"].tolist() == plan.classes
    assert not any("ef" in k for k in sample_numbers(table, [tmp_path / "out"], CFG, 0))


def test_a_model_without_classes_takes_hearts_of_a_class_but_no_drawn_one(models, tmp_path):
    sampler, train = VideoSampler(models.video, CFG), real((50.0,) * 4, "abab")
    hearts = accepted(tmp_path / "labelled", classes=("a",) * 9)
    plan = plan_samples("set", CFG, hearts, train, 0, "class")
    assert len(recorded(sampler, plan, [range(1)], tmp_path / "out")) == 1
    plan = plan_samples("set", CFG, accepted(tmp_path / "hearts"), train, 0, "class")
    with pytest.raises(EchosynError, match="trained without classes"):
        recorded(sampler, plan, [range(1)], tmp_path / "out")


def test_a_replacement_is_asked_for_what_its_place_was(tmp_path):
    hearts = accepted(tmp_path / "hearts")
    places = pd.DataFrame({"FileName": ["x", "y"], "EF": [41.0, 44.0], "EFAsked": [30.0, 60.0]})
    plan = replanned(hearts, np.array([6, 9]), places)
    assert plan.table["EF"].tolist() == [30.0, 60.0]
    assert plan.table["EFAsked"].tolist() == [30.0, 60.0]
    assert plan.table["EFMeasured"].isna().all()
    hearts = accepted(tmp_path / "labelled", ef=np.arange(9) + 40.0)
    assert replanned(hearts, np.array([6, 9]), places).table["EF"].tolist() == [42.0, 43.0]


# ---- frame rates


def test_the_rate_asked_for_conditions_a_model_that_knows_rates(models, tmp_path):
    hearts, cfg = accepted(tmp_path / "hearts"), dataclasses.replace(CFG, fps=8.0)
    slow, own = (plan_samples("set", c, hearts, real(), 0) for c in (cfg, CFG))
    assert (slow.table["FPS"] == 8.0).all()
    with pytest.raises(
        EchosynError, match=r"lvdm: 8 frames per second .* the latents' 16: set fps"
    ):
        models.sampler(cfg, slow.fps, FPS)
    rated = write_model(tmp_path / "lvdm", ConditionSpec(fps=True))
    sampler = rated.sampler(cfg, slow.fps, FPS)
    videos = [recorded(sampler, plan, [range(1)], tmp_path / "out") for plan in (slow, own)]
    assert videos[0] != videos[1]


# ---- writing while sampling


def test_a_video_that_cannot_be_written_stops_the_shard(models, tmp_path, monkeypatch):
    def full(path, frames, fps):
        raise EchosynError(f"{path.name}: no space")

    monkeypatch.setattr(video_writer, "write_video", full)
    plan = plan_samples("set", CFG, accepted(tmp_path / "hearts"), real(), 0)
    with pytest.raises(EchosynError, match=r"SYN_set_0_000000\.avi: no space"):
        recorded(VideoSampler(models.video, CFG), plan, [range(1)], tmp_path / "out")


def test_videos_wait_to_be_written_but_not_too_many(tmp_path, monkeypatch):
    go, written = threading.Event(), []

    def slow(path, frames, fps):
        assert go.wait(20)
        written.append(path.name)

    monkeypatch.setattr(video_writer, "write_video", slow)
    with VideoWriter(tmp_path, FPS) as writer:
        for i in range(WAITING):  # none of these waits for a thread
            writer.put(f"v{i}", np.zeros((1, 8, 8), np.uint8))
        assert written == []
        threading.Timer(0.05, go.set).start()
        writer.put("last", np.zeros((1, 8, 8), np.uint8))
        assert len(written) >= 1  # it made room first
        assert len(writer.pending) <= WAITING
    assert len(written) == WAITING + 1


def test_an_interrupted_shard_leaves_its_folder_to_no_thread(tmp_path, monkeypatch):
    started, go, written = threading.Event(), threading.Event(), []

    def slow(path, frames, fps):
        started.set()
        assert go.wait(20)
        written.append(path.name)

    monkeypatch.setattr(video_writer, "write_video", slow)

    def interrupted():
        with VideoWriter(tmp_path, FPS) as writer:
            for i in range(WAITING):
                writer.put(f"v{i}", np.zeros((1, 8, 8), np.uint8))
            assert started.wait(20)
            threading.Timer(0.05, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(written) < WAITING  # those under way are finished, the others never begin
    assert not [t for t in threading.enumerate() if t.name.startswith("write")]


# ---- bad input


@pytest.mark.parametrize(
    ("objective", "sampler", "said"),
    [
        ("flow", "ddpm", "'ddpm' does not fit .* objective 'flow'; use one of euler, heun"),
        ("ddpm_v", "euler", "'euler' does not fit .* 'ddpm_v'; use one of ddpm, dpmpp"),
    ],
)
def test_weights_of_another_objective_are_refused(tmp_path, objective, sampler, said):
    found = write_model(tmp_path / "lvdm", objective=objective)
    with pytest.raises(EchosynError, match=said):
        found.sampler(dataclasses.replace(CFG, sampler=sampler), FPS, FPS)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [{"in_channels": 6}, {"out_channels": 3}, {"in_channels": 32}])
def test_a_model_of_other_channels_is_refused(tmp_path, channels):
    found = write_model(tmp_path / "lvdm", ConditionSpec(published=True), **channels)
    with pytest.raises(EchosynError, match=r"lvdm: a network of \d+ channels to \d, but noisy"):
        found.sampler(CFG, FPS, FPS)


@pytest.mark.parametrize("windows", ["blend", "shift", "continue", "discard"])
def test_fewer_frames_than_the_window_are_refused_before_any_work(models, windows):
    cfg = dataclasses.replace(CFG, frames=WINDOW - 1, windows=windows)
    with pytest.raises(EchosynError, match=r"3 frames .* window is 4: set frames in sample_videos"):
        models.sampler(cfg, FPS, FPS)


def test_hearts_of_another_size_are_refused(models, tmp_path):
    plan = plan_samples("set", CFG, accepted(tmp_path / "hearts", size=14), real(), 0)
    with pytest.raises(EchosynError, match=r"\(4, 14, 14\), but .* latents of \(4, 8, 8\)"):
        recorded(VideoSampler(models.video, CFG), plan, [range(1)], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("ef", [-1.0, 100.5, np.inf])
def test_an_ef_outside_0_to_100_is_refused(models, tmp_path, ef):
    hearts = accepted(tmp_path / "hearts", ef=np.full(9, ef))
    plan = plan_samples("set", CFG, hearts, real(), 0)
    with pytest.raises(EchosynError, match=f"EF {ef:g} is outside 0-100 percent"):
        recorded(VideoSampler(models.video, CFG), plan, [range(1)], tmp_path / "out")


def test_no_steps_are_refused():
    with pytest.raises(EchosynError, match=r"conf: steps: 0 is below .* 1"):
        build(
            SampleVideosConfig, {"train": 1, "val": 0, "test": 0, "frames": 8, "steps": 0}, "conf"
        )


def test_a_missing_model_names_the_stage_that_makes_it(tmp_path, models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EchosynError, match=r"models/lvdm does not exist.*stage train_lvdm makes"):
        VideoModels.of(CFG, Path("models"), "set")
    cfg = dataclasses.replace(CFG, model="distilled/fast")
    with pytest.raises(EchosynError, match=r"models/distilled/fast .*stage distill_lvdm makes"):
        VideoModels.of(cfg, Path("models"), "set")
    cfg = dataclasses.replace(CFG, image_steps=(0,))
    assert models.image in models.read_by(cfg)
    with pytest.raises(EchosynError, match=r"lidm does not exist.*stage train_lidm makes"):
        models.sampler(cfg, FPS, FPS)


def test_rates_are_trains_at_the_ef_and_each_heart_has_its_own_phase(tmp_path):
    beats = [(100.0, 0.1)] * 15 + [(60.0, 0.2)] * 15
    train = real((30.0,) * 15 + (70.0,) * 15, (None,) * 30, beats)
    hearts = accepted(tmp_path / "hearts", ef=np.array([30.0] * 2 + [70.0] * 7, np.float32))
    plan = plan_samples("set", CFG, hearts, train, 0)
    assert (plan.table["HeartRate"] > 90).tolist() == (plan.table["EF"] < 50).tolist()
    assert plan.table["HeartRate"].between(60, 100).all()
    every = plan.beat(list(range(4)))
    assert torch.allclose(every[:, 0].double() * 60 * FPS, torch.tensor(plan.table["HeartRate"]))
    assert len(set(every[:, 1].tolist())) == 4
    assert torch.equal(every[2:3], plan.beat([2]))
    again = replanned(hearts, plan.indices[1:2], plan.table.iloc[1:2])
    assert torch.equal(again.beat([0]), every[1:2])
    assert "HeartRate" not in plan_samples("set", CFG, hearts, real(), 0).table
