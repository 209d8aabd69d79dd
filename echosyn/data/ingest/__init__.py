"""Turn any source into the canonical dataset folder: FileList.csv and Videos/*.avi, 112x112 grey.

A new kind of source is one module with `Options` and `plan`, and one line in ADAPTERS.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

from echosyn.data.content import write_content
from echosyn.data.ingest import camus, cardiacnet, dicom, echonet, pediatric, table
from echosyn.data.ingest.canonical import FRAME_SIZE, IngestOptions, IngestReport, write_dataset
from echosyn.data.ingest.found import no_folder
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir

__all__ = ["ADAPTERS", "FRAME_SIZE", "IngestReport", "ingest"]

# Dataset.source -> module with a dataclass `Options` and
# `plan(raw: Path, label: str, options: Options) -> Plan`
ADAPTERS: dict[str, ModuleType] = {
    "phantom": echonet,
    "echonet": echonet,
    "pediatric": pediatric,
    "cardiacnet": cardiacnet,
    "camus": camus,
    "dicom": dicom,
    "table": table,
}


def ingest(
    source: str,
    raw: Path,
    out: Path,
    label: str,
    options: dict[str, Any] | None = None,
    max_rejects: int = 0,
    rejects: Path | None = None,
) -> IngestReport:
    """Write the canonical form of the dataset at `raw` to `out`, whole or not at all.

    Args:
        source: a key of ADAPTERS.
        raw: folder of the source. out: folder to make; an earlier one is replaced on success.
        label: "ef" when every video has an EF, "class" when every one has a Class, "none" when
            both may be empty.
        options: settings of the adapter's `Options`.
        max_rejects: videos that may be rejected; more are an error.
        rejects: CSV file to write, with a line for everything that was not taken: source, reason,
            and outcome (rejected, or skipped as not meant for this adapter). Written on failure
            too. It names raw files: keep it where the raw data may be.

    Raises:
        EchosynError: the source or an option is unknown, the raw folder is not of the source's
            form, more videos than `max_rejects` cannot be taken, or there are none.
    """
    raw = Path(raw)
    if source not in ADAPTERS:
        raise EchosynError(f"source {source!r} is not one of {', '.join(ADAPTERS)}")
    if not raw.is_dir():
        raise EchosynError(no_folder(raw))
    adapter = ADAPTERS[source]
    settings = build(adapter.Options, options, f"options of source {source}")
    with atomic_dir(out) as tmp:
        plan = adapter.plan(raw, label, settings)
        report = write_dataset(plan, tmp, label, IngestOptions(max_rejects, rejects))
        write_content(tmp)
    return report
