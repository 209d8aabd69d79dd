"""What the privacy page is made of: tables and pictures, and how they come out of the audits."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from echosyn.metrics.interval import Estimate
from echosyn.privacy.gate.checks import CHECKS
from echosyn.privacy.gate.requirements import PASS, GateResult, Thresholds

ATTACKS = {
    "membership_auc": "nearness, our encoder",
    "membership_nn_auc": "nearness, plain distance",
    "membership_loss_auc": "loss of the generator",
}
BEFORE = "drawn/"  # the same attacks on what was drawn, before the filter


@dataclass(frozen=True)
class Check:
    """One line of the outcome, in words; `counts`: it stops the release unless it is a pass."""

    name: str
    measured: str
    required: str  # such as "at least 0.99"
    result: str  # PASS, or what else
    counts: bool = True
    meaning: str = ""

    @property
    def stops(self) -> bool:
        return self.counts and self.result != PASS


@dataclass(frozen=True)
class Scores:
    """A histogram: kind (synthetic or heldout) and `column` of each candidate, and tau."""

    title: str  # such as hearts, or videos in pixel space
    table: pd.DataFrame
    tau: Estimate
    column: str = "similarity"


@dataclass(frozen=True)
class Clip:
    """A video of the pair, uint8 (T, H, W), and its frames per second."""

    frames: np.ndarray
    fps: float


@dataclass(frozen=True)
class Pair:
    """An accepted synthetic picture beside the training picture most like it, uint8 (H, W).

    `clips`: where whole videos were compared, the synthetic and the real one.
    """

    synthetic: np.ndarray
    real: np.ndarray
    similarity: float
    synthetic_name: str
    real_name: str  # for the steward, who may look the patient up
    clips: tuple[Clip, Clip] | None = None


@dataclass(frozen=True)
class PrivacyEvidence:
    """All that the page shows. What is None or empty was not measured and has no section.

    checks: the outcome against thresholds; loosened: which of these were (`loosened`). metrics:
    flat numbers `privacy/...`, `reid/...`, `coverage/...`. tested: sentences on what was done,
    beside those the numbers give. planted: as for `recall_curves`. membership: as for
    `membership_plot` (`attack_table`), its intervals holding together with `confidence`
    (AttackConfig). canary: as for `canary_plot` (CanaryResult.table). bands: as for
    `band_plot` (`band_table`). pairs: the most similar accepted ones; they make the page LOCAL
    ONLY, and without them it shows nobody.
    """

    dataset: str
    checks: Sequence[Check]
    metrics: Mapping[str, float]
    videos: int | None = None  # in the release
    tested: Sequence[str] = ()
    scores: Sequence[Scores] = ()
    planted: pd.DataFrame | None = None
    membership: pd.DataFrame | None = None
    confidence: float = 0.95
    canary: pd.DataFrame | None = None
    bands: pd.DataFrame | None = None
    pairs: Sequence[Pair] = ()
    loosened: Sequence[str] = ()


def gate_checks(outcome: GateResult) -> list[Check]:
    """The outcome as the page shows it."""
    rows = zip(outcome.table().to_dict("records"), outcome.findings, strict=True)
    return [
        Check(r["check"], r["measured"], r["required"], r["result"], f.counts, r["meaning"])
        for r, f in rows
    ]


def loosened(thresholds: Thresholds) -> list[str]:
    """Which thresholds ask less of a release than the defaults, in words."""
    least = {c.limit or c.name for c in CHECKS if c.rule == "at_least"}
    said = []
    for field in dataclasses.fields(Thresholds):
        value = getattr(thresholds, field.name)
        default: Any = field.default
        if field.name == "optional":
            if extra := sorted(set(value) - set(default)):
                said.append(f"optional instead of required: {', '.join(extra)}")
        elif value < default if field.name in least else value > default:
            said.append(
                f"{field.name}: {value:g} instead of {default:g} ({field.metadata['help']})"
            )
    return said


def attack_table(metrics: Mapping[str, float]) -> pd.DataFrame | None:
    """The table of `membership_plot` out of flat numbers `privacy/membership_...`, or None."""
    found = {
        f"privacy/{before}{key}": words + (", before the filter" if before else "")
        for before in ("", BEFORE)
        for key, words in ATTACKS.items()
    }
    rows = [
        (words, *(metrics.get(key + end, float("nan")) for end in ("", "_lo", "_hi")))
        for key, words in found.items()
        if key in metrics
    ]
    return pd.DataFrame(rows, columns=["attack", "auc", "lo", "hi"]) if rows else None


def band_table(metrics: Mapping[str, float], prefix: str = "coverage") -> pd.DataFrame | None:
    """The table of `band_plot` out of `coverage_numbers`; None where no band was measured."""
    rows = []
    for key, value in metrics.items():
        group, _, name = key.rpartition("/")
        before, _, band = group.rpartition("/")
        if before != prefix or not band.startswith("ef_") or name != "learned_fraction":
            continue
        row = {"band": _band_words(band), "synthetic": value}
        for ending in ("_lo", "_hi", "_real", "_real_lo", "_real_hi"):
            column = f"synthetic{ending}" if "_real" not in ending else ending.removeprefix("_")
            row[column] = metrics.get(key + ending, float("nan"))
        row["videos"] = metrics.get(f"{group}/videos", float("nan"))
        rows.append(row)
    return pd.DataFrame(rows).dropna(axis=1, how="all") if rows else None


def _band_words(band: str) -> str:
    """`ef_40to55` as people write it."""
    text = band.removeprefix("ef_").replace("p", ".")
    if text.startswith("lt"):
        return f"EF below {text[2:]}%"
    if text.startswith("ge"):
        return f"EF {text[2:]}% and above"
    return f"EF {text.replace('to', ' to ')}%"
