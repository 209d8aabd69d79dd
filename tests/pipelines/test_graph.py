"""dvc.yaml against the code: a stage depends on every module whose edit could change its output."""

import re
import textwrap
from pathlib import Path

import pytest
import yaml

from echosyn.runtime.code import code_digest, imports, modules, with_code
from echosyn.runtime.config import SCALES

ROOT = Path(__file__).parents[2]
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def body(stage):
    return GRAPH[stage].get("do", GRAPH[stage])


def covered(file, deps):
    return any(file == d or file.startswith(f"{d}/") for d in deps)


def test_code_among_the_dependencies_is_the_closure_of_imports():
    """After a change of imports: python -m echosyn.runtime.code"""
    text = (ROOT / "dvc.yaml").read_text()
    assert with_code(text) == text


def test_folders_of_videos_count_by_their_content():
    """DVC looks at each file of a folder for every stage that depends on it."""
    whole = re.compile(r"(data|reconstructions)/[^/]+/[^/]+|(candidates|samples|releases)/[^/]+")
    found = {stage for stage in GRAPH if any(map(whole.fullmatch, body(stage).get("deps", [])))}
    assert found == {"validate_raw", "validate_release", "release"}


@pytest.fixture
def package(tmp_path):
    """A stage that imports in every way, and what it then depends on."""
    files = {
        "pipelines/make.py": """
            from typing import TYPE_CHECKING
            import echosyn.a
            from echosyn import b
            from echosyn.runtime.files import write_text
            if TYPE_CHECKING:
                from echosyn.types_only import T
            def main():
                from echosyn.pack import inner
                from echosyn.report.plots import draw
        """,
        "pipelines/report.py": "from echosyn.report.plots import draw",
        "echosyn/__init__.py": "__version__ = '1'",
        "echosyn/a.py": "from echosyn.deep.d import x, y",
        "echosyn/b.py": "CALL = ['-m', 'echosyn.served']; FILE = 'sizes.json'",
        "echosyn/served.py": "",
        "echosyn/sizes.json": "{}",
        "echosyn/unread.json": "{}",
        "echosyn/deep/__init__.py": '"""Nothing."""',
        "echosyn/deep/d.py": "from echosyn import a",
        "echosyn/pack/__init__.py": "from echosyn.pack.used import x",
        "echosyn/pack/inner.py": "",
        "echosyn/pack/used.py": "",
        "echosyn/report/plots.py": "from echosyn.other import x",
        "echosyn/other.py": "",
        "echosyn/runtime/files.py": "from echosyn.elsewhere import x",
        "echosyn/elsewhere.py": "",
        "echosyn/types_only.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path


def test_a_closure_follows_imports_and_leaves_out_what_runs_records_and_draws(package):
    deep = {f"echosyn/{n}" for n in ("a.py", "b.py", "served.py", "sizes.json", "deep/d.py")}
    pack = {f"echosyn/pack/{n}.py" for n in ("__init__", "inner", "used")}
    assert set(modules("make", package)) == {"pipelines/make.py"} | deep | pack
    drawn = {"pipelines/report.py", "echosyn/report/plots.py", "echosyn/other.py"}
    assert set(modules("report", package)) == drawn


# From what all use to what uses all; a package imports only those before it.
PACKAGES = [
    *("runtime", "arithmetic", "data", "models", "metrics", "encoding", "diffusion", "privacy"),
    *("tracking", "training", "beat", "segmentation", "anomaly", "evaluation", "attribution"),
    *("report", "validation", "synthesis", "app", "release", "project", "cluster"),
]
PRIVACY = ["detectors", "attacks", "filters", "coverage", "gate"]


def test_packages_import_only_those_below_them():
    files = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "echosyn").glob("*/**/*.py"))
    assert {f.split("/")[1] for f in files} == set(PACKAGES)
    order = {name: i for i, name in enumerate(PACKAGES)}
    upward = {
        (file, target)
        for file in files
        for target in imports(ROOT, file)
        if target.count("/") > 1 and order[target.split("/")[1]] > order[file.split("/")[1]]
    }
    assert not upward
    parts = {name: i for i, name in enumerate(PRIVACY)}
    inside = [f for f in files if f.startswith("echosyn/privacy/") and f.count("/") == 3]
    assert {f.split("/")[2] for f in inside} == set(PRIVACY)
    upward = {
        (file, target)
        for file in inside
        for target in imports(ROOT, file)
        if target.startswith("echosyn/privacy/")
        and target.count("/") == 3
        and parts[target.split("/")[2]] > parts[file.split("/")[2]]
    }
    assert not upward


def test_a_graph_gets_folders_for_all_that_they_hold_and_keeps_its_data(package):
    graph = 'a:\n  cmd: python -m pipelines.make\n  deps: [data/x, echosyn/gone.py, "y/${i}"]\n'
    deps = yaml.safe_load(with_code(graph, package))["a"]["deps"]
    assert deps[:2] == ["data/x", "y/${i}"]
    assert set(deps[2:]) == {
        "echosyn/a.py",
        "echosyn/b.py",
        "echosyn/deep/d.py",
        "echosyn/pack",
        "echosyn/served.py",
        "echosyn/sizes.json",
        "pipelines/make.py",
    }


def test_state_to_resume_from_is_of_the_code_that_made_it(package, monkeypatch):
    first = code_digest("make", package)
    assert first != code_digest("report", package)
    assert first == code_digest("make", package)
    (package / "echosyn/elsewhere.py").write_text("x = 1")
    assert first == code_digest("make", package)
    (package / "echosyn/deep/d.py").write_text("from echosyn import a\nx = y = 1")
    assert first != code_digest("make", package)


# Modules, and the stages that run again when one is edited.
EDITS = {
    "echosyn/runtime/files.py": "",
    "echosyn/tracking/outbox.py": "",
    "echosyn/report/templates/style.css": "privacy_page report",
    "echosyn/report/privacy_plots.py": "privacy_page",
    "echosyn/data/phantom/speckle.py": "phantom train_anomaly",
    "echosyn/anomaly/kinds.py": "train_anomaly",
    "echosyn/models/discriminator.py": "train_vae",
    "echosyn/models/speckle.py": "filter_videos privacy_audit privacy_page sample_videos speckle "
    "weak_segmentation",
    "echosyn/training/reid.py": "train_reid",
    "echosyn/synthesis/replace.py": "filter_videos",
    "echosyn/privacy/coverage/learned_fraction.py": "privacy_audit privacy_page",
    "echosyn/metrics/frechet.py": "evaluate",
    "echosyn/training/folds.py": "classify",
    "echosyn/metrics/roc.py": "animate attribution classify evaluate filter_videos privacy_audit "
    "privacy_page sample_videos trace train_anomaly train_reid weak_segmentation",
    "echosyn/attribution/variance.py": "attribution",
    "echosyn/attribution/masks.py": "weak_segmentation",
    "echosyn/release/card.py": "release",
    "echosyn/validation/expectations/camus.yaml": "validate_latents validate_raw validate_release",
    "echosyn/metrics/i3d_rgb_scratch.json": "evaluate",
    "echosyn/training/arms.py": "classify evaluate train_ef_arms train_ef_real "
    "train_ef_real_plus_synthetic train_ef_reconstructed train_ef_synthetic "
    "train_ef_synthetic_relabelled",
}


@pytest.mark.parametrize("file", EDITS)
def test_an_edit_runs_those_stages_again_that_it_concerns(file):
    assert {s for s in GRAPH if covered(file, body(s)["deps"])} == set(EDITS[file].split())


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
    entries = ("animate", "classify", "canary", "attribution", "weak_segmentation", "phantom")
    if name in sections and name not in entries:
        assert name in spec["params"], f"{stage} reads params section {name} without tracking it"


def test_the_seconds_of_a_forecast_are_those_of_stages():
    listed = yaml.safe_load((ROOT / "conf/demo/seconds.yaml").read_text())
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    asked = {
        name
        for name, stage in GRAPH.items()
        if "foreach" not in stage or sections[stage["foreach"].strip("${}")]
    }
    assert set(listed["stages"]) == asked
    assert all(v > 0 for v in [listed["speed"], *listed["stages"].values()])


def test_every_conf_file_belongs_to_a_stage_and_loads_at_every_scale():
    scales = [p for p in (ROOT / "conf").iterdir() if p.name != "presets"]
    assert {p.name for p in scales} == set(SCALES)
    names = {p.name for folder in scales for p in folder.glob("*.yaml")} - {"seconds.yaml"}
    stages = {body(s)["cmd"].split()[2].removeprefix("pipelines.") for s in GRAPH}
    assert {n.removesuffix(".yaml") for n in names} <= stages
    for name in names:
        assert all((ROOT / "conf" / s / name).is_file() for s in SCALES), name
