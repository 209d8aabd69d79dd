"""The gate on a release: every audit's number against what is required of it.

A check that was not measured, or whose interval is too wide to tell, fails when it is required.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from echosyn.metrics.interval import Estimate
from echosyn.privacy.gate.checks import CHECKS, Check
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

AUDIT = "audit.json"  # in audit/<dataset>: what the outcome is on
PASS, FAIL, WIDE, MISSING = "pass", "fail", "too uncertain", "not measured"


@dataclass(frozen=True)
class Thresholds:
    """What a release must reach."""

    planted_exact: float = setting(
        0.99, lo=0.0, hi=1.0, help="least share of exact copies caught, hearts and videos each"
    )
    planted_light: float = setting(
        0.95, lo=0.0, hi=1.0, help="least share of lightly disguised copies caught"
    )
    rejection: float = setting(
        0.5, lo=0.0, hi=1.0, help="largest share of drawn hearts, or videos, that may be refused"
    )
    canary: float = setting(
        0.5,
        lo=0.0,
        hi=10.0,
        help="largest bound on marked hearts, over the rate of a generator that only repeats its "
        "training hearts",
    )
    advantage: float = setting(
        0.0,
        lo=0.0,
        hi=0.5,
        help="how far above 0.5, or above a risk of 0, the interval of an attack may begin",
    )
    widest: float = setting(0.4, lo=0.0, hi=1.0, help="widest interval from which a check can tell")
    avoidance: float = setting(
        0.05,
        lo=0.0,
        hi=0.5,
        help="how far below 0.5 the filter may push the attacks by nearness",
    )
    optional: tuple[str, ...] = setting(
        ("canary",), help="checks that may be missing; one that was measured must still pass"
    )

    def check(self) -> str | None:
        unknown = sorted(set(self.optional) - {c.name for c in CHECKS})
        if unknown:
            known = ", ".join(c.name for c in CHECKS)
            return f"optional: {unknown[0]!r} is not a check; known: {known}"
        return None


@dataclass(frozen=True)
class Finding:
    """A check with what was measured."""

    check: Check
    measured: Estimate
    required: str
    result: str
    counts: bool  # whether it fails the release when it is not a pass


@dataclass(frozen=True)
class GateResult:
    """Findings in the order of CHECKS."""

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return not self.failures()

    def failures(self) -> list[Finding]:
        return [f for f in self.findings if f.counts and f.result != PASS]

    def numbers(self, prefix: str = "privacy") -> dict[str, float]:
        """`gate_passed` 0 or 1, and how many checks passed, failed and were not measured."""
        results = [f.result for f in self.findings]
        return {
            f"{prefix}/gate_passed": float(self.passed),
            f"{prefix}/checks_passed": float(results.count(PASS)),
            f"{prefix}/checks_failed": float(results.count(FAIL) + results.count(WIDE)),
            f"{prefix}/checks_not_measured": float(results.count(MISSING)),
        }

    def table(self) -> pd.DataFrame:
        """check, measured, required, result, meaning: text, as a page shows it."""
        return pd.DataFrame(
            [
                (f.check.title, _text(f.measured), f.required, f.result, self._meaning(f))
                for f in self.findings
            ],
            columns=["check", "measured", "required", "result", "meaning"],
        )

    @staticmethod
    def _meaning(finding: Finding) -> str:
        check = finding.check
        more = {
            FAIL: check.failed,
            WIDE: "The interval is too wide to tell: hold out more patients.",
            MISSING: "This was not measured."
            + (" It is required." if finding.counts else " It is optional."),
        }
        return " ".join(
            [check.meaning, *([more[finding.result]] if finding.result in more else [])]
        )

    def enforce(self, what: str) -> None:
        """Stop the release of `what`.

        Raises:
            EchosynError: a required check did not pass; names each with its numbers.
        """
        if self.passed:
            return
        lines = [
            f"  {f.check.name}: {f.result}, measured {_text(f.measured)}, required {f.required}. "
            + self._meaning(f).removeprefix(f.check.meaning).strip()
            for f in self.failures()
        ]
        raise EchosynError(f"{what} fails {len(lines)} privacy checks:\n" + "\n".join(lines))


def hold_against(numbers: Mapping[str, float], thresholds: Thresholds) -> GateResult:
    """Hold flat numbers (`<key>`, `<key>_lo`, `<key>_hi`) against the thresholds.

    A key that is missing or not finite was not measured; so was an `includes` or `not_above` whose
    interval or target is.
    """
    return GateResult(tuple(_find(check, numbers, thresholds) for check in CHECKS))


def _find(check: Check, numbers: Mapping[str, float], limits: Thresholds) -> Finding:
    ends = [float(numbers.get(check.key + end, np.nan)) for end in ("", "_lo", "_hi")]
    measured = Estimate(*ends)
    optional = check.name in limits.optional
    if check.rule in ("at_least", "at_most"):
        target = float(getattr(limits, check.limit or check.name))
        words = {"at_least": "at least", "at_most": "at most"}[check.rule]
        needed = [measured.value]
    else:
        aim = check.target
        target = float(numbers.get(aim, np.nan)) if isinstance(aim, str) else aim
        words = {"includes": "interval around", "not_above": "interval from below"}[check.rule]
        needed = [*ends, target]
    if not np.isfinite(needed).all():
        result = MISSING
    elif check.narrow and measured.hi - measured.lo > limits.widest:
        result = WIDE
    else:
        below = limits.avoidance if check.avoids else 0.0
        above = limits.advantage if check.attack else 0.0
        result = PASS if _holds(check.rule, measured, target, below, above) else FAIL
    # What was measured must pass, optional or not.
    counts = not (optional and result == MISSING)
    required = f"{words} {target:.3g}" if np.isfinite(target) else f"{words} {check.target}"
    if check.avoids and limits.avoidance:
        required += f" or down to {limits.avoidance:g} below"
    if check.attack and limits.advantage:
        required += f" or up to {limits.advantage:g} above"
    if check.narrow:
        required += f", no wider than {limits.widest:g}"
    return Finding(check, measured, required, result, counts)


def _holds(rule: str, measured: Estimate, target: float, below: float, above: float) -> bool:
    return {
        "at_least": measured.value >= target,
        "at_most": measured.value <= target,
        "includes": measured.lo - above <= target <= measured.hi + below,
        "not_above": measured.lo - above <= target,
    }[rule]


def _text(measured: Estimate) -> str:
    if not np.isfinite(measured.value):
        return "-"
    if not np.isfinite([measured.lo, measured.hi]).all():
        return f"{measured.value:.3f}"
    return f"{measured.value:.3f} ({measured.lo:.3f} to {measured.hi:.3f})"
