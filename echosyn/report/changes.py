"""Which numbers of a release are not those of another version of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from echosyn.report.numbers import Number

ENDS = ("_lo", "_hi")


@dataclass(frozen=True)
class Change:
    """A metric whose value or interval changed; None where it was not measured."""

    key: str
    old: Number | None
    new: Number | None

    @property
    def overlap(self) -> bool | None:
        """Whether the two intervals share a value; None unless both were measured."""
        ends = [x for n in (self.old, self.new) if n for x in (n.lo, n.hi) if x is not None]
        if len(ends) < 4:
            return None
        old_lo, old_hi, new_lo, new_hi = ends
        return old_lo <= new_hi and new_lo <= old_hi

    @property
    def row(self) -> tuple[str, Number | str, Number | str, str]:
        """As a page shows it: key, before, now, and what the intervals say."""
        said = {True: "overlap", False: "apart", None: ""}[self.overlap]
        return self.key, self.old or "not measured", self.new or "not measured", said


def changes(old: Mapping[str, float], new: Mapping[str, float]) -> list[Change]:
    """The metrics that differ, in the order of `new`, then those that only `old` has.

    Args:
        old, new: flat metrics, as in a manifest; `<key>_lo` and `<key>_hi` are the interval of
            `<key>` and no metrics of their own.
    """
    before, now = _numbers(old), _numbers(new)
    return [
        Change(key, before.get(key), now.get(key))
        for key in {**now, **before}
        if before.get(key) != now.get(key)
    ]


def _numbers(metrics: Mapping[str, float]) -> dict[str, Number]:
    ends = {key + end for key in metrics for end in ENDS}
    return {
        key: Number(value, metrics.get(f"{key}_lo"), metrics.get(f"{key}_hi"))
        for key, value in metrics.items()
        if key not in ends
    }
