"""The notebooks run from the first cell to the last, on a small release."""

import json
from pathlib import Path

import pytest
from tiny_release import tiny_release

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs/notebooks").glob("*.ipynb"))


def cells(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield "".join(cell["source"]), "parameters" in cell["metadata"].get("tags", ())


@pytest.mark.slow
def test_load_release_trains_a_regressor(tmp_path, monkeypatch, capsys):
    import matplotlib

    matplotlib.use("agg")
    names = [f"v{i:02d}" for i in range(12)]
    release = tiny_release(tmp_path / "release", names, frames=8, side=32)
    before = {"RELEASE": str(release), "FRAMES": 4, "EPOCHS": 2}
    space: dict = {}
    for source, parameters in cells(NOTEBOOKS[0]):
        exec(compile(source, NOTEBOOKS[0].name, "exec"), space)
        if parameters:
            assert before.keys() <= space.keys()
            space |= before
    said = capsys.readouterr().out
    assert "tiny 1.0.0" in said
    assert "epoch 2: loss " in said
    assert "4 TEST videos\nMAE " in said
    assert space["predicted"].shape == space["true"].shape == (4,)
    assert space["true"].tolist() == [32.5, 35.5, 38.5, 41.5]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_names_no_place_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    assert not any(place in text for place in ("/home/", "/tmp/", "/work/", "/root/"))
