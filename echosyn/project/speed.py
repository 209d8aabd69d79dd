"""How fast one core of this machine trains: python -m echosyn.project.speed prints steps a second.

A second of what the demo's networks do: small convolutions, forward and backward.
"""

import time

from echosyn.runtime.process import prepare

SECONDS = 1.0


def measure() -> float:
    """Steps a second of a small network on one thread."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.SiLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.SiLU(),
        nn.Conv2d(64, 4, 3, padding=1),
    )  # fmt: skip
    x = torch.randn(64, 4, 14, 14)
    net(x).square().mean().backward()
    steps, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < SECONDS:
        net(x).square().mean().backward()
        steps += 1
    return steps / spent


if __name__ == "__main__":
    prepare()
    print(measure())
