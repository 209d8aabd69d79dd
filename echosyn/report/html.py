"""Pages out of `templates`: one HTML file each, which needs nothing else and no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from echosyn.report.mosaic import data_uri
from echosyn.report.numbers import Number, plain
from echosyn.runtime.timing import Seconds


@dataclass(frozen=True)
class Plot:
    """An inline SVG and what it shows; `wide`: several panels side by side."""

    svg: str
    caption: str
    wide: bool = False


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters |= {"plain": plain, "uri": data_uri}
ENVIRONMENT.tests["measured"] = lambda value: isinstance(value, Number)


def render(template: str, **values: object) -> str:
    """The page that a template makes of `values`; the same values give the same bytes.

    Args:
        template: a file of `templates` that extends base.html, which wants a `title`.

    Raises:
        jinja2.UndefinedError: a value that the template names is missing.
    """
    return ENVIRONMENT.get_template(template).render(values, contents=[])


def stage_rows(took: Mapping[str, Seconds]) -> list[Sequence[str]]:
    """A table of what each stage took, its head first and all of them last; [] where none did."""
    if not took:
        return []
    head = ("", "seconds", "start-up", "reading", "computing", "DVC", "peak memory, MiB")
    rows = {
        stage: (v.wall + v.dvc, v.start_up, v.reading, v.computing, v.dvc, v.peak_mib)
        for stage, v in took.items()
    }
    *columns, peaks = zip(*rows.values(), strict=True)
    rows["all"] = (*map(sum, columns), max(peaks))
    return [head, *((stage, *(f"{x:.0f}" for x in row)) for stage, row in rows.items())]
