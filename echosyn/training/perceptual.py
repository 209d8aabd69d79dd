"""LPIPS (Zhang 2018): a distance between frames in the features of a VGG16 that the user has.

torchmetrics carries LPIPS's own weights, 1,472 numbers, but not the VGG16 (528 MB) that it weighs.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from echosyn.models.store import fill, read_weights

# Convolutions of VGG16's levels (Simonyan 2014, table 1, D); a level ends in what LPIPS compares.
LEVELS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions
# Images in [-1, 1] to what VGG16 was trained on, in LPIPS's rounding.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """LPIPS of grey frames (N, 1, H, W) in [-1, 1], 16 pixels or more a side; has no gradient of
    its own weights and takes no memory of them in a checkpoint of what it judges.

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
            full = x.float()
            unit = full / (1e-8 + full.square().sum(1, keepdim=True)).sqrt()
            a, b = unit.chunk(2)
            total = total + ((a - b).square() * weights.view(1, -1, 1, 1)).sum(1).mean()
        return total


def _linear_weights() -> Tensor:
    """LPIPS's weights of the channels, level after level, (1472,)."""
    import torchmetrics

    folder = Path(torchmetrics.__file__).parent / "functional/image/lpips_models"
    found = read_weights(folder / "vgg.pth")
    return torch.cat([found[f"lin{k}.model.1.weight"].flatten() for k in range(len(LEVELS))])
