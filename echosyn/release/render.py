"""The documents of a release, from the Jinja2 files in templates/."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from echosyn.data.filelist import SPLITS
from echosyn.report.numbers import Number, Table, percent


def render(template: str, **values: Any) -> str:
    """The text of a file in templates/; a value that it names and that is not given is an error."""
    return ENVIRONMENT.get_template(template).render(**values)


def _counts(splits: Mapping[str, int]) -> str:
    return ", ".join(f"{splits[name]:,} {name}" for name in SPLITS if name in splits)


def _markdown(table: Table) -> str:
    lines = [f"| | {' | '.join(table.columns)} |", "|---" * (len(table.columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(map(str, row))} |" for name, row in table.rows.items()]
    return "\n".join(lines)


def _references(number: Number) -> str:
    return "; ".join(f"{what} = {value}" for what, value in number.references.items())


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters |= {
    "counts": _counts,
    "markdown": _markdown,
    "percent": percent,
    "references": _references,
}
ENVIRONMENT.globals["verify"] = "echosyn releases verify"
