"""Videos as the attackers of a release hold them: how they look, and what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from echosyn.privacy.detectors.similarity import max_similarity, unit_rows
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

ATTRIBUTES = ("ef", "rate", "class")


@dataclass(frozen=True)
class DisclosureConfig:
    """What attribute disclosure, singling out and linkability call a success."""

    ef_within: float = setting(5.0, lo=0.1, hi=50.0, help="EF that counts as known, points")
    rate_within: float = setting(
        5.0, lo=0.1, hi=100.0, help="heart rate that counts as known, beats a minute"
    )
    matches: float = setting(
        0.1, lo=0.001, hi=1.0, help="strangers that a predicate of singling out matches by chance"
    )

    @property
    def tolerances(self) -> dict[str, float]:
        return dict(zip(ATTRIBUTES, (self.ef_within, self.rate_within, 0.0), strict=True))


@dataclass(frozen=True)
class Records:
    """N videos: one of each person, or the released ones.

    Args:
        frames: (N, k, D) unit embeddings of k frames of each, in order, k >= 2.
        labels: of ATTRIBUTES, float64 (N,) each, NaN where unknown; see `labels_of`.

    Raises:
        EchosynError: no videos, fewer than two frames of each, or labels of another number.
    """

    frames: np.ndarray
    labels: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        n, k = self.frames.shape[:2]
        counts = {name: len(values) for name, values in self.labels.items()}
        if n == 0 or k < 2 or any(count != n for count in counts.values()):
            raise EchosynError(
                f"{n} videos of {k} frames with labels {counts}: an attack on the release needs "
                "videos, two frames of each (`frames_per_video`), and a label of each"
            )

    def __len__(self) -> int:
        return len(self.frames)

    def look(self, part: slice = slice(None)) -> np.ndarray:
        """The mean embedding of some frames of each video, scaled to length 1, float32 (N, D)."""
        return unit_rows(self.frames[:, part].mean(1), "cosine")

    def apart(self) -> tuple[np.ndarray, np.ndarray]:
        """The first frame of either half of each video, (N, D) each."""
        return self.frames[:, 0], self.frames[:, self.frames.shape[1] // 2]

    def known(self) -> list[str]:
        """The attributes that some of the videos state."""
        return [name for name, values in self.labels.items() if np.isfinite(values).any()]

    def take(self, rows: np.ndarray) -> "Records":
        return Records(self.frames[rows], {n: v[rows] for n, v in self.labels.items()})

    def some(self, count: int, seed: int) -> "Records":
        """At most `count`, drawn from `seed`, in their order."""
        drawn = np.random.default_rng([seed, 71]).permutation(len(self))[:count]
        return self.take(np.sort(drawn))


def labels_of(
    ef: np.ndarray | Sequence[float],
    rate: np.ndarray | Sequence[float],
    classes: Sequence[str | None],
    released: Sequence[str | None],
) -> dict[str, np.ndarray]:
    """EF in percent, heart rate in beats a minute, and classes numbered, -1 where no released video
    is of that class."""
    names = sorted({c for c in released if isinstance(c, str) and c})
    numbers = {name: i for i, name in enumerate(names)}
    coded = [numbers.get(c, -1) if isinstance(c, str) and c else np.nan for c in classes]
    values = (np.asarray(v, np.float64) for v in (ef, rate, coded))
    return dict(zip(ATTRIBUTES, values, strict=True))


def measured(*sides: Records) -> bool:
    """Whether all sides state EF, or all heart rate: a class alone tells no single video apart."""
    return bool({"ef", "rate"}.intersection(*(side.known() for side in sides)))


def gaps(people: Records, others: Records, tolerances: dict[str, float]) -> np.ndarray:
    """How far apart two videos' labels are, (N, M): the largest difference in tolerances, over
    the labels that both state; infinite between classes, NaN where they state none in common."""
    worst = np.full((len(people), len(others)), np.nan)
    for name in others.known():
        apart = np.abs(people.labels[name][:, None] - others.labels[name])
        within = tolerances[name]
        scaled = apart / within if within else np.where(apart > 0, np.inf, apart)
        worst = np.fmax(worst, scaled)
    return worst


def nearest(look: np.ndarray, released: Records) -> np.ndarray:
    """The released video (N,) that looks most like each row of `look` (N, D)."""
    return max_similarity(look, released.look())[1]
