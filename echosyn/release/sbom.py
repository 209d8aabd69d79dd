"""The software that was installed when a release was made, as a CycloneDX 1.6 bill of materials.

The same environment gives the same bytes: there is no time in it, and the serial number follows
from the content. Earlier stages may have run elsewhere; the manifest has the md5 of their code.
https://cyclonedx.org/docs/1.6/json/
"""

import contextlib
import json
import platform
import uuid
from importlib import metadata
from typing import Any
from urllib.parse import quote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from echosyn import __version__


def sbom() -> dict[str, Any]:
    """The bill of materials of this interpreter's environment."""
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        # The first of a name is the one that is imported; a broken installation has no name.
        if name := _field(distribution, "Name"):
            found.setdefault(canonicalize_name(name), distribution)
    found.pop("echosyn", None)
    refs = {name: _purl("pypi", name, found[name].version) for name in sorted(found)}
    python, version = platform.python_implementation(), platform.python_version()
    interpreter = _purl("generic", python.lower(), version)
    root = _purl("pypi", "echosyn", __version__)
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _component("application", "echosyn", __version__, root)},
        "components": [
            _component("platform", python, version, interpreter),
            *(
                _component("library", d.metadata["Name"], d.version, refs[name]) | _license(d)
                for name, d in sorted(found.items())
            ),
        ],
        "dependencies": [
            {"ref": root, "dependsOn": [interpreter, *refs.values()]},
            *({"ref": refs[name], "dependsOn": _needs(found[name], refs)} for name in refs),
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bom, sort_keys=True))
    return {**bom, "serialNumber": f"urn:uuid:{serial}"}


def _field(distribution: metadata.Distribution, name: str) -> str:
    """A line of a package's metadata, empty where it has none."""
    return next(iter(distribution.metadata.get_all(name) or ()), "")


def _purl(kind: str, name: str, version: str) -> str:
    """https://github.com/package-url/purl-spec"""
    return f"pkg:{kind}/{name}@{quote(version, safe='.-')}"


def _component(kind: str, name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": kind, "name": name, "version": version, "purl": purl, "bom-ref": purl}


def _license(distribution: metadata.Distribution) -> dict[str, Any]:
    """What the package declares of its licence, nothing where it declares none."""
    if expression := _field(distribution, "License-Expression"):
        return {"licenses": [{"expression": expression, "acknowledgement": "declared"}]}
    names = [
        c.rpartition(" :: ")[2]
        for c in distribution.metadata.get_all("Classifier") or ()
        if c.startswith("License :: ") and c != "License :: OSI Approved"
    ]
    text = _field(distribution, "License").strip()
    if not names and text and "\n" not in text:  # some put the whole text there
        names = [text]
    licenses = [{"license": {"name": n, "acknowledgement": "declared"}} for n in names]
    return {"licenses": licenses} if licenses else {}


def _needs(distribution: metadata.Distribution, refs: dict[str, str]) -> list[str]:
    """References to the installed packages that a package asks for, without extras."""
    names = set()
    for text in distribution.requires or ():
        with contextlib.suppress(InvalidRequirement):  # of a package from before PEP 508
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                names.add(canonicalize_name(wanted.name))
    return sorted(refs[name] for name in names & set(refs))
