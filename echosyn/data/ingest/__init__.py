"""Turn any source into the canonical dataset folder: FileList.csv and Videos/*.avi, 112x112 grey.

A new kind of source is one module with a function like `echonet.ingest` and one line in ADAPTERS.
"""

from collections.abc import Callable
from pathlib import Path

from echosyn.data.ingest import dicom, echonet
from echosyn.data.ingest.canonical import FRAME_SIZE, IngestReport
from echosyn.errors import EchosynError
from echosyn.files import atomic_dir

__all__ = ["ADAPTERS", "FRAME_SIZE", "IngestReport", "ingest"]

# Dataset.source -> fill an empty folder `out` from `raw`: (raw, out, label) -> report
ADAPTERS: dict[str, Callable[[Path, Path, str], IngestReport]] = {
    "phantom": echonet.ingest,
    "echonet": echonet.ingest,
    "dicom": dicom.ingest,
}


def ingest(source: str, raw: Path, out: Path, label: str) -> IngestReport:
    """Write the canonical form of the dataset at `raw` to `out`, whole or not at all.

    Args:
        source: a key of ADAPTERS.
        raw: folder of the source. out: folder to make; an earlier one is replaced on success.
        label: "ef" when every video has an EF, "none" when EF, ESV and EDV may be empty.

    Raises:
        EchosynError: the source is unknown, a FileList cell is not acceptable (see
            `read_filelist`), or a video is missing, truncated, empty or cannot be decoded.
    """
    raw = Path(raw)
    if source not in ADAPTERS:
        raise EchosynError(f"source {source!r} is not one of {', '.join(ADAPTERS)}")
    if not raw.is_dir():
        raise EchosynError(f"{raw}: the raw dataset's folder does not exist")
    with atomic_dir(out) as tmp:
        return ADAPTERS[source](raw, tmp, label)
