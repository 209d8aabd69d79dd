"""The cost model: networks of the published sizes, and what limits more GPUs."""

import pytest

from benchmarks.cost_model import Shards, Training, forward_flops, paper_job, paper_params


def job_of(folder, preset=None):
    return {s.name: s for s in paper_job(paper_params(folder, preset), 10_030)}


@pytest.mark.slow
def test_the_networks_of_the_preset_are_the_references(tmp_path):
    job = job_of(tmp_path, "reference")
    # EchoNet-Synthetic: its video UNet has 144 M parameters and takes 555 GFLOP a 64-frame pass.
    assert job["train_lvdm"].parameters == pytest.approx(144e6, rel=0.01)
    assert job["train_lvdm"].flops == pytest.approx(555e9, rel=0.01)
    # Of one video: 64 steps over the windows of 192 frames, and decoding.
    windows = (job["sample_videos"].flops - 192 * job["train_vae"].flops / 2) / (64 * 555.25e9)
    assert windows == pytest.approx(5, abs=0.01)  # that overlap by half, each passed once


@pytest.mark.slow
def test_our_network_at_scale_paper_takes_half_the_operations(tmp_path):
    ours, theirs = (job_of(tmp_path / str(p), p)["train_lvdm"] for p in (None, "reference"))
    assert ours.parameters < theirs.parameters / 2
    assert 0.4 < ours.flops / theirs.flops < 0.6


def test_operations_are_counted_as_two_for_a_multiply_add():
    import torch

    flops, parameters = forward_flops(lambda: torch.nn.Linear(10, 20, bias=False), (3, 10))
    assert (flops, parameters) == (2 * 3 * 10 * 20, 200)


def test_training_is_limited_by_its_batch_and_shards_by_their_number():
    training = Training("t", steps=1000, batch=16, flops=1e12, parameters=1_000_000)
    assert training.seconds(64) == training.seconds(16) < training.seconds(8) < training.seconds(1)
    assert training.gpu_seconds(64) == 16 * training.seconds(16)
    shards = Shards("s", items=100, shard=10, flops=1e12)
    assert shards.seconds(64) == shards.seconds(10) < shards.seconds(9) == shards.seconds(5)
    assert shards.seconds(9) < shards.seconds(1)
