"""What a release was made from: the settings and the hashes of every stage behind it."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from echosyn.runtime import lineage
from echosyn.runtime.code import PIPELINE, code_digest
from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError
from echosyn.training.curve import FOLDER as CURVES

ELSEWHERE = re.compile(r"^(/|~|\.\.|[A-Za-z]:[\\/]|\w+://)")


def provenance(root: Path, dataset: str) -> dict[str, Any]:
    """`{"params": ..., "lineage": {"data", "models", "code", "stages"}}` of a dataset's samples.

    `stages` has the digest of each stage's code, which its run has as the tag `code`.

    Covers the stages that `samples/<dataset>` and its evaluation came from, as dvc.lock recorded
    them. Paths outside the project are left out: they may name a hospital, a person or a machine.

    Raises:
        EchosynError: dvc.lock does not know the samples, or they are not what it recorded.
    """
    samples, metrics = f"samples/{dataset}", f"metrics/evaluate/{dataset}.json"
    stages = lineage.ancestors(lineage.read_lock(root), [samples, metrics])
    recorded = lineage.produced(stages)
    for path in (samples, metrics):
        if lineage.dvc_md5(root / path) != recorded.get(path):
            raise EchosynError(
                f"{path} is not what dvc.lock recorded: run dvc repro before a release"
            )
    params = Params(root)
    sources = {params.dataset(name).path for name in params.raw["datasets"]} - set(recorded)
    hashes = {path: md5 for stage in stages for path, md5 in {**stage.deps, **stage.outs}.items()}
    # Loss curves hold seconds: the same release, made again, would have others.
    hashes = {path: md5 for path, md5 in hashes.items() if not path.startswith(f"{CURVES}/")}
    outside = sorted(path for path in hashes if ELSEWHERE.match(path) or path in sources)
    groups: dict[str, dict[str, str]] = {"data": {}, "models": {}, "code": {}}
    for path, md5 in sorted(hashes.items()):
        name = f"source {outside.index(path) + 1}" if path in outside else path
        groups[_kind(name)][name] = md5
    commands = {stage.name: PIPELINE.search(stage.cmd) for stage in stages}
    groups["stages"] = {n: code_digest(found[1], root) for n, found in commands.items() if found}
    return {"params": {"scale": params.scale, **_settings(stages)}, "lineage": groups}


def _kind(path: str) -> str:
    if path.startswith(("echosyn/", "pipelines/")):
        return "code"
    return "models" if path.startswith(("models/", "weights/", "detectors")) else "data"


def _settings(stages: Iterable[lineage.Stage]) -> dict[str, Any]:
    """What the stages read of params.yaml, and of conf/<scale>/<stage>.yaml under the stage."""
    resolved: dict[str, Any] = {}
    for stage in stages:
        for file, values in stage.params.items():
            for key, value in values.items():
                keys = key.split(".") if file == "params.yaml" else [Path(file).stem, key]
                _merge(resolved, keys, _without_places(value))
    for entry in resolved.get("datasets", {}).values():
        entry.pop("path", None)
    return resolved


def _merge(into: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set the value at a path of keys; a mapping that lies there already is added to."""
    for key in keys[:-1]:
        into = into.setdefault(key, {})
    if isinstance(value, dict) and isinstance(into.get(keys[-1]), dict):
        into[keys[-1]] |= value
    else:
        into[keys[-1]] = value


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_places(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_places(v) for v in value]
    if isinstance(value, str) and ELSEWHERE.match(value):
        return "a local file"
    return value
