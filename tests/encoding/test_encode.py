"""Encoding: the same bytes as one step after the other, while decoding, VAE and writing overlap."""

import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch

from echosyn.data.filelist import read_filelist, video_path, write_filelist
from echosyn.data.frames import VideoFolder, load_frames
from echosyn.data.latents import LatentSet, pack, write_shard
from echosyn.data.video import read_video, write_video
from echosyn.encoding import encode as encoding
from echosyn.encoding.codec import VideoCodec
from echosyn.encoding.encode import AHEAD, encode_shard, finish_encoding
from echosyn.metrics.image import psnr_db, ssim
from echosyn.models.vae import Vae, VaeConfig
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.process import threads
from echosyn.runtime.shards import plan_shards, run_shards

VIDEOS, SHARD, FPS = 7, 3, 16.0
PATIENCE = 300.0  # seconds after which what should happen has not


def dataset(folder, lengths=(40, 23, 9, 31, 40, 17, 12), sizes=(112,) * VIDEOS):
    """Videos at 32 fps, with what their lines in the FileList say."""
    rng = np.random.default_rng(0)
    (folder / "Videos").mkdir(parents=True)
    rows = []
    for i, (n, size) in enumerate(zip(lengths, sizes, strict=True)):
        frames = rng.integers(0, 256, (n, size // 8, size // 8), np.uint8)
        frames = frames.repeat(8, axis=1).repeat(8, axis=2)
        write_video(video_path(folder, f"v{i}"), frames, 32.0)
        split = ("TRAIN", "VAL", "TEST")[i % 3]
        rows.append((f"v{i}", 50.0 + i, 40.0, 80.0, size, size, 32.0, n, split))
    columns = ["FileName", "EF", "ESV", "EDV", "FrameHeight", "FrameWidth", "FPS"]
    table = pd.DataFrame(rows, columns=[*columns, "NumberOfFrames", "Split"])
    write_filelist(folder / "FileList.csv", table)
    return folder


def new_codec():
    torch.manual_seed(0)
    return VideoCodec(Vae.create(VaeConfig(widths=(8, 8, 8), groups=4)), batch=16)


def encode(codec, videos, work):
    return run_shards(
        plan_shards(work, len(videos), SHARD),
        lambda: lambda rows, out: encode_shard(codec, videos, rows, out),
        "encode",
        "video",
    )


def plainly(codec, frames, rows, folder):
    """What encode_shard writes, one step after the other."""
    latents, quality = {}, []
    shard = f"latents-{rows.start:06d}.safetensors"
    for v in rows:
        name, original = f"v{v}", frames.video(v)
        latents[name] = pack(*codec.encode(original))
        decoded = codec.decode(latents[name][:, :4].float())
        write_video(folder / f"{name}.avi", decoded, FPS)
        psnr, similarity = psnr_db(original, decoded), ssim(original, decoded)
        quality.append({"FileName": name, "psnr_db": psnr, "ssim": similarity, "Shard": shard})
    write_shard(folder / shard, latents)
    (folder / "quality.csv").write_text(pd.DataFrame(quality).to_csv(index=False))


def contents(*folders):
    return {f"{d.name}/{p.name}": p.read_bytes() for d in folders for p in sorted(d.iterdir())}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("encode") / "data")


def working():
    return [t for t in threading.enumerate() if t.name.startswith("encode")]


def fed():
    """A codec as on a GPU: one thread feeds it."""
    codec = new_codec()
    codec.shared = False
    return codec


@pytest.mark.slow
@pytest.mark.parametrize("make", [new_codec, fed])
@pytest.mark.parametrize("workers", ["1", "3"])
def test_every_byte_is_that_of_one_step_after_the_other(
    source, tmp_path, monkeypatch, workers, make
):
    monkeypatch.setenv("ECHOSYN_THREADS", workers)
    codec, cached = make(), load_frames(source, FPS, tmp_path / "cache")
    plain = plan_shards(tmp_path / "plain", VIDEOS, SHARD)
    for shard in plain:
        shard.folder.mkdir(parents=True)
        plainly(codec, cached, shard.indices, shard.folder)
    expected = contents(*(s.folder for s in plain))
    assert len(expected) == VIDEOS + 2 * len(plain)
    assert contents(*encode(codec, VideoFolder.open(source, FPS), tmp_path / "a")) == expected
    assert contents(*encode(codec, cached, tmp_path / "b")) == expected


def test_outputs_hold_mean_and_deviation_and_say_the_lengths(source, tmp_path):
    codec, videos = new_codec(), VideoFolder.open(source, FPS)
    shards = encode(codec, videos, tmp_path / "work")
    numbers = finish_encoding(shards, videos, tmp_path / "latents", tmp_path / "seen")
    cached, latents = load_frames(source, FPS, tmp_path / "cache"), LatentSet(tmp_path / "latents")
    assert latents.lengths.tolist() == cached.lengths.tolist() == [20, 12, 5, 16, 20, 9, 6]
    assert numbers["vae/frames"] == 88
    mean, logvar = codec.encode(cached.video(5))
    assert torch.equal(latents.mean(5), mean.half().float())
    draws = [latents.draw(5, 0, 9, torch.Generator().manual_seed(s)) for s in range(400)]
    deviation = torch.stack(draws).std(dim=0)
    assert torch.allclose(deviation / torch.exp(logvar / 2), torch.ones(1), atol=0.25)
    seen = read_filelist(tmp_path / "seen/FileList.csv")
    assert seen["NumberOfFrames"].tolist() == latents.lengths.tolist()
    assert set(seen["FrameHeight"]) == set(seen["FrameWidth"]) == {112}
    frames, fps = read_video(tmp_path / "seen/Videos/v5.avi")
    assert (frames.shape, fps) == ((9, 112, 112), FPS)


def test_a_rounded_frame_rate_in_the_list_does_not_stop_encoding(source, tmp_path):
    """Within the raw gate's tolerance; frames and lengths are those of the file."""
    folder = tmp_path / "rounded"
    folder.mkdir()
    (folder / "Videos").symlink_to(source / "Videos")
    table = read_filelist(source / "FileList.csv")
    write_filelist(folder / "FileList.csv", table.assign(FPS=31.0))
    cached, videos = load_frames(folder, FPS, tmp_path / "cache"), VideoFolder.open(folder, FPS)
    assert all(np.array_equal(videos.video(i), cached.video(i)) for i in range(VIDEOS))
    shards = encode(new_codec(), videos, tmp_path / "work")
    finish_encoding(shards, videos, tmp_path / "latents", tmp_path / "seen")
    assert LatentSet(tmp_path / "latents").lengths.tolist() == cached.lengths.tolist()


class Watched:
    """`count` videos in memory, and an event for each that is set when it is read."""

    def __init__(self, source, count):
        files = VideoFolder.open(source, FPS)
        self.fps, self.clip = FPS, files.video(2)
        names = [f"v{i}" for i in range(count)]
        self.table = pd.DataFrame({"FileName": names})
        self.read = [threading.Event() for _ in names]

    def __len__(self):
        return len(self.table)

    def video(self, i):
        self.read[i].set()
        return self.clip


def test_the_next_video_is_read_while_the_vae_works(source, tmp_path):
    codec, videos = fed(), Watched(source, 3)
    plain, calls = codec.encode, []

    def waits(frames):
        calls.append(frames)
        following = videos.read[min(len(calls), 2)]
        assert following.wait(PATIENCE), "the next video is not read before this one is encoded"
        return plain(frames)

    codec.encode = waits
    encode_shard(codec, videos, range(3), tmp_path)
    assert len(calls) == 3


def test_the_vae_works_while_a_video_is_written(source, tmp_path, monkeypatch):
    codec, videos = fed(), Watched(source, 3)
    plain, started = codec.encode, [threading.Event() for _ in range(3)]
    calls = []

    def notes(frames):
        started[len(calls)].set()
        calls.append(frames)
        return plain(frames)

    def waits(path, frames, fps):
        following = started[min(int(path.stem[1:]) + 1, 2)]
        assert following.wait(PATIENCE), "the next video waits until this one is written"
        write_video(path, frames, fps)

    codec.encode = notes
    monkeypatch.setattr(encoding, "write_video", waits)
    encode_shard(codec, videos, range(3), tmp_path)
    assert len(list(tmp_path.glob("*.avi"))) == 3


@pytest.mark.slow
def test_a_slow_disk_holds_the_vae_back(source, tmp_path, monkeypatch):
    """However many videos a shard has, few are in memory."""
    most = AHEAD * threads()
    count = 4 * most + 8
    codec, videos, gate = fed(), Watched(source, count), threading.Event()
    plain, encoded = codec.encode, []

    def notes(frames):
        encoded.append(frames)
        return plain(frames)

    def waits(path, frames, fps):
        assert gate.wait(PATIENCE)
        write_video(path, frames, fps)

    codec.encode = notes
    monkeypatch.setattr(encoding, "write_video", waits)
    run = threading.Thread(target=encode_shard, args=(codec, videos, range(count), tmp_path))
    run.start()
    try:
        end = time.monotonic() + PATIENCE
        while len(encoded) < most and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.3)  # for one that goes on all the same
        assert len(encoded) <= most
        assert sum(e.is_set() for e in videos.read) <= 2 * most
    finally:
        gate.set()
        run.join()
    assert len(encoded) == count


def test_without_a_gpu_every_thread_takes_a_video(source, tmp_path, monkeypatch):
    monkeypatch.setenv("ECHOSYN_THREADS", "2")
    codec, videos, both = new_codec(), Watched(source, 2), threading.Barrier(2)
    plain, before = codec.encode, torch.get_num_threads()

    def meets(frames):
        both.wait(PATIENCE)
        assert torch.get_num_threads() == 1
        return plain(frames)

    codec.encode = meets
    encode_shard(codec, videos, range(2), tmp_path)
    assert torch.get_num_threads() == before


def test_an_error_in_writing_reaches_the_stage_and_leaves_no_shard(source, tmp_path, monkeypatch):
    def full(path, frames, fps):
        raise EchosynError(f"{path.name}: the video cannot be written: no space")

    monkeypatch.setattr(encoding, "write_video", full)
    with pytest.raises(EchosynError, match=r"v\d.avi: the video cannot be written"):
        encode(new_codec(), VideoFolder.open(source, FPS), tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []
    assert working() == []


def test_an_unreadable_video_is_named_and_the_rest_resumes(tmp_path):
    folder, codec = dataset(tmp_path / "data"), new_codec()
    videos = VideoFolder.open(folder, FPS)
    undisturbed = contents(*encode(codec, videos, tmp_path / "whole"))
    path = video_path(folder, "v4")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EchosynError, match=r"v4.avi: truncated"):
        encode(codec, videos, tmp_path / "work")
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["shard-00000"]
    assert working() == []

    path.write_bytes(whole)
    plain, calls = codec.encode, []
    codec.encode = lambda frames: calls.append(frames) or plain(frames)
    assert contents(*encode(codec, videos, tmp_path / "work")) == undisturbed
    assert len(calls) == VIDEOS - SHARD


def test_videos_of_another_size_within_a_shard_are_named(tmp_path):
    sizes = [64 if i == 1 else 112 for i in range(VIDEOS)]
    videos = VideoFolder.open(dataset(tmp_path / "data", sizes=sizes), FPS)
    with pytest.raises(EchosynError, match=r"video v1: frames \(64, 64\), those before have \(112"):
        encode(new_codec(), videos, tmp_path / "work")


def test_a_shard_of_another_size_is_named(tmp_path):
    sizes = [112 if i < SHARD else 64 for i in range(VIDEOS)]
    videos = VideoFolder.open(dataset(tmp_path / "data", sizes=sizes), FPS)
    shards = encode(new_codec(), videos, tmp_path / "work")
    with pytest.raises(EchosynError, match=r"video v3: frames \(64, 64\), those before have \(112"):
        finish_encoding(shards, videos, tmp_path / "latents", tmp_path / "seen")
    assert not (tmp_path / "latents").exists()


def test_a_missing_video_is_named_before_anything_is_encoded(tmp_path):
    folder = dataset(tmp_path / "data")
    video_path(folder, "v6").unlink()
    with pytest.raises(EchosynError, match=r"v6.avi: listed in .*FileList.csv but missing"):
        VideoFolder.open(folder, FPS)
