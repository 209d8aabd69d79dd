"""Inflated Inception (I3D) as FVD uses it: DeepMind's `rgb_scratch` checkpoint, without TensorFlow.

The checkpoint's data file is tensors end to end; `i3d_rgb_scratch.json` beside this module says
which lies where. Trained on Kinetics-400 from scratch; the FVD paper's network is this one.
"""

import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.metrics.inception import full_precision
from echosyn.metrics.weights import PUBLISHED, locate
from echosyn.runtime.device import pick_device
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import sha256_file

SIZE = 224  # pixels a side, input of the network
WIDTH = 400
SHORTEST = 9  # frames: fewer leave nothing for the last pool
EPS = 1e-3  # of batch norm, which has no scale here
FRAMES_AT_ONCE = {"cpu": 32, "cuda": 512}
PREFIX = "RGB/inception_i3d"
POLICY = re.compile(r"(\d+)f(?:_subsample(\d+)f)?")
# name: channels of branch 0; of 1 (narrow, wide); of 2 (narrow, wide); of 3
MIXED = {
    "Mixed_3b": (64, (96, 128), (16, 32), 32),
    "Mixed_3c": (128, (128, 192), (32, 96), 64),
    "Mixed_4b": (192, (96, 208), (16, 48), 64),
    "Mixed_4c": (160, (112, 224), (24, 64), 64),
    "Mixed_4d": (128, (128, 256), (24, 64), 64),
    "Mixed_4e": (112, (144, 288), (32, 64), 64),
    "Mixed_4f": (256, (160, 320), (32, 128), 128),
    "Mixed_5b": (256, (160, 320), (32, 128), 128),
    "Mixed_5c": (384, (192, 384), (48, 128), 128),
}
Triple = tuple[int, int, int]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME: ceil(size / stride) outputs, the odd one of the padding at the end."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: Triple, stride: Triple, value: float = 0.0) -> Tensor:
    """Pad (N, C, T, H, W) for a window without padding of its own."""
    pads = [same_padding(n, k, s) for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    flat = [p for pair in reversed(pads) for p in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def max_pool_same(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    return F.max_pool3d(pad_same(x, kernel, stride, -torch.inf), kernel, stride)


class ConvUnit(nn.Module):
    """Convolution with SAME padding, batch norm folded into it, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(pad_same(x, self.kernel, self.stride)), inplace=True)


class Mixed(nn.Module):
    """Four branches, joined over channels in their order."""

    def __init__(
        self, inputs: int, one: int, two: tuple[int, int], three: tuple[int, int], pooled: int
    ) -> None:
        super().__init__()
        self.branch_0 = ConvUnit(inputs, one, 1)
        self.branch_1 = nn.Sequential(ConvUnit(inputs, two[0], 1), ConvUnit(two[0], two[1], 3))
        self.branch_2 = nn.Sequential(
            ConvUnit(inputs, three[0], 1), ConvUnit(three[0], three[1], 3)
        )
        self.branch_3 = ConvUnit(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = max_pool_same(x, (3, 3, 3), (1, 1, 1))
        made = self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(pooled)
        return torch.cat(made, 1)


class I3dNetwork(nn.Module):
    """RGB clips (N, 3, T, 224, 224) in [-1, 1], T of 9 or more, to logits (N, 400)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = ConvUnit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = ConvUnit(64, 64, 1)
        self.Conv3d_2c_3x3 = ConvUnit(64, 192, 3)
        width = 192
        for name, (one, two, three, pooled) in MIXED.items():
            self.add_module(name, Mixed(width, one, two, three, pooled))
            width = one + two[1] + three[1] + pooled
        self.logits = nn.Conv3d(width, WIDTH, 1)

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """What leaves each stage, by its name in the checkpoint."""
        made = {"Conv3d_1a_7x7": self.Conv3d_1a_7x7(x)}
        x = max_pool_same(made["Conv3d_1a_7x7"], (1, 3, 3), (1, 2, 2))
        made["Conv3d_2c_3x3"] = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
        x = max_pool_same(made["Conv3d_2c_3x3"], (1, 3, 3), (1, 2, 2))
        for name in MIXED:
            if name == "Mixed_4b":
                x = max_pool_same(x, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                x = max_pool_same(x, (2, 2, 2), (2, 2, 2))
            made[name] = x = getattr(self, name)(x)
        made["Logits"] = self.logits(F.avg_pool3d(x, (2, 7, 7), 1))
        return made

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(x)["Logits"].mean((2, 3, 4))


class I3d:
    """Grey clips uint8 (N, T, H, W) to logits float32 (N, 400).

    Args:
        clip: policy, as it appears in a metric's name: "16f" and "128f" are that many frames in a
            row, "128f_subsample8f" every eighth of 128, which is 16.
        published: whether the weights were found to be the published ones.
    """

    name = "i3d"
    resize = f"bilinear to {SIZE}, half-pixel grid, no antialias; [-1, 1]"

    def __init__(self, net: I3dNetwork, sha256: str, clip: str, published: bool = False) -> None:
        self.clip, self.frames = clip, clip_frames(clip)[0]
        if self.frames < SHORTEST:
            raise EchosynError(f"clip policy {clip}: I3D takes {SHORTEST} frames or more")
        self.device = pick_device()
        self.net = net.eval().requires_grad_(False).to(self.device)
        self.sha256, self.published = sha256, published
        self.batch = max(1, FRAMES_AT_ONCE[self.device.type] // self.frames)  # clips

    @classmethod
    def load(cls, where: Path | str = PUBLISHED, clip: str = "16f") -> "I3d":
        """The published network; `where` as of echosyn.metrics.weights.locate.

        Raises:
            EchosynError: the file is missing or not the published one.
        """
        path = locate("i3d", where)
        return cls(read_network(path), sha256_file(path), clip, published=True)

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Raises EchosynError for clips of another type, shape or length."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.size == 0:
            raise EchosynError(
                f"expected uint8 clips (N, T, H, W), got {frames.dtype} {frames.shape}"
            )
        if frames.shape[1] != self.frames:
            raise EchosynError(
                f"clips of {frames.shape[1]} frames; {self.name} {self.clip} takes {self.frames}"
            )
        made = np.empty((len(frames), WIDTH), np.float32)
        with full_precision():
            for i in range(0, len(frames), self.batch):
                part = torch.from_numpy(np.array(frames[i : i + self.batch], order="C")).to(
                    self.device
                )
                # Frames are resized one by one: they take the place of the channels.
                x = F.interpolate(part.float(), (SIZE, SIZE), mode="bilinear", align_corners=False)
                x = (x * (2 / 255) - 1)[:, None].expand(-1, 3, -1, -1, -1)
                made[i : i + self.batch] = self.net(x).cpu().numpy()
        return made


def clip_frames(clip: str) -> tuple[int, int]:
    """Frames of a clip and the step between them, of a policy such as "128f_subsample8f"."""
    found = POLICY.fullmatch(clip)
    if not found or int(found[2] or 1) < 1:
        raise EchosynError(f"clip policy {clip!r}: expected for example 16f or 128f_subsample8f")
    step = int(found[2] or 1)
    return int(found[1]) // step, step


def layout() -> dict[str, dict]:
    """Offset in bytes and shape of every tensor of the checkpoint's data file."""
    text = files("echosyn.metrics").joinpath("i3d_rgb_scratch.json").read_text()
    return json.loads(text)["tensors"]


def read_network(path: Path) -> I3dNetwork:
    """The network with the tensors of a data file of the checkpoint's layout.

    Raises:
        EchosynError: the file is shorter or longer than the layout.
    """
    table = layout()
    end = max(t["offset"] + 4 * int(np.prod(t["shape"])) for t in table.values())
    if path.stat().st_size != end:
        raise EchosynError(f"{path}: {path.stat().st_size:,} bytes, the checkpoint has {end:,}")
    data = np.memmap(path, np.uint8, "r")
    unread = set(table)

    def tensor(name: str) -> Tensor:
        key = f"{PREFIX}/{name}"
        unread.remove(key)
        start, shape = table[key]["offset"], table[key]["shape"]
        raw = data[start : start + 4 * int(np.prod(shape))]
        return torch.from_numpy(raw.view("<f4").astype(np.float32).reshape(shape))

    def fill(conv: nn.Conv3d, weight: Tensor, bias: Tensor) -> None:
        weight = weight.permute(4, 3, 0, 1, 2)
        if weight.shape != conv.weight.shape:
            raise ValueError(f"weights {tuple(weight.shape)} for {tuple(conv.weight.shape)}")
        conv.load_state_dict({"weight": weight, "bias": bias})

    def unit(name: str, into: ConvUnit) -> None:
        # beta + (w * x - mean) / sqrt(var + eps) is one convolution with a bias.
        norm = f"{name}/batch_norm"
        scale = (tensor(f"{norm}/moving_variance").double() + EPS).rsqrt()
        bias = tensor(f"{norm}/beta") - tensor(f"{norm}/moving_mean").double() * scale
        fill(into.conv, tensor(f"{name}/conv_3d/w") * scale, bias)

    net = I3dNetwork()
    for name in ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3"):
        unit(name, getattr(net, name))
    for name in MIXED:
        block = getattr(net, name)
        # The checkpoint itself has another name in this one block.
        wide = "Conv3d_0a_3x3" if name == "Mixed_5b" else "Conv3d_0b_3x3"
        unit(f"{name}/Branch_0/Conv3d_0a_1x1", block.branch_0)
        unit(f"{name}/Branch_1/Conv3d_0a_1x1", block.branch_1[0])
        unit(f"{name}/Branch_1/Conv3d_0b_3x3", block.branch_1[1])
        unit(f"{name}/Branch_2/Conv3d_0a_1x1", block.branch_2[0])
        unit(f"{name}/Branch_2/{wide}", block.branch_2[1])
        unit(f"{name}/Branch_3/Conv3d_0b_1x1", block.branch_3)
    head = "Logits/Conv3d_0c_1x1/conv_3d"
    fill(net.logits, tensor(f"{head}/w"), tensor(f"{head}/b"))
    if unread:
        raise ValueError(f"tensors without a place: {sorted(unread)}")
    return net
