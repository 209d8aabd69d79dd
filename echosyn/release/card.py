"""The card of a release: what a stranger should know before using the videos.

Its YAML head is what the Hugging Face Hub reads of a dataset
(https://huggingface.co/docs/hub/datasets-cards).
"""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
import yaml
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from echosyn.data.filelist import CLASS
from echosyn.release.composition import composition
from echosyn.release.manifest import PHASES
from echosyn.release.render import render
from echosyn.release.sign import NAMESPACE, SIGNATURE
from echosyn.report.numbers import privacy_sentences, tables

# Those for data among https://huggingface.co/docs/hub/repositories-licenses.
HUB = re.compile(
    r"cc0-1\.0|cc-by-(2\.0|2\.5|3\.0|4\.0)|cc-by-sa-[34]\.0|cc-by-nc-[234]\.0|cc-by-nd-4\.0"
    r"|cc-by-nc-nd-[34]\.0|cc-by-nc-sa-[234]\.0|cdla-(sharing-1|permissive-[12])\.0"
    r"|c-uda|odc-by|odbl|pddl|etalab-2\.0|apache-2\.0|mit|unlicense"
)
VERSIONED = re.compile(r"(c-uda|odc-by|odbl|pddl)-1\.0")  # by SPDX; the Hub leaves out the version
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")


def card(manifest: Mapping[str, Any], table: pd.DataFrame) -> str:
    """Markdown text of a release's README.

    Args:
        manifest: the manifest, which may still lack its `files`.
        table: the FileList of the release.
    """
    about = composition(table, manifest["params"])
    return render(
        "README.md.j2",
        head=yaml.safe_dump(_head(manifest, table, about), sort_keys=False),
        manifest=manifest,
        about=about,
        privacy=privacy_sentences(manifest["metrics"], manifest["videos"]),
        tables=tables(manifest["metrics"]),
        signature=SIGNATURE,
        namespace=NAMESPACE,
    )


def spdx(license: str) -> str | None:
    """The identifier in SPDX's list that a name is, in any case; None where it is none."""
    try:
        found = canonicalize_license_expression(license)
    except InvalidLicenseExpression:
        return None
    return None if " " in found or found.startswith("LicenseRef-") else found


def _head(
    manifest: Mapping[str, Any], table: pd.DataFrame, about: Mapping[str, Any]
) -> dict[str, Any]:
    """What the Hub reads. Its viewer gets the tables: it plays no motion-JPEG."""
    configs = {"videos": "FileList.csv"} | ({"phases": PHASES} if about["phases"] else {})
    labels = [label for label in ("EF", CLASS) if label in table and table[label].notna().any()]
    return {
        "pretty_name": f"{manifest['name']} {manifest['version']} (synthetic)",
        **_license(manifest["license"]),
        "task_categories": ["video-classification" if labels else "other"],
        "size_categories": [SIZES[min(max(len(str(len(table))) - 3, 0), len(SIZES) - 1)]],
        "annotations_creators": ["machine-generated" if labels else "no-annotation"],
        "tags": [
            *("synthetic", "medical", "echocardiography", "ultrasound", "video"),
            *(["ejection-fraction"] if about["ef"] else []),
            *(["phantom"] if about["phantom"] else []),
        ],
        # The Hub cannot split a file by its column Split.
        "configs": [
            {"config_name": name, "data_files": [{"split": "all_rows", "path": file}]}
            for name, file in configs.items()
        ],
    }


def _license(license: str) -> dict[str, str]:
    known = VERSIONED.sub(r"\1", (spdx(license) or "").lower())
    if HUB.fullmatch(known):
        return {"license": known}
    name = re.sub(r"[^a-z0-9.]+", "-", license.lower()).strip("-")
    return {"license": "other", "license_name": name or "unnamed"}
