"""Inception-v3 as FID and IS use it: TensorFlow's graph of 2015-12-05, in eager PyTorch.

It differs from the network that torchvision ships: average pools leave the border's padding out of
the mean, the last block pools by maximum, and there are 1008 classes. Names of parameters are those
of the converted weights (pytorch-fid, torch-fidelity).
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.metrics.weights import PUBLISHED, locate
from echosyn.runtime.device import pick_device
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import sha256_file

SIZE = 299  # pixels a side, input of the network
WIDTH = 2048
CLASSES = 1008
BATCH = {"cpu": 16, "cuda": 256}  # frames at once
Conv = tuple[str, int, int | tuple[int, int]]  # name, output channels, kernel
ConvPath = tuple[Conv, ...]


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions and products in fp32 throughout: the protocols have TF32 off."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        pad: int = 0,
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if pad else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Block(nn.Module):
    """Paths side by side, joined over channels; paths that begin alike share what they share.

    Args:
        paths: convolutions in order, the channels of the result in that order too.
        pool: "mean" (followed by the convolution branch_pool), "max", or "halve": a maximum over
            every second place, without a convolution. A block that halves gives the last
            convolution of every path a stride of 2 and no padding.
        pooled: output channels of branch_pool.
    """

    def __init__(
        self, inputs: int, paths: tuple[ConvPath, ...], pool: str, pooled: int = 0
    ) -> None:
        super().__init__()
        self.paths, self.pool = [tuple(name for name, _, _ in path) for path in paths], pool
        for path in paths:
            width = inputs
            for name, outputs, kernel in path:
                if not hasattr(self, name):
                    last = pool == "halve" and name == path[-1][0]
                    unit = ConvUnit(width, outputs, kernel, stride=1 + last, pad=not last)
                    self.add_module(name, unit)
                width = outputs
        if pool != "halve":
            self.branch_pool = ConvUnit(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        done: dict[tuple[str, ...], Tensor] = {(): x}
        for path in self.paths:
            for i, name in enumerate(path):
                if path[: i + 1] not in done:
                    done[path[: i + 1]] = getattr(self, name)(done[path[:i]])
        return torch.cat([*(done[path] for path in self.paths), self._pooled(x)], 1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "halve":
            return F.max_pool2d(x, 3, 2)
        if self.pool == "max":
            return self.branch_pool(F.max_pool2d(x, 3, 1, 1))
        return self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))


def _a(inputs: int, pooled: int) -> Block:
    double = (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3))
    five = (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5))
    return Block(inputs, ((("branch1x1", 64, 1),), five, double), "mean", pooled)


def _b(inputs: int) -> Block:
    double = (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3))
    return Block(inputs, ((("branch3x3", 384, 3),), double), "halve")


def _c(c: int) -> Block:
    single = (("branch7x7_1", c, 1), ("branch7x7_2", c, (1, 7)), ("branch7x7_3", 192, (7, 1)))
    double = (
        ("branch7x7dbl_1", c, 1),
        ("branch7x7dbl_2", c, (7, 1)),
        ("branch7x7dbl_3", c, (1, 7)),
        ("branch7x7dbl_4", c, (7, 1)),
        ("branch7x7dbl_5", 192, (1, 7)),
    )
    return Block(768, ((("branch1x1", 192, 1),), single, double), "mean", 192)


def _d() -> Block:
    three = (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3))
    seven = (
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3),
    )
    return Block(768, (three, seven), "halve")


def _e(inputs: int, pool: str) -> Block:
    three = (("branch3x3_1", 384, 1),)
    double = (("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3))
    paths = (
        (("branch1x1", 320, 1),),
        (*three, ("branch3x3_2a", 384, (1, 3))),
        (*three, ("branch3x3_2b", 384, (3, 1))),
        (*double, ("branch3x3dbl_3a", 384, (1, 3))),
        (*double, ("branch3x3dbl_3b", 384, (3, 1))),
    )
    return Block(inputs, paths, pool, 192)


class InceptionV3(nn.Module):
    """RGB (N, 3, 299, 299) in [-1, 1) to pooled features (N, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvUnit(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvUnit(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvUnit(32, 64, 3, pad=1)
        self.Conv2d_3b_1x1 = ConvUnit(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvUnit(80, 192, 3)
        self.Mixed_5b = _a(192, 32)
        self.Mixed_5c = _a(256, 64)
        self.Mixed_5d = _a(288, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b = _c(128)
        self.Mixed_6c = _c(160)
        self.Mixed_6d = _c(160)
        self.Mixed_6e = _c(192)
        self.Mixed_7a = _d()
        self.Mixed_7b = _e(1280, "mean")
        self.Mixed_7c = _e(2048, "max")
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))


def resize_tf1(x: Tensor, size: int) -> Tensor:
    """Bilinear (N, C, H, W) to (N, C, size, size) with TensorFlow 1's grid: the place of an output
    pixel is its number times H / size, without the half pixel that is usual now, and nothing is
    smoothed before shrinking."""
    for axis in (3, 2):
        n = x.shape[axis]
        at = torch.arange(size, dtype=torch.float32, device=x.device) * (n / size)
        low = at.long().clamp_max(n - 1)
        high = (low + 1).clamp_max(n - 1)
        share = (at - low).view(-1, *[1] * (3 - axis))
        a, b = x.index_select(axis, low), x.index_select(axis, high)
        x = a + (b - a) * share
    return x


class Inception:
    """Frames uint8, grey (N, H, W) or RGB (N, H, W, 3), to float32 (N, 2048).

    published: whether the weights were found to be the published ones; batch: frames at once.
    """

    name, clip = "inception", ""
    width, classes = WIDTH, CLASSES
    resize = f"bilinear to {SIZE}, TensorFlow 1 grid, no antialias; (x - 128) / 128"

    def __init__(self, net: InceptionV3, sha256: str, published: bool = False) -> None:
        self.device = pick_device()
        self.net = net.eval().requires_grad_(False).to(self.device)
        self.sha256, self.published = sha256, published
        self.batch = BATCH[self.device.type]

    @classmethod
    def load(cls, where: Path | str = PUBLISHED) -> "Inception":
        """The published network; `where` as of echosyn.metrics.weights.locate.

        Raises:
            EchosynError: the file is missing or not the published one.
        """
        path = locate("inception", where)
        return cls(read_network(path), sha256_file(path), published=True)

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Raises EchosynError for frames of another type or shape."""
        grey = frames.ndim == 3
        colour = frames.ndim == 4 and frames.shape[3] == 3
        if frames.dtype != np.uint8 or not (grey or colour):
            raise EchosynError(
                "expected uint8 frames (N, H, W) or (N, H, W, 3), "
                f"got {frames.dtype} {frames.shape}"
            )
        if frames.size == 0:
            raise EchosynError(f"expected at least one frame, got shape {frames.shape}")
        made = np.empty((len(frames), WIDTH), np.float32)
        with full_precision():
            for i in range(0, len(frames), self.batch):
                part = torch.from_numpy(np.array(frames[i : i + self.batch], order="C")).to(
                    self.device
                )
                x = part[:, None] if grey else part.permute(0, 3, 1, 2)
                x = (resize_tf1(x.float(), SIZE) - 128) / 128
                made[i : i + self.batch] = self.net(x.expand(-1, 3, -1, -1)).cpu().numpy()
        return made

    @torch.inference_mode()
    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of the 1008 classes, float64 (N, 1008), from features (N, 2048): the softmax of the last
        layer without its bias, as the inception score has it."""
        with full_precision():
            x = torch.from_numpy(np.ascontiguousarray(features, np.float32)).to(self.device)
            logits = x @ self.net.fc.weight.T
            return torch.softmax(logits.double(), 1).cpu().numpy()


def read_network(path: Path) -> InceptionV3:
    """The network with the weights of a .pth file; EchosynError unless they fit one to one."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        net = InceptionV3()
        # A plain dict: weights from before PyTorch counted batches load without that count.
        net.load_state_dict(dict(state), strict=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError, ValueError) as e:
        reason = str(e).splitlines()[:2]
        raise EchosynError(f"{path}: not the weights of this network: {' '.join(reason)}") from e
    return net
