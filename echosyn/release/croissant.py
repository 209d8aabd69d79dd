"""croissant.json: a release described for machines, so that its records load without own code.

Croissant 1.1 with its vocabulary for responsible AI (https://docs.mlcommons.org/croissant/docs/).
The videos are named as a set of files and are no records: mlcroissant reads no AVI.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from echosyn.data.filelist import PHASE, SPLITS, TRACINGS
from echosyn.release.card import spdx
from echosyn.release.composition import composition
from echosyn.release.datasheet import column_meanings
from echosyn.release.manifest import PHASES
from echosyn.release.render import render
from echosyn.runtime.files import sha256_file

CROISSANT = "croissant.json"
FILELIST = "FileList.csv"
SPLIT_KINDS = dict(
    zip(SPLITS, ("cr:TrainingSplit", "cr:ValidationSplit", "cr:TestSplit"), strict=True)
)
# The context that the specification asks for, with the vocabularies used beside its own.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{
        term: f"cr:{term}"
        for term in (
            *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract"),
            *("field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray"),
            *("isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
            *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source"),
            *("subField", "transform"),
        )
    },
}


def croissant(folder: Path, manifest: Mapping[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    """The description of a release.

    Args:
        folder: the release, with its tables written.
        manifest: the manifest, which may still lack its `files`. table: the FileList.
    """
    about = composition(table, manifest["params"])
    stated, license = manifest["stated"], manifest["license"]
    known = spdx(license)
    optional = {
        "url": stated.get("url"),
        "datePublished": stated.get("published"),
        "citeAs": stated.get("citation"),
        "creator": [{"@type": "sc:Organization", "name": n} for n in stated.get("creators", ())],
        "rai:dataReleaseMaintenancePlan": stated.get("updates"),
    }
    record_sets = [_splits(), _records("videos", FILELIST, list(table))]
    if about["phases"]:
        record_sets.append(_records("phases", PHASES, ["FileName", "Frame", PHASE]))
    tables = [name for name in (FILELIST, TRACINGS, PHASES) if (folder / name).is_file()]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.1",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": manifest["name"],
        "version": manifest["version"],
        "license": f"https://spdx.org/licenses/{known}" if known else license,
        "isLiveDataset": False,
        **yaml.safe_load(render("croissant.yaml.j2", manifest=manifest, about=about)),
        **{key: value for key, value in optional.items() if value},
        "distribution": [*(_file(folder, name) for name in tables), _videos()],
        "recordSet": record_sets,
    }


def _file(folder: Path, name: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{(folder / name).stat().st_size} B",
        "encodingFormat": "text/csv",
        "sha256": sha256_file(folder / name),
    }


def _videos() -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": "video-files",
        "name": "video-files",
        "description": "One motion-JPEG video per record, Videos/<FileName>.avi.",
        "encodingFormat": "video/x-msvideo",
        "includes": "Videos/*.avi",
    }


def _splits() -> dict[str, Any]:
    fields = {"name": "sc:Text", "url": "sc:URL"}
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": f"splits/{name}", "name": name, "dataType": kind}
            for name, kind in fields.items()
        ],
        "data": [{"splits/name": k, "splits/url": v} for k, v in SPLIT_KINDS.items()],
    }


def _records(record_set: str, file: str, columns: list[str]) -> dict[str, Any]:
    """A record per row of a table; splits and names of videos refer to where they are listed."""
    meanings = column_meanings()
    homes: dict[str, dict[str, Any]] = {"Split": {"field": {"@id": "splits/name"}}}
    if file != FILELIST:  # its file: mlcroissant joins no record set that is joined itself
        listed = {"fileObject": {"@id": FILELIST}, "extract": {"column": "FileName"}}
        homes["FileName"] = listed
    keys = [name for name in ("FileName", "Frame") if name in columns]
    return {
        "@type": "cr:RecordSet",
        "@id": record_set,
        "name": record_set,
        "key": [{"@id": f"{record_set}/{name}"} for name in keys],
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{record_set}/{name}",
                "name": name,
                "description": meanings[name][1],
                "dataType": f"sc:{meanings[name][0]}",
                "source": {"fileObject": {"@id": file}, "extract": {"column": name}},
                **({"references": homes[name]} if name in homes else {}),
            }
            for name in columns
        ],
    }
