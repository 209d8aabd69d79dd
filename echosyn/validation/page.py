"""A gate's outcome as one HTML file that needs nothing from a network."""

from collections.abc import Mapping, Sequence
from html import escape

from echosyn.validation.engine import Outcome

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
.verdict { font-weight: 600; padding: .5rem .8rem; border-radius: .4rem; display: inline-block; }
.pass { background: #dff3e4; color: #14532d; } .fail { background: #fde2e1; color: #7f1d1d; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem;
         border-bottom: 1px solid #ddd; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font-size: .85rem; overflow-wrap: anywhere; }
ul { margin: .3rem 0 0; padding-left: 1.1rem; }
"""


def render(title: str, outcomes: Sequence[Outcome], facts: Mapping[str, object]) -> str:
    """The page: a verdict, the facts of the dataset, each expectation, failing ones first.

    Args:
        title: gate and dataset. facts: name and value of what was counted.
    """
    failed = [o for o in outcomes if not o.passed]
    passed = [o for o in outcomes if o.passed]
    verdict = (
        f'<p class="verdict fail">Failed: {len(failed)} of {len(outcomes)} expectations</p>'
        if failed
        else f'<p class="verdict pass">Passed: all {len(outcomes)} expectations</p>'
    )
    counted = "".join(
        f"<tr><th>{escape(k)}</th><td><code>{escape(str(v))}</code></td></tr>"
        for k, v in facts.items()
    )
    rows = "".join(map(_row, [*failed, *passed]))
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
{verdict}
<table>{counted}</table>
<table>
<thead><tr><th>Expectation</th><th>Outcome</th><th>Failing</th></tr></thead>
<tbody>{rows}</tbody>
</table>
</body>
</html>
"""


def _row(o: Outcome) -> str:
    kind, word = ("pass", "passed") if o.passed else ("fail", "failed")
    listed = "".join(f"<li><code>{escape(e)}</code></li>" for e in o.examples)
    if listed and o.failing > len(o.examples):
        listed += f"<li>and {o.failing - len(o.examples)} more</li>"
    return (
        f"<tr><td>{escape(o.check.title)}{f'<ul>{listed}</ul>' if listed else ''}</td>"
        f'<td><span class="verdict {kind}">{word}</span></td>'
        f'<td class="n">{o.failing:,} of {o.of:,}</td></tr>\n'
    )
