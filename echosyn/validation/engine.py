"""Checks run by Great Expectations: the only file that knows it."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echosyn.runtime.process import prepare
from echosyn.validation.suites import Check
from echosyn.validation.tables import Tables

EXAMPLES = 5
SEVERITY = {"fail": "critical", "warn": "warning"}  # what Great Expectations calls ours


@dataclass(frozen=True)
class Outcome:
    """How a check went. examples: the first failing rows with their values, for a person."""

    check: Check
    passed: bool
    failing: int
    of: int
    examples: tuple[str, ...]

    @property
    def stops(self) -> bool:
        return not self.passed and self.check.severity == "fail"

    @property
    def warns(self) -> bool:
        return not self.passed and self.check.severity == "warn"


def evaluate(
    checks: Sequence[Check], tables: Tables, docs: Path | None, name: str
) -> list[Outcome]:
    """Run the checks; their outcomes, in their order.

    Args:
        docs: folder for Great Expectations' Data Docs, None for none.
        name: of the gate and dataset, for the Data Docs.
    """
    prepare()  # telemetry off, before the import
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment] # GX's own form
    if docs is not None:
        _add_docs(context, docs)
    source = context.data_sources.add_pandas(name)
    outcomes: dict[int, Outcome] = {}
    for table in dict.fromkeys(check.table for check in checks):
        numbered = [(i, c) for i, c in enumerate(checks) if c.table == table]
        expectations = [
            getattr(gx.expectations, check.expectation)(
                **check.arguments,
                severity=SEVERITY[check.severity],
                meta={"check": i, "name": check.name},
                notes=check.title,
            )
            for i, check in numbered
        ]
        suite = context.suites.add(gx.ExpectationSuite(f"{name} {table}", expectations))
        asset = source.add_dataframe_asset(table)
        batch = asset.add_batch_definition_whole_dataframe("all")
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=f"{name} {table}", data=batch, suite=suite)
        )
        result = definition.run(
            batch_parameters={"dataframe": tables[table].frame},
            result_format={"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES},
        )
        for one in result.results:
            assert one.expectation_config is not None
            i = one.expectation_config.meta["check"]
            outcomes[i] = _outcome(checks[i], one, tables)
    if docs is not None:
        context.build_data_docs(site_names=["local"])
    return [outcomes[i] for i in range(len(checks))]


def _add_docs(context: Any, docs: Path) -> None:
    shutil.rmtree(docs, ignore_errors=True)
    docs.mkdir(parents=True)
    context.add_data_docs_site(
        site_name="local",
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs.resolve()),
            },
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )


def _outcome(check: Check, one: Any, tables: Tables) -> Outcome:
    if one.success:
        return Outcome(check, True, 0, one.result.get("element_count", 1), ())
    if "element_count" in one.result:
        positions = one.result["partial_unexpected_index_list"][:EXAMPLES]
        rows = tuple(_describe(check, int(i), tables) for i in positions)
        return Outcome(
            check, False, one.result["unexpected_count"], one.result["element_count"], rows
        )
    if "observed_value" in one.result:
        wanted = next(
            v for k, v in check.arguments.items() if k in ("column_list", "column_set", "value")
        )
        found = f"found: {_text(one.result['observed_value'])}"
        return Outcome(check, False, 1, 1, (found, f"expected: {_text(wanted)}"))
    raise RuntimeError(f"{check.title}: Great Expectations failed: {one.exception_info}")


def _describe(check: Check, i: int, tables: Tables) -> str:
    table = tables[check.table]
    shown = ", ".join(f"{c} {_text(table.frame[c].iloc[i])}" for c in check.shows)
    return f"{table.where(i)}: {shown}" if shown else table.where(i)


def _text(value: Any) -> str:
    """Numbers as a person writes them, text in quotes when it is a cell."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return repr(value) if isinstance(value, str) and not value.isalnum() else str(value)
