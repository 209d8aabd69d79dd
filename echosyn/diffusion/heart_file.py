"""Hearts with the labels they were drawn for, in memory and as one safetensors file.

The file holds `hearts` (N, 4, h, w) and, of a LIDM conditioned on labels, `ef` float64 (N,) in
percent or `class` int64 (N,), whose names are the metadata's only entry (safetensors orders several
by a hash seeded per process, and the same hearts should give the same bytes).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

HEARTS = "hearts.safetensors"  # in the folder of what draws or filters them
NAMES = "classes"


@dataclass(frozen=True, eq=False)
class Hearts:
    """Unit-scale latents of single frames, and what each was asked to be."""

    latents: Tensor  # (N, 4, h, w)
    ef: np.ndarray | None = None  # percent, float64 (N,)
    classes: tuple[str, ...] | None = None  # a name for each

    def __len__(self) -> int:
        return len(self.latents)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Hearts":
        """Some hearts, in the order given."""
        rows = np.asarray(rows, np.int64)
        ef = None if self.ef is None else self.ef[rows]
        classes = None if self.classes is None else tuple(self.classes[i] for i in rows)
        return Hearts(self.latents[torch.from_numpy(rows)], ef, classes)

    @classmethod
    def join(cls, parts: Sequence["Hearts"]) -> "Hearts":
        """All hearts of parts that one model drew."""
        efs = [p.ef for p in parts if p.ef is not None]
        names = [p.classes for p in parts if p.classes is not None]
        return cls(
            torch.cat([p.latents for p in parts]),
            np.concatenate(efs) if efs else None,
            sum(names, ()) if names else None,
        )

    def write(self, path: Path, **more: Tensor) -> None:
        """One file, with the tensors `more` beside the hearts; the same hearts, the same bytes."""
        tensors, metadata = {"hearts": self.latents, **more}, None
        if self.ef is not None:
            tensors["ef"] = torch.from_numpy(self.ef)
        if self.classes is not None:
            names = sorted(set(self.classes))
            tensors["class"] = torch.tensor([names.index(c) for c in self.classes])
            metadata = {NAMES: json.dumps(names)}
        save_file(tensors, path, metadata)

    @classmethod
    def read(cls, path: Path) -> "Hearts":
        with safe_open(path, framework="pt") as file:
            return cls(file.get_tensor("hearts"), *read_labels(file))


def read_labels(file: Any) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """EFs and class names of an open file of hearts, None for those that it does not hold."""
    tensors = set(file.keys())
    ef = np.asarray(file.get_tensor("ef")) if "ef" in tensors else None
    if "class" not in tensors:
        return ef, None
    names = json.loads(file.metadata()[NAMES])
    return ef, tuple(names[int(i)] for i in file.get_tensor("class"))
