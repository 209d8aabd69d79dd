"""What must hold, read from `expectations/*.yaml`: one Check per expectation.

The files are data so that a reader need not know Python to see what is asked of a source, and so
that a change of what is asked is a change of one line in the history of the repository.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from echosyn.runtime.config import read_yaml, setting
from echosyn.runtime.errors import EchosynError
from echosyn.validation.tables import Tables

FOLDER = Path(__file__).parent / "expectations"
SEVERITIES = ("fail", "warn")
COLUMN_ARGUMENTS = ("column", "column_A", "column_B")


def severity_setting() -> Any:
    """The setting `severity` of a gate."""
    return setting(
        None,
        choices=SEVERITIES,
        help="by name of a check, or <dataset>/<check>: fail stops, warn only shows",
    )


@dataclass(frozen=True)
class Check:
    """One expectation on one table of `Tables`.

    name: what params call it. title: what must hold, in words. expectation: Great Expectations'
    class. shows: columns whose values say what is wrong with a row.
    """

    name: str
    title: str
    table: str
    expectation: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    shows: tuple[str, ...] = ()
    severity: str = "fail"

    @property
    def columns(self) -> set[str]:
        """Columns of the table without which the check means nothing."""
        return {self.arguments[k] for k in COLUMN_ARGUMENTS if k in self.arguments}


@dataclass(frozen=True)
class Suite:
    """A file of `expectations/`, with what it extends. Arguments may still be `$name`.

    requires, forbids: optional columns that FileList.csv must, or must not, have.
    may_be_empty: columns whose cells may be.
    """

    name: str
    title: str
    checks: tuple[Check, ...]
    requires: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    may_be_empty: tuple[str, ...] = ()

    def resolve(
        self, tables: Tables, values: Mapping[str, Any], severity: Mapping[str, str] | None = None
    ) -> list[Check]:
        """The checks to make of these tables: those whose columns and rows are there.

        Args:
            values: what stands for `$name` in arguments and `{name}` in titles; a value that is a
                mapping is looked up by the check's column, and under "" for all others.
            severity: by name of check, instead of the file's.
        """
        chosen = severity or {}
        return [
            _fill(replace(c, severity=chosen.get(c.name, c.severity)), values)
            for c in self.checks
            if len(tables[c.table].frame) and c.columns <= set(tables[c.table].frame.columns)
        ]


def _fill(check: Check, values: Mapping[str, Any]) -> Check:
    column = check.arguments.get("column", "")
    known = {k: v.get(column, v[""]) if isinstance(v, Mapping) else v for k, v in values.items()}
    arguments = {
        k: known[v[1:]] if isinstance(v, str) and v.startswith("$") else v
        for k, v in check.arguments.items()
    }
    return replace(check, title=check.title.format(**known), arguments=arguments)


@cache
def load_suite(name: str) -> Suite:
    """Read `expectations/<name>.yaml` and what it extends; its own checks come last.

    Raises:
        EchosynError: there is no such file.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(suite_names())
        raise EchosynError(f"no expectations for {name!r}: {path} does not exist; known: {known}")
    content = read_yaml(path)
    base = load_suite(content["extends"]) if "extends" in content else None
    made = {c.name: c for c in base.checks} if base else {}
    for check, entry in (content.get("checks") or {}).items():
        made[check] = Check(check, **{**entry, "shows": tuple(entry.get("shows", ()))})
    for check, severity in (content.get("severity") or {}).items():
        made[check] = replace(made[check], severity=severity)

    def columns(key: str) -> tuple[str, ...]:
        return tuple(content[key]) if key in content else getattr(base, key, ())

    return Suite(
        name,
        content["title"],
        tuple(made.values()),
        columns("requires"),
        columns("forbids"),
        columns("may_be_empty"),
    )


def suite_names() -> list[str]:
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def severities(
    chosen: Mapping[str, str] | None,
    dataset: str,
    suites: Iterable[str],
    datasets: Collection[str],
    where: str,
) -> dict[str, str]:
    """What params say of a dataset's checks: `<check>` for all datasets, `<dataset>/<check>` wins.

    Args:
        suites: whose checks may be named: those of every source, as the section serves them all.
        datasets: names that may stand before the slash; empty: any.
        where: the section, for the message.

    Raises:
        EchosynError: a check or a dataset that does not exist, with the name that may be meant.
    """
    known = sorted({check.name for name in suites for check in load_suite(name).checks})
    everywhere, here = {}, {}
    for key, severity in (chosen or {}).items():
        scope, _, check = key.rpartition("/")
        _refuse_unknown(check, known, "check", where)
        if not scope:
            everywhere[check] = severity
            continue
        if datasets:
            _refuse_unknown(scope, sorted(datasets), "dataset", where)
        if scope == dataset:
            here[check] = severity
    return {**everywhere, **here}


def _refuse_unknown(name: str, known: Collection[str], kind: str, where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise EchosynError(
            f"{where}: severity: unknown {kind} '{name}'{hint} Known: {', '.join(known)}"
        )
