"""Distances between frames in the features of a network that does not learn (Zhang 2018, eq. 1).

LPIPS asks a VGG16 that the user has: torchmetrics carries LPIPS's own weights, 1,472 numbers, but
not the VGG16 (528 MB) that they weigh. Without it, random convolutions are asked.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.models.store import fill, read_weights
from echosyn.runtime.errors import EchosynError

# Convolutions of VGG16's levels (Simonyan 2014, table 1, D); a level ends in what LPIPS compares.
LEVELS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions
# Images in [-1, 1] to what VGG16 was trained on, in LPIPS's rounding.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


WIDTHS, SEED = (16, 16, 32, 32, 64, 64), 7  # of the random convolutions; every other one halves


class RandomFeatures(nn.Module):
    """The distance of grey frames (N, 1, H, W) in six random convolutions, all channels alike.

    Random features still tell textures apart (Saxe 2011). These are others than the ones that
    echosyn.metrics.features measures with, so that no metric is trained towards.
    """

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.RandomState(SEED)  # NEP 19: its stream never changes
        for k, (inputs, width) in enumerate(pairwise((1, *WIDTHS))):
            kernel = rng.standard_normal((width, inputs, 3, 3)) * (2 / (9 * inputs)) ** 0.5
            self.register_buffer(f"kernel{k}", torch.from_numpy(kernel.astype(np.float32)))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Mean over the frames and levels, a scalar."""
        x, total = torch.cat([real, fake]), real.new_zeros(())
        for k, kernel in enumerate(self.buffers()):
            x = F.leaky_relu(F.conv2d(x, kernel, stride=2 - k % 2, padding=1), 0.2)
            a, b = _unit(x).chunk(2)
            total = total + (a - b).square().sum(1).mean()
        return total / len(WIDTHS)


class Lpips(nn.Module):
    """LPIPS of grey frames (N, 1, H, W) in [-1, 1], 16 pixels or more a side.

    Args:
        path: torchvision's VGG16, vgg16-397923af.pth, or any file of those names and shapes.

    Raises:
        EchosynError: the file is missing, damaged, or of another architecture.
    """

    weights: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        if not Path(path).is_file():
            raise EchosynError(
                f"perceptual: {path} does not exist; it is none, features, or a file of "
                "torchvision's VGG16 weights (vgg16-397923af.pth)"
            )
        layers: list[nn.Module] = []
        self.ends = []  # one past each level's last activation
        inputs = 3
        for channels, count in LEVELS:
            for _ in range(count):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()]
                inputs = channels
            self.ends.append(len(layers))
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        weights = read_weights(path)
        wanted = {k: v for k, v in weights.items() if not k.startswith("classifier.")}
        fill(nn.ModuleDict({"features": self.features}), wanted, path)
        self.register_buffer("weights", _linear_weights())
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Mean over the frames, a scalar (eq. 1)."""
        x = (torch.cat([real, fake]) - self.shift) / self.scale  # (2 N, 3, H, W)
        total, start = x.new_zeros(()), 0
        channels = [count for count, _ in LEVELS]
        for weights, end in zip(self.weights.split(channels), self.ends, strict=True):
            x, start = self.features[start:end](x), end
            a, b = _unit(x).chunk(2)
            total = total + ((a - b).square() * weights.view(1, -1, 1, 1)).sum(1).mean()
        return total


def _unit(x: Tensor) -> Tensor:
    """Features (N, C, h, w) of unit length at every position."""
    x = x.float()
    return x / (1e-8 + x.square().sum(1, keepdim=True)).sqrt()


def _linear_weights() -> Tensor:
    """LPIPS's weights of the channels, level after level, (1472,)."""
    import torchmetrics

    folder = Path(torchmetrics.__file__).parent / "functional/image/lpips_models"
    found = read_weights(folder / "vgg.pth")
    return torch.cat([found[f"lin{k}.model.1.weight"].flatten() for k in range(len(LEVELS))])
