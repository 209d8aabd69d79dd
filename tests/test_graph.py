"""dvc.yaml against the code: a stage depends on every module whose edit could change its output."""

import ast
from functools import cache
from pathlib import Path

import pytest
import yaml

from echosyn.config import SCALES

ROOT = Path(__file__).parents[1]
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# These carry, record or draw, but compute nothing that a stage writes.
PLUMBING = {
    "echosyn/__init__.py",
    "echosyn/cluster/__init__.py",
    "echosyn/config.py",
    "echosyn/device.py",
    "echosyn/errors.py",
    "echosyn/files.py",
    "echosyn/lineage.py",
    "echosyn/progress.py",
    "echosyn/runtime.py",
    "echosyn/shards.py",
    "echosyn/tracking/__init__.py",
    "echosyn/training/checkpoint.py",
    "echosyn/training/curve.py",
    "pipelines/__init__.py",
    "pipelines/_stage.py",
}


def body(stage):
    return GRAPH[stage].get("do", GRAPH[stage])


def module_file(name):
    path = ROOT / name.replace(".", "/")
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate.relative_to(ROOT).as_posix()
    return None


@cache
def imports(file):
    """Files of ours that a file imports, at module level or inside functions."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] in ("echosyn", "pipelines") and (path := module_file(name)):
                found.add(path)
    return found


def covered(file, deps):
    return any(file == d or file.startswith(f"{d}/") for d in deps)


@pytest.mark.parametrize("stage", GRAPH)
def test_direct_imports_of_a_stage_are_its_dependencies(stage):
    deps = body(stage)["deps"]
    file = body(stage)["cmd"].split()[2].replace(".", "/") + ".py"
    assert file in deps
    needed = imports(file) - PLUMBING
    missing = {
        f
        for f in needed
        if not covered(f, deps) and not f.endswith("__init__.py") and "report/" not in f
    }
    assert not missing, f"{stage} does not declare {sorted(missing)}"


@pytest.mark.parametrize("stage", GRAPH)
def test_declared_files_exist_and_params_are_tracked(stage):
    spec = body(stage)
    for dep in spec["deps"]:
        if dep.startswith(("echosyn/", "pipelines/")):
            assert (ROOT / dep).exists(), dep
    name = spec["cmd"].split()[2].removeprefix("pipelines.")
    confs = {k for p in spec.get("params", []) if isinstance(p, dict) for k in p}
    for scale in SCALES:
        if (ROOT / "conf" / scale / f"{name}.yaml").is_file():
            assert f"conf/${{scale}}/{name}.yaml" in confs
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    if name in sections and name not in ("animate", "classify", "fingerprint", "phantom"):
        assert name in spec["params"], f"{stage} reads params section {name} without tracking it"


def test_the_seconds_of_a_forecast_are_those_of_stages():
    listed = yaml.safe_load((ROOT / "conf/demo/seconds.yaml").read_text())
    names = {s.partition("@")[0] for s in GRAPH}
    assert set(listed["stages"]) <= names
    assert all(v > 0 for v in [listed["speed"], *listed["stages"].values()])


def test_every_conf_file_belongs_to_a_stage_and_loads_at_every_scale():
    scales = [p for p in (ROOT / "conf").iterdir() if p.name != "presets"]
    assert {p.name for p in scales} == set(SCALES)
    names = {p.name for folder in scales for p in folder.glob("*.yaml")} - {"seconds.yaml"}
    stages = {body(s)["cmd"].split()[2].removeprefix("pipelines.") for s in GRAPH}
    assert {n.removesuffix(".yaml") for n in names} <= stages
    for name in names:
        assert all((ROOT / "conf" / s / name).is_file() for s in SCALES), name
