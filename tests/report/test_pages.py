"""What all pages share: structure, colours, and pictures that fit."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jinja2
import numpy as np
import pytest
from html_page import problems

from echosyn.report import html
from echosyn.report.build import since
from echosyn.report.headlines import headlines
from echosyn.report.mosaic import moving
from echosyn.runtime.errors import EchosynError

TEMPLATES = Path(html.__file__).with_name("templates")
GOOD = (
    '<html lang="en"><h1>a</h1><h2 id="b">b</h2><a href="#b">b</a><a href="x/y.html">c</a>'
    '<img alt="d" src="data:image/png;base64,xx"></html>'
)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (' lang="en"', "", "no lang"),
        ("<h1>a</h1>", "", "not one h1"),
        ('<h2 id="b">b</h2>', '<h3 id="b">b</h3>', "h3 follows h1"),
        (' alt="d"', "", "no alt"),
        ("<h1>", '<h1 id="b">', "id b twice"),
        ('"#b"', '"#c"', "#c is nowhere"),
        ("x/y.html", "https://x/y.html", "fetches https://x"),
        ("data:image/png", "pic.png?", "fetches pic.png"),
        ("</html>", "<style>@import 'x.css';</style></html>", "x.css"),
        ("</html>", "<table><tr><th>a</th></tr></table></html>", "th without scope"),
        ("</html>", "<table></table></html>", "without a box"),
        ("</html>", "<p><ul></ul></p></html>", "<ul> within <p>"),
        ("</html>", '<input id="q"></html>', "no label: q"),
        ("</html>", "<b></html>", "</html> closes b"),
    ],
)
def test_a_defect_of_a_page_is_found(old, new, named):
    assert problems(GOOD) == []
    assert any(named in one for one in problems(GOOD.replace(old, new)))


def schemes() -> list[dict[str, str]]:
    """Colours by name, in the light and in the dark scheme."""
    css = (TEMPLATES / "style.css").read_text()
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{([^}]*)\}", css)
    )
    assert set(light) == set(dark)
    return [light, dark]


def luminance(colour: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the known near miss


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_in_both_schemes(scheme):
    """Every text colour of the style sheet, on its rule's background or on page and cards."""
    colours = schemes()[scheme]
    pairs = {("ink", "card")}
    for rule in re.findall(r"\{([^{}]*)\}", (TEMPLATES / "style.css").read_text()):
        ground = re.findall(r"background: var\(--(\w+)\)", rule) or ["page", "card"]
        inks = re.findall(r"(?:^|[;\s])(?:color|fill): var\(--(\w+)\)", rule)
        pairs |= {(ink, on) for ink in inks for on in ground}
    assert len(pairs) > 8
    low = {p: c for p in pairs if (c := contrast(*(colours[name] for name in p))) < 4.5}
    assert not low


def test_a_value_that_a_template_names_must_be_there():
    with pytest.raises(jinja2.UndefinedError):
        html.render("report.html", title="x")


def test_a_mosaic_slows_down_until_it_fits_and_then_stands_still():
    noise = np.random.default_rng(0).integers(0, 255, (64, 32, 32), np.uint8)
    whole = moving([(noise, 32.0)], 32.0, 2.0, 1, 10**9, "noise")
    half = moving([(noise, 32.0)], 32.0, 2.0, 1, len(whole.image) - 1, "noise")
    still = moving([(noise, 32.0)], 32.0, 2.0, 1, 0, "noise")
    assert len(whole.still) < len(half.image) < len(whole.image)
    assert (whole.alt, half.alt, still.alt) == ("noise", "noise", "first frames of noise")
    assert still.image == whole.still
    slow = moving([(noise, 5.0)], 5.0, 2.0, 1, 10**9, "noise")  # as it is, though below SLOWEST
    assert slow.image != slow.still


def test_headlines_stand_beside_their_floor():
    (tile, rate) = headlines(
        {
            "quality/kd_motion_21f_ef_lt40_n9x9": 9.0,
            "quality/kd_motion_21f_n100x100": 7.0,
            "quality/kd_motion_21f_n100x100_lo": 5.0,
            "quality/kd_motion_21f_n100x100_hi": 8.0,
            "quality/kd_motion_21f_n100x100_floor": 3.0,
            "privacy/rejection_rate": 0.125,
            "privacy/false_rejection_heldout": 0.05,
            "protocol/x": "words",
        }
    )
    assert (tile.value, tile.interval) == ("7", "5 to 8")
    assert "kd_motion_21f_n100x100" in tile.words
    assert tile.beside == {"floor: real data": "3"}
    assert (rate.value, rate.interval, rate.beside) == ("12.5%", "", {"of strangers' hearts": "5%"})
    assert headlines({}) == []


def manifest(version: str, **metrics: float) -> dict:
    named = {key.replace("__", "/"): value for key, value in metrics.items()}
    return {"name": "echosyn-x", "version": version, "metrics": named}


def test_what_changed_since_another_version_is_shown_headlines_first():
    r2 = "ef__synthetic__r2"
    old = manifest("1.0.0", **{r2: 0.5, f"{r2}_lo": 0.4, f"{r2}_hi": 0.6, "vae__ssim": 0.7})
    new = manifest("1.1.0", **{r2: 0.8, f"{r2}_lo": 0.7, f"{r2}_hi": 0.9, "vae__ssim": 0.71})
    found = since(old, new)
    assert found["version"] == "1.0.0"
    assert [c.key for c in found["headlines"]] == ["ef/synthetic/r2"]
    assert [c.key for c in found["others"]] == ["vae/ssim"]
    parts = html.ENVIRONMENT.get_template("parts.html").module
    part = parts.since(found["headlines"], found["others"])
    row = "<td>0.5<small>(0.4 to 0.6)</small></td><td>0.8<small>(0.7 to 0.9)</small></td>"
    assert f'<th scope="row">ef/synthetic/r2</th>{row}<td>apart</td>' in part
    assert part.index("ef/synthetic/r2") < part.index("vae/ssim")
    assert "No headline number changed." in parts.since([], found["others"])
    with pytest.raises(EchosynError, match=r"echosyn-y 1\.0\.0 is no earlier version"):
        since(old | {"name": "echosyn-y"}, new)


DOM = """
const item = (ef) => ({dataset: {ef}, hidden: false});
const clips = EFS.map(item), label = {};
const asked = {value: "50", addEventListener: (_, f) => { asked.moved = f; }};
const box = {querySelectorAll: () => clips, classList: {add: () => {}}}, ask = {hidden: true};
const found = {"explorer-box": box, "explorer-ef": asked, "explorer-asked": label,
  "explorer-ask": ask};
globalThis.document = {getElementById: (id) => found[id]};
SCRIPT
const shown = () => clips.filter((c) => !c.hidden).map((c) => c.dataset.ef);
const first = shown();
asked.value = "21"; asked.moved();
console.log(JSON.stringify([ask.hidden, first, shown(), label.value]));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node runs the script, and is not here")
def test_the_explorer_shows_the_nearest_video():
    script = (TEMPLATES / "explorer.js").read_text()
    efs = '["20.5", "22", "48.9", "70"]'  # as attributes of a page: text
    code = DOM.replace("SCRIPT", script).replace("EFS", efs)
    said = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == [False, ["48.9"], ["20.5"], "21 %"]
