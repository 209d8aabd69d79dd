"""The card of a release: what a stranger should know before using the videos."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from echosyn.data.filelist import (
    BEAT,
    CLASS,
    EF_ASKED,
    EF_KIND,
    EF_MEASURED,
    EF_TRACED,
    HEART_RATE,
    MEASURED,
    PHASE,
    SPLITS,
)
from echosyn.report.numbers import Table, privacy_sentences, tables


def card(manifest: Mapping[str, Any], table: pd.DataFrame) -> str:
    """Markdown text of a release's README.

    Args:
        manifest: the manifest, which may still lack its `files`.
        table: the FileList of the release.
    """
    name, version = manifest["name"], manifest["version"]
    parts = [
        f"# {name} {version}",
        f"{len(table):,} **synthetic** echocardiogram videos. None is a recording of a person: "
        "each was drawn by a generative model. Not for diagnosis, nor for any clinical decision.",
        "## What is in it",
        "\n".join([_content(table), *_tracings(manifest)]),
        "## How it was made",
        _making(manifest),
        "## Privacy",
        _privacy(manifest),
        "## How good it is",
        "Measured against the real data. In brackets a 95% interval. The floor is what real data "
        "score against real data, so it is the best that can be reached.",
        _numbers(manifest["metrics"]),
        "## Check that it is unaltered",
        _verification(manifest),
        "## Intended use and limits",
        _limits(manifest["params"]),
        "## Licence",
        f"{manifest['license']}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _content(table: pd.DataFrame) -> str:
    counts = table["Split"].value_counts()
    splits = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS if split in counts)
    sizes = _range(table["FrameWidth"]), _range(table["FrameHeight"])
    lines = [
        "`FileList.csv` in the layout of EchoNet-Dynamic, and one motion-JPEG AVI per row in "
        "`Videos/`.",
        "",
        f"- splits: {splits}",
        f"- frames: {_range(table['NumberOfFrames'])} at {_range(table['FPS'])} per second, "
        f"{sizes[0]} x {sizes[1]} pixels, grey",
    ]
    if table["EF"].notna().any():
        mean, std = table["EF"].mean(), table["EF"].std(ddof=0)
        lines.append(f"- EF: {_range(table['EF'])} percent, mean {mean:.1f}, SD {std:.1f}")
        lines.append(_ef_meaning(table))
    if CLASS in table:
        classes = ", ".join(f"{n:,} {name}" for name, n in table[CLASS].value_counts().items())
        lines.append(f"- Class: {classes}; what was asked of the generator, not a diagnosis")
    if HEART_RATE in table and table[HEART_RATE].notna().any():
        lines.append(
            f"- `{HEART_RATE}`: {_range(table[HEART_RATE])} beats a minute, what was asked of the "
            "generator, not measured"
        )
    if set(BEAT) <= set(table) and table[PHASE].notna().any():
        lines.append(
            f"- `{PHASE}`: beats since end-diastole of the first frame, as asked; `Phases.csv` has "
            "that of every frame"
        )
    return "\n".join(lines)


def _tracings(manifest: Mapping[str, Any]) -> list[str]:
    traced = manifest.get("tracings")
    if not traced:
        return []
    if "reason" in traced:
        return [f"- no tracings: {traced['reason']}"]
    of = "millilitres" if traced["volumes"] == "ml" else "pixels cubed: no pixel size is known"
    n, left = traced["videos"], manifest["videos"] - traced["videos"]
    return [
        f"- `VolumeTracings.csv` as EchoNet-Dynamic has it: the left ventricle of {n:,} videos "
        "where it is largest and smallest, contoured by a network that learned from tracings of "
        f"the training split, not by a person; {left:,} videos could not be traced",
        "- `ESV` and `EDV` are volumes of these contours by the single-plane method of discs, in "
        f"{of}; `{EF_TRACED}` is the EF that follows from them",
    ]


def _ef_meaning(table: pd.DataFrame) -> str:
    if EF_KIND in table and (table[EF_KIND] == MEASURED).any():
        return (
            "- EF is what networks trained on real videos measure in the video, not a person; "
            f"`{EF_ASKED}` is what was asked of the generator, mean {table[EF_ASKED].mean():.1f}"
        )
    plain = "- EF is the value that was asked of the generator, not one measured by a person"
    if EF_MEASURED not in table or table[EF_MEASURED].isna().all():
        return plain
    off = (table[EF_MEASURED] - table["EF"]).abs().mean()
    return (
        f"{plain}; `{EF_MEASURED}` is what networks trained on real videos measure in the video, "
        f"{off:.1f} points from EF on average. Videos too far from it were drawn anew"
    )


def _range(column: pd.Series) -> str:
    lo, hi = column.min(), column.max()
    return f"{lo:g}" if lo == hi else f"{lo:.4g} to {hi:.4g}"


def _making(manifest: Mapping[str, Any]) -> str:
    scale = manifest["params"]["scale"]
    small = {
        "smoke": " This scale only exercises the machinery: the videos are not fit for any use.",
        "demo": " This scale is a demonstration that trains in minutes; expect modest quality.",
    }.get(scale, "")
    return (
        "An autoencoder compresses each frame; one diffusion model draws a still heart, a second "
        "one moves it as its label asks. All models learned from the training split only. Made "
        f"by {manifest['generator']} at scale `{scale}`.{small} `manifest.json` holds every "
        "setting and the md5 of every input and model."
    )


def _privacy(manifest: Mapping[str, Any]) -> str:
    said = privacy_sentences(manifest["metrics"], manifest["videos"])
    said.append(
        "These are measurements, not a proof: they speak for the attacks that were tried."
        if said
        else "No privacy measurement came with this release."
    )
    return " ".join(said)


def _numbers(metrics: Mapping[str, float]) -> str:
    blocks = []
    for title, group in tables(metrics).items():
        blocks += [f"**{title}**", *(_markdown(t) for t in group)]
    return "\n\n".join(blocks)


def _markdown(table: Table) -> str:
    lines = [f"| | {' | '.join(table.columns)} |", "|---" * (len(table.columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(map(str, row))} |" for name, row in table.rows.items()]
    return "\n".join(lines)


def _verification(manifest: Mapping[str, Any]) -> str:
    return (
        "`manifest.json` gives the size and sha256 of every file:\n\n"
        "```\npython -m echosyn.release verify .\n```\n\nor with nothing but Python:\n\n"
        "```python\n"
        "import hashlib, json, pathlib\n"
        'for name, entry in json.load(open("manifest.json"))["files"].items():\n'
        "    data = pathlib.Path(name).read_bytes()\n"
        '    assert hashlib.sha256(data).hexdigest() == entry["sha256"], name\n'
        "```"
    )


def _limits(params: Mapping[str, Any]) -> str:
    lines = [
        "- For developing and comparing methods, for teaching, and for pre-training.",
        "- Rare findings of the real data may be missing: see coverage above.",
        "- A model trained on these videos must be tested on real ones before anyone relies on it.",
        "- The videos inherit the population and the ultrasound machines of the data behind them.",
    ]
    sources = {entry.get("source") for entry in params.get("datasets", {}).values()}
    if sources == {"phantom"}:
        lines.append("- Made from a simulated phantom: it tells nothing about patients.")
    return "\n".join(lines)
