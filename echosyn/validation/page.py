"""A gate's outcome as one HTML file that needs nothing from a network."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd

from echosyn.data.filelist import SPLITS
from echosyn.validation.charts import histogram, shares
from echosyn.validation.engine import Outcome
from echosyn.validation.tables import Tables

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6472; --line: #d9dde3; --page: #fff;
        --bar: #2f6fb2; --pass: #14532d; --passbg: #dff3e4; --warn: #7a4a00; --warnbg: #fff0cf;
        --fail: #7f1d1d; --failbg: #fde2e1; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #9ba1a6; --line: #363b42; --page: #16181a; --bar: #7fb2e5;
          --pass: #a7e3b8; --passbg: #16301f; --warn: #f1c36b; --warnbg: #33280f; --fail: #f5b0ae;
          --failbg: #3a1717; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.outcome { font-weight: 600; padding: .4rem .8rem; border-radius: .4rem; display: inline-block; }
.passed { background: var(--passbg); color: var(--pass); }
.warning { background: var(--warnbg); color: var(--warn); }
.failed { background: var(--failbg); color: var(--fail); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr));
         gap: 1rem; }
figure { margin: 0; max-width: 21rem; }
summary { cursor: pointer; color: var(--bar); }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 11px; fill: var(--soft); } svg line { stroke: var(--line); }
svg rect { fill: var(--bar); } .part1 { opacity: .55; } .part2 { opacity: .3; }
.part3 { opacity: .15; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem .4rem 0;
         border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; font-size: .85rem; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font-size: .85rem; overflow-wrap: anywhere; }
ul { margin: .3rem 0 0; padding-left: 1.1rem; }
"""
EF_BINS = np.arange(0, 101, 5)


def render(
    title: str,
    about: str,
    outcomes: Sequence[Outcome],
    facts: Mapping[str, object],
    plots: Sequence[str] = (),
) -> str:
    """The page: the outcome, what failed or warns, plots, what was checked, and all that holds.

    Args:
        title: gate and dataset. about: what suite this is.
        facts: name and value of what was counted.
        plots: HTML of `dataset_plots` or `table_html`.
    """
    failed = [o for o in outcomes if o.stops]
    warned = [o for o in outcomes if o.warns]
    passed = [o for o in outcomes if o.passed]
    counted = "".join(
        f"<tr><th>{escape(k)}</th><td><code>{escape(_fact(v))}</code></td></tr>"
        for k, v in facts.items()
    )
    found = _expectations([*failed, *warned]) if failed or warned else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="soft">Expectations of {escape(about)}</p>
{_outcome(len(failed), len(warned), len(outcomes))}
{found}
{"".join(plots)}
<h2>What was checked</h2>
<div class="scroll"><table>{counted}</table></div>
<details><summary>{len(passed)} expectations hold</summary>
{_expectations(passed)}
</details>
</body>
</html>
"""


def _expectations(outcomes: Sequence[Outcome]) -> str:
    rows = "".join(map(_row, outcomes))
    return (
        '<div class="scroll"><table><thead><tr><th>Expectation</th><th>Outcome</th>'
        f"<th>Failing</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _outcome(failed: int, warned: int, of: int) -> str:
    warnings = f"{warned} warning{'s' if warned != 1 else ''}"
    if failed:
        more = f", and {warnings}" if warned else ""
        return f'<p class="outcome failed">Failed: {failed} of {of} expectations{more}</p>'
    if warned:
        return f'<p class="outcome warning">Passed with {warnings}: {of} expectations</p>'
    return f'<p class="outcome passed">Passed: all {of} expectations</p>'


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v:,}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _row(o: Outcome) -> str:
    kind = "passed" if o.passed else {"fail": "failed", "warn": "warning"}[o.check.severity]
    listed = "".join(f"<li><code>{escape(e)}</code></li>" for e in o.examples)
    if listed and o.failing > len(o.examples):
        listed += f"<li>and {o.failing - len(o.examples)} more</li>"
    return (
        f"<tr><td>{escape(o.check.title)} <code>{escape(o.check.name)}</code>"
        f"{f'<ul>{listed}</ul>' if listed else ''}</td>"
        f'<td><span class="outcome {kind}">{kind}</span></td>'
        f'<td class="n">{o.failing:,} of {o.of:,}</td></tr>\n'
    )


def dataset_plots(tables: Tables) -> list[str]:
    """EF of each split, with what the splits' difference is; classes of each split; lengths."""
    values = tables["values"].frame
    made = []
    if "EF" in values and values["EF"].notna().any():
        figures = [
            histogram(s, values["EF"][values["Split"] == s].dropna().to_numpy(), EF_BINS, "%")
            for s in SPLITS
        ]
        made.append(_section("EF in percent", figures))
        drift = tables["drift"].frame[["Pair", "KS", "P"]]
        if len(drift):
            made.append(table_html("Difference of EF between splits", drift))
    classes = tables["classes"].frame
    if len(classes):
        figures = [
            shares(split, dict(zip(rows["Class"], rows["Rows"], strict=True)))
            for split, rows in classes.groupby("Split", sort=False)
        ]
        made.append(_section("Classes", figures))
    lengths = values["MeasuredNumberOfFrames"].dropna().to_numpy()
    if len(lengths):
        step = np.ceil((lengths.max() - lengths.min() + 1) / 20)
        edges = np.arange(lengths.min(), lengths.max() + 1 + step, step)
        made.append(_section("Length", [histogram("All splits", lengths, edges, "frames")]))
    return made


def _section(title: str, figures: Sequence[str]) -> str:
    return f'<h2>{escape(title)}</h2><div class="plots">{"".join(figures)}</div>'


def table_html(title: str, table: pd.DataFrame) -> str:
    """A small table under a heading."""
    head = "".join(f"<th>{escape(str(c))}</th>" for c in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(v))}</td>" for v in row) + "</tr>"
        for row in table.itertuples(index=False)
    )
    return (
        f'<h2>{escape(title)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
