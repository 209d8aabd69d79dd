"""Feature spaces for distances between sets of frames or clips, without downloaded weights.

`rand2d` and `rand3d` are convolutional networks whose weights are random but fixed. Such features
respond to texture, contrast, edges and speckle (Saxe et al. 2011, "On random weights and
unsupervised feature learning"), and a generator was never trained towards them. They know nothing
about hearts: two anatomies with one texture look alike, and a clip played backwards looks like
itself. Their numbers compare runs of this system with its floors; they are no FID or FVD, and are
not named so.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from echosyn.models.r2plus1d import R2Plus1d, normalise_clips
from echosyn.runtime.errors import EchosynError

WIDTH = 8  # channels per level
LEVELS = 4
SEED = 20_240_607
Levels = list[tuple[Tensor, Tensor]]  # kernel and bias per level


class FeatureSpace(Protocol):
    """Maps uint8 clips to rows of features."""

    name: str
    clip: str  # clip policy, as it appears in a metric's name; "" for single frames
    sha256: str  # of the weights and architecture

    def __call__(self, frames: np.ndarray) -> np.ndarray: ...


class ScoredSpace(FeatureSpace, Protocol):
    """A space of single frames whose features (N, width) are also scored as classes."""

    width: int
    classes: int

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of the classes, float64 (N, classes)."""


def distance_name(kind: str, space: FeatureSpace, real: int, fake: int) -> str:
    """A distance's full name: `fd_rand3d_16f_n128x96` for kind "fd", 128 real and 96 fake clips."""
    clip = f"_{space.clip}" if space.clip else ""
    return f"{kind}_{space.name}{clip}_n{real}x{fake}"


class RandomFeatures2d:
    """Grey frames uint8 (N, H, W), 16 pixels or more a side, to float32 (N, 64)."""

    name, clip = "rand2d", ""

    def __init__(self) -> None:
        self.weights = _random_weights((5, 5))
        self.sha256 = _hash(self.name, [t for pair in self.weights for t in pair])

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Raises EchosynError for frames of another type or shape."""
        _check(frames, 3, "frames (N, H, W)", frames.shape[1:])
        return _batched(frames, 64, lambda x: _pyramid(x, self.weights, F.conv2d))


class RandomFeatures3d:
    """Grey clips uint8 (N, 16, H, W), 16 pixels or more a side, to float32 (N, 64).

    Half of the first level's filters sum to zero over time at every pixel, so that they see only
    what changes: without them still texture, which hardly differs between a moving and a frozen
    heart, would outweigh motion.
    """

    name, clip = "rand3d", "16f"
    frames = 16

    def __init__(self) -> None:
        self.weights = _random_weights((3, 5, 5))
        kernel = self.weights[0][0]  # (C, 1, 3, 5, 5)
        kernel[::2] -= kernel[::2].mean(2, keepdim=True)
        self.sha256 = _hash(self.name, [t for pair in self.weights for t in pair])

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Raises EchosynError for clips of another type, shape or length."""
        _check(frames, 4, "clips (N, 16, H, W)", frames.shape[2:])
        if frames.shape[1] != self.frames:
            raise EchosynError(
                f"clips of {frames.shape[1]} frames; {self.name} takes {self.frames}"
            )
        return _batched(frames, 8, lambda x: _pyramid(x, self.weights, F.conv3d))


class EfNet:
    """The pooled features of an EF regressor trained on real TRAIN videos: (N, T, H, W) to (N, D).

    Sees what moves EF. Depends on the training run, so its numbers compare only where `sha256`
    agrees.
    """

    name = "efnet"

    def __init__(
        self, model: R2Plus1d, frames: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.model, self.mean, self.std = model.eval(), mean, std
        self.clip = f"{frames}f"
        self.sha256 = _hash(self.name, list(model.state_dict().values()))

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Raises EchosynError for clips of another type or length."""
        _check(frames, 4, "clips (N, T, H, W)", frames.shape[2:])
        if f"{frames.shape[1]}f" != self.clip:
            raise EchosynError(f"clips of {frames.shape[1]} frames; {self.name} takes {self.clip}")
        device = next(self.model.parameters()).device
        parts = []
        for i in range(0, len(frames), 8):
            x = normalise_clips(np.array(frames[i : i + 8], order="C"), self.mean, self.std)
            parts.append(self.model.features(x.to(device)).float().cpu())
        return torch.cat(parts).numpy()


def _random_weights(size: tuple[int, ...]) -> Levels:
    """He-scaled kernels and small biases per level, from a generator whose stream is frozen."""
    rng = np.random.RandomState(SEED)  # NEP 19: RandomState never changes, Generator may
    weights, inputs = [], 1
    for _ in range(LEVELS):
        fan = inputs * int(np.prod(size))
        w = rng.standard_normal((WIDTH, inputs, *size)) * np.sqrt(2 / fan)
        b = rng.standard_normal(WIDTH) * 0.1
        # Rounded, so that the last bit of a platform's logarithm cannot change the hash.
        kernel, bias = (torch.from_numpy(x.round(5).astype(np.float32)) for x in (w, b))
        weights.append((kernel, bias))
        inputs = WIDTH
    return weights


def _pyramid(x: Tensor, weights: Levels, conv: Callable[..., Tensor]) -> Tensor:
    """Mean and standard deviation over space (and time) of each level's channels."""
    stats = []
    for w, b in weights:
        pad = [k // 2 for k in w.shape[2:]]
        # Time is short: only space is halved.
        stride = 2 if w.ndim == 4 else (1, 2, 2)
        x = F.leaky_relu(conv(x, w, b, stride=stride, padding=pad), 0.2)
        axes = tuple(range(2, x.ndim))
        stats += [x.mean(axes), x.std(axes, correction=0)]
    return torch.cat(stats, 1)


@torch.inference_mode()
def _batched(frames: np.ndarray, size: int, network: Callable[[Tensor], Tensor]) -> np.ndarray:
    parts = []
    for i in range(0, len(frames), size):
        part = torch.from_numpy(np.array(frames[i : i + size], order="C"))
        parts.append(network(part.float().unsqueeze(1) / 127.5 - 1))
    return torch.cat(parts).numpy()


def _hash(name: str, tensors: list[Tensor]) -> str:
    h = hashlib.sha256(name.encode())
    for t in tensors:
        h.update(str(tuple(t.shape)).encode())
        h.update(t.detach().cpu().contiguous().numpy().tobytes())
    return h.hexdigest()


def _check(frames: np.ndarray, ndim: int, wanted: str, size: tuple[int, ...]) -> None:
    if frames.dtype != np.uint8 or frames.ndim != ndim or len(frames) == 0 or min(size) < 16:
        raise EchosynError(f"expected uint8 {wanted}, got {frames.dtype} {frames.shape}")
