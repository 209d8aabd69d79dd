"""Flat metrics, `group/name` or `group/item/name`, as tables for people.

`x_lo` and `x_hi` are the interval of `x`. `x_floor` (real data against real data) and the other
endings of REFERENCES are the same measurement of something else, to read `x` against.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

TITLES = {
    "ef": "Ejection fraction",
    "ef_one_clip": "Ejection fraction from one clip a video",
    "ef_below": "Telling an ejection fraction below a cut-off",
    "vae": "Autoencoder",
    "reid": "Re-identification network",
    "privacy": "Privacy",
    "coverage": "Coverage of the training data",
    "quality": "Distance to the real videos",
    "us": "Ultrasound texture",
    "beat": "The beat",
    "segmentation": "The left ventricle, traced",
    "anomaly": "Strange videos",
}
REFERENCES = {
    "_floor": "floor: real data",
    "_reconstruction": "reconstructed",
    "_vs_train": "against TRAIN",
    "_real": "held-out real",
}
# Also the order of the rows and columns of a table.
LABELS = {
    "r": "r",
    "r2": "R²",
    "mae": "MAE (EF points)",
    "rmse": "RMSE (EF points)",
    "r2_seed_sd": "R² between seeds (sd)",
    "auc_35": "AUC, EF < 35%",
    "auc_40": "AUC, EF < 40%",
    "auc_45": "AUC, EF < 45%",
    "auc_50": "AUC, EF < 50%",
    "psnr_db": "PSNR (dB)",
    "ssim": "SSIM",
    "auc": "AUC",
    "eer": "Equal error rate",
    "tau": "Threshold τ",
    "rejection_rate": "Share thrown out",
    "planted_exact_recall": "Planted copies caught",
    "planted_light_recall": "Lightly disguised planted copies caught",
    "membership_auc": "Membership inference AUC",
    "learned_fraction": "Share of training videos represented",
    "learned_fraction_uniform": "That share, if all were equally likely",
    "irs_inf": "Share that endless samples would reach (IRS)",
    "irs_adjusted": "IRS over that of real videos",
    "chao1": "Lower bound of that share (Chao 1)",
    "recall_at_0p1pct": "Recall at 0.1% false matches",
    "rate_q25": "Beats a minute, lower quartile",
    "rate_median": "Beats a minute, median",
    "rate_q75": "Beats a minute, upper quartile",
    "rate_off": "Off the rate asked for (%), median",
    "sure": "Share with a regular beat",
    "motion": "Variance within a video over that of real ones",
    "dice": "Dice on real TEST frames",
    "dice_ed": "Dice at end-diastole",
    "dice_es": "Dice at end-systole",
    "traced": "Share of videos that could be traced",
    "ef_r": "Traced EF against the one asked for: r",
    "ef_mae": "Traced EF against the one asked for: MAE (EF points)",
    "ef_measured_r": "Traced EF against what the regressors measure: r",
    "ef_measured_mae": "Traced EF against what the regressors measure: MAE (EF points)",
    "auroc": "AUROC",
    "pixel_auroc": "AUROC of pixels",
    "val_auroc": "AUROC on VAL of kinds not learned",
    "strange": "Share of candidates as strange as few real videos",
    "refused": "Share of candidates refused as strange",
    "false_alarm": "Share of real TEST videos as strange",
    "false_alarm_asked": "The share asked for",
    "candidates_auroc": "Candidates told from real TEST videos: AUROC",
    "released_auroc": "Released videos told from real TEST videos: AUROC",
    "real": "Real",
    "reconstructed": "Reconstructed",
    "synthetic": "Synthetic",
    "synthetic_relabelled": "Synthetic, relabelled",
    "real_plus_synthetic": "Real plus synthetic",
    "requested_vs_measured": "Requested vs measured",
}


@dataclass(frozen=True)
class Number:
    """A measured value, with its interval and its references where they were measured."""

    value: float
    lo: float | None = None
    hi: float | None = None
    references: dict[str, "Number"] = field(default_factory=dict)

    @property
    def interval(self) -> str:
        """`lo to hi`, or nothing."""
        if self.lo is None or self.hi is None:
            return ""
        return f"{plain(self.lo)} to {plain(self.hi)}"

    def __str__(self) -> str:
        return plain(self.value) + (f" ({self.interval})" if self.interval else "")


@dataclass(frozen=True)
class Table:
    """Rows of numbers that share their columns."""

    columns: tuple[str, ...]
    rows: dict[str, tuple[Number, ...]]


def plain(value: float) -> str:
    """Three significant digits at least, never an exponent for everyday sizes."""
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 0.001 else f"{float(f'{value:.3g}'):g}"


def texts(metrics: Mapping[str, float | str]) -> dict[str, str]:
    """What an evaluation says in words: how its numbers were measured."""
    return {k: v for k, v in metrics.items() if isinstance(v, str)}


def collect(metrics: Mapping[str, float | str]) -> dict[str, Number]:
    """The numbers by key, in the order of LABELS, each with its interval and its references."""
    values = {k: v for k, v in metrics.items() if not isinstance(v, str)}

    def number(key: str) -> Number:
        found = {name: f"{key}{ending}" for ending, name in REFERENCES.items()}
        references = {name: number(k) for name, k in found.items() if k in values}
        return Number(values[key], values.get(f"{key}_lo"), values.get(f"{key}_hi"), references)

    endings = ("_lo", "_hi", *REFERENCES)
    belongs = {key + ending for key in values for ending in endings}
    own = sorted(set(values) - belongs, key=lambda key: [_place(part) for part in key.split("/")])
    return {key: number(key) for key in own}


def _place(name: str) -> tuple[int, str]:
    known = list(LABELS)
    return (known.index(name) if name in known else len(known), name)


def tables(metrics: Mapping[str, float | str]) -> dict[str, list[Table]]:
    """Tables by title of the group. Items that were measured alike share a table."""
    groups: dict[str, dict[str, dict[str, Number]]] = {}
    for key, number in collect(metrics).items():
        group, _, rest = key.partition("/")
        item, _, name = rest.rpartition("/")
        groups.setdefault(group, {}).setdefault(item, {})[name or item] = number
    order = [*(g for g in TITLES if g in groups), *(g for g in groups if g not in TITLES)]
    return {TITLES.get(g, _words(g)): _group_tables(groups[g]) for g in order}


def _group_tables(items: dict[str, dict[str, Number]]) -> list[Table]:
    alike: dict[tuple[str, ...], dict[str, tuple[Number, ...]]] = {}
    for item, numbers in items.items():
        if item == "" or len(numbers) == 1:
            prefix = f"{label(item)}: " if item else ""
            rows = {prefix + label(name): {"value": number} for name, number in numbers.items()}
        else:
            rows = {label(item): {label(name): number for name, number in numbers.items()}}
        for name, cells in rows.items():
            wide = _with_references(cells)
            alike.setdefault(tuple(wide), {})[name] = tuple(wide.values())
    return [Table(columns, rows) for columns, rows in alike.items()]


def _with_references(cells: dict[str, Number]) -> dict[str, Number]:
    """Each number followed by its references, as columns."""
    wide = {}
    for column, number in cells.items():
        wide[column] = number
        prefix = "" if column == "value" else f"{column}, "
        wide |= {prefix + name: reference for name, reference in number.references.items()}
    return wide


def label(name: str) -> str:
    """A metric's name as a person would write it; protocol names (fd_..., kd_...) stay."""
    if name in LABELS or re.search(r"\d", name):
        return LABELS.get(name, name)
    return _words(name)


def _words(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def privacy_sentences(metrics: Mapping[str, float | str], videos: int | None = None) -> list[str]:
    """What was done and measured for privacy, in words; a sentence exists when its number does."""
    numbers = collect(metrics)

    def got(name: str) -> Number | None:
        return numbers.get(f"privacy/{name}")

    said = []
    if tau := got("tau"):
        said.append(
            "Every synthetic heart was compared with every training heart by a network trained to "
            f"recognise the same patient. A heart more alike than τ = {tau} was thrown out. τ "
            "was set on real patients outside the training set: it is how alike different people "
            "look by chance."
        )
    if rate := got("rejection_rate"):
        said.append(f"This threw out {percent(rate)} of the candidates.")
    if videos:
        said.append(f"{videos:,} videos were made from those that passed.")
    if exact := got("planted_exact_recall"):
        text = f"As a test, copies of training hearts were slipped in: {percent(exact)} were caught"
        disguised = got("planted_light_recall")
        said.append(
            text + (f", and {percent(disguised)} of lightly disguised ones." if disguised else ".")
        )
    if auc := got("membership_auc"):
        said.append(
            "An attack that guesses from the synthetic videos who was in the training set scores "
            f"an AUC of {auc}, where 0.5 is coin tossing and 1 is certainty."
        )
    return said


def percent(share: Number) -> str:
    """A share in 0-1 as a percentage with its interval."""
    text = f"{100 * share.value:.3g}%"
    if share.lo is not None and share.hi is not None:
        text += f" ({100 * share.lo:.3g}% to {100 * share.hi:.3g}%)"
    return text
