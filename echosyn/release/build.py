"""Make a release folder out of a folder of synthetic videos."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from echosyn import __version__
from echosyn.data.filelist import (
    BEAT,
    CLASS,
    COLUMNS,
    EF_KIND,
    EF_TRUTH,
    PATIENT,
    frame_phases,
    read_filelist,
    video_path,
    write_filelist,
)
from echosyn.privacy.gate.requirements import AUDIT, Thresholds, hold_against
from echosyn.release.card import card
from echosyn.release.composition import by_split
from echosyn.release.croissant import CROISSANT, croissant
from echosyn.release.datasheet import Stated, datasheet
from echosyn.release.leaks import real_names, refuse_leaks
from echosyn.release.manifest import MANIFEST, PHASES, SCHEMA, file_table
from echosyn.release.sbom import sbom
from echosyn.release.sign import sign
from echosyn.release.tracings import add_tracings
from echosyn.report.numbers import texts
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, read_json, sha256_file, write_json, write_text
from echosyn.runtime.progress import track

# https://semver.org, the suggested regular expression with its build part left out.
VERSION = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
)
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class ReleaseConfig:
    """What a person decides about a release."""

    version: str = setting(help="semantic version, for example 1.0.0")
    license: str = setting(help="licence of the synthetic data: an SPDX identifier or a name")
    name: str | None = setting(None, help="name of the dataset; None: echosyn-<dataset>")
    datasheet: Stated = setting(Stated(), help="what only people know, for DATASHEET.md")

    def check(self) -> str | None:
        if not VERSION.fullmatch(self.version):
            return f"version: {self.version!r} is not a semantic version such as 1.0.0"
        if self.name is not None and not NAME.fullmatch(self.name):
            return f"name: {self.name!r} may hold only a-z, 0-9, '.', '_' and '-'"
        if not self.license.strip() or "\n" in self.license:
            return "license: name one, on one line"
        return None


def build_release(
    samples: Path,
    real: Path,
    out: Path,
    *,
    config: ReleaseConfig,
    name: str,
    label: str,
    provenance: Mapping[str, Any],
    metrics: Mapping[str, float | str],
    key: Ed25519PrivateKey | None = None,
    tracings: Path | None = None,
) -> dict[str, Any]:
    """Write the release of `samples` to `out`, whole or not at all.

    First the data, then the documents that describe them, then the manifest with the hashes of all,
    then its signature; at last every file is searched for what must not leave the house.

    Args:
        samples: synthetic videos in EchoNet layout.
        real: the real dataset they imitate, to refuse its names, pseudonyms and files.
        name: the release's name. label: "ef", "class" or "none", as for `read_filelist`.
        provenance: `params` and `lineage`, from `echosyn.release.provenance`.
        metrics: the flat numbers of the evaluation.
        key: signs the manifest; None: it is not signed.
        tracings: folder of the stage trace.

    Returns:
        the manifest.

    Raises:
        EchosynError: a sample carries the name, the pseudonym or the bytes of a real video, or
            a video is missing.
    """
    table = read_filelist(samples / "FileList.csv", label)
    known = read_filelist(real / "FileList.csv", label)
    _refuse_real(samples, table, real, known)
    with atomic_dir(out) as partial:
        (partial / "Videos").mkdir()
        for sample in track(table["FileName"], "release", "video"):
            shutil.copyfile(video_path(samples, sample), video_path(partial, sample))
        columns = [*COLUMNS, *([CLASS] if label == "class" else []), *EF_TRUTH, EF_KIND, *BEAT]
        kept = table[[c for c in columns if c in table]]
        kept, traced = add_tracings(tracings, partial, kept) if tracings else (kept, None)
        write_filelist(partial / "FileList.csv", kept)
        if len(phases := frame_phases(kept)):
            write_text(partial / PHASES, phases.to_csv(index=False, lineterminator="\n"))
        manifest = {
            "schema": SCHEMA,
            "name": name,
            "version": config.version,
            "license": config.license,
            "synthetic": True,
            "generator": f"echosyn {__version__}",
            "videos": len(table),
            "splits": by_split(table),
            "real": _real_counts(known),
            "stated": config.datasheet.given(),
            **({"tracings": traced} if traced else {}),
            **provenance,
            "metrics": {k: v for k, v in metrics.items() if not isinstance(v, str)},
            "protocol": texts(metrics),
        }
        write_json(partial / "sbom.cdx.json", sbom())
        write_json(partial / CROISSANT, croissant(partial, manifest, kept))
        write_text(partial / "README.md", card(manifest, kept))
        write_text(partial / "DATASHEET.md", datasheet(manifest, kept))
        manifest["files"] = file_table(partial)
        write_json(partial / MANIFEST, manifest)
        if key is not None:
            sign(partial, key)
        refuse_leaks(partial, real_names(real, label), people=())
    return manifest


def require_gate(gate: Path, samples: Path) -> None:
    """Refuse samples that the release gate did not pass, or that are not those it passed.

    Args:
        gate: the file that the gate leaves when the samples pass.
    """
    again = "run dvc repro, or the stage validate_release"
    if not gate.exists():
        raise EchosynError(f"{gate} does not exist: no gate has passed {samples}; {again}")
    if read_json(gate).get("filelist_sha256") != sha256_file(samples / "FileList.csv"):
        raise EchosynError(f"{gate} is about other samples than those in {samples}; {again}")


def require_audit(audit: Path, samples: Path, thresholds: Thresholds) -> None:
    """Refuse samples that the privacy audits did not pass, or that are not those they looked at.

    Args:
        audit: folder of the stage privacy_audit.

    Raises:
        EchosynError: no audit, one of other samples, or checks that did not pass, each with its
            numbers.
    """
    again = "run dvc repro, or the stage privacy_audit"
    path = audit / AUDIT
    if not path.exists():
        raise EchosynError(f"{path} does not exist: nobody has audited {samples}; {again}")
    found = read_json(path)
    if found.get("filelist_sha256") != sha256_file(samples / "FileList.csv"):
        raise EchosynError(f"{path} is about other samples than those in {samples}; {again}")
    hold_against(found["numbers"], thresholds).enforce(
        f"{samples} (see pages/{audit.name}/privacy.html)"
    )


def _real_counts(known: pd.DataFrame) -> dict[str, Any]:
    """Videos by split of the real dataset, and its patients where the list tells them apart."""
    named = known[known[PATIENT] != ""][PATIENT] if PATIENT in known else pd.Series()
    patients = {"patients": named.nunique()} if len(named) else {}
    return {"videos": by_split(known), **patients}


def _refuse_real(samples: Path, table: pd.DataFrame, real: Path, known: pd.DataFrame) -> None:
    names = set(known["FileName"].str.lower())
    if PATIENT in known.columns:
        names |= set(known[PATIENT].astype(str).str.lower())
    by_size: dict[int, list[Path]] = {}
    for name in known["FileName"]:
        path = video_path(real, name)
        by_size.setdefault(path.stat().st_size, []).append(path)
    for name in table["FileName"]:
        if name.lower() in names:
            raise EchosynError(
                f"{samples}/FileList.csv: FileName {name!r} is the name of a real video or patient "
                "in the dataset: sample again, a release must not point to a patient"
            )
        path = video_path(samples, name)
        if not path.is_file():
            raise EchosynError(
                f"{path}: the video is missing, though FileList.csv names it: run "
                "sample_videos again"
            )
        alike = by_size.get(path.stat().st_size, [])
        if alike and sha256_file(path) in map(sha256_file, alike):
            raise EchosynError(f"{path}: a real video, byte for byte: it must not be released")
