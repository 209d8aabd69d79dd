"""What a release was made from: the settings and the hashes of every stage behind it."""

import re
from pathlib import Path
from typing import Any

from echosyn import lineage
from echosyn.config import STAGES, Params, read_yaml
from echosyn.errors import EchosynError

ELSEWHERE = re.compile(r"^(/|~|\.\.|[A-Za-z]:[\\/]|\w+://)")


def provenance(root: Path, dataset: str) -> dict[str, Any]:
    """`{"params": ..., "lineage": {"data", "models", "code"}}` of the samples of a dataset.

    Covers the stages that `samples/<dataset>` and its evaluation came from, by dvc.lock. Names of
    places outside the project are left out: they may name a hospital, a person or a machine.

    Raises:
        EchosynError: dvc.lock does not know the samples, or they are not what it recorded.
    """
    samples, metrics = f"samples/{dataset}", f"metrics/evaluate/{dataset}.json"
    stages = lineage.ancestors(lineage.read_lock(root), [samples, metrics])
    recorded = lineage.produced(stages)
    for path in (samples, metrics):
        if path in recorded and lineage.dvc_md5(root / path) != recorded[path]:
            raise EchosynError(
                f"{path} is not what dvc.lock recorded: run dvc repro before a release"
            )
    params = Params(root)
    source = params.dataset(dataset).path
    hashes = {path: md5 for stage in stages for path, md5 in {**stage.deps, **stage.outs}.items()}
    outside = sorted(
        path
        for path in hashes
        if ELSEWHERE.match(path) or (path == source and path not in recorded)
    )
    groups: dict[str, dict[str, str]] = {"data": {}, "models": {}, "code": {}}
    for path, md5 in sorted(hashes.items()):
        kind = "code" if _is_code(path) else "models" if path.startswith("models/") else "data"
        name = f"source {outside.index(path) + 1}" if path in outside else path
        groups[kind][name] = md5
    names = {stage.name.partition("@")[0] for stage in stages}
    return {"params": _settings(params, dataset, names), "lineage": groups}


def _is_code(path: str) -> bool:
    return path.startswith(("echosyn/", "pipelines/", "conf/"))


def _settings(params: Params, dataset: str, stages: set[str]) -> dict[str, Any]:
    """Each stage's conf file overlaid with its section of params.yaml."""
    entry = {k: v for k, v in params.raw["datasets"][dataset].items() if k != "path"}
    resolved: dict[str, Any] = {"scale": params.scale, "seed": params.seed, "dataset": entry}
    for stage in (s for s in STAGES if s in stages):
        conf = params.root / "conf" / params.scale / f"{stage}.yaml"
        sizes = read_yaml(conf) if conf.exists() else {}
        resolved[stage] = {**sizes, **(params.raw.get(stage) or {})}
    return _without_places(resolved)


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_places(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_places(v) for v in value]
    if isinstance(value, str) and ELSEWHERE.match(value):
        return "a local file"
    return value
