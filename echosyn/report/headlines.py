"""What a reader looks for first in an evaluation, each number beside what to read it against."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from echosyn.report.numbers import Number, collect, percent

# Keys as patterns, the first that was measured; the words for it; keys to read it against, beside
# the floor. In this order; what was not measured is left out.
HEADLINES: tuple[tuple[tuple[str, ...], str, dict[str, str]], ...] = (
    (
        ("ef/synthetic/r2",),
        "R² of EF on real test videos, by a network trained on synthetic videos alone",
        {"ef/real/r2": "trained on real ones", "ef/real_plus_synthetic/r2": "trained on both"},
    ),
    (
        ("ef/requested_vs_measured/r",),
        "correlation of the EF asked for and the EF measured",
        {"ef/requested_vs_measured/slope": "slope; 1 is right"},
    ),
    (
        (
            "quality/fvd2048_[^_]+",
            r"quality/fd_(?!.*_ef_)i3d.*_n\d+x\d+",
            r"quality/kd_motion_\d+f_n\d+x\d+",
        ),
        "distance of the videos to real ones, {name}",
        {},
    ),
    (
        ("quality/fid50k_full", r"quality/fd_inception.*_n\d+x\d+", "us/spectrum_db"),
        "distance of the pictures to real ones, {name}",
        {},
    ),
    (
        ("privacy/planted_exact_recall",),
        "of copies of patients' hearts caught that were hidden among the synthetic ones",
        {"privacy/planted_light_recall": "lightly disguised ones"},
    ),
    (
        ("privacy/rejection_rate",),
        "of synthetic hearts thrown out as too like a patient's",
        {"privacy/false_rejection_heldout": "of strangers' hearts"},
    ),
    (
        ("privacy/membership_auc",),
        "AUC of guessing from the synthetic hearts who was in the training set; 0.5 is chance",
        {},
    ),
    (
        ("coverage/learned_fraction",),
        "of training videos represented",
        {"coverage/learned_fraction_uniform": "if all were equally likely"},
    ),
)
SHARES = ("rate", "recall", "fraction", "heldout", "uniform")
FLOORS = ("floor: real data", "held-out real", "reconstructed")


@dataclass(frozen=True)
class Headline:
    """A number as text, its interval, and by their words what to read it against."""

    keys: tuple[str, ...]  # of all that is shown
    words: str
    value: str
    interval: str
    beside: dict[str, str]


def headlines(metrics: Mapping[str, float | str]) -> list[Headline]:
    """Those of HEADLINES that were measured, from flat numbers."""
    numbers = collect(metrics)
    found = []
    for patterns, text, against in HEADLINES:
        matches = (k for p in patterns for k in numbers if re.fullmatch(p, k))
        if (key := next(matches, None)) is None:
            continue
        number = numbers[key]
        share = key.rsplit("_", 1)[-1] in SHARES
        value, _, interval = _text(number, share).partition(" (")
        beside = {said: number.references[said] for said in FLOORS if said in number.references}
        beside |= {said: numbers[k] for k, said in against.items() if k in numbers}
        texts = {said: _text(n, share) for said, n in beside.items()}
        keys = (key, *(k for k in against if k in numbers))
        words = text.format(name=key.rsplit("/", 1)[-1])
        found.append(Headline(keys, words, value, interval.removesuffix(")"), texts))
    return found


def _text(number: Number, share: bool) -> str:
    return percent(number) if share else str(number)
