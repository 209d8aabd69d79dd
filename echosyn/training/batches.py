"""Which items a step of training takes, and the micro-batches of a process, from seeds alone."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from echosyn.training.loop import LoopConfig, Task


def shuffled_indices(seed: int, first: int, count: int, n: int) -> np.ndarray:
    """Items first .. first + count of an endless sequence of shuffled epochs over n items."""
    epochs = range(first // n, (first + count - 1) // n + 1)
    order = np.concatenate([np.random.default_rng([seed, 1, e]).permutation(n) for e in epochs])
    offset = first - epochs[0] * n
    return order[offset : offset + count]


def share(batch: int, parts: int, part: int) -> range:
    """Positions in a batch that one of `parts` forward passes takes; sizes differ by one or not."""
    return range(batch * part // parts, batch * (part + 1) // parts)


class Batches(Dataset):
    """Micro-batch k of this process: its share of a step's items, each a function of its seed."""

    def __init__(self, task: "Task", cfg: "LoopConfig", seed: int, rank: int, world: int) -> None:
        self.task, self.cfg, self.seed, self.rank, self.world = task, cfg, seed, rank, world

    def __len__(self) -> int:
        return self.cfg.steps * self.cfg.accumulate

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        step, micro = divmod(k, self.cfg.accumulate)
        parts = self.world * self.cfg.accumulate
        mine = share(self.cfg.batch, parts, micro * self.world + self.rank)
        first = step * self.cfg.batch + mine.start
        indices = shuffled_indices(self.seed, first, len(mine), self.task.size)
        items = [
            self.task.batch(indices[i : i + 1], np.random.default_rng([self.seed, 2, first + i]))
            for i in range(len(mine))
        ]
        return {key: torch.cat([item[key] for item in items]) for key in items[0]}
