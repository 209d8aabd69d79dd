"""Inception-v3 of FID and IS: its parts against independent computations, its file, its input."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from echosyn.metrics import weights
from echosyn.metrics.frechet import frechet_from_moments
from echosyn.metrics.inception import (
    SIZE,
    Inception,
    InceptionV3,
    full_precision,
    read_network,
    resize_tf1,
)
from echosyn.metrics.inception_score import ScoreSums, inception_score
from echosyn.metrics.moments import Moments
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import sha256_file


def rng(seed):
    return np.random.default_rng(seed)


def random_network(seed=0):
    """Weights of the scale of trained ones, so that features neither vanish nor explode."""
    g = torch.Generator().manual_seed(seed)
    net = InceptionV3()
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            fan = m.weight[0].numel()
            m.weight.data.normal_(0, (2 / fan) ** 0.5, generator=g)
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1, generator=g)
            m.running_var.uniform_(0.5, 1.5, generator=g)
            m.bias.data.normal_(0, 0.1, generator=g)
            m.weight.data.uniform_(0.8, 1.2, generator=g)
    net.fc.weight.data.normal_(0, 0.5, generator=g)
    net.fc.bias.data.normal_(0, 3, generator=g)
    return net.eval()


@pytest.fixture(scope="module")
def space():
    return Inception(random_network(), "0" * 64)


@pytest.fixture(scope="module")
def frames():
    return rng(0).integers(0, 256, (10, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def features(space, frames):
    return space(frames)


# ---- the network


def test_the_parameters_are_inceptions():
    # torchvision's inception_v3 has 27,161,264, of which its second head, that this one lacks,
    # has 3,326,696; eight more classes have 2049 each.
    count = sum(p.numel() for p in InceptionV3().parameters())
    assert count == 27_161_264 - 3_326_696 + 8 * 2049


def test_names_and_shapes_are_those_of_the_published_file():
    # As pytorch-fid and torch-fidelity name them; one per kind of block.
    shapes = {k: tuple(v.shape) for k, v in InceptionV3().state_dict().items()}
    assert len([k for k in shapes if k.endswith("conv.weight")]) == 94
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.conv.weight": (192, 80, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6b.branch7x7dbl_5.conv.weight": (192, 128, 1, 7),
        "Mixed_6e.branch7x7dbl_2.conv.weight": (192, 192, 7, 1),
        "Mixed_7a.branch7x7x3_3.conv.weight": (192, 192, 7, 1),
        "Mixed_7a.branch3x3_2.conv.weight": (320, 192, 3, 3),
        "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch3x3dbl_1.bn.running_var": (448,),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }.items():
        assert shapes[name] == shape, name


def unit(block, name, x, stride=1, padding=0):
    """Convolution, batch norm by its definition, ReLU."""
    m = getattr(block, name)
    y = F.conv2d(x, m.conv.weight, None, stride, padding)
    mean, var, w, b = (
        t.view(-1, 1, 1) for t in (m.bn.running_mean, m.bn.running_var, m.bn.weight, m.bn.bias)
    )
    return ((y - mean) / (var + 1e-3).sqrt() * w + b).clamp_min(0)


def mean_pool(x):
    """3 x 3 mean over the places that are inside the image."""
    ones = torch.ones(x.shape[1], 1, 3, 3)
    total = F.conv2d(x, ones, padding=1, groups=x.shape[1])
    return total / F.conv2d(torch.ones_like(x), ones, padding=1, groups=x.shape[1])


@torch.no_grad()
def test_blocks_against_their_definition():
    net = random_network(1)
    g = torch.Generator().manual_seed(0)

    def chain(b, x, *steps):
        for name, padding in steps:
            x = unit(b, name, x, padding=padding)
        return x

    def check(b, x, paths, pooled):
        assert torch.allclose(b(x), torch.cat([*paths, pooled], 1), atol=1e-4, rtol=1e-4)

    x, b = torch.randn(2, 192, 6, 5, generator=g), net.Mixed_5b
    double = chain(b, x, ("branch3x3dbl_1", 0), ("branch3x3dbl_2", 1), ("branch3x3dbl_3", 1))
    five = chain(b, x, ("branch5x5_1", 0), ("branch5x5_2", 2))
    paths = [unit(b, "branch1x1", x), five, double]
    check(b, x, paths, unit(b, "branch_pool", mean_pool(x)))

    x, b = torch.randn(2, 288, 7, 7, generator=g), net.Mixed_6a
    double = unit(b, "branch3x3dbl_3",
                  chain(b, x, ("branch3x3dbl_1", 0), ("branch3x3dbl_2", 1)), stride=2)  # fmt: skip
    check(b, x, [unit(b, "branch3x3", x, stride=2), double], F.max_pool2d(x, 3, 2))

    x, b = torch.randn(1, 768, 8, 9, generator=g), net.Mixed_6c
    wide, tall = (0, 3), (3, 0)
    single = chain(b, x, ("branch7x7_1", 0), ("branch7x7_2", wide), ("branch7x7_3", tall))
    double = chain(b, x, ("branch7x7dbl_1", 0), ("branch7x7dbl_2", tall), ("branch7x7dbl_3", wide),
                   ("branch7x7dbl_4", tall), ("branch7x7dbl_5", wide))  # fmt: skip
    paths = [unit(b, "branch1x1", x), single, double]
    check(b, x, paths, unit(b, "branch_pool", mean_pool(x)))

    x, b = torch.randn(1, 768, 7, 7, generator=g), net.Mixed_7a
    three = unit(b, "branch3x3_2", unit(b, "branch3x3_1", x), stride=2)
    seven = chain(b, x, ("branch7x7x3_1", 0), ("branch7x7x3_2", wide), ("branch7x7x3_3", tall))
    paths = [three, unit(b, "branch7x7x3_4", seven, stride=2)]
    check(b, x, paths, F.max_pool2d(x, 3, 2))

    # The last block pools by maximum, the one before by mean.
    for b, width, pool in (
        (net.Mixed_7b, 1280, mean_pool),
        (net.Mixed_7c, 2048, lambda t: F.max_pool2d(t, 3, 1, 1)),
    ):
        x = torch.randn(1, width, 4, 3, generator=g)
        three = unit(b, "branch3x3_1", x)
        double = chain(b, x, ("branch3x3dbl_1", 0), ("branch3x3dbl_2", 1))
        across, down = (0, 1), (1, 0)
        paths = [
            unit(b, "branch1x1", x),
            unit(b, "branch3x3_2a", three, padding=across),
            unit(b, "branch3x3_2b", three, padding=down),
            unit(b, "branch3x3dbl_3a", double, padding=across),
            unit(b, "branch3x3dbl_3b", double, padding=down),
        ]
        check(b, x, paths, unit(b, "branch_pool", pool(x)))


# ---- input


@pytest.mark.parametrize("shape", [(112, 112), (32, 48), (299, 299), (400, 310), (1, 2)])
def test_resize_is_tensorflow_1s(shape):
    x = torch.from_numpy(rng(1).uniform(0, 255, (2, 1, *shape)).astype(np.float32))
    made = resize_tf1(x, SIZE)
    # Another way to the same grid, the one of NVIDIA's converted network: shift, then sample.
    theta = torch.eye(2, 3)
    theta[0, 2] += 1 / shape[1] - 1 / SIZE
    theta[1, 2] += 1 / shape[0] - 1 / SIZE
    grid = F.affine_grid(theta.expand(2, 2, 3), [2, 1, SIZE, SIZE], align_corners=False)
    expected = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    assert torch.allclose(made, expected, atol=0.02)
    if shape == (299, 299):
        assert torch.equal(made, x)


def test_resize_by_hand():
    x = torch.tensor([[[[0.0, 10.0]]]])
    assert resize_tf1(x, 4)[0, 0, 0].tolist() == [0, 5, 10, 10]


@pytest.mark.slow
def test_grey_is_repeated_and_batches_do_not_matter(space, frames, features, monkeypatch):
    assert features.shape == (10, 2048)
    assert features.dtype == np.float32
    assert np.ptp(features, 0).max() > 0.01  # random features that do differ
    rgb = np.repeat(frames[:2, :, :, None], 3, 3)
    assert np.allclose(space(rgb), features[:2], atol=1e-5)
    rgb[..., 0] = 0
    assert not np.allclose(space(rgb), features[:2], atol=1e-3)
    monkeypatch.setattr(space, "batch", 1)
    assert np.allclose(space(frames[2:4]), features[2:4], atol=1e-4)


def test_input_is_scaled_as_in_the_graph(space, frames, features):
    x = resize_tf1(torch.from_numpy(frames[:1])[:, None].float(), SIZE)
    with torch.inference_mode():
        expected = space.net(((x - 128) * 0.0078125).repeat(1, 3, 1, 1))
    assert np.allclose(features[:1], expected.cpu().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 8, 8)), np.zeros((2, 8, 8, 2), np.uint8), np.zeros((0, 8, 8), np.uint8)]
)
def test_other_frames_are_refused(space, bad):
    with pytest.raises(EchosynError, match="expected"):
        space(bad)


def test_full_precision_is_left_behind():
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


# ---- against torchmetrics, with this network as its feature module


class Features(nn.Module):
    """What torchmetrics asks for: RGB uint8 (N, 3, H, W) to features."""

    num_features = 64

    def __init__(self, space):
        super().__init__()
        self.space = space

    def forward(self, x):
        rows = self.space(x[:, 0].numpy() if x.shape[1] == 3 else x)
        return torch.from_numpy(rows[:, :: 2048 // 64])


@pytest.mark.slow
def test_distance_agrees_with_torchmetrics(space, frames, features):
    theirs = FrechetInceptionDistance(feature=Features(space), input_img_size=(3, 32, 32))
    theirs.set_dtype(torch.float64)
    rgb = torch.from_numpy(frames)[:, None].repeat(1, 3, 1, 1)
    theirs.update(rgb[:6], real=True)
    theirs.update(rgb[6:], real=False)
    rows = features[:, :: 2048 // 64]
    made = []
    for part in (rows[:6], rows[6:]):
        m = Moments(64).add(part)
        # torchmetrics divides by N - 1, the protocol by N.
        made += [m.mean(), m.covariance() * m.n / (m.n - 1)]
    assert frechet_from_moments(*made) == pytest.approx(theirs.compute().item(), rel=1e-4)


def test_score_agrees_with_torchmetrics(space):
    rows = rng(5).normal(0, 0.05, (40, 2048)).astype(np.float32)

    class Logits(nn.Module):
        num_features = 1008

        def forward(self, x):
            return torch.from_numpy(rows) @ space.net.fc.weight.T.cpu()

    theirs = InceptionScore(feature=Logits(), splits=1)
    theirs.update(torch.zeros(40, 3, 8, 8, dtype=torch.uint8))
    p = space.probabilities(rows)
    assert p.shape == (40, 1008)
    assert p.sum(1) == pytest.approx(1)
    mean, _ = inception_score(ScoreSums(1, 1008).add(p, np.zeros(40, int)).sums)
    assert mean > 1.1
    assert mean == pytest.approx(theirs.compute()[0].item(), rel=1e-4)


def test_probabilities_leave_the_bias_out(space):
    features = rng(6).normal(0, 0.05, (3, 2048)).astype(np.float32)
    logits = features.astype(np.float64) @ space.net.fc.weight.T.cpu().double().numpy()
    e = np.exp(logits - logits.max(1, keepdims=True))
    expected = e / e.sum(1, keepdims=True)
    assert np.allclose(space.probabilities(features), expected, atol=1e-5)


# ---- the file


@pytest.mark.slow
def test_a_file_loads_one_to_one(tmp_path, monkeypatch):
    path = tmp_path / "mine.pth"
    state = random_network(3).state_dict()
    # Files from before PyTorch counted batches have no such count.
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)
    net = read_network(path)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    entry = weights.Weights("", path.stat().st_size, "sha256", sha256_file(path), (), "", "FID, IS")
    monkeypatch.setitem(weights.KNOWN, "inception", entry)
    loaded = Inception.load(path)
    assert loaded.published
    assert loaded.sha256 == entry.digest
    assert not Inception(net, "x").published
    with path.open("r+b") as f:
        f.seek(50_000_000)
        byte = f.read(1)[0]
        f.seek(50_000_000)
        f.write(bytes([byte ^ 1]))
    with pytest.raises(EchosynError, match="not the published weights"):
        Inception.load(path)


def test_a_file_of_another_network_is_refused(tmp_path):
    path = tmp_path / "other.pth"
    state = {k: v[:1] for k, v in random_network(0).state_dict().items() if v.ndim}
    for content in (state, {"fc.weight": torch.zeros(2)}):
        torch.save(content, path)
        with pytest.raises(EchosynError, match=r"other\.pth: not the weights of this network"):
            read_network(path)
    path.write_bytes(b"no archive")
    with pytest.raises(EchosynError, match="not the weights of this network"):
        read_network(path)


HERE = weights.state("inception") == "here" or os.environ.get("ECHOSYN_WEIGHTS_TESTS")


@pytest.mark.skipif(not HERE, reason="needs `echosyn weights fetch inception`")
def test_the_published_network():
    space = Inception.load(os.environ.get("ECHOSYN_INCEPTION", weights.PUBLISHED))
    ramp = np.broadcast_to(np.arange(112, dtype=np.uint8) * 2, (2, 112, 112))
    features = space(ramp)
    # Pooled features of trained weights are not negative, and small: random ones are not both.
    assert features.min() >= 0
    assert 0.1 < features.mean() < 1
    assert np.isfinite(space.probabilities(features)).all()
