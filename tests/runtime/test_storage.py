"""Latent shards, decoded frames, resumable shards, atomic writing."""

import os
import platform
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from echosyn.data.filelist import COLUMNS, video_path, write_filelist
from echosyn.data.frames import load_frames
from echosyn.data.latents import LatentSet, pack, write_index, write_shard
from echosyn.data.video import resample_indices, write_video
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, digest, write_json, write_text
from echosyn.runtime.shards import finish, gather, plan_shards, run_shards, work_dir


def latent_folder(folder, lengths=(5, 7, 3), splits=("TRAIN", "VAL", "TRAIN")):
    """Video i is full of the value i, with log-variance -2 i."""
    folder.mkdir()
    rows, shard = [], {}
    for i, (n, split) in enumerate(zip(lengths, splits, strict=True)):
        z = torch.full((n, 4, 14, 14), float(i))
        shard[f"v{i}"] = pack(z, -2 * z)
        rows.append((f"v{i}", 50.0 + i, split, 16.0, n, "latents-0.safetensors"))
    write_shard(folder / "latents-0.safetensors", shard)
    columns = ["FileName", "EF", "Split", "FPS", "NumberOfFrames", "Shard"]
    write_index(folder, pd.DataFrame(rows, columns=columns))
    return folder


def test_latents_are_read_by_video_split_and_frame(tmp_path):
    folder = latent_folder(tmp_path / "z")
    everything, train = LatentSet(folder), LatentSet(folder, "TRAIN")
    assert (len(everything), len(train)) == (3, 2)
    assert train.mean(1).shape == (3, 4, 14, 14)
    assert train.mean(1).unique().tolist() == [2.0]
    assert everything.mean(1, 2, 4).shape[0] == 2
    assert everything.frames(1, 3).shape == (3, 4, 14, 14)
    assert train.ef.tolist() == [50.0, 52.0]


def test_a_posterior_sample_has_the_stored_spread(tmp_path):
    latents = LatentSet(latent_folder(tmp_path / "z", (200, 200, 200)))
    drawn = latents.draw(1, 0, 200, torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(1, abs=0.01)
    assert drawn.std().item() == pytest.approx(np.exp(-1), abs=0.01)


def test_the_same_latents_give_the_same_bytes(tmp_path):
    a, b = latent_folder(tmp_path / "a"), latent_folder(tmp_path / "b")
    for name in ("latents-0.safetensors", "index.csv"):
        assert (a / name).read_bytes() == (b / name).read_bytes()


def test_damaged_latents_are_named(tmp_path):
    folder = latent_folder(tmp_path / "z")
    with pytest.raises(EchosynError, match="run encode"):
        LatentSet(tmp_path)
    shard = folder / "latents-0.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EchosynError, match=r"latents-0.safetensors: this latent shard"):
        LatentSet(folder).mean(0)
    write_shard(shard, {"other": torch.zeros(1, 8, 2, 2)})
    with pytest.raises(EchosynError, match="no latents of v0"):
        LatentSet(folder).mean(0)


def dataset(folder, frames=(9, 12), fps=32.0):
    (folder / "Videos").mkdir(parents=True)
    rows = []
    for i, n in enumerate(frames):
        video = np.repeat(np.arange(n, dtype=np.uint8)[:, None, None] * 20, 16, 1).repeat(16, 2)
        write_video(video_path(folder, f"v{i}"), video, fps)
        rows.append((f"v{i}", 50.0, 40.0, 80.0, 16, 16, fps, n, ("TRAIN", "TEST")[i]))
    write_filelist(folder / "FileList.csv", pd.DataFrame(rows, columns=list(COLUMNS)))
    return folder


def test_frames_are_decoded_at_the_rate_asked_for_and_cached_by_content(tmp_path):
    folder, cache = dataset(tmp_path / "d"), tmp_path / "cache"
    frames = load_frames(folder, 16.0, cache)
    assert frames.lengths.tolist() == [5, 6]
    assert np.abs(frames.video(1)[:, 8, 8].astype(int) - np.arange(0, 12, 2) * 20).max() <= 2
    assert frames.split("TEST").video(0).shape == (6, 16, 16)
    clip = frames.clip(0, 3, 4)[:, 8, 8]
    assert clip[1] == clip[2] == clip[3]
    assert len(list(cache.glob("frames-*"))) == 1
    load_frames(folder, 16.0, cache)
    assert len(list(cache.glob("frames-*"))) == 1
    write_video(video_path(folder, "v0"), np.zeros((9, 16, 16), np.uint8), 32.0)
    assert load_frames(folder, 16.0, cache).video(0).max() == 0
    assert len(list(cache.glob("frames-*"))) == 2


def test_a_missing_video_is_named_before_anything_is_decoded(tmp_path):
    folder = dataset(tmp_path / "d")
    video_path(folder, "v1").unlink()
    with pytest.raises(EchosynError, match=r"v1.avi: listed in .*FileList.csv but missing"):
        load_frames(folder, 16.0, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@given(st.integers(1, 300), st.floats(5, 120), st.floats(5, 120))
@settings(max_examples=100, deadline=None)
def test_resampling_stays_inside_keeps_order_and_the_nearest_frame(n, fps, target):
    index = resample_indices(n, fps, target)
    assert index[0] == 0
    assert index.max() <= n - 1
    assert (np.diff(index) >= 0).all()
    ideal = np.arange(len(index)) / target * fps
    assert np.abs(index - ideal).max() <= 0.5 + 1e-6


def test_resampling_at_the_own_rate_changes_nothing():
    assert resample_indices(50, 32.0, 32.0).tolist() == list(range(50))


def test_shards_resume_and_a_failed_one_leaves_nothing(tmp_path):
    made = []

    def make(rows, folder):
        if rows.start == 4 and len(made) < 2:
            (folder / "half").write_text("x")
            made.append("failed")
            raise RuntimeError("power cut")
        made.append(rows)
        write_text(folder / f"{rows.start}.txt", ",".join(map(str, rows)))

    work = work_dir(tmp_path, "stage", "subject", {"a": 1}, [])
    with pytest.raises(RuntimeError):
        run_shards(plan_shards(work, 6, 4), lambda: make, "stage", "item")
    assert [p.name for p in work.iterdir()] == ["shard-00000"]
    shards = run_shards(plan_shards(work, 6, 4), lambda: make, "stage", "item")
    assert made == [range(4), "failed", range(4, 6)]
    files = gather(shards, "*.txt", tmp_path / "out")
    assert [f.read_text() for f in files] == ["0,1,2,3", "4,5"]


def test_state_of_other_settings_or_inputs_is_never_met(tmp_path):
    write_text(tmp_path / "in.txt", "one")
    first = work_dir(tmp_path, "s", "x", {"lr": 1}, [tmp_path / "in.txt"])
    assert first == work_dir(tmp_path, "s", "x", {"lr": 1}, [tmp_path / "in.txt"])
    assert first != work_dir(tmp_path, "s", "x", {"lr": 2}, [tmp_path / "in.txt"])
    write_text(tmp_path / "in.txt", "two")
    assert first != work_dir(tmp_path, "s", "x", {"lr": 1}, [tmp_path / "in.txt"])


def test_the_digest_ignores_the_place_and_sees_names_and_bytes(tmp_path):
    for name in ("a", "b"):
        write_text(tmp_path / name / "f", "same")
    assert digest({}, [tmp_path / "a"]) == digest({}, [tmp_path / "b"])
    (tmp_path / "b" / "f").rename(tmp_path / "b" / "g")
    assert digest({}, [tmp_path / "a"]) != digest({}, [tmp_path / "b"])


def test_an_atomic_folder_is_whole_or_as_it_was(tmp_path):
    out = tmp_path / "out"
    with atomic_dir(out) as tmp:
        write_text(tmp / "f", "first")

    def fail():
        with atomic_dir(out) as tmp:
            write_text(tmp / "f", "second")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert (out / "f").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_json_refuses_what_json_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "m.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_half_precision_keeps_latents_to_a_thousandth(tmp_path):
    z = torch.randn(3, 4, 14, 14)
    write_shard(tmp_path / "s.safetensors", {"v": pack(z, z)})
    assert (load_file(tmp_path / "s.safetensors")["v"][:, :4].float() - z).abs().max() < 2e-3


def test_finished_state_stays_until_dvc_has_recorded_the_stage(tmp_path, monkeypatch):
    """Killed in between, DVC runs the stage again: it must find its work done."""
    monkeypatch.chdir(tmp_path)
    lock = tmp_path / "dvc.lock"
    lock.write_text("before")
    os.utime(lock, (1, 1))
    first = work_dir(tmp_path / ".echosyn", "encode", "a", {}, [])
    (first / "shard-00000").mkdir()
    other = work_dir(tmp_path / ".echosyn", "encode", "b", {}, [])
    assert (first / "shard-00000").is_dir()  # not finished
    finish(first)
    assert work_dir(tmp_path / ".echosyn", "encode", "a", {}, []) == first
    assert (first / "shard-00000").is_dir()  # finished, not recorded: the same stage again
    lock.write_text("after")
    assert work_dir(tmp_path / ".echosyn", "encode", "a", {}, []) == first
    assert list(first.iterdir()) == []  # recorded: it was asked to run anew
    (first / "shard-00000").mkdir()
    finish(first)
    work_dir(tmp_path / ".echosyn", "encode", "c", {}, [])
    assert not first.exists()  # another stage runs, so DVC has recorded this one
    assert other.is_dir()


def test_a_partial_folder_goes_when_its_process_has_ended_and_not_before(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    name = f".out.partial-{platform.node()}"
    dead, alive, elsewhere = (
        tmp_path / n
        for n in (f"{name}-{ended.pid}", f"{name}-{os.getppid()}", ".out.partial-far-1")
    )
    for folder in (dead, alive, elsewhere):
        folder.mkdir()
    with atomic_dir(tmp_path / "out"):
        pass
    assert not dead.exists()
    assert alive.exists()
    assert elsewhere.exists()


@pytest.mark.slow
def test_processes_side_by_side_decode_a_dataset_once(tmp_path):
    dataset(tmp_path / "d")
    script = (
        "import sys; from echosyn.data import frames\n"
        "own = frames._decode\n"
        "def noting(*a):\n    print('decoded'); own(*a)\n"
        "frames._decode = noting\n"
        "print(len(frames.load_frames(sys.argv[1], 16.0, sys.argv[2])))\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "d", tmp_path / "cache"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(p.communicate()[0].split() for p in both)
    assert said == [["2"], ["decoded", "2"]]
