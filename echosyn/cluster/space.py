"""Search spaces: section `tune` of params.yaml. Knows nothing of Ray."""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from echosyn.runtime.config import build, setting
from echosyn.runtime.errors import EchosynError

KINDS = {
    "log": "two numbers above 0: drawn evenly on a logarithmic scale",
    "uniform": "two numbers",
    "integer": "two whole numbers",
    "choice": "a list of values",
}


@dataclass(frozen=True)
class SearchConfig:
    """How to search, and what."""

    space: dict[str, dict] = setting(help="key of the stage's settings: {kind: values}")
    method: str = setting("asha", choices=("asha", "pbt"))
    metric: str = setting("val/loss", help="what is compared, as the stage logs it")
    mode: str = setting("min", choices=("min", "max"))
    trials: int = setting(8, lo=2, help="the first one has the present settings")
    concurrent: int | None = setting(None, lo=1, help="trials at once; None: as many as fit")
    steps: int | None = setting(None, lo=2, help="optimizer steps of a trial; None: the stage's")
    every: int | None = setting(
        None, lo=1, help="steps between comparisons; None: a tenth of all steps"
    )
    grace: int = setting(2, lo=1, help="asha: comparisons before a trial may be stopped")
    reduction: int = setting(3, lo=2, help="asha: of so many trials one goes on at each rung")
    seed: int = setting(0, lo=0)

    def check(self) -> str | None:
        if not self.space:
            return "space is empty: nothing to search"
        if self.method == "pbt" and self.trials < 4:
            return f"trials {self.trials}: pbt needs 4 or more, of which the worst quarter moves"
        if self.method == "pbt" and self.concurrent:
            return "concurrent: pbt compares all trials at the same step; leave it out"
        return None


@dataclass(frozen=True)
class Range:
    """Values that one setting may take."""

    kind: str
    values: tuple

    def draw(self, rng: np.random.Generator) -> Any:
        if self.kind == "choice":
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "integer":
            return int(rng.integers(low, high + 1))
        if self.kind == "log":
            return self.fit(math.exp(rng.uniform(math.log(low), math.log(high))))
        return self.fit(rng.uniform(low, high))

    def fit(self, value: Any) -> Any:
        """The nearest value inside; numbers have three digits, which a person can write down."""
        if self.kind == "choice":
            return value
        low, high = self.values
        value = round(value) if self.kind == "integer" else float(f"{value:.3g}")
        return min(max(value, low), high)

    def moved(self, value: Any, rng: np.random.Generator) -> Any:
        """A value near `value`, or one in four times any: how PBT explores (arXiv 1711.09846)."""
        if self.kind == "choice" or rng.random() < 0.25:
            return self.draw(rng)
        return self.fit(value * (1.2 if rng.random() < 0.5 else 0.8))


def read_space(space: Mapping[str, Mapping], where: str) -> dict[str, Range]:
    """The ranges of a space as written in params.yaml.

    Raises:
        EchosynError: an unknown kind, or values that are not of it.
    """
    return {key: _read_range(entry, f"{where}.{key}") for key, entry in space.items()}


def _read_range(entry: Any, where: str) -> Range:
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise EchosynError(f"{where}: expected one of {_kinds()}, found {entry!r}")
    ((kind, values),) = entry.items()
    if kind not in KINDS:
        raise EchosynError(f"{where}: {kind!r} is not one of {_kinds()}")
    if not isinstance(values, list) or not values:
        raise EchosynError(f"{where}: {kind} takes {KINDS[kind]}, found {values!r}")
    if kind == "choice":
        return Range(kind, tuple(values))
    numbers = [n for v in values if (n := _number(v)) is not None]
    whole = kind != "integer" or all(isinstance(v, int) for v in values)
    if not len(numbers) == len(values) == 2 or not whole:
        raise EchosynError(f"{where}: {kind} takes {KINDS[kind]}, found {values!r}")
    low, high = numbers
    if not low < high:
        raise EchosynError(f"{where}: the least value comes first, found {values!r}")
    if kind == "log" and low <= 0:
        raise EchosynError(f"{where}: log takes {KINDS['log']}, found {values!r}")
    return Range(kind, (low, high))


def _kinds() -> str:
    return ", ".join(f"{{{kind}: [...]}}" for kind in KINDS)


def _number(value: Any) -> float | int | None:
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 (no dot) as text
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def check_space(
    space: Mapping[str, Range], values: dict, cls: type, fixed: Mapping[str, str], where: str
) -> None:
    """Refuse a space that the stage's settings `cls`, now `values`, cannot take.

    Args:
        fixed: keys (or whole sections) that may not be searched, and why.

    Raises:
        EchosynError: naming the key, and the value for an end of a range that is refused.
    """
    for key, limits in space.items():
        for name, why in fixed.items():
            if key == name or key.startswith(f"{name}."):
                raise EchosynError(f"{where}.{key}: cannot be searched: {why}")
        for value in limits.values:
            build(cls, changed(values, {key: value}), f"{where}.{key}: {value!r}")


def draws(
    space: Mapping[str, Range], present: Mapping[str, Any], trials: int, seed: int
) -> list[dict[str, Any]]:
    """Settings of each trial: the present ones, then drawn ones; the same for the same seed."""
    rng = np.random.default_rng([seed, 0])
    drawn = [{k: r.draw(rng) for k, r in space.items()} for _ in range(trials - 1)]
    return [dict(present), *drawn]


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with some set anew; `changes` has dotted keys."""
    result = copy.deepcopy(dict(values))
    for key, value in changes.items():
        *above, last = key.split(".")
        place = result
        for name in above:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise EchosynError(f"{key}: {name} is no section but {place!r}")
        place[last] = value
    return result


def present_values(cfg: Any, keys: Iterator[str] | list[str]) -> dict[str, Any]:
    """Values of dotted keys in a built config."""
    found = {}
    for key in keys:
        value = cfg
        for name in key.split("."):
            value = getattr(value, name)
        found[key] = value
    return found
