"""Run a gate: measure, judge, leave a page, and a pass file only when everything holds."""

from dataclasses import asdict, dataclass
from pathlib import Path

from echosyn.config import setting
from echosyn.errors import EchosynError
from echosyn.files import sha256_file, write_json, write_text
from echosyn.validation.engine import Outcome, evaluate
from echosyn.validation.page import render
from echosyn.validation.suites import suite
from echosyn.validation.tables import read_tables, videos_digest

PAGE = "index-offline.html"


@dataclass(frozen=True)
class ValidateConfig:
    """How far a FileList may be from what it describes."""

    ef_tolerance: float = setting(
        1.0, lo=0, hi=100, help="percent points between EF and (EDV - ESV) / EDV"
    )
    fps_tolerance: float = setting(
        0.5, lo=0, hi=10, help="frames per second between FPS and the file; EchoNet lists round it"
    )


@dataclass(frozen=True)
class GateResult:
    """Outcome of a gate: its page, its expectations and how many rows it looked at."""

    name: str
    folder: Path
    page: Path
    outcomes: tuple[Outcome, ...]
    rows: int

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if not o.passed)

    def metrics(self) -> dict[str, int]:
        return {"gate/expectations": len(self.outcomes), "gate/rows": self.rows}

    def require(self) -> None:
        """Raise EchosynError with every failed expectation, its first rows and their values."""
        if not self.failed:
            return
        lines = []
        for o in self.failed:
            lines.append(f"- {o.check.title}: {o.failing} of {o.of} fail")
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
) -> GateResult:
    """Judge a dataset folder.

    Args:
        gate: "raw" or "release"; see `suites.suite`.
        folder: holds FileList.csv and Videos/.
        label: "ef" or "none"; see `suites.suite`.
        passed: the pass file, written when every expectation holds, else removed. The same data
            gives the same bytes.
        docs: folder for Great Expectations' Data Docs and our offline page.
        counts: rows expected per split; None, and splits it does not name, expect nothing.

    Raises:
        EchosynError: FileList.csv is missing, has no rows or is not a CSV file at all. A failed
            expectation does not raise here: call `require` on the result.
    """
    passed.unlink(missing_ok=True)
    filelist = folder / "FileList.csv"
    tables = read_tables(folder, counts)
    checks = suite(tables, gate, label, config.ef_tolerance, config.fps_tolerance)
    name = f"{gate} {folder.name}"
    outcomes = evaluate(checks, tables, docs, name)
    summary = {
        "rows": len(tables.values),
        "frames": int(tables.values["MeasuredNumberOfFrames"].sum()),
        "splits": {s: int(n) for s, n in zip(tables.splits.Split, tables.splits.Rows, strict=True)},
        "filelist_sha256": sha256_file(filelist),
        "videos_sha256": videos_digest(tables.values),
    }
    page = docs / PAGE
    write_text(page, render(f"Gate: {name}", outcomes, summary))
    if all(o.passed for o in outcomes):
        expectations = [
            {k: v for k, v in asdict(check).items() if k != "shows"} for check in checks
        ]
        write_json(passed, {"gate": gate, "label": label, "expectations": expectations, **summary})
    return GateResult(gate, folder, page, tuple(outcomes), len(tables.values))
