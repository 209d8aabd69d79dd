"""Features of clips: order, laziness, errors, and the cache that knows content only."""

import os
import pickle
import platform
import shutil
import subprocess
import threading
import time

import numpy as np
import pandas as pd
import pytest

from echosyn.data.filelist import COLUMNS, read_filelist, video_path, write_filelist
from echosyn.data.frames import FrameSet, VideoFolder, load_frames
from echosyn.data.video import write_video
from echosyn.metrics.extract import AHEAD, Clip, extract
from echosyn.metrics.feature_cache import FeatureCache
from echosyn.metrics.features import RandomFeatures2d, RandomFeatures3d
from echosyn.runtime.errors import EchosynError

WAIT_S = 300.0  # a test that waits this long has failed


class Pixels:
    """A feature space that shows what it was given: first, middle and last pixel values."""

    def __init__(self, clip: str = "4f", sha256: str = "a" * 64) -> None:
        self.name, self.clip, self.sha256 = "pixels", clip, sha256
        self.sizes: list[int] = []

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        assert frames.dtype == np.uint8
        self.sizes.append(len(frames))
        return frames.reshape(len(frames), -1)[:, [0, frames[0].size // 2, -1]].astype(np.float32)


class Memory:
    """Videos that count who looks at them: frame t of video v is full of 10 v + t."""

    fps = 16.0

    def __init__(self, count: int, length: int = 9, size: int = 4) -> None:
        self.lengths = np.full(count, length)
        self.size = size
        self.asked: list[int] = []
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.lengths)

    def video(self, i: int) -> np.ndarray:
        with self.lock:
            self.asked.append(i)
        values = (10 * i + np.arange(self.lengths[i])) % 256
        return np.tile(values.astype(np.uint8)[:, None, None], (1, self.size, self.size))


def clip(video: int, start: int = 0, frames: int = 4) -> Clip:
    return Clip(video, np.arange(start, start + frames))


def plainly(space, videos, clips, batch: int) -> np.ndarray:
    taken = [videos.video(c.video)[c.frames] for c in clips]
    rows = np.stack(taken) if space.clip else np.concatenate(taken)
    return np.concatenate([space(rows[i : i + batch]) for i in range(0, len(rows), batch)])


def dataset(folder, count: int = 5, size: int = 24, fps: float = 32.0, frames: int = 36):
    (folder / "Videos").mkdir(parents=True)
    rng, rows = np.random.default_rng(3), []
    for i in range(count):
        n = frames + 3 * i
        write_video(
            video_path(folder, f"v{i}"), rng.integers(0, 256, (n, size, size), np.uint8), fps
        )
        rows.append((f"v{i}", 50.0 + i, 40.0, 80.0, size, size, fps, n, ("TRAIN", "TEST")[i % 2]))
    write_filelist(folder / "FileList.csv", pd.DataFrame(rows, columns=list(COLUMNS)))
    return folder


def random_clips(videos, count: int, seed: int = 0) -> list[Clip]:
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(videos), size=count)
    return [clip(int(v), int(rng.integers(videos.lengths[v] - 15)), 16) for v in chosen]


# ---- extraction


@pytest.mark.parametrize("batch", [1, 3, 16, 100])
@pytest.mark.parametrize("name", ["4f", ""])
def test_rows_are_the_clips_in_order(name, batch, monkeypatch):
    monkeypatch.setenv("ECHOSYN_THREADS", "3")
    videos = Memory(11)
    rng = np.random.default_rng(0)
    clips = [clip(int(v), int(rng.integers(6))) for v in rng.integers(11, size=40)]
    clips.append(Clip(2, np.array([5, 0, 0, 8])))  # any order, with repeats
    space = Pixels(name)
    assert np.array_equal(
        extract(space, videos, clips, batch), plainly(space, videos, clips, batch)
    )


def test_batches_are_full_but_for_the_last():
    space = Pixels()
    extract(space, Memory(7), [clip(i % 7) for i in range(11)], 4)
    assert space.sizes == [4, 4, 3]
    images = Pixels("")
    extract(images, Memory(7), [clip(i, frames=5) for i in range(5)], 8)
    assert images.sizes == [8, 8, 8, 1]


def test_neighbouring_clips_decode_their_video_once():
    videos = Memory(3)
    extract(Pixels(), videos, [clip(v, s) for v in (1, 0, 2) for s in range(5)], 2)
    assert sorted(videos.asked) == [0, 1, 2]


def test_few_videos_are_held_however_many_there_are(monkeypatch):
    monkeypatch.setenv("ECHOSYN_THREADS", "2")
    videos, batch = Memory(200), 4
    most = []

    class Slow(Pixels):
        def __call__(self, frames: np.ndarray) -> np.ndarray:
            time.sleep(0.002)  # whoever runs ahead has the time to
            rows = super().__call__(frames)
            most.append(len(videos.asked) - sum(self.sizes))
            return rows

    extract(Slow(), videos, [clip(v) for v in range(200)], batch)
    assert max(most) > 0  # ahead of the network
    assert max(most) <= AHEAD * batch + 2


def test_the_next_batch_is_made_while_the_network_works(monkeypatch):
    monkeypatch.setenv("ECHOSYN_THREADS", "2")
    videos = Memory(4)
    second = threading.Event()

    class Waits(Pixels):
        def __call__(self, frames: np.ndarray) -> np.ndarray:
            end = time.monotonic() + WAIT_S
            while 1 not in videos.asked and time.monotonic() < end:
                time.sleep(0.001)
            if 1 in videos.asked:
                second.set()
            return super().__call__(frames)

    extract(Waits(), videos, [clip(v) for v in range(4)], 1)
    assert second.is_set()


def test_a_failing_video_ends_it_before_its_turn(monkeypatch):
    monkeypatch.setenv("ECHOSYN_THREADS", "2")
    called, failing = threading.Event(), threading.Event()

    class Broken(Memory):
        def video(self, i: int) -> np.ndarray:
            if i == 6:
                called.wait(WAIT_S)
                failing.set()
                raise EchosynError("v6.avi: truncated")
            return super().video(i)

    class Waits(Pixels):
        def __call__(self, frames: np.ndarray) -> np.ndarray:
            called.set()
            failing.wait(WAIT_S)
            time.sleep(0.05)  # until the thread has set its future
            return super().__call__(frames)

    space, videos = Waits(), Broken(100)
    with pytest.raises(EchosynError, match=r"^v6.avi: truncated$"):
        extract(space, videos, [clip(v) for v in range(100)], 4)
    assert space.sizes == [4]  # video 6 belongs to the second batch, which never came
    assert len(videos.asked) < 20
    assert not [t for t in threading.enumerate() if t.name.startswith("extract")]


def test_interrupting_the_network_ends_the_threads():
    class Interrupted(Pixels):
        def __call__(self, frames: np.ndarray) -> np.ndarray:
            raise KeyboardInterrupt

    videos = Memory(500)
    with pytest.raises(KeyboardInterrupt):
        extract(Interrupted(), videos, [clip(v) for v in range(500)], 4)
    assert len(videos.asked) < 50
    assert not [t for t in threading.enumerate() if t.name.startswith("extract")]


@pytest.mark.parametrize(
    ("clips", "match"),
    [
        ([], "no clips to take pixels features of"),
        ([clip(0), clip(1, 6)], r"clip 1: frame 9 of video 1, which has frames 0 to 8"),
        ([Clip(0, np.array([-1, 0, 1, 2]))], "clip 0: frame -1 of video 0"),
        ([Clip(0, np.array([], int))], "clip 0 of video 0 has no frames"),
        ([clip(0), clip(1, 0, 3)], "clip 1 of video 1 has 3 frames, those before have 4"),
        ([clip(9)], "clip 0: video 9, but there are 3 videos"),
        ([clip(-1)], "clip 0: video -1, but there are 3 videos"),
    ],
)
def test_clips_that_cannot_be_taken_are_named_before_anything_is_read(clips, match):
    videos = Memory(3)
    with pytest.raises(EchosynError, match=match):
        extract(Pixels(), videos, clips)
    assert videos.asked == []


def test_videos_of_another_size_are_named(tmp_path):
    folder = dataset(tmp_path / "d", 3)
    write_video(video_path(folder, "v2"), np.zeros((42, 32, 24), np.uint8), 32.0)
    videos = VideoFolder.open(folder, 16.0)
    with pytest.raises(EchosynError, match=r"video v2: frames \(32, 24\), those before have \(24"):
        extract(Pixels(), videos, [clip(v) for v in range(3)])


# ---- a folder as videos


@pytest.mark.parametrize("fps", [16.0, 25.0, 32.0, 50.0])
def test_a_folder_is_the_frame_set_of_it(tmp_path, fps):
    folder = dataset(tmp_path / "d")
    made, opened = load_frames(folder, fps, tmp_path / "cache"), VideoFolder.open(folder, fps)
    assert opened.lengths.tolist() == made.lengths.tolist()
    assert all(np.array_equal(opened.video(i), made.video(i)) for i in range(len(made)))
    assert opened.content.tolist() == made.content.tolist()
    assert opened.ef.tolist() == made.ef.tolist()
    assert [len(opened.split(s)) for s in ("TRAIN", "VAL", "TEST")] == [3, 0, 2]
    assert opened.split("TEST").content.tolist() == made.content[[1, 3]].tolist()
    rows = [4, 0]
    for videos in (opened, made):
        taken = pickle.loads(pickle.dumps(videos.take(rows)))
        assert np.array_equal(taken.video(0), made.video(4))
        assert taken.content.tolist() == made.content[rows].tolist()
        assert taken.lengths.tolist() == made.lengths[rows].tolist()


def test_features_of_a_folder_a_frame_set_and_a_plain_loop_are_equal(tmp_path):
    folder = dataset(tmp_path / "d")
    made, opened = load_frames(folder, 16.0, tmp_path / "cache"), VideoFolder.open(folder, 16.0)
    clips = random_clips(made, 21)
    for space in (RandomFeatures3d(), RandomFeatures2d()):
        expected = plainly(space, made, clips, 8)
        assert np.array_equal(extract(space, made, clips, 8), expected)
        assert np.array_equal(extract(space, opened, clips, 8), expected)


def test_a_folder_is_decoded_only_where_it_is_asked(tmp_path):
    folder = dataset(tmp_path / "d")
    videos = VideoFolder.open(folder, 16.0)
    video_path(folder, "v3").write_bytes(b"not a video")
    extract(Pixels(), videos, [clip(0), clip(4)])
    with pytest.raises(EchosynError, match=r"v3.avi: not a video"):
        extract(Pixels(), videos, [clip(0), clip(3)])


@pytest.mark.parametrize("listed", [31.6, 32.4])
def test_a_rounded_frame_rate_in_the_list_changes_nothing(tmp_path, listed):
    """FileLists round, and the raw gate lets half a frame per second pass."""
    folder = dataset(tmp_path / "d", frames=300)
    made = load_frames(folder, 16.0, tmp_path / "cache")
    table = read_filelist(folder / "FileList.csv")
    write_filelist(folder / "FileList.csv", table.assign(FPS=listed))
    opened = VideoFolder.open(folder, 16.0)
    assert opened.lengths.tolist() == made.lengths.tolist()
    assert all(np.array_equal(opened.video(i), made.video(i)) for i in range(len(made)))


def test_a_video_that_is_missing_is_named_or_is_none(tmp_path):
    folder = dataset(tmp_path / "d")
    video_path(folder, "v1").write_bytes(b"not a video")
    with pytest.raises(EchosynError, match=r"v1.avi: not a video"):
        VideoFolder.open(folder, 16.0)
    video_path(folder, "v1").unlink()
    with pytest.raises(EchosynError, match=r"v1.avi: listed in .* but missing"):
        VideoFolder.open(folder, 16.0)
    assert len(VideoFolder.open(folder, 16.0, splits=("TRAIN",))) == 3


def test_a_frame_set_made_by_hand_is_of_unknown_content():
    table = pd.DataFrame({"Split": ["TRAIN"]})
    frames = FrameSet(np.zeros((4, 2, 2), np.uint8), table, np.array([0]), np.array([4]), 16.0)
    assert frames.take([0]).content is None
    assert pickle.loads(pickle.dumps(frames)).content is None


# ---- the cache


class Cached:
    """A cache and how often it computed."""

    def __init__(self, folder, limit_gb: float = 4.0) -> None:
        self.cache, self.computed = FeatureCache(folder, limit_gb), 0

    def get(self, videos, clips, space=None) -> np.ndarray:
        space = space or Pixels("16f")

        def compute() -> np.ndarray:
            self.computed += 1
            return extract(space, videos, clips)

        return self.cache.get(space, videos, clips, compute)

    @property
    def files(self) -> list:
        return sorted(self.cache.folder.glob("*"))


@pytest.fixture
def cached(tmp_path) -> Cached:
    return Cached(tmp_path / "features")


def test_features_are_found_again_wherever_the_dataset_lies(tmp_path, cached):
    folder = dataset(tmp_path / "d")
    videos = VideoFolder.open(folder, 16.0)
    clips = random_clips(videos, 9)
    first = cached.get(videos, clips)
    again = cached.get(load_frames(folder, 16.0, tmp_path / "cache"), clips)
    assert cached.computed == 1
    assert again.dtype == first.dtype == np.float32
    assert np.array_equal(first, again)
    elsewhere = tmp_path / "other" / "place"
    shutil.copytree(folder, elsewhere)
    shutil.rmtree(folder)
    os.rename(video_path(elsewhere, "v0"), video_path(elsewhere, "renamed"))
    table = (elsewhere / "FileList.csv").read_text().replace("v0,", "renamed,")
    (elsewhere / "FileList.csv").write_text(table)
    moved = VideoFolder.open(elsewhere, 16.0)
    assert np.array_equal(cached.get(moved, clips), first)
    # Which row a video has is no part of it either.
    back = [Clip(len(moved) - 1 - c.video, c.frames) for c in clips]
    assert np.array_equal(cached.get(moved.take(range(len(moved))[::-1]), back), first)
    assert cached.computed == 1


def test_stale_features_are_not_found(tmp_path, cached):
    folder = dataset(tmp_path / "d")
    videos = VideoFolder.open(folder, 16.0)
    clips = [clip(0, 1, 16), clip(1, 2, 16)]
    cached.get(videos, clips)
    others = [
        (videos, clips[::-1], None),
        (videos, [clips[0], clip(1, 0, 16)], None),
        (videos, clips[:1], None),
        (VideoFolder.open(folder, 32.0), clips, None),
        (videos, clips, Pixels("16f", "b" * 64)),
        (videos, clips, Pixels("")),
    ]
    for n, (other, some, space) in enumerate(others, 2):
        cached.get(other, some, space)
        assert cached.computed == n
    path = video_path(folder, "v1")
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    cached.get(VideoFolder.open(folder, 16.0), clips)
    assert cached.computed == len(others) + 2
    # A video that no clip is of may change.
    cached.get(VideoFolder.open(folder, 16.0), clips[:1])
    assert cached.computed == len(others) + 2


def test_without_content_or_with_nan_nothing_is_kept(tmp_path, cached):
    cached.get(Memory(2, 20), [clip(0, 0, 16)])
    assert not cached.cache.folder.exists()
    videos = VideoFolder.open(dataset(tmp_path / "d"), 16.0)
    for _ in range(2):
        features = cached.cache.get(
            Pixels(), videos, [clip(0)], lambda: np.full((1, 3), np.nan, np.float32)
        )
        assert np.isnan(features).all()
    assert cached.files == []


def test_damaged_and_swapped_files_are_refused(tmp_path, cached):
    videos = VideoFolder.open(dataset(tmp_path / "d"), 16.0)
    clips, other = [clip(0, 0, 16)], [clip(1, 0, 16)]
    first = cached.get(videos, clips)
    (path,) = cached.files
    whole = path.read_bytes()

    for damaged in (whole[: len(whole) // 2], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(
            EchosynError, match=rf"{path.name}: this feature file is damaged.*delete"
        ):
            cached.get(videos, clips)

    path.unlink()
    cached.get(videos, other)
    cached.files[0].rename(path)
    with pytest.raises(EchosynError, match=rf"{path.name}: features of other videos or clips"):
        cached.get(videos, clips)

    path.unlink()
    cached.get(videos, clips, Pixels("16f", "b" * 64))
    cached.files[0].rename(path)
    with pytest.raises(
        EchosynError, match=r"extractor pixels b{16}, not of pixels a{16}.*delete it"
    ):
        cached.get(videos, clips)

    path.unlink()
    assert np.array_equal(cached.get(videos, clips), first)
    assert path.stat().st_size == len(whole)


def test_the_least_recently_used_go_first(tmp_path):
    videos = VideoFolder.open(dataset(tmp_path / "d"), 16.0)
    cached = Cached(tmp_path / "features")
    clips = [[clip(v, 0, 16)] for v in range(4)]
    for k, some in enumerate(clips[:3]):
        cached.get(videos, some)
        for path in cached.files:
            if path.stat().st_mtime_ns > 10**12:
                os.utime(path, ns=(k, k))
    size = cached.files[0].stat().st_size
    cached.get(videos, clips[0])  # used now
    cached.cache = FeatureCache(cached.cache.folder, 3.5 * size / 1e9)
    cached.get(videos, clips[3])  # a fourth file: one too many
    assert len(cached.files) == 3
    assert cached.computed == 4
    for some in (clips[0], clips[2], clips[3]):
        cached.get(videos, some)
    assert cached.computed == 4
    cached.get(videos, clips[1])
    assert cached.computed == 5


def test_prune_takes_what_a_killed_process_left_and_no_other_file(tmp_path):
    """What looks old but belongs to a living process, or to another machine, may be in use: the
    clock may have been set forward."""
    cached = Cached(tmp_path / "features", 0)
    cached.cache.folder.mkdir()
    with subprocess.Popen(["true"]) as ended:
        pass
    part = f"safetensors.partial-{platform.node()}"
    gone, new = f".gone.{part}-{ended.pid}", f".new.{part}-{ended.pid}"
    alive, elsewhere = f".alive.{part}-{os.getpid()}", ".elsewhere.safetensors.partial-h-1"
    for name in ("notes.txt", gone, new, alive, elsewhere):
        (cached.cache.folder / name).write_text("x")
    for name in (gone, alive, elsewhere):
        os.utime(cached.cache.folder / name, (0, 0))
    cached.get(VideoFolder.open(dataset(tmp_path / "d"), 16.0), [clip(0, 0, 16)])
    assert [p.name for p in cached.files] == sorted([new, alive, elsewhere, "notes.txt"])
