"""What MLflow is told of published versions."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from echosyn.release.manifest import MANIFEST, parse_manifest
from echosyn.release.store import Store
from echosyn.release.versions import APPROVED, CANDIDATE, Version
from echosyn.runtime.files import write_bytes
from echosyn.runtime.progress import track
from echosyn.tracking import recorded_release, release_run
from echosyn.tracking.release import models

CHAMPION = "champion"  # alias in the registry


def record_stage(store: Store, version: Version) -> None:
    """Tell the run of a version its stage. Champions are the models of the version that was
    approved last and not withdrawn.

    Raises:
        EchosynError: its manifest is out of reach, or the tracking store refuses us.
    """
    text, manifest = _manifest(store, version)
    approved = [v for v in store.versions(version.name) if v.staged and v.stage == APPROVED]
    last = max(
        approved, key=lambda v: v.staged.when if v.staged else v.published.when, default=None
    )
    with recorded_release(str(version), hashlib.sha256(text).hexdigest()) as run:
        run.tag("release.stage", version.standing)
        # Versions share models: taken first, then given.
        if version.stage != APPROVED:
            run.outbox.add("alias", models=models(manifest), alias=CHAMPION, given=False)
        if last:
            found = models(_manifest(store, last)[1])
            run.outbox.add("alias", models=found, alias=CHAMPION, given=True)


def record_versions(store: Store) -> int:
    """Record every published version that the tracking store does not have, oldest first, by its
    manifest alone; how many are published.

    Raises:
        EchosynError: as `record_stage`.
    """
    versions = store.versions()[::-1]
    with tempfile.TemporaryDirectory() as folder:
        for version in track(versions, "record", "version"):
            text, manifest = _manifest(store, version)
            write_bytes(Path(folder, MANIFEST), text)
            digest = hashlib.sha256(text).hexdigest()
            release_run(manifest, version.name, digest, Path(folder))
            if version.stage not in ("", CANDIDATE):
                record_stage(store, version)
    return len(versions)


def _manifest(store: Store, version: Version) -> tuple[bytes, dict[str, Any]]:
    text = store.manifest_bytes(version)
    return text, parse_manifest(text, f"{version}: {MANIFEST}")
