"""The data sheet of a release (Gebru et al. 2021, Datasheets for Datasets,
https://doi.org/10.1145/3458723), and in brief what a regulator or an ethics board would ask.

What was measured comes from the manifest. What only people know they state in section
`release.datasheet` of params.yaml; what they do not, the sheet says is not stated.
"""

import datetime
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from echosyn.release.composition import composition
from echosyn.release.render import render
from echosyn.report.numbers import collect, label
from echosyn.runtime.config import setting

NOT_STATED = "not stated"
Row = tuple[str, str, str | None]  # key of a number, what it is, what to compare it with


@dataclass(frozen=True)
class Stated:
    """What people state of a dataset, each in their own words or not at all."""

    purpose: str | None = setting(None, help="for what the dataset was made, and what gap it fills")
    creators: tuple[str, ...] = setting((), help="people or organisations that made it")
    funding: str | None = setting(None, help="who paid, with the number of a grant")
    real_data: str | None = setting(
        None, help="the real data behind it: who, where, when, which machines, how it was recorded"
    )
    ethics: str | None = setting(
        None, help="approval, consent and legal ground for the use of the real data"
    )
    uses: str | None = setting(None, help="where it has been used, with references")
    maintainer: str | None = setting(None, help="who keeps it")
    contact: str | None = setting(None, help="an address for questions, errors and requests")
    updates: str | None = setting(
        None, help="whether, when and how it will be updated or withdrawn"
    )
    url: str | None = setting(None, help="the page where it is published, http(s)")
    published: str | None = setting(None, help="date of publication, quoted: '2026-01-31'")
    citation: str | None = setting(None, help="how to cite it, as BibTeX or text")

    def check(self) -> str | None:
        if self.url is not None and not self.url.startswith(("https://", "http://")):
            return f"url: {self.url!r} does not begin with https:// or http://"
        try:
            datetime.date.fromisoformat(self.published or "2000-01-01")
        except ValueError:
            return f"published: {self.published!r} is not a date such as 2026-01-31"
        empty = [k for k, v in asdict(self).items() if v is not None and "" in (v, *v)]
        return f"{empty[0]}: is empty: leave it out, or state it" if empty else None

    def given(self) -> dict[str, Any]:
        """What was stated, by name, for a manifest."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if v}


def datasheet(manifest: Mapping[str, Any], table: pd.DataFrame) -> str:
    """Markdown text of a release's DATASHEET.

    Args:
        manifest: the manifest, which may still lack its `files`.
        table: the FileList of the release.
    """
    numbers = collect(manifest["metrics"])

    def said(name: str) -> str:
        value = manifest["stated"].get(name, NOT_STATED)
        return value if isinstance(value, str) else ", ".join(value)

    def beginning(prefix: str) -> list[Row]:
        return [
            (key, label(key.rpartition("/")[2]), "0 is none" if key.endswith("_risk") else None)
            for key in numbers
            if key.startswith(prefix)
        ]

    return render(
        "DATASHEET.md.j2",
        manifest=manifest,
        about=composition(table, manifest["params"]),
        columns={name: text for name, (_, text) in column_meanings().items() if name in table},
        numbers=numbers,
        distances=[
            (key, f"kernel distance to real TEST videos, `{name}`", None)
            for key in numbers
            # Those of bands of EF are in the manifest.
            if (name := key.removeprefix("quality/")).startswith("kd_") and "_ef_" not in name
        ],
        beginning=beginning,
        said=said,
    )


def column_meanings() -> dict[str, tuple[str, str]]:
    """Of every column that a release may have: its schema.org type and what it means."""
    path = Path(__file__).parent / "templates/columns.yaml"
    return {k: (v["type"], v["meaning"]) for k, v in yaml.safe_load(path.read_text()).items()}
