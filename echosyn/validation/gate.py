"""Run a gate: measure, check, leave a page, and a pass file only when everything holds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from echosyn.data.filelist import (
    BEAT,
    CLASS,
    COLUMNS,
    EF_TRUTH,
    MEASURES,
    OPTIONAL,
    SAFE_NAME,
    SPLITS,
)
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import sha256_file, write_json, write_text
from echosyn.validation.demands import Demands
from echosyn.validation.engine import Outcome, evaluate
from echosyn.validation.latents import INDEX, read_latents
from echosyn.validation.page import Part, dataset_parts, render, table_part
from echosyn.validation.suites import (
    Check,
    Suite,
    load_suite,
    severities,
    severity_setting,
    suite_names,
)
from echosyn.validation.tables import Tables, read_tables, videos_digest

SHAPES = ("float16 8x14x14", "float16 8x28x28")  # of a frame: mean, log-variance
PAGE, RECORD = "index-offline.html", "outcomes.json"
# Digits are few enough that whatever matches is a finite number.
DIGITS = "[0-9]{1,30}"
NUMBER = rf"\s*[+-]?(?:{DIGITS}\.?|\.{DIGITS}|{DIGITS}\.{DIGITS})(?:[eE][+-]?[0-9]{{1,2}})?\s*"
WHOLE = r"\A\s*0*[1-9][0-9]{0,14}(?:\.0*)?\s*\Z"


@dataclass(frozen=True)
class ValidateConfig:
    """How far a dataset may be from what it should be: sections validate_raw, validate_release."""

    ef_tolerance: float = setting(
        1.0, lo=0, hi=100, help="percent points between EF and (EDV - ESV) / EDV"
    )
    fps_tolerance: float = setting(
        0.5, lo=0, hi=10, help="frames per second between FPS and the file; EchoNet lists round it"
    )
    near_copy: float = setting(
        0.95, lo=0, hi=1, help="similarity from which two frames are one picture, 1 is the same"
    )
    class_share_lo: float = setting(0.1, lo=0, hi=1, help="least share of a class in a split")
    class_share_hi: float = setting(0.9, lo=0, hi=1, help="greatest share of a class in a split")
    drift: float = setting(
        0.1, lo=0, hi=1, help="KS statistic up to which the EFs of two splits are alike"
    )
    drift_p: float = setting(
        0.01, lo=0, hi=1, help="chance above which a difference of EFs is taken for chance"
    )
    severity: dict[str, str] | None = severity_setting()

    def check(self) -> str | None:
        if self.class_share_lo > self.class_share_hi:
            return (
                f"class_share_lo {self.class_share_lo:g} is above "
                f"class_share_hi {self.class_share_hi:g}"
            )
        return None


@dataclass(frozen=True)
class LatentsConfig:
    """How far latents may be from unit scale, and lists from files: section validate_latents."""

    fps_tolerance: float = setting(
        0.5, lo=0, hi=10, help="frames per second by which FPS may be rounded, as in validate_raw"
    )
    mean: float = setting(1.0, lo=0, help="of a channel over TRAIN, either side of 0")
    sd_lo: float = setting(0.3, lo=0, help="of a channel over TRAIN")
    sd_hi: float = setting(3.0, lo=0)
    severity: dict[str, str] | None = severity_setting()

    def check(self) -> str | None:
        if self.sd_lo > self.sd_hi:
            return f"sd_lo {self.sd_lo:g} is above sd_hi {self.sd_hi:g}"
        return None


@dataclass(frozen=True)
class GateResult:
    """Outcome of a gate: its page, its expectations and how many rows it looked at."""

    name: str
    folder: Path
    page: Path
    outcomes: tuple[Outcome, ...]
    rows: int
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.stops)

    @property
    def warned(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.warns)

    def metrics(self) -> dict[str, float]:
        """Counts, what was measured, and for each warning how many rows it is about."""
        return {
            "gate/expectations": len(self.outcomes),
            "gate/rows": self.rows,
            "gate/warnings": len(self.warned),
            **{f"gate/warning/{o.check.name}": o.failing for o in self.warned},
            **self.numbers,
        }

    @property
    def record(self) -> Path:
        """JSON of every outcome."""
        return self.page.with_name(RECORD)

    def require(self) -> None:
        """Raise EchosynError with every failed expectation, its first rows and their values."""
        if not self.failed:
            return
        lines = []
        for o in self.failed:
            lines.append(f"- {o.check.title} [{o.check.name}]: {o.failing} of {o.of} fail")
            lines += [f"    {example}" for example in o.examples]
            if o.failing > len(o.examples):
                lines.append(f"    and {o.failing - len(o.examples)} more")
        raise EchosynError(
            f"{self.folder} does not pass the {self.name} gate: {len(self.failed)} of "
            f"{len(self.outcomes)} expectations fail\n" + "\n".join(lines) + f"\nsee {self.page}"
        )


def run_gate(
    gate: str,
    folder: Path,
    label: str,
    config: ValidateConfig,
    *,
    passed: Path,
    docs: Path,
    counts: dict[str, int] | None = None,
    source: str = "dataset",
    datasets: Collection[str] = (),
    demands: Demands | None = None,
) -> GateResult:
    """Check a dataset folder.

    Args:
        gate: "raw", or "release" for synthetic videos.
        folder: holds FileList.csv and Videos/; its name is that of the dataset.
        label: "ef" when every video must have an EF, "class" when every one must have a Class,
            "none" when it needs neither.
        passed: the pass file, written when no expectation of severity `fail` fails, else removed.
            The same data gives the same bytes, whatever the settings: a looser one retrains
            nothing.
        docs: folder for Great Expectations' Data Docs, our offline page and the record of all
            outcomes.
        counts: rows expected per split; None, and splits it does not name, expect nothing.
        source: of a raw dataset; names its suite in `expectations/`.
        datasets: names that settings may call a dataset by; empty: any.
        demands: what later stages need of it; None: nothing is asked.

    Raises:
        EchosynError: FileList.csv is missing, has no rows or is not a CSV file at all; a setting
            names a check that does not exist. A failed expectation does not raise here: call
            `require` on the result.
    """
    passed.unlink(missing_ok=True)
    suite = load_suite("release" if gate == "release" else source)
    severity = severities(
        config.severity, folder.name, _dataset_suites(), datasets, f"params.yaml: validate_{gate}"
    )
    tables = read_tables(folder, counts, config.drift_p, source, demands)
    checks = dataset_checks(suite, tables, label, config, severity)
    values, splits = tables["values"].frame, tables["counts"].frame
    summary = {
        "rows": len(values),
        "frames": int(values["MeasuredNumberOfFrames"].sum()),
        "splits": {s: int(n) for s, n in zip(splits.Split, splits.Rows, strict=True)},
        "filelist_sha256": sha256_file(folder / "FileList.csv"),
        "videos_sha256": videos_digest(values),
    }
    return _checked(
        gate, folder, suite, checks, tables, {"gate": gate, "label": label, **summary},
        dataset_parts(tables), _numbers(tables), passed, docs,
    )  # fmt: skip


def run_latents_gate(
    latents: Path,
    dataset: Path,
    config: LatentsConfig,
    *,
    passed: Path,
    docs: Path,
    datasets: Collection[str] = (),
) -> GateResult:
    """Check a folder of latents (index.csv and shards) against the dataset folder it encodes.

    Arguments and errors are those of `run_gate`.
    """
    passed.unlink(missing_ok=True)
    severity = severities(
        config.severity, latents.name, ["latents"], datasets, "params.yaml: validate_latents"
    )
    tables = read_latents(latents, dataset, config.fps_tolerance)
    checks = latents_checks(tables, config, severity)
    videos, channels = tables["videos"].frame, tables["channels"].frame
    facts = {
        "gate": "latents",
        "rows": len(videos),
        "frames": int(videos["Frames"].fillna(0).sum()),
        "shards": len(tables["shards"].frame),
        "index_sha256": sha256_file(latents / INDEX),
    }
    numbers = {
        f"gate/channel_{c.Channel}/{k}": float(v)
        for c in channels.itertuples()
        for k, v in (("mean", c.Mean), ("sd", c.Sd), ("posterior_sd", c.PosteriorSd))
    }
    parts = [table_part("Channels", channels)] if len(channels) else []
    return _checked(
        "latents", latents, load_suite("latents"), checks, tables, facts,
        parts, numbers, passed, docs,
    )  # fmt: skip


def _checked(
    gate: str,
    folder: Path,
    suite: Suite,
    checks: Sequence[Check],
    tables: Tables,
    facts: Mapping[str, Any],
    parts: Sequence[Part],
    numbers: Mapping[str, float],
    passed: Path,
    docs: Path,
) -> GateResult:
    name = f"{gate} {folder.name}"
    outcomes = evaluate(checks, tables, docs, name)
    result = GateResult(gate, folder, docs / PAGE, tuple(outcomes), int(facts["rows"]), numbers)
    write_text(result.page, render(f"Gate: {name}", suite.title, outcomes, facts, parts))
    write_json(result.record, {"suite": suite.name, "outcomes": [asdict(o) for o in outcomes]})
    if not result.failed:
        write_json(passed, facts)
    return result


def _dataset_suites() -> list[str]:
    return [name for name in suite_names() if name != "latents"]


def dataset_checks(
    suite: Suite,
    tables: Tables,
    label: str,
    config: ValidateConfig,
    severity: Mapping[str, str] | None = None,
) -> list[Check]:
    """The checks that a suite makes of a dataset's tables; see `run_gate` and `Suite.resolve`."""
    empty = {
        *suite.may_be_empty,
        *MEASURES,
        *EF_TRUTH,
        *BEAT,
        *(("EF", "ESV", "EDV") if label != "ef" else ()),
    }
    if label != "class":
        empty.add(CLASS)
    written = tables["text"].frame.columns
    required = {*suite.requires, *([CLASS] if label == "class" else [])}
    optional = [c for c in OPTIONAL if c in required or (c in written and c not in suite.forbids)]
    values = {
        "columns": [*COLUMNS, *optional],
        "header_fields": [len(written)],
        "safe_name": rf"\A(?:{SAFE_NAME.pattern})\Z",
        "splits": list(SPLITS),
        "cell": {"": rf"\A{NUMBER}\Z", **dict.fromkeys(empty, rf"\A(?:{NUMBER}|\s*)\Z")},
        "class_cell": "" if CLASS in empty else r"\S",
        "or_empty": {"": "", **dict.fromkeys(empty, " or empty")},
        "whole": WHOLE,
        **_settings(config),
    }
    return suite.resolve(tables, values, severity)


def latents_checks(
    tables: Tables, config: LatentsConfig, severity: Mapping[str, str] | None = None
) -> list[Check]:
    """The checks of the tables of `read_latents`; see `Suite.resolve`."""
    rates = tables["videos"].frame.get("FPS", pd.Series(dtype=float)).mode()[:1]
    shapes = tables["videos"].frame["Shape"]
    values = {
        "rates": [float(rate) for rate in rates],
        "shapes": list(shapes[shapes.isin(SHAPES)].mode()[:1]) or list(SHAPES),
        **_settings(config),
        "minus_mean": -config.mean,
    }
    return load_suite("latents").resolve(tables, values, severity)


def _settings(config: ValidateConfig | LatentsConfig) -> dict[str, float]:
    return {k: v for k, v in asdict(config).items() if k != "severity"}


def _numbers(tables: Tables) -> dict[str, float]:
    """What was measured on the way, for the metrics."""
    made: dict[str, float] = {}
    for row in tables["drift"].frame.itertuples():
        pair = row.Pair.lower().replace("-", "_")
        made |= {f"gate/ef_drift/{pair}/ks": row.KS, f"gate/ef_drift/{pair}/p": row.P}
    nearest = tables["values"].frame["Nearest"].max()
    if np.isfinite(nearest):  # NaN: there is one split
        made["gate/nearest_across_splits"] = float(nearest)
    return made
