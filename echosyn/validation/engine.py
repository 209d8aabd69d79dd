"""Checks run by Great Expectations: the only file that knows it."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from echosyn.runtime import prepare
from echosyn.validation.suites import Check
from echosyn.validation.tables import Tables

EXAMPLES = 5


@dataclass(frozen=True)
class Outcome:
    """How a check went. examples: the first failing rows with their values, for a person."""

    check: Check
    passed: bool
    failing: int
    of: int
    examples: tuple[str, ...]


def evaluate(checks: Sequence[Check], tables: Tables, docs: Path, name: str) -> list[Outcome]:
    """Run the checks, in their order; write Great Expectations' Data Docs to the folder `docs`.

    Args:
        name: of the gate and dataset, for the Data Docs.
    """
    prepare()  # telemetry off, before the import
    import great_expectations as gx

    shutil.rmtree(docs, ignore_errors=True)
    docs.mkdir(parents=True)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
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
    source = context.data_sources.add_pandas(name)
    outcomes: dict[int, Outcome] = {}
    for table in dict.fromkeys(check.table for check in checks):
        numbered = [(i, c) for i, c in enumerate(checks) if c.table == table]
        suite = context.suites.add(gx.ExpectationSuite(f"{name} {table}"))
        for i, check in numbered:
            expectation = getattr(gx.expectations, check.expectation)
            meta = {"check": i}
            suite.add_expectation(expectation(**check.arguments, meta=meta, notes=check.title))
        asset = source.add_dataframe_asset(table)
        batch = asset.add_batch_definition_whole_dataframe("all")
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=f"{name} {table}", data=batch, suite=suite)
        )
        result = definition.run(
            batch_parameters={"dataframe": getattr(tables, table)},
            result_format={"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES},
        )
        for one in result.results:
            i = one.expectation_config.meta["check"]
            outcomes[i] = _outcome(checks[i], one, tables)
    context.build_data_docs(site_names=["local"])
    return [outcomes[i] for i in range(len(checks))]


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
        found = f"found: {_text(one.result['observed_value'])}"
        expected = f"expected: {_text(check.arguments['column_list'])}"
        return Outcome(check, False, 1, 1, (found, expected))
    raise RuntimeError(f"{check.title}: Great Expectations failed: {one.exception_info}")


def _describe(check: Check, i: int, tables: Tables) -> str:
    table: pd.DataFrame = getattr(tables, check.table)
    if check.table == "files":
        return str(table["File"].iloc[i])
    if check.table == "splits":
        where = str(table["Split"].iloc[i])
    else:
        where = f"line {tables.values['Line'].iloc[i]}, {tables.values['FileName'].iloc[i]}"
    shown = ", ".join(f"{c} {_text(table[c].iloc[i])}" for c in check.shows)
    return f"{where}: {shown}"


def _text(value: Any) -> str:
    """Numbers as a person writes them, text in quotes when it is a cell."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return repr(value) if isinstance(value, str) and not value.isalnum() else str(value)
