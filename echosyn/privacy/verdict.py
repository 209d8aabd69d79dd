"""The verdict on a release: every audit's number against what is required of it.

A check that was not measured, or whose interval is too wide to tell, fails when it is required.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from echosyn.config import setting
from echosyn.errors import EchosynError
from echosyn.metrics.interval import Estimate

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
    fingerprint: float = setting(
        0.5,
        lo=0.0,
        hi=10.0,
        help="largest bound on marked hearts, over the rate of a generator that only repeats its "
        "training hearts",
    )
    advantage: float = setting(
        0.0, lo=0.0, hi=0.5, help="how far above 0.5 the interval of an attack may begin"
    )
    widest: float = setting(0.4, lo=0.0, hi=1.0, help="widest interval from which a check can tell")
    avoidance: float = setting(
        0.05,
        lo=0.0,
        hi=0.5,
        help="how far below 0.5 the filter may push the attacks by nearness",
    )
    optional: tuple[str, ...] = setting(
        ("fingerprint",), help="checks that may be missing; one that was measured must still pass"
    )

    def check(self) -> str | None:
        unknown = sorted(set(self.optional) - {c.name for c in CHECKS})
        if unknown:
            known = ", ".join(c.name for c in CHECKS)
            return f"optional: {unknown[0]!r} is not a check; known: {known}"
        return None


@dataclass(frozen=True)
class Check:
    """One requirement: a flat number, the rule it is held against, and what it means.

    Rules: `at_least` and `at_most` compare the value with the field `limit` of Thresholds (by
    default the check's name); `includes` wants the target within the interval (less
    Thresholds.avoidance for attacks by nearness, which the filter itself pushes down: whoever
    nothing comes close to was trained on); `not_above` wants the interval's lower end at the target
    or below. Attacks, whose target is 0.5, may begin Thresholds.advantage above it. A target is a
    number or the name of another flat number.
    """

    name: str
    key: str
    rule: str
    title: str
    meaning: str
    failed: str
    target: float | str = 0.5
    narrow: bool = False  # refuse an interval wider than Thresholds.widest
    avoids: bool = False  # Thresholds.avoidance applies
    limit: str = ""


CHECKS = (
    Check(
        "planted_exact",
        "privacy/planted_exact_recall",
        "at_least",
        "Exact copies are caught",
        "Hearts of real patients were hidden among the synthetic ones, unchanged. This is the "
        "share that the filter found.",
        "The filter lets copies of patients through: its threshold or its encoder is broken.",
    ),
    Check(
        "planted_light",
        "privacy/planted_light_recall",
        "at_least",
        "Lightly disguised copies are caught",
        "The same, with each hidden heart slightly moved, turned, scaled, brightened, blurred and "
        "made noisy.",
        "A copy that is slightly changed escapes the filter: train the encoder with stronger "
        "augmentation, or allow more false rejection.",
    ),
    Check(
        "planted_videos_exact",
        "privacy_videos/planted_exact_recall",
        "at_least",
        "Exact copies of videos are caught",
        "Videos of real patients were put before the filter on finished videos, unchanged. This is "
        "the share that it found.",
        "The filter lets videos of patients through.",
        limit="planted_exact",
    ),
    Check(
        "planted_videos_light",
        "privacy_videos/planted_light_recall",
        "at_least",
        "Lightly disguised copies of videos are caught",
        "The same, with each hidden video slightly moved, turned, scaled, brightened, blurred and "
        "made noisy.",
        "A video that is slightly changed escapes both detectors.",
        limit="planted_light",
    ),
    Check(
        "false_rejection",
        "privacy/false_rejection_heldout",
        "includes",
        "The filter refuses strangers as rarely as promised",
        "Share of hearts, of patients that no model has seen, that the filter takes for a training "
        "patient's. It must agree with the rate that the threshold was set for.",
        "The threshold does not keep its promise on new patients: those that set it are unlike "
        "those that tested it, or too few.",
        "privacy/false_rejection_calibrated",
        narrow=True,
    ),
    Check(
        "rejection",
        "privacy/rejection_rate",
        "at_most",
        "Few synthetic hearts had to be refused",
        "Share of drawn hearts that the filter refused. A generator that memorises draws mostly "
        "hearts that are too close to a patient.",
        "The generator draws patients instead of new hearts; what was accepted is the rest of "
        "them. Train on more patients, or for fewer steps.",
    ),
    Check(
        "false_rejection_videos",
        "privacy_videos/false_rejection_heldout",
        "not_above",
        "The filter on videos refuses strangers no more often than promised",
        "Share of whole videos, of patients that no model has seen, that either detector takes for "
        "a training patient's.",
        "The thresholds on videos do not keep their promise on new patients.",
        "privacy_videos/false_rejection_calibrated",
        narrow=True,
    ),
    Check(
        "rejection_videos",
        "privacy_videos/rejection_rate",
        "at_most",
        "Few synthetic videos had to be refused",
        "Share of finished videos that the filter refused, though their hearts had passed.",
        "The video generator drifts towards patients: it was trained too long, or on too few.",
        limit="rejection",
    ),
    Check(
        "membership",
        "privacy/membership_auc",
        "includes",
        "Nearness to the release does not reveal who was trained on",
        "An attacker who holds a patient's heart and the release guesses whether the patient was "
        "in the training data, by how similar the closest synthetic heart is. 0.5 is a coin.",
        "Above 0.5 synthetic hearts lie closer to training patients than to others; below 0.5 they "
        "avoid them, which gives them away as well.",
        narrow=True,
        avoids=True,
    ),
    Check(
        "dcr_share",
        "privacy/membership_dcr_share",
        "not_above",
        "Synthetic hearts are no closer to training patients than to strangers",
        "Share of synthetic hearts whose closest real heart belongs to a training patient, among "
        "as many training patients as strangers. 0.5 is chance; the filter pushes it below.",
        "Synthetic hearts lean towards the training patients.",
        narrow=True,
    ),
    Check(
        "nearest_neighbour",
        "privacy/membership_nn_auc",
        "includes",
        "Cell by cell, the release does not reveal who was trained on",
        "The attack by nearness once more, without our encoder: plain distances between images.",
        "Above 0.5 the release holds near copies that our encoder does not see; below 0.5 it "
        "avoids training patients.",
        narrow=True,
        avoids=True,
    ),
    Check(
        "loss",
        "privacy/membership_loss_auc",
        "includes",
        "The generator does not know its training patients by heart",
        "An attacker who holds the generator itself, which is not released, guesses by how well it "
        "restores a patient's heart from noise. 0.5 is a coin.",
        "The generator restores training patients better than others: it has begun to memorise.",
        narrow=True,
    ),
    Check(
        "fingerprint",
        "privacy/fingerprint_relative",
        "at_most",
        "A planted mark does not come back",
        "A mark was added to a few patients before training. This bounds how often it comes back, "
        "as a part of how often a generator would show it that only repeats patients.",
        "Marked patients may be reproduced, or too few samples were drawn to exclude it.",
    ),
)


@dataclass(frozen=True)
class Finding:
    """A check with what was measured."""

    check: Check
    measured: Estimate
    required: str
    result: str
    counts: bool  # whether it fails the release when it is not a pass


@dataclass(frozen=True)
class Verdict:
    """Findings in the order of CHECKS."""

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return not self.failures()

    def failures(self) -> list[Finding]:
        return [f for f in self.findings if f.counts and f.result != PASS]

    def numbers(self, prefix: str = "privacy") -> dict[str, float]:
        """`verdict_passed` 0 or 1, and how many checks passed, failed and were not measured."""
        results = [f.result for f in self.findings]
        return {
            f"{prefix}/verdict_passed": float(self.passed),
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


def judge(numbers: Mapping[str, float], thresholds: Thresholds) -> Verdict:
    """Hold flat numbers (`<key>`, `<key>_lo`, `<key>_hi`) against the thresholds.

    A key that is missing or not finite was not measured; so was an `includes` or `not_above` whose
    interval or target is.
    """
    return Verdict(tuple(_find(check, numbers, thresholds) for check in CHECKS))


def _find(check: Check, numbers: Mapping[str, float], limits: Thresholds) -> Finding:
    ends = [float(numbers.get(check.key + end, np.nan)) for end in ("", "_lo", "_hi")]
    measured = Estimate(*ends)
    optional = check.name in limits.optional
    if check.rule in ("at_least", "at_most"):
        target = float(getattr(limits, check.limit or check.name))
        words = {"at_least": "at least", "at_most": "at most"}[check.rule]
        needed = [measured.value]
    else:
        target = check.target
        target = float(numbers.get(target, np.nan)) if isinstance(target, str) else target
        words = {"includes": "interval around", "not_above": "interval from below"}[check.rule]
        needed = [*ends, target]
    if not np.isfinite(needed).all():
        result = MISSING
    elif check.narrow and measured.hi - measured.lo > limits.widest:
        result = WIDE
    else:
        below = limits.avoidance if check.avoids else 0.0
        above = limits.advantage if check.target == 0.5 else 0.0
        result = PASS if _holds(check.rule, measured, target, below, above) else FAIL
    # What was measured must pass, optional or not.
    counts = not (optional and result == MISSING)
    required = f"{words} {target:.3g}" if np.isfinite(target) else f"{words} {check.target}"
    if check.avoids and limits.avoidance:
        required += f" or down to {limits.avoidance:g} below"
    if check.rule in ("includes", "not_above") and check.target == 0.5 and limits.advantage:
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
