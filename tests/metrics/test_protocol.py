"""The published protocols: what they select, what they are called, and what they measure."""

import json
import pickle
import re

import numpy as np
import pandas as pd
import pytest

from echosyn.data.frames import FrameSet
from echosyn.evaluation.protocol import ProtocolEvaluation
from echosyn.metrics import selection
from echosyn.metrics.frechet import frechet_distance
from echosyn.metrics.i3d import I3d, I3dNetwork, clip_frames
from echosyn.metrics.inception import Inception, InceptionV3
from echosyn.metrics.inception_score import ScoreSums, inception_score, score_of_blocks
from echosyn.metrics.moments import Moments, frechet_of_blocks, frechet_of_moments
from echosyn.metrics.streaming import finite_features, frame_sums, runs_of
from echosyn.runtime.errors import EchosynError


def rng(seed):
    return np.random.default_rng(seed)


def videos(lengths, seed, side=8, prefix="v", fps=32.0, brightness=0):
    """Random frames; names are in another order than the videos."""
    data = rng(seed).integers(0, 200, (int(np.sum(lengths)), side, side), dtype=np.uint8)
    names = [f"{prefix}{i:04d}" for i in rng(99).permutation(len(lengths))]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    table = pd.DataFrame({"FileName": names})
    return FrameSet(data + np.uint8(brightness), table, starts, np.array(lengths), fps)


class Frames2:
    """Three numbers of a frame; classes by brightness. As Inception is used, at no cost."""

    name, clip, sha256, width, classes, batch = "tiny", "", "a" * 64, 3, 4, 4096
    published = False

    def __call__(self, frames):
        x = frames.astype(np.float32) / 255
        return np.stack([x[:, 0, 0], x.mean((1, 2)), x[:, -1, -1] ** 2], 1)

    def probabilities(self, features):
        e = np.exp(5 * np.concatenate([features, features[:, :1] ** 2], 1).astype(np.float64))
        return e / e.sum(1, keepdims=True)


class Clips2:
    """Four numbers of a clip, that see time."""

    name, sha256, published = "tinyclip", "b" * 64, False

    def __init__(self, clip):
        self.clip, self.frames = clip, clip_frames(clip)[0]

    def __call__(self, clips):
        assert clips.shape[1] == self.frames
        x = clips.astype(np.float32) / 255
        step = np.abs(np.diff(x, axis=1)).mean((1, 2, 3))
        return np.stack([x[:, 0, 0, 0], x.mean((1, 2, 3)), step, x[:, -1, 1, 1]], 1)


class PublishedFrames(Frames2):
    name, published = "inception", True


class PublishedClips(Clips2):
    name, published = "i3d", True


def over(size=7, calls=None):
    """Shards of `size`, as echosyn.cluster.map_rows makes them."""

    def run(name, n, worker):
        if calls is not None:
            calls.append(name)
        compute = pickle.loads(pickle.dumps(worker))()  # workers travel to other processes
        return np.concatenate([compute(range(i, min(i + size, n))) for i in range(0, n, size)])

    return run


def evaluation(inception=None, i3d=None, strict=False, seed=0, size=7):
    return ProtocolEvaluation(inception, i3d, strict, seed, over(size))


def four(n=24, t=20, seed=0, side=8):
    return [
        videos([t] * n, seed, side),
        videos([t] * (n // 2), seed + 1, side),
        videos([t] * n, seed + 2, side, brightness=5),
        videos([t] * (n - 4), seed + 3, side, brightness=30),
    ]


# ---- selection


def test_order_is_that_of_paths():
    names = ["b", "a-b", "a", "B", "a0"]
    assert [names[i] for i in selection.video_order(names)] == ["B", "a", "a-b", "a0", "b"]
    frames = sorted((f"{n}/{k}.jpg", n) for n in names for k in range(2))
    expected = list(dict.fromkeys(n for _, n in frames))
    assert [names[i] for i in selection.frame_order(names)] == expected
    assert expected.index("a-b") < expected.index("a")


def test_first_frames_stop_inside_a_video():
    lengths, order = np.array([4, 5, 6]), np.array([2, 0, 1])
    assert selection.first_frames(lengths, order, None).tolist() == [[2, 6], [0, 4], [1, 5]]
    assert selection.first_frames(lengths, order, 8).tolist() == [[2, 6], [0, 2]]
    assert selection.first_frames(lengths, order, 6).tolist() == [[2, 6]]
    assert selection.first_frames(lengths, order, 100).tolist() == [[2, 6], [0, 4], [1, 5]]


@pytest.mark.parametrize(
    ("policy", "needed", "span"),
    [("16f", 16, 16), ("128f", 128, 128), ("128f_subsample8f", 128, 121)],
)
def test_clips_are_stylegan_vs(policy, needed, span):
    lengths = np.array([needed - 1, needed, needed + 3, 400])
    names = ["c", "b", "a", "d"]
    usable = selection.long_enough(lengths, selection.video_order(names), policy)
    assert usable.tolist() == [2, 1, 3]
    for clip in selection.clips_at_start(usable, policy):
        assert clip.frames[0] == 0
        assert clip.frames[-1] == span - 1
    # Its range: randint(0, total - n * step + step - 1), both ends included.
    n, step = clip_frames(policy)
    for length in (needed, needed + 3):
        assert selection.offset_range(length, policy) == length - n * step + step - 1
        assert selection.offset_range(length, policy) + span == length
    drawn = {v: set() for v in usable}
    for seed in range(600):
        for c in selection.clips_at_random(names, lengths, usable[:2], policy, seed):
            assert np.array_equal(np.diff(c.frames), [step] * (n - 1))
            drawn[c.video].add(int(c.frames[0]))
    for v in usable[:2]:
        assert drawn[v] == set(range(selection.offset_range(lengths[v], policy) + 1))


def test_offsets_depend_on_seed_and_name_only():
    names, lengths = ["a", "b", "c"], np.array([300, 300, 300])

    def starts(names, which, seed):
        made = selection.clips_at_random(names, lengths, np.array(which), "16f", seed)
        return [int(c.frames[0]) for c in made]

    assert starts(names, [0, 1, 2], 3) == starts(names, [0, 1, 2], 3)
    assert starts(names, [0, 1, 2], 3) != starts(names, [0, 1, 2], 4)
    assert starts(names, [2], 3) == starts(names, [0, 1, 2], 3)[2:]
    assert starts(["c", "x", "y"], [0], 3) == starts(names, [2], 3)


def test_splits_are_the_references_at_its_count():
    n = 50_000
    expected = np.empty(n, int)
    for i in range(10):
        expected[i * n // 10 : (i + 1) * n // 10] = i
    assert np.array_equal(selection.split_of(n), expected)
    for n in (10, 12, 4711, 45_000):  # where the reference has empty splits
        sizes = np.bincount(selection.split_of(n), minlength=10)
        assert sizes.min() >= 1
        assert np.ptp(sizes) <= 1
        assert (np.diff(selection.split_of(n)) >= 0).all()


# ---- names


def test_published_names_need_everything():
    frames, clips = PublishedFrames(), PublishedClips("16f")
    assert selection.fid_name(frames, 900_000, 50_000).name == "fid50k_full"
    assert selection.score_name(frames, 50_000).name == "is50k"
    for policy in selection.POLICIES:
        name = selection.fvd_name(PublishedClips(policy), 2048, 2048).name
        assert name == f"fvd2048_{policy}"
    for made, name in (
        (selection.fid_name(frames, 900, 49_999), "fd_inception_n900x49999"),
        (selection.fid_name(Frames2(), 900, 50_000), "fd_tiny_n900x50000"),
        (selection.score_name(frames, 49_999), "is_inception_n49999"),
        (selection.score_name(Frames2(), 50_000), "is_tiny_n50000"),
        (selection.fvd_name(clips, 2047, 2048), "fd_i3d_16f_n2047x2048"),
        (selection.fvd_name(clips, 2048, 2047), "fd_i3d_16f_n2048x2047"),
        (selection.fvd_name(PublishedClips("32f"), 2048, 2048), "fd_i3d_32f_n2048x2048"),
        (selection.fvd_name(Clips2("16f"), 2048, 2048), "fd_tinyclip_16f_n2048x2048"),
    ):
        assert made.name == name
        assert made.short_of
    # Random weights in the real architecture are not the published network.
    assert selection.fid_name(Inception(InceptionV3(), "x"), 9, 50_000).short_of
    assert selection.fvd_name(I3d(I3dNetwork(), "x", "16f"), 2048, 2048).short_of


OFFICIAL = re.compile(r"fid|fvd|is50k")


def test_no_number_has_a_published_name_without_its_rules():
    e = evaluation(PublishedFrames, PublishedClips)
    e.measure(*four())
    assert e.numbers
    assert not [k for k in (*e.numbers, *e.protocol) if OFFICIAL.search(k)]
    json.dumps([e.numbers, e.protocol], allow_nan=False)
    e = evaluation(Frames2, Clips2)
    e.measure(*four(n=6))
    assert not [k for k in (*e.numbers, *e.protocol) if OFFICIAL.search(k)]


@pytest.mark.slow
def test_published_names_where_the_rules_are_kept():
    train, test = videos([16] * 2050, 0, 4), videos([30] * 1000, 1, 4)
    synthetic = videos([25] * 2052, 3, 4, brightness=30)
    e = evaluation(PublishedFrames, PublishedClips, strict=False, size=400)
    e.measure(train, test, train, synthetic)
    got = {k.removeprefix("quality/") for k in e.numbers}
    for key in ("fid50k_full", "is50k", "fvd2048_16f", "fvd2048_16f_reconstruction"):
        assert {key, f"{key}_lo", f"{key}_hi"} <= got
    assert "is50k_std" in got
    # TEST has 30,000 frames and 1,000 videos: its floor stands beside a number at its count.
    assert {"fd_inception_n32800x30000", "fd_inception_n32800x30000_floor"} <= got
    assert {"fd_i3d_16f_n2048x1000", "fd_i3d_16f_n2048x1000_floor"} <= got
    assert {"fd_inception_n30000x30000_vs_test", "fd_i3d_16f_n1000x1000_vs_test"} <= got
    assert not {"fid50k_full_floor", "fvd2048_16f_floor", "is50k_floor"} & got
    assert e.protocol["fvd2048_16f"]["published_name"]
    assert e.protocol["fvd2048_16f"]["synthetic_clips"] == 2048
    assert e.protocol["fid50k_full"]["real_frames"] == 32_800
    # No video has 128 frames: noted, and the other numbers are there.
    skipped = [v["skipped"] for k, v in e.protocol.items() if "128f" in k]
    assert len(skipped) == 2
    assert all("128 frames or more, the longest of the train set has 16" in s for s in skipped)


def test_strict_names_refuse_before_any_work():
    calls = []
    e = ProtocolEvaluation(PublishedFrames, PublishedClips, True, 0, over(calls=calls))
    with pytest.raises(EchosynError) as caught:
        e.measure(*four())
    message = str(caught.value)
    assert "fid50k_full needs 50,000 synthetic frames, there are 400" in message
    assert "is50k needs 50,000 synthetic frames, there are 400" in message
    assert "fvd2048_16f needs 2,048 real videos of 16 frames or more, there are 24" in message
    assert "2,048 synthetic videos of 128 frames or more, there are 0" in message
    assert calls == []
    assert e.numbers == {}
    ok = ProtocolEvaluation(PublishedFrames, None, True, 0, over(500))
    train = videos([10] * 20, 0, 4)
    ok.measure(train, train, train, videos([25] * 2000, 1, 4))
    assert "quality/fid50k_full" in ok.numbers
    other = ProtocolEvaluation(Frames2, None, True, 0, over(500))
    with pytest.raises(EchosynError, match="needs the published weights, those of tiny are others"):
        other.measure(train, train, train, videos([25] * 2000, 1, 4))


# ---- numbers


def in_order(s):
    return [s.video(i) for i in selection.video_order(list(s.table["FileName"]))]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_frame_numbers_against_all_features_at_once(size):
    train, test, rec, syn = four()
    space = Frames2()
    e = evaluation(Frames2, size=size)
    e.measure(train, test, rec, syn)
    f = {k: space(np.concatenate(in_order(s)))
         for k, s in {"train": train, "test": test, "rec": rec, "syn": syn}.items()}  # fmt: skip
    number = {k.removeprefix("quality/"): v for k, v in e.numbers.items()}
    for key, a, b in (
        ("fd_tiny_n480x400", f["train"], f["syn"]),
        ("fd_tiny_n480x240", f["train"], f["syn"][:240]),
        ("fd_tiny_n480x240_floor", f["train"], f["test"]),
        ("fd_tiny_n480x400_reconstruction", f["train"], f["rec"][:400]),
        ("fd_tiny_n240x240_vs_test", f["test"], f["syn"][:240]),
    ):
        assert number[key] == pytest.approx(frechet_distance(a, b), rel=1e-6), key
        assert number[f"{key}_lo"] < number[key] < number[f"{key}_hi"]
    for key, x in (
        ("is_tiny_n400", f["syn"]),
        ("is_tiny_n240", f["syn"][:240]),
        ("is_tiny_n240_floor", f["test"]),
        ("is_tiny_n400_reconstruction", f["rec"][:400]),
    ):
        # As in the reference, with the true count in its bounds.
        p, scores, n = space.probabilities(x), [], len(x)
        for i in range(10):
            part = p[i * n // 10 : (i + 1) * n // 10]
            kl = part * (np.log(part) - np.log(part.mean(0, keepdims=True)))
            scores.append(np.exp(kl.sum(1).mean()))
        assert number[key] == pytest.approx(np.mean(scores), rel=1e-9), key
        assert number[f"{key}_std"] == pytest.approx(np.std(scores), rel=1e-6), key
        assert number[f"{key}_lo"] < number[key] < number[f"{key}_hi"]
    assert not [k for k in number if k.startswith("is_tiny_n480")]
    entry = e.protocol["fd_tiny_n480x400"]
    assert entry["extractor_sha256"] == space.sha256
    assert (entry["frames_floor"], entry["frames_reconstruction"]) == (240, 400)


def test_clip_numbers_against_all_features_at_once():
    lengths = rng(5).integers(10, 40, 30)
    train, test, rec, syn = (videos(lengths, k, brightness=10 * k) for k in range(4))
    e = evaluation(None, Clips2, seed=4, size=2)
    e.measure(train, test, rec, syn)
    space, usable = Clips2("16f"), {}
    for role, s in (("train", train), ("test", test), ("rec", rec), ("syn", syn)):
        long = selection.long_enough(
            s.lengths, selection.video_order(list(s.table["FileName"])), "16f"
        )
        start = selection.clips_at_start(long, "16f")
        random = selection.clips_at_random(list(s.table["FileName"]), s.lengths, long, "16f", 4)
        usable[role] = [
            space(np.stack([s.video(c.video)[c.frames] for c in clips]))
            for clips in (start, random)
        ]
    n = len(usable["syn"][0])
    assert 5 < n < 30
    for suffix, role in (("", "syn"), ("_floor", "test"), ("_reconstruction", "rec")):
        expected = frechet_distance(usable["train"][1], usable[role][0])
        key = f"quality/fd_tinyclip_16f_n{n}x{n}{suffix}"
        assert e.numbers[key] == pytest.approx(expected, rel=1e-6)
        assert e.numbers[f"{key}_lo"] < expected < e.numbers[f"{key}_hi"]
    key = f"quality/fd_tinyclip_16f_n{n}x{n}_vs_test"
    expected = frechet_distance(usable["test"][1], usable["syn"][0])
    assert e.numbers[key] == pytest.approx(expected, rel=1e-6)
    other = evaluation(None, Clips2, seed=5)
    other.measure(train, test, rec, syn)
    assert other.numbers != e.numbers
    assert e.protocol[f"fd_tinyclip_16f_n{n}x{n}"]["real_offsets"] == "random, seed 4"


def test_each_frame_goes_through_the_network_once():
    s = videos([5, 9, 30, 2, 11], 0)
    for cuts in ([57], [20, 40, 57], [1, 13]):
        runs = runs_of(list(s.table["FileName"]), s.lengths, cuts)
        numbers = sorted(r.number + k for r in runs for k in range(r.stop - r.start))
        assert numbers == list(range(cuts[-1]))
        for r in runs:
            assert r.number + r.stop - r.start <= cuts[r.segment]
        assert [(r.segment, r.block) for r in runs] == sorted((r.segment, r.block) for r in runs)


def test_long_videos_are_taken_in_pieces(monkeypatch):
    s = videos([50, 3, 40], 0)
    whole = frame_sums(over(), "x", Frames2, s, [60, 93], True)
    monkeypatch.setattr("echosyn.metrics.streaming.FRAMES", 7)
    monkeypatch.setattr("echosyn.metrics.streaming.SLAB", 2)
    cut = frame_sums(over(), "x", Frames2, s, [60, 93], True)
    for count in (60, 93):
        for a, b in zip(whole[count].moments, cut[count].moments, strict=True):
            assert np.allclose(a.to_array(), b.to_array())
        assert np.allclose(sum(whole[count].scores), sum(cut[count].scores))
        assert sum(m.n for m in cut[count].moments) == count


def test_without_networks_nothing_is_measured():
    e = evaluation()
    e.measure(*four())
    assert (e.numbers, e.protocol) == ({}, {})


def test_a_path_is_verified(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"x")
    for kind in ("inception", "i3d"):
        e = evaluation(**{kind: tmp_path / "w.pth"})
        with pytest.raises(EchosynError, match=f"not the published weights .*{kind}"):
            e.measure(*four(n=6))


def real_inception():
    return Inception(InceptionV3(), "random")


def real_i3d(clip):
    return I3d(I3dNetwork(), "random", clip)


@pytest.mark.slow
def test_the_real_architectures_run_through(monkeypatch):
    s = videos([1, 1], 0, 16)
    part = frame_sums(over(), "x", real_inception, s, [2], True)[2]
    assert sum(m.n for m in part.moments) == 2
    assert part.moments[0].width == 2048
    estimate, _ = score_of_blocks(part.scores)
    assert 1 <= estimate.value < 1008
    monkeypatch.setattr(selection, "POLICIES", ("16f",))
    e = evaluation(None, real_i3d)
    e.measure(*(videos([16], k, 16) for k in range(4)))
    assert np.isfinite(e.numbers["quality/fd_i3d_16f_n1x1_floor"])


# ---- bad input


def test_constant_videos_have_a_finite_distance():
    def still(n, value):
        s = videos([20] * n, 0)
        return FrameSet(np.full_like(s.data, value), s.table, s.starts, s.lengths, s.fps)

    e = evaluation(Frames2, Clips2)
    e.measure(still(12, 90), still(12, 90), still(12, 90), still(12, 200))
    for key in ("fd_tiny_n240x240", "fd_tinyclip_16f_n12x12"):
        space = Frames2() if "clip" not in key else Clips2("16f")
        shape = (1, 8, 8) if "clip" not in key else (1, 16, 8, 8)
        a, b = (space(np.full(shape, v, np.uint8)).astype(np.float64) for v in (90, 200))
        assert e.numbers[f"quality/{key}"] == pytest.approx(np.sum((a - b) ** 2), rel=1e-6)
        assert e.numbers[f"quality/{key}_floor"] == pytest.approx(0, abs=1e-9)
    assert e.numbers["quality/is_tiny_n240"] == pytest.approx(1)


class BrokenFrames(Frames2):
    def __call__(self, frames):
        made = super().__call__(frames)
        made[frames[:, 0, 0] == 255] = np.nan
        return made


class BrokenClips(Clips2):
    def __call__(self, clips):
        made = super().__call__(clips)
        made[clips[:, 0, 0, 0] == 255, 2] = np.inf
        return made


@pytest.mark.parametrize(("inception", "i3d"), [(BrokenFrames, None), (None, BrokenClips)])
def test_features_that_are_not_finite_are_refused(inception, i3d):
    sets = four()
    s = sets[3]
    data = s.data.copy()
    data[s.starts[7]] = 255
    sets[3] = FrameSet(data, s.table, s.starts, s.lengths, s.fps)
    name = s.table["FileName"][7]
    with pytest.raises(EchosynError, match=rf"features of video {name} are not finite \(1 of"):
        evaluation(inception, i3d).measure(*sets)


def test_sets_that_do_not_compare_are_refused():
    train, test, rec, syn = four()
    bad = FrameSet(rng(0).integers(0, 9, (60, 9, 8), dtype=np.uint8), syn.table.iloc[:3],
                   np.array([0, 20, 40]), np.array([20] * 3), 32.0)  # fmt: skip
    with pytest.raises(EchosynError, match=r"frame sizes differ: .*synthetic \(9, 8\)"):
        evaluation(Frames2).measure(train, test, rec, bad)
    with pytest.raises(EchosynError, match=r"fps differ: .*test 50\.0"):
        evaluation(Frames2).measure(train, videos([20] * 3, 0, fps=50.0), rec, syn)
    with pytest.raises(EchosynError, match="the reconstructed set has no frames"):
        evaluation(Frames2).measure(train, test, rec.take([]), syn)


def test_a_floor_without_long_videos_is_noted():
    train, _, rec, syn = four()
    e = evaluation(None, Clips2)
    e.measure(train, videos([9] * 8, 0), rec, syn)
    name = "fd_tinyclip_16f_n24x20"
    assert f"quality/{name}" in e.numbers
    assert f"quality/{name}_reconstruction" in e.numbers
    assert "the longest of the test set has 9" in e.protocol[name]["skipped_floor"]
    assert not [k for k in e.numbers if "floor" in k or "vs_test" in k]


def test_one_video_has_no_interval():
    e = evaluation(Frames2)
    e.measure(*(videos([20], k) for k in range(4)))
    assert "quality/fd_tiny_n20x20" in e.numbers
    assert "quality/fd_tiny_n20x20_lo" not in e.numbers


# ---- moments and score


def test_moments_are_numpys():
    x = rng(0).normal(3, 2, (500, 17)).astype(np.float32)
    parts = [Moments(17).add(p) for p in np.array_split(x, 7)]
    whole = Moments(17)
    for p in parts:
        whole.merge(p)
    x64 = x.astype(np.float64)
    assert whole.n == 500
    assert np.allclose(whole.mean(), x64.mean(0))
    assert np.allclose(whole.covariance(), np.cov(x64.T, bias=True))
    left = whole.without(parts[2])
    rest = np.concatenate([p for i, p in enumerate(np.array_split(x64, 7)) if i != 2])
    assert np.allclose(left.covariance(), np.cov(rest.T, bias=True))
    back = Moments.from_array(whole.to_array(), 17)
    assert back.n == 500
    assert np.array_equal(back.covariance(), whole.covariance())
    assert len(whole.to_array()) == Moments.length(17) == 1 + 17 + 17 * 18 // 2


def test_moments_refuse_what_they_cannot_hold():
    with pytest.raises(EchosynError, match="row 1 is not finite"):
        Moments(2).add(np.array([[0, 1], [np.nan, 1]]))
    with pytest.raises(EchosynError, match=r"expected features \(N, 2\)"):
        Moments(2).add(np.zeros((3, 3)))
    with pytest.raises(EchosynError, match="no moments of width 3"):
        Moments.from_array(np.zeros(4), 3)
    with pytest.raises(EchosynError, match="fake features: no row"):
        frechet_of_moments(Moments(2).add(np.eye(2)), Moments(2))


@pytest.mark.parametrize("n", [20, 400])
def test_distance_of_moments_is_that_of_features(n):
    a, b = rng(1).normal(0, 1, (n, 32)), rng(2).normal(0.2, 1.3, (n + 3, 32))
    made = frechet_of_moments(Moments(32).add(a), Moments(32).add(b))
    assert made == pytest.approx(frechet_distance(a, b), rel=1e-6)


def test_interval_of_blocks_leaves_out_videos():
    a, b = rng(1).normal(0, 1, (40, 9, 5)), rng(2).normal(0.2, 1.3, (30, 9, 5))
    blocks = [[Moments(5).add(np.concatenate(x[i::10])) for i in range(10)] for x in (a, b)]
    made = frechet_of_blocks(*blocks)
    left = [
        frechet_distance(
            np.concatenate([v for i, v in enumerate(a) if i % 10 != k]),
            np.concatenate([v for i, v in enumerate(b) if i % 10 != k]),
        )
        for k in range(10)
    ]
    error = np.sqrt(0.9 * np.sum((left - np.mean(left)) ** 2))
    assert made.value == pytest.approx(frechet_distance(a.reshape(-1, 5), b.reshape(-1, 5)))
    assert made.hi - made.value == pytest.approx(1.959964 * error)


def test_interval_of_sets_without_full_rank():
    # 20 rows in 32 dimensions, and constant features: no Cholesky factor.
    a, b = rng(1).normal(0, 1, (20, 32)), rng(2).normal(0.5, 1, (20, 32))
    for x, y in ((a, b), (np.ones((20, 4)), np.full((20, 4), 3.0))):
        width = x.shape[1]
        blocks = [[Moments(width).add(z[i::5]) for i in range(5)] for z in (x, y)]
        made = frechet_of_blocks(*blocks)
        left = [frechet_distance(np.delete(x, np.s_[i::5], 0), np.delete(y, np.s_[i::5], 0))
                for i in range(5)]  # fmt: skip
        assert made.value == pytest.approx(frechet_distance(x, y), rel=1e-6)
        error = 1.959964 * np.sqrt(0.8 * np.sum((left - np.mean(left)) ** 2))
        assert made.hi - made.value == pytest.approx(error, rel=1e-4, abs=1e-6)


def test_score_by_hand():
    # Two sure classes, half each: the score is 2. One class: 1. Zeros add nothing.
    sure = np.array([[1.0, 0, 0], [0, 1, 0]] * 5)
    assert inception_score(ScoreSums(1, 3).add(sure, np.zeros(10, int)).sums) == (
        pytest.approx(2), 0,
    )  # fmt: skip
    halves = ScoreSums(2, 3).add(sure, np.arange(10) % 2).sums
    assert inception_score(halves) == (pytest.approx(1), 0)
    mixed = ScoreSums(2, 3).add(sure[:4], np.zeros(4, int)).add(sure[[0, 0]], np.ones(2, int))
    assert inception_score(mixed.sums) == (pytest.approx(1.5), pytest.approx(0.5))
    # A split that a left-out block empties is left out too.
    blocks = [ScoreSums(2, 3).add(sure[:4], np.full(4, k)).sums for k in (0, 1)]
    estimate, deviation = score_of_blocks(blocks)
    assert (estimate.value, estimate.lo, deviation) == (
        pytest.approx(2), pytest.approx(2), pytest.approx(0),
    )  # fmt: skip
    assert np.isnan(inception_score(np.zeros((2, 5)))[0])


def test_a_damaged_row_names_its_video():
    s = videos([3, 4], 0)
    with pytest.raises(EchosynError, match=f"video {s.table['FileName'][1]} are"):
        finite_features(OnlyNan(), s, [selection.Clip(1, np.arange(2))])


class OnlyNan(Frames2):
    def __call__(self, frames):
        return np.full((len(frames), 3), np.nan, np.float32)
