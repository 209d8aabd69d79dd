"""Projects in folders of odd names, and what is in a folder, for tests of both."""

import pytest

ODD = "Écho läb/projet 1 超"


def stand_in(folder, monkeypatch):
    """An empty project of an odd name below `folder`, where this process stands from now on."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    project = folder / ODD
    project.mkdir(parents=True)
    (project / "params.yaml").write_text("scale: smoke\n")
    monkeypatch.chdir(project)
    return project


def look(folder):
    """Every file and folder with its size and times: none can be written without a trace."""
    return {
        str(p): (s.st_mode, s.st_size, s.st_mtime_ns)
        for p in [folder, *folder.rglob("*")]
        for s in [p.stat()]
    }


def after_the_graph(test):
    """Mark a test that waits for the whole graph."""
    return pytest.mark.slow(pytest.mark.timeout(1800)(test))
