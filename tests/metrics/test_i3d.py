"""I3D of FVD: the checkpoint's layout, TensorFlow's padding, every kind of layer, its input."""

import hashlib
import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from echosyn.metrics import i3d, weights
from echosyn.metrics.frechet import frechet_distance, frechet_from_moments
from echosyn.metrics.moments import Moments
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import sha256_file

TABLE = i3d.layout()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights of a trained scale, written as TensorFlow lays them out."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("i3d") / "model.ckpt.data-00000-of-00001"
    with path.open("wb") as f:
        for name, entry in sorted(TABLE.items(), key=lambda item: item[1]["offset"]):
            shape = entry["shape"]
            if name.endswith("/w"):
                values = rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape)
            elif name.endswith("moving_variance"):
                values = rng.uniform(0.5, 1.5, shape)
            else:
                values = rng.normal(0, 0.1, shape)
            f.write(values.astype("<f4").tobytes())
    return path


@pytest.fixture(scope="module")
def net(checkpoint):
    return i3d.read_network(checkpoint).eval().requires_grad_(False)


def raw(checkpoint, name):
    entry = TABLE[f"RGB/inception_i3d/{name}"]
    n = int(np.prod(entry["shape"]))
    values = np.fromfile(checkpoint, "<f4", n, offset=entry["offset"])
    return torch.from_numpy(values.reshape(entry["shape"]).copy())


# ---- the checkpoint


def test_the_layout_is_the_checkpoints():
    assert len(TABLE) == 230
    ends = 0
    for name in sorted(TABLE):  # TensorFlow sorts them, and leaves no gap
        assert TABLE[name]["offset"] == ends, name
        ends += 4 * int(np.prod(TABLE[name]["shape"]))
    assert ends == weights.KNOWN["i3d"].bytes
    widths = {n: s["shape"][-1] for n, s in TABLE.items() if n.endswith("/w")}
    assert widths["RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w"] == 64
    assert widths["RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/w"] == 400


def test_every_tensor_is_used(net):
    # 57 convolutions with batch norm (three vectors, of which folding leaves one) and the head.
    numbers = sum(p.numel() for p in net.parameters())
    norm = sum(s["shape"][0] for n, s in TABLE.items() if "/moving_" in n)
    assert numbers == weights.KNOWN["i3d"].bytes // 4 - norm
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_a_file_of_another_length_is_refused(checkpoint, tmp_path):
    short = tmp_path / "short"
    short.write_bytes(checkpoint.read_bytes()[:-4])
    with pytest.raises(EchosynError, match="50,818,172 bytes, the checkpoint has 50,818,176"):
        i3d.read_network(short)


@pytest.mark.slow
def test_only_the_published_bytes_load(checkpoint, tmp_path, monkeypatch):
    with pytest.raises(EchosynError, match=r"not the published weights of FVD \(i3d\): git blob"):
        i3d.I3d.load(checkpoint)
    data = bytearray(checkpoint.read_bytes())
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry = weights.Weights("", len(data), "git", blob, (), "", "FVD")
    monkeypatch.setitem(weights.KNOWN, "i3d", entry)
    space = i3d.I3d.load(checkpoint, "128f_subsample8f")
    assert (space.name, space.clip, space.frames, space.published) == (
        "i3d", "128f_subsample8f", 16, True,
    )  # fmt: skip
    assert space.sha256 == sha256_file(checkpoint)
    for at in (0, len(data) // 2, len(data) - 1):
        wrong = tmp_path / "wrong"
        data[at] ^= 1
        wrong.write_bytes(data)
        data[at] ^= 1
        with pytest.raises(EchosynError, match="not the published weights"):
            i3d.I3d.load(wrong)


# ---- layers


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2), (3, 1), (3, 2), (7, 2)])
def test_same_padding_against_its_definition(size, kernel, stride):
    """TensorFlow: output o looks at o * stride - before .. + kernel, ignoring what is outside."""
    rng = np.random.default_rng(size)
    x = -rng.uniform(1, 2, size)  # below 0: a pool that padded with 0 would be seen
    w = rng.normal(size=kernel)
    outputs = -(-size // stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    conv, pool = [], []
    for o in range(outputs):
        inside = [(i, o * stride - before + i) for i in range(kernel)]
        inside = [(i, j) for i, j in inside if 0 <= j < size]
        conv.append(sum(w[i] * x[j] for i, j in inside))
        pool.append(max(x[j] for _, j in inside))
    for axis in (2, 3, 4):
        shape, window, step = [1] * 5, [1, 1, 1], [1, 1, 1]
        shape[axis], window[axis - 2], step[axis - 2] = size, kernel, stride
        t = torch.tensor(x).view(shape)
        padded = i3d.pad_same(t, tuple(window), tuple(step))
        made = F.conv3d(padded, torch.tensor(w).view(1, 1, *window), stride=step)
        assert np.allclose(made.numpy().ravel(), conv)
        made = i3d.max_pool_same(t, tuple(window), tuple(step))
        assert np.allclose(made.numpy().ravel(), pool)


def unit(checkpoint, name, x):
    """Convolution and batch norm as the checkpoint has them, neither folded nor transposed."""
    w = raw(checkpoint, f"{name}/conv_3d/w").permute(4, 3, 0, 1, 2)
    k = w.shape[2] // 2
    mean, var, beta = (
        raw(checkpoint, f"{name}/batch_norm/{part}").view(-1, 1, 1, 1)
        for part in ("moving_mean", "moving_variance", "beta")
    )
    return (((F.conv3d(x, w, padding=k) - mean) / (var + 1e-3).sqrt()) + beta).clamp_min(0)


@pytest.mark.parametrize("name", ["Mixed_3b", "Mixed_4e", "Mixed_5b", "Mixed_5c"])
def test_blocks_against_their_definition(checkpoint, net, name):
    block = getattr(net, name)
    x = torch.randn(1, block.branch_0.conv.in_channels, 3, 4, 5).relu()
    wide = "0a" if name == "Mixed_5b" else "0b"
    branch = [unit(checkpoint, f"{name}/Branch_{i}/Conv3d_0a_1x1", x) for i in range(3)]
    made = [
        branch[0],
        unit(checkpoint, f"{name}/Branch_1/Conv3d_0b_3x3", branch[1]),
        unit(checkpoint, f"{name}/Branch_2/Conv3d_{wide}_3x3", branch[2]),
        unit(checkpoint, f"{name}/Branch_3/Conv3d_0b_1x1", F.max_pool3d(x, 3, 1, 1)),
    ]
    assert torch.allclose(block(x), torch.cat(made, 1), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_shapes_and_head_on_a_clip(checkpoint, net):
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 224, 224) * 2 - 1
    made = net.stages(x)
    assert {name: tuple(t.shape[1:]) for name, t in made.items()} == {
        "Conv3d_1a_7x7": (64, 8, 112, 112),
        "Conv3d_2c_3x3": (192, 8, 56, 56),
        "Mixed_3b": (256, 8, 28, 28),
        "Mixed_3c": (480, 8, 28, 28),
        "Mixed_4b": (512, 4, 14, 14),
        "Mixed_4c": (512, 4, 14, 14),
        "Mixed_4d": (512, 4, 14, 14),
        "Mixed_4e": (528, 4, 14, 14),
        "Mixed_4f": (832, 4, 14, 14),
        "Mixed_5b": (832, 2, 7, 7),
        "Mixed_5c": (1024, 2, 7, 7),
        "Logits": (400, 1, 1, 1),
    }
    head = "Logits/Conv3d_0c_1x1/conv_3d"
    logits = made["Mixed_5c"].mean((2, 3, 4)) @ raw(checkpoint, f"{head}/w")[0, 0, 0]
    expected = logits + raw(checkpoint, f"{head}/b")
    assert torch.allclose(made["Logits"].flatten(1), expected, atol=1e-3)
    # The clip on the grid of a space: grey repeated, resized, in [-1, 1].
    space = i3d.I3d(net, "x", "16f")
    clip = np.random.default_rng(1).integers(0, 256, (1, 16, 56, 40), dtype=np.uint8)
    grey = F.interpolate(
        torch.from_numpy(clip).float()[:, None], (16, 224, 224), mode="trilinear"
    )  # what SGV's detector does; along time it changes nothing
    expected = net((2 * grey / 255 - 1).repeat(1, 3, 1, 1, 1))
    made = space(clip)
    assert made.shape == (1, 400)
    assert made.dtype == np.float32
    assert np.allclose(made, expected.numpy(), atol=1e-3)
    assert np.abs(made).max() > 0.01


def test_policies_and_clips_that_do_not_fit(net):
    assert i3d.clip_frames("16f") == (16, 1)
    assert i3d.clip_frames("128f_subsample8f") == (16, 8)
    for bad in ("16", "f", "16f_subsample0f", "16f_"):
        with pytest.raises(EchosynError, match="clip policy"):
            i3d.clip_frames(bad)
    with pytest.raises(EchosynError, match="9 frames or more"):
        i3d.I3d(net, "x", "8f")
    space = i3d.I3d(net, "x", "16f")
    with pytest.raises(EchosynError, match="clips of 15 frames; i3d 16f takes 16"):
        space(np.zeros((1, 15, 32, 32), np.uint8))
    with pytest.raises(EchosynError, match="expected uint8 clips"):
        space(np.zeros((1, 16, 32, 32)))


# ---- the published network

HERE = weights.state("i3d") == "here" or os.environ.get("ECHOSYN_WEIGHTS_TESTS")
WHERE = os.environ.get("ECHOSYN_I3D", weights.PUBLISHED)


@pytest.mark.skipif(not HERE, reason="needs `echosyn weights fetch i3d`")
def test_parity_on_black_and_white():
    # common_metrics_on_video_quality gives 151.256 for 8 clips of 0 against 8 of 1, 30 x 64 x 64.
    space = i3d.I3d.load(WHERE, "30f")
    black, white = (space(np.full((2, 30, 64, 64), v, np.uint8)) for v in (0, 255))
    assert frechet_distance(black, white) == pytest.approx(151.256, abs=1)


@pytest.mark.slow
@pytest.mark.skipif(not HERE, reason="needs `echosyn weights fetch i3d`")
def test_parity_with_google_research():
    # 128 clips a side of uniform noise, neither scaled nor resized, ddof 1.
    space = i3d.I3d.load(WHERE)
    made = []
    for seed in (1, 2):
        rng, m = np.random.RandomState(seed), Moments(400)
        for _ in range(128):
            clip = torch.from_numpy(rng.rand(16, 224, 224, 3)).float().permute(3, 0, 1, 2)
            with torch.inference_mode():
                m.add(space.net(clip[None].to(space.device)).cpu().numpy())
        made += [m.mean(), m.covariance() * m.n / (m.n - 1)]
    assert frechet_from_moments(*made) == pytest.approx(10.138084766713924, abs=1e-2)


def test_the_table_is_packaged():
    path = i3d.files("echosyn.metrics").joinpath("i3d_rgb_scratch.json")
    assert json.loads(path.read_text())["source"].startswith("google-deepmind/kinetics-i3d@0667e88")
