"""Pieces of HTML that the pages share."""

from collections.abc import Mapping, Sequence
from html import escape

from echosyn.report.numbers import Number, plain, tables
from echosyn.report.style import CSS
from echosyn.runtime.timing import Seconds


def document(title: str, body: Sequence[str], style: str = "") -> str:
    """A whole page that needs nothing else; empty parts of `body` are left out."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, content: str) -> str:
    """Nothing where there is no content."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already, the head is text; the first cell of a row names it."""
    thead = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join(
        f"<tr><th>{row[0]}</th>{''.join(f'<td>{c}</td>' for c in row[1:])}</tr>" for row in rows
    )
    top = f"<thead><tr>{thead}</tr></thead>" if head else ""
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def cell(number: Number) -> str:
    """A number with its interval, small."""
    small = f"<small>({number.interval})</small>" if number.interval else ""
    return f"{plain(number.value)}{small}"


def figure(svg: str, caption: str, wide: bool = False) -> str:
    return (
        f'<figure class="plot{" wide" if wide else ""}">{svg}'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def metric_tables(metrics: Mapping[str, float | str]) -> str:
    """Every flat number, in tables under the titles of their groups."""
    parts = []
    for title, group in tables(metrics).items():
        parts.append(f"<h3>{escape(title)}</h3>")
        for one in group:
            columns = () if one.columns == ("value",) else ("", *one.columns)
            rows = [[escape(name), *map(cell, row)] for name, row in one.rows.items()]
            parts.append(table(columns, rows))
    return "\n".join(parts)


def stage_table(took: Mapping[str, Seconds]) -> str:
    """What each stage took, as HTML; nothing where none did."""
    if not took:
        return ""
    head = ("", "seconds", "start-up", "reading", "computing", "DVC", "peak memory, MiB")
    rows = [
        [escape(stage), *(f"{x:.0f}" for x in (
            v.wall + v.dvc, v.start_up, v.reading, v.computing, v.dvc, v.peak_mib))]
        for stage, v in took.items()
    ]  # fmt: skip
    every = list(took.values())
    sums = (
        sum(v.wall + v.dvc for v in every), sum(v.start_up for v in every),
        sum(v.reading for v in every), sum(v.computing for v in every), sum(v.dvc for v in every),
    )  # fmt: skip
    rows.append(["all", *(f"{x:.0f}" for x in sums), f"{max(v.peak_mib for v in every):.0f}"])
    return table(head, rows)
