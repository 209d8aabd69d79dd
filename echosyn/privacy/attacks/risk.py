"""The risk that an attack shows, as Anonymeter defines it (Giomi et al. 2023, PoPETs 2023(2)).

An attacker who has the release attacks TRAIN people, and strangers to the generator in the same
way. What works on strangers too is what the release teaches about anybody; the risk is the rest,
as a share of what the attack on strangers leaves: (success - control) / (1 - control), or 0 if that
is below (arXiv 2211.10459).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from echosyn.metrics.interval import Estimate, wilson


@dataclass(frozen=True)
class Rate:
    """A share of attacks that succeed, 0-1, and the number of independent ones behind it."""

    share: float
    trials: float

    @staticmethod
    def of(successes: np.ndarray) -> "Rate":
        """Of one attack per person, bool (N,)."""
        return Rate(float(np.mean(successes)), len(successes))


@dataclass(frozen=True)
class Attacked:
    """One attacker: success on TRAIN, on strangers, and of a guess that looks at no target."""

    success: Rate
    control: Rate
    naive: float

    def risk(self, level: float = 0.95) -> Estimate:
        """The risk, 0-1, with its interval.

        One less the risk is the ratio of the failures on TRAIN to those on strangers. The interval
        combines Wilson's of both shares as MOVER does for a ratio (Newcombe 2016, Statistical
        Methods in Medical Research 25): unlike resampled people it holds at shares of 0 and 1.
        A control of 1 leaves nothing to measure: the interval is then as wide as can be.
        """
        train = wilson(self.success.share, self.success.trials, level)
        other = wilson(self.control.share, self.control.trials, level)
        p, p_lo, p_hi = 1 - train.value, 1 - train.hi, 1 - train.lo
        q, q_lo, q_hi = 1 - other.value, 1 - other.hi, 1 - other.lo
        low, below = p_lo * (2 * p - p_lo), q_hi * (2 * q - q_hi)
        root = p * q + np.sqrt(max((p * q) ** 2 - low * below, 0.0))
        least = low / root if root > 0 else 0.0
        high, above = p_hi * (2 * p - p_hi), q_lo * (2 * q - q_lo)
        most = np.inf
        if above > 0:
            most = (p * q + np.sqrt(max((p * q) ** 2 - high * above, 0.0))) / above
        value = 1 - p / q if q > 0 else 0.0
        return Estimate(*(float(np.clip(x, 0, 1)) for x in (value, 1 - most, 1 - least)))


def risk_numbers(attack: str, attackers: Mapping[str, Attacked], level: float) -> dict[str, float]:
    """Flat numbers of one attack, and of each attacker who tries it.

    Args:
        attack: such as "attribute". level: confidence that all of its intervals hold together.

    Returns:
        `privacy/<attack>_{risk,risk_lo,risk_hi,success,control,naive}` of the attacker whose
        interval begins highest, and `privacy/<attack>_<attacker>_...` of each; nothing when nobody
        could try.
    """
    each = 1 - (1 - level) / max(len(attackers), 1)
    risks = {name: attacked.risk(each) for name, attacked in attackers.items()}
    named = {f"{attack}_{name}": name for name in attackers}
    if attackers:
        named[attack] = max(risks, key=lambda name: (risks[name].lo, risks[name].value))
    numbers: dict[str, float] = {}
    for key, name in named.items():
        found = attackers[name]
        numbers |= risks[name].flat(f"privacy/{key}_risk")
        numbers[f"privacy/{key}_success"] = found.success.share
        numbers[f"privacy/{key}_control"] = found.control.share
        numbers[f"privacy/{key}_naive"] = found.naive
    return numbers
